//! Plans that are kept: finding what two files have in common need not be done again for the next delta that
//! leads from one to the other.

use sha2::{Digest, Sha256};

use super::Objects;
use crate::code::{BitCoder, Decoder, Encoder, Numbers};
use crate::elf::Elf;
use crate::object::Checksum;
use crate::plan::Plan;
use crate::Error;

/// To be raised when other plans are found for the same files, or when they are written in another way.
const REVISION: u32 = 1;
/// Bytes of a new file whose plan is worth keeping.
const LEAST: usize = 1 << 16;
/// Kind of the number that says whether a plan has sections.
const SECTIONS: u32 = 0;

/// Two file objects: what the plans between them are kept by.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    pub objects: &'a dyn Objects,
    pub old: Checksum,
    pub new: Checksum,
}

impl Pair<'_> {
    /// How to build a part of the new file (0: all of it) from one of the old; `elf`: whether they may be ELF files.
    pub(super) fn plan(&self, part: u8, old: &[u8], new: &[u8], elf: bool) -> Plan {
        if new.len() < LEAST || old.is_empty() {
            return super::plan(old, new, elf);
        }
        let key = self.key(part);
        let kept = self.objects.kept(&key);
        if let Some(Ok(plan)) = kept.map(|kept| read(&kept, old, new.len())) {
            return plan;
        }
        let plan = super::plan(old, new, elf);
        if let Ok(written) = write(&plan, old) {
            self.objects.keep(&key, &written);
        }
        plan
    }

    fn key(&self, part: u8) -> Checksum {
        let mut hash = Sha256::new();
        hash.update(b"treeline plan");
        hash.update(REVISION.to_le_bytes());
        hash.update(self.old);
        hash.update(self.new);
        hash.update([part]);
        hash.finalize().into()
    }
}

/// Codes a plan as a delta does, by statistics of its own.
fn code<C: BitCoder>(coder: &mut C, plan: &Plan, old: &[u8]) -> Result<Plan, Error> {
    let mut numbers = Numbers::new();
    let sections = u64::from(!plan.sections.is_empty());
    let elf = match numbers.code(coder, SECTIONS, 0, sections) {
        0 => None,
        _ => Some(Elf::parse(&old).ok_or(Error::Damaged("a plan for another file"))?),
    };
    plan.code(coder, &mut numbers, elf.as_ref(), old.len() as u64)
}

fn write(plan: &Plan, old: &[u8]) -> Result<Vec<u8>, Error> {
    let mut coder = Encoder::new();
    code(&mut coder, plan, old)?;
    Ok(coder.finish())
}

/// A kept plan. What is wrong with it costs bytes of the delta at most: a plan is a guess, and coded with the delta.
fn read(kept: &[u8], old: &[u8], length: usize) -> Result<Plan, Error> {
    let mut coder = Decoder::new(kept);
    let asked = Plan {
        length: length as u64,
        ..Plan::default()
    };
    let plan = code(&mut coder, &asked, old)?;
    coder.check().map_err(Error::Delta)?;
    if !coder.ended() {
        return Err(Error::Damaged("more than a plan"));
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Store;

    const PROGRAMS: [&[u8]; 2] = [
        include_bytes!("../../fuzz/seeds/x86_64-1.so"),
        include_bytes!("../../fuzz/seeds/x86_64-2.so"),
    ];

    /// Bytes that look random, and the same after something has moved.
    fn texts() -> [Vec<u8>; 2] {
        let text = |i: u32| {
            i.wrapping_mul(0x9E37_79B9)
                .rotate_left(i % 13)
                .to_le_bytes()
        };
        let old: Vec<u8> = (0..20_000).flat_map(text).collect();
        let new = [&old[30_000..], &old[..30_000]].concat();
        [old, new]
    }

    #[test]
    fn a_plan_comes_back_as_it_was_and_what_is_cut_or_of_another_file_is_refused() {
        let texts = texts();
        for ([old, new], elf) in [(PROGRAMS, true), ([&texts[0], &texts[1]], false)] {
            let plan = crate::make::plan(old, new, elf);
            assert_eq!(plan.sections.is_empty(), !elf);
            assert!(plan.steps.len() > 1);
            let kept = write(&plan, old).unwrap();
            assert_eq!(read(&kept, old, new.len()).unwrap(), plan);
            assert!(read(&kept[..kept.len() - 5], old, new.len()).is_err());
            assert!(read(&kept, old, new.len() - 1).is_err());
            assert!(read(&kept, &old[..40], new.len()).is_err());
            assert!(read(&[], old, new.len()).is_err());
        }
    }

    #[test]
    fn a_kept_plan_is_taken_and_a_damaged_one_made_anew() {
        let [old, new] = texts();
        let store = Store::default();
        let pair = Pair {
            objects: &store,
            old: [1; 32],
            new: [2; 32],
        };
        let plan = pair.plan(0, &old, &new, false);
        let key = pair.key(0);
        let first = store.plans.lock().unwrap()[&key].clone();
        // Another plan in its place is the one that is used, for this part only.
        let poor = crate::make::plan(&old[..1000], &new, false);
        let other = write(&poor, &old).unwrap();
        store.keep(&key, &other);
        let taken = pair.plan(0, &old, &new, false);
        assert_eq!(write(&taken, &old).unwrap(), other);
        assert_ne!(taken, plan);
        assert_eq!(pair.plan(1, &old, &new, false), plan);
        store.keep(&key, b"damaged");
        assert_eq!(pair.plan(0, &old, &new, false), plan);
        assert_eq!(store.plans.lock().unwrap()[&key], first);
        // What takes no time is not kept.
        pair.plan(2, &old, &new[..LEAST - 1], false);
        assert_eq!(store.plans.lock().unwrap().len(), 2);
    }
}
