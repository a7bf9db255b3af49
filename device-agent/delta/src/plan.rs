//! How a file is built: its length, its sections if it is an ELF file, its steps. Coded before the content,
//! because predicting a branch needs to know where its target will stand.

use crate::code::{BitCoder, Numbers};
use crate::elf::Elf;
use crate::layout::{NewSection, Step};
use crate::Error;

/// Steps of one file at most.
pub(crate) const STEPS: u64 = 1 << 18;
/// Sections of one file at most.
const SECTIONS: u64 = 4096;

/// The plan of one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub length: u64,
    /// Of the new file; empty: no prediction of addresses.
    pub sections: Vec<NewSection>,
    /// By old section: the new one.
    pub pairs: Vec<Option<usize>>,
    pub steps: Vec<Step>,
}

const KIND: u32 = 0x100;

impl Plan {
    /// Bytes of memory.
    pub(crate) fn memory(&self) -> u64 {
        let steps = self.steps.capacity() * size_of::<Step>();
        (steps + size_of_val(&*self.sections) + size_of_val(&*self.pairs)) as u64
    }

    /// Codes the plan; a decoder gives an empty one of the right length and an old file's length.
    pub(crate) fn code<C: BitCoder>(
        &self,
        coder: &mut C,
        numbers: &mut Numbers,
        old: Option<&Elf>,
        old_length: u64,
    ) -> Result<Self, Error> {
        let mut plan = Self {
            length: self.length,
            ..Self::default()
        };
        if let Some(elf) = old {
            self.code_sections(coder, numbers, elf, &mut plan)?;
        }
        let count = numbers.code(coder, KIND, 0, self.steps.len() as u64);
        if count > STEPS {
            return Err(Error::Damaged("too many steps"));
        }
        let mut expected = 0u64;
        let mut left = plan.length;
        for i in 0..count {
            let step = self.steps.get(i as usize).copied().unwrap_or_default();
            let fresh = numbers.code(coder, KIND + 1, 0, step.fresh);
            let alike = numbers.code(coder, KIND + 2, u32::from(fresh == 0), step.alike);
            let jump = if alike > 0 {
                let context = (64 - fresh.leading_zeros()).min(15);
                numbers.signed(
                    coder,
                    KIND + 3,
                    context,
                    (step.old as i64).wrapping_sub(expected.wrapping_add(fresh) as i64),
                )
            } else {
                0
            };
            let begin = expected.wrapping_add(fresh).wrapping_add(jump as u64);
            let fits = fresh <= left && alike <= left - fresh;
            let inside = alike == 0 || begin <= old_length && alike <= old_length - begin;
            if !fits || !inside || fresh + alike == 0 {
                return Err(Error::Damaged("a step leaves its file"));
            }
            left -= fresh + alike;
            if alike > 0 {
                expected = begin + alike;
            }
            plan.steps.push(Step {
                fresh,
                alike,
                old: begin,
            });
        }
        if left > 0 {
            return Err(Error::Damaged("the steps do not fill the file"));
        }
        Ok(plan)
    }

    fn code_sections<C: BitCoder>(
        &self,
        coder: &mut C,
        numbers: &mut Numbers,
        elf: &Elf,
        plan: &mut Self,
    ) -> Result<(), Error> {
        let count = numbers.signed(
            coder,
            KIND + 4,
            0,
            self.sections.len() as i64 - elf.sections.len() as i64,
        );
        let count = (elf.sections.len() as i64).wrapping_add(count);
        let count = u64::try_from(count).ok().filter(|n| *n <= SECTIONS);
        let count = count.ok_or(Error::Damaged("too many sections"))? as usize;
        plan.pairs = vec![None; elf.sections.len()];
        let mut old_of: Vec<Option<usize>> = vec![None; count];
        let mut next = 0usize;
        for i in 0..elf.sections.len() {
            let pair = self.pairs.get(i).copied().flatten();
            let coded = pair.map_or(0, |p| 1 + fold(p as i64 - next as i64));
            let coded = numbers.code(coder, KIND + 5, 0, coded);
            if coded == 0 {
                continue;
            }
            let index = (next as i64).wrapping_add(unfold(coded - 1));
            let index = usize::try_from(index).ok().filter(|n| *n < count);
            let index = index.ok_or(Error::Damaged("a section is not there"))?;
            plan.pairs[i] = Some(index);
            old_of[index] = Some(i);
            next = index + 1;
        }
        let mut end = 0u64;
        let mut bias = 0u64;
        let mut old_bias = 0u64;
        // Sections stand in the file in another order than in the table; sizes tell in which.
        for (i, of) in old_of.iter().enumerate() {
            let given = self.sections.get(i).copied().unwrap_or_default();
            let empty = crate::elf::Section::default();
            let old = of.map_or(&empty, |n| &elf.sections[n]);
            let kind = u32::from(of.is_some());
            let size = numbers.signed(
                coder,
                KIND + 6,
                kind,
                given.size.wrapping_sub(old.size) as i64,
            );
            let size = old.size.wrapping_add(size as u64);
            let align = if old.align.is_power_of_two() {
                old.align
            } else {
                1
            };
            let place = of.map_or(end, |n| self::expected(elf, n, plan, end, align));
            let offset = numbers.signed(
                coder,
                KIND + 7,
                kind,
                given.offset.wrapping_sub(place) as i64,
            );
            let offset = place.wrapping_add(offset as u64);
            let mine = old.addr.wrapping_sub(old.offset);
            let addr = if old.addr == 0 && of.is_some() {
                0
            } else if mine == old_bias {
                offset.wrapping_add(bias)
            } else {
                offset.wrapping_add(mine)
            };
            let off = numbers.signed(coder, KIND + 8, kind, given.addr.wrapping_sub(addr) as i64);
            let addr = addr.wrapping_add(off as u64);
            if offset.checked_add(size).is_none() || addr.checked_add(size).is_none() {
                return Err(Error::Damaged("a section ends nowhere"));
            }
            if addr != 0 {
                (bias, old_bias) = (addr.wrapping_sub(offset), mine);
            }
            let stored = old.kind != crate::elf::NOBITS;
            end = if stored { offset + size } else { offset };
            plan.sections.push(NewSection { offset, size, addr });
        }
        Ok(())
    }
}

/// Where a section will probably begin: after the one that it stood behind in the old file.
fn expected(elf: &Elf, index: usize, plan: &Plan, end: u64, align: u64) -> u64 {
    let old = &elf.sections[index];
    let before = elf
        .sections
        .iter()
        .enumerate()
        .filter(|(i, s)| *i != index && s.stored() > 0 && s.offset + s.stored() <= old.offset)
        .max_by_key(|(_, s)| s.offset + s.stored());
    let known = before.and_then(|(i, s)| {
        let new = plan.sections.get(plan.pairs.get(i).copied().flatten()?)?;
        Some((
            new.offset.checked_add(new.size)?,
            old.offset - s.offset - s.stored(),
        ))
    });
    match known {
        Some((end, gap)) if gap >= align => end.wrapping_add(gap) & !(align - 1),
        Some((end, _)) => end.checked_next_multiple_of(align).unwrap_or(end),
        None if index == 0 => old.offset,
        None => end.checked_next_multiple_of(align).unwrap_or(end),
    }
}

fn fold(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unfold(value: u64) -> i64 {
    ((value >> 1) as i64) ^ -((value & 1) as i64)
}
