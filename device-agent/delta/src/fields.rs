//! Fields that say where something stands: expected to aim where their target has come.

use crate::aim::Aim;
use crate::bytes::{Aimed, Expected};
use crate::code::{hash, BitCoder};
use crate::content::Content;
use crate::sites::{x86, Site};
use crate::tape::Tape;
use crate::Error;

/// Corrections remembered.
const CORRECTIONS: usize = 1 << 16;
/// How far a correction reaches.
const REACH: u64 = 1 << 14;
/// Latest errors of prediction.
pub(crate) const RECENT: usize = 4;
/// Class of a field in fresh code.
const FRESH: u32 = 40;

impl<C: BitCoder> Content<'_, C> {
    pub(crate) fn site(
        &mut self,
        site: &Site,
        field: &[u8],
        tape: &mut Tape<'_>,
    ) -> Result<(), Error> {
        let width = field.len();
        let mut stored = [0u8; 8];
        stored[..width].copy_from_slice(field);
        let stored = u64::from_le_bytes(stored);
        let number = site.form.get(stored, site.width);
        let Some(layout) = &self.layout else {
            return self.plain(field, tape);
        };
        let new_at = tape.at;
        let aim = layout.aim(site.meaning, number, site.at, new_at);
        let space = space_of(site);
        let (off, sure) = self.correction(space, &aim);
        let mask = if width == 8 {
            u64::MAX
        } else {
            (1 << (8 * width)) - 1
        };
        let expected = site.form.set(stored, aim.number(off)) & mask;
        let mut actual = [0u8; 8];
        for (i, byte) in actual[..width].iter_mut().enumerate() {
            *byte = tape.ahead(i);
        }
        let actual = u64::from_le_bytes(actual);
        let class = u32::from(site.class);
        let contexts = [
            hash(1, class << 16 | sure << 12 | self.hits & 0xf),
            hash(2, class << 16 | self.hits & 0xff),
            hash(
                3,
                class << 16 | sure << 12 | u32::from(expected == stored) << 4 | self.spans & 3,
            ),
            hash(4, (aim.target >> 4) as u32 ^ class << 24),
        ];
        let set = (sure * 2 + u32::from(expected == stored)) as usize;
        let hit = self
            .models
            .flags
            .bit(self.coder, &contexts, set, u32::from(actual == expected));
        self.hits = self.hits << 1 | hit;
        if hit == 1 {
            self.remember(space, &aim, off, off);
            return emit(tape, expected, width);
        }
        let found = self.wrong(site, &aim, off, stored, expected, actual, tape)?;
        let new_off = aim.off(site.form.get(found, site.width));
        let true_form = site.form.set(stored, site.form.get(found, site.width)) & mask == found;
        if true_form {
            self.recent.pop_back();
            self.recent.push_front(new_off.wrapping_sub(off));
            self.remember(space, &aim, off, new_off);
        }
        Ok(())
    }

    /// A field that is not as expected: by one of the latest errors, or byte by byte.
    #[expect(clippy::too_many_arguments, reason = "one field, old and new")]
    fn wrong(
        &mut self,
        site: &Site,
        aim: &Aim,
        off: i64,
        stored: u64,
        expected: u64,
        actual: u64,
        tape: &mut Tape<'_>,
    ) -> Result<u64, Error> {
        let width = usize::from(site.width);
        let mask = if width == 8 {
            u64::MAX
        } else {
            (1 << (8 * width)) - 1
        };
        let class = u32::from(site.class);
        let mut tried = expected;
        for i in 0..RECENT {
            let candidate = off.wrapping_add(self.recent[i]);
            let candidate = site.form.set(stored, aim.number(candidate)) & mask;
            if candidate == expected || candidate == tried {
                continue;
            }
            tried = candidate;
            let contexts = [
                hash(5, class << 8 | i as u32),
                hash(6, self.hits & 0xff | (i as u32) << 8),
                hash(7, i as u32),
                hash(8, class),
            ];
            if self.models.flags.bit(
                self.coder,
                &contexts,
                32 + i,
                u32::from(candidate == actual),
            ) == 1
            {
                self.recent.remove(i);
                self.recent.push_back(0);
                emit(tape, candidate, width)?;
                return Ok(candidate);
            }
        }
        // Where it aims says more than how far that is from here.
        let value = aim.target_of(site.form.get(actual, site.width));
        let made = |target| site.form.set(stored, aim.number_of(target, site.width)) & mask;
        let contexts = [hash(9, class), hash(10, self.hits & 3), 0, 0];
        let whole = u32::from(made(value) == actual);
        let whole = self.models.flags.bit(self.coder, &contexts, 40, whole);
        let bytes = &mut self.models.bytes;
        if whole == 1 {
            let aimed = Aimed {
                class,
                expected: aim.mapped.to.wrapping_add(off as u64) & mask,
                old: aim.target,
                here: aim.base & mask,
                width: u32::from(site.width),
            };
            let found = made(bytes.target(self.coder, &aimed, value, tape));
            for byte in &found.to_le_bytes()[..width] {
                bytes.push(*byte, tape)?;
            }
            return Ok(found);
        }
        let mut found = 0u64;
        for i in 0..width {
            let expected = Expected {
                kind: 2 + i.min(3) as u32 + if width == 8 { 4 } else { 0 },
                byte: (expected >> (8 * i)) as u8,
                next: (stored >> (8 * i)) as u8,
            };
            let byte = (actual >> (8 * i)) as u8;
            let byte = bytes.instead(self.coder, expected, byte, tape);
            found |= u64::from(byte) << (8 * i);
            bytes.push(byte, tape)?;
        }
        Ok(found)
    }

    /// The field that follows in fresh bytes, if the ones before it say that there is one; whether there was.
    pub(crate) fn fresh_field(&mut self, left: u64, tape: &mut Tape<'_>) -> Result<bool, Error> {
        if left < 4 || !x86::names_place(tape.history()) {
            return Ok(false);
        }
        let Some(address) = self.layout.as_ref().and_then(|l| l.x86_at(tape.at)) else {
            return Ok(false);
        };
        let here = address.wrapping_add(4) as u32;
        let actual = u32::from_le_bytes(std::array::from_fn(|i| tape.ahead(i)));
        let aimed = Aimed {
            class: FRESH,
            expected: here.into(),
            old: here.into(),
            here: here.into(),
            width: 4,
        };
        let target = here.wrapping_add(actual).into();
        let bytes = &mut self.models.bytes;
        let target = bytes.target(self.coder, &aimed, target, tape) as u32;
        for byte in target.wrapping_sub(here).to_le_bytes() {
            bytes.push(byte, tape)?;
        }
        Ok(true)
    }

    /// By how much the mapping of this target is off, as far as is known, and how sure that is.
    fn correction(&self, space: u8, aim: &Aim) -> (i64, u32) {
        let key = (space, aim.target);
        if let Some(off) = self.corrections.get(&key) {
            return (*off, if aim.mapped.exact { 5 } else { 4 });
        }
        if aim.mapped.exact {
            return (0, 3);
        }
        let near = self.corrections.range(..key).next_back();
        match near {
            Some(((of, target), off))
                if *of == space && (space >= 8 || aim.target - target < REACH) =>
            {
                (*off, 2)
            }
            _ => (0, 1),
        }
    }

    fn remember(&mut self, space: u8, aim: &Aim, before: i64, now: i64) {
        if aim.mapped.exact && before == now && now == 0 {
            return;
        }
        if self.corrections.len() >= CORRECTIONS {
            self.corrections.clear();
        }
        self.corrections.insert((space, aim.target), now);
    }
}

fn emit(tape: &mut Tape<'_>, value: u64, width: usize) -> Result<(), Error> {
    for i in 0..width {
        tape.push((value >> (8 * i)) as u8)?;
    }
    Ok(())
}

/// Corrections of one kind of number say nothing about another.
fn space_of(site: &Site) -> u8 {
    use crate::sites::Meaning as M;
    match site.meaning {
        M::Relative(_) | M::Aligned(_) | M::Address | M::Based(_) => 0,
        M::Page(_) | M::Upper(..) => 1,
        M::Extent(_) => 2,
        M::Within(..) => 3,
        M::Offset | M::Back => 4,
        M::Symbol(..) => 5,
        M::Numbered(kind) => 8 + kind,
        M::Below(_) => 0,
        M::Slot(_) => 10,
        M::Low(_) | M::Lower(..) => 7,
        _ => 6,
    }
}
