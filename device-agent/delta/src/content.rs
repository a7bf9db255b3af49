//! The bytes of a file, coded by what is expected of them.

use std::collections::{BTreeMap, VecDeque};

use crate::code::{hash, BitCoder, Model, Numbers};
use crate::fresh::{Aimed, Expected, Fresh};
use crate::layout::{Aim, Layout};
use crate::plan::Plan;
use crate::sites::{Site, Sites};
use crate::source::Source;
use crate::tape::{Tape, WINDOW};
use crate::Error;

/// Bytes that are said to be as expected by one flag.
const SPAN: usize = 48;
/// Corrections remembered.
const CORRECTIONS: usize = 1 << 16;
/// How far a correction reaches.
const REACH: u64 = 1 << 14;
/// Latest errors of prediction.
const RECENT: usize = 4;

/// All statistics. They are carried over from file to file.
pub(crate) struct Models {
    pub(crate) numbers: Numbers,
    flags: Model<4>,
    spans: Model<3>,
    hits: Model<6>,
    fresh: Fresh,
}

impl Models {
    pub(crate) fn new() -> Self {
        Self {
            numbers: Numbers::new(),
            flags: Model::new(16, 64, 255),
            spans: Model::new(16, 4, 255),
            hits: Model::new(18, 4, 255),
            fresh: Fresh::new(),
        }
    }
}

/// Codes one file.
pub(crate) struct Content<'a, C> {
    pub(crate) coder: &'a mut C,
    pub(crate) models: &'a mut Models,
    pub(crate) old: &'a dyn Source,
    pub(crate) sites: Option<Sites<'a>>,
    pub(crate) layout: Option<Layout>,
    corrections: BTreeMap<(u8, u64), i64>,
    recent: VecDeque<i64>,
    /// Outcomes of the last predictions, newest lowest.
    hits: u32,
    spans: u32,
}

impl<'a, C: BitCoder> Content<'a, C> {
    pub(crate) fn new(
        coder: &'a mut C,
        models: &'a mut Models,
        old: &'a dyn Source,
        sites: Option<Sites<'a>>,
        layout: Option<Layout>,
    ) -> Self {
        Self {
            coder,
            models,
            old,
            sites,
            layout,
            corrections: BTreeMap::new(),
            recent: VecDeque::from(vec![0; RECENT]),
            hits: u32::MAX,
            spans: u32::MAX,
        }
    }

    pub(crate) fn code(&mut self, plan: &Plan, tape: &mut Tape<'_>) -> Result<(), Error> {
        let mut window = Vec::new();
        let mut sites = Vec::new();
        for step in &plan.steps {
            let mut i = 0;
            while i < step.fresh {
                if i % WINDOW < 4 {
                    self.coder.check().map_err(Error::Delta)?;
                }
                if step.fresh - i > 4 {
                    if let Some(here) = self.branch(tape) {
                        let mut actual = [0u8; 4];
                        for (i, byte) in actual.iter_mut().enumerate() {
                            *byte = tape.ahead(i);
                        }
                        let actual = u64::from(u32::from_le_bytes(actual));
                        let aimed = Aimed { class: 40, expected: here, old: here, here, width: 4 };
                        let target = here.wrapping_add(actual) & 0xffff_ffff;
                        let target = self.models.fresh.target(self.coder, &aimed, target, tape);
                        let number = target.wrapping_sub(here);
                        for k in 0..4 {
                            tape.push((number >> (8 * k)) as u8)?;
                            self.models.fresh.took(tape.history());
                        }
                        i += 4;
                        continue;
                    }
                }
                self.models.fresh.code(self.coder, tape)?;
                i += 1;
            }
            let mut done = 0;
            while done < step.alike {
                self.coder.check().map_err(Error::Delta)?;
                let mut length = (step.alike - done).min(WINDOW);
                let from = step.old + done;
                sites.clear();
                if let Some(finder) = &mut self.sites {
                    finder.within(from, from + length, &mut sites);
                    // A field that the window's end cuts is left to the next one.
                    if done + length < step.alike && length > 64 {
                        length -= 16;
                        sites.retain(|s| s.at + u64::from(s.width) <= from + length);
                    }
                }
                window.resize(length as usize, 0);
                self.old.read_at(from, &mut window).map_err(Error::Old)?;
                self.alike(from, &window, &sites, tape)?;
                done += length;
            }
        }
        self.coder.check().map_err(Error::Delta)?;
        tape.flush()
    }

    fn branch(&self, tape: &Tape<'_>) -> Option<u64> {
        let h = tape.history();
        let (a, b, c) = (h as u8, (h >> 8) as u8, (h >> 16) as u8);
        let call = a & 0xfe == 0xe8;
        let jump = a & 0xf0 == 0x80 && b == 0x0f;
        let data = a & 0xc7 == 5 && c & 0xf8 == 0x48 && matches!(b, 0x8b | 0x8d | 0x89 | 0x3b | 0x39 | 0x63 | 0x03);
        let through = b == 0xff && (a == 0x15 || a == 0x25);
        if !(call || jump || data || through) {
            return None;
        }
        let here = self.layout.as_ref()?.x86_at(tape.at)?;
        Some(here.wrapping_add(4) & 0xffff_ffff)
    }

    fn alike(
        &mut self,
        from: u64,
        window: &[u8],
        sites: &[Site],
        tape: &mut Tape<'_>,
    ) -> Result<(), Error> {
        let mut at = 0usize;
        for site in sites {
            let place = (site.at - from) as usize;
            self.plain(&window[at..place], tape)?;
            let field = &window[place..place + usize::from(site.width)];
            self.site(site, field, tape)?;
            at = place + field.len();
        }
        self.plain(&window[at..], tape)
    }

    /// Bytes that are expected to be the old ones.
    fn plain(&mut self, old: &[u8], tape: &mut Tape<'_>) -> Result<(), Error> {
        for span in old.chunks(SPAN) {
            let same = C::ENCODES && span.iter().enumerate().all(|(i, b)| tape.ahead(i) == *b);
            let size = span.len().min(63).ilog2();
            let contexts = [
                hash(1, self.spans & 0xff),
                hash(2, (self.spans & 7) << 8 | size << 4 | (self.hits & 3)),
                hash(3, u32::from(span[0]) << 8 | self.spans & 1),
            ];
            let same = self
                .models
                .spans
                .bit(self.coder, &contexts, 0, u32::from(same));
            self.spans = self.spans << 1 | same;
            if same == 1 {
                for &byte in span {
                    tape.push(byte)?;
                }
                continue;
            }
            let mut equal = 0xffu32;
            let mut any = false;
            for (i, &byte) in span.iter().enumerate() {
                let actual = tape.ahead(0);
                // If all but the last were right, the last is wrong.
                let known = i + 1 == span.len() && !any;
                let contexts = [
                    hash(4, equal & 0xff | u32::from(any) << 8),
                    hash(5, u32::from(byte) | (equal & 3) << 8),
                    hash(6, (equal & 15) << 6 | i as u32),
                    hash(7, u32::from(byte) << 8 | (tape.history() & 0xff) as u32),
                    hash(
                        hash(8, (tape.history() & 0xffff) as u32),
                        u32::from(byte) << 1 | equal & 1,
                    ),
                    hash(9, self.models.fresh.agrees(byte) << 4 | equal & 15),
                ];
                let hit = if known {
                    0
                } else {
                    self.models
                        .hits
                        .bit(self.coder, &contexts, 0, u32::from(actual == byte))
                };
                equal = equal << 1 | hit;
                any |= hit == 0;
                let byte = if hit == 1 {
                    byte
                } else {
                    self.odd(byte, span.get(i + 1).copied().unwrap_or(0), 0, actual, tape)
                };
                tape.push(byte)?;
                self.models.fresh.took(tape.history());
            }
        }
        Ok(())
    }

    /// A byte that is not the expected one.
    fn odd(&mut self, expected: u8, next: u8, kind: u32, actual: u8, tape: &Tape<'_>) -> u8 {
        let expected = Expected {
            kind: kind + 1,
            byte: expected,
            next,
        };
        self.models.fresh.byte(self.coder, expected, actual, tape)
    }

    fn site(&mut self, site: &Site, field: &[u8], tape: &mut Tape<'_>) -> Result<(), Error> {
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
        let aimed = Aimed {
            class,
            expected: aim.mapped.to.wrapping_add(off as u64) & mask,
            old: aim.target,
            here: aim.base & mask,
            width: width as u32,
        };
        let value = aim.target_of(site.form.get(actual, site.width));
        let made = |target| site.form.set(stored, aim.number_of(target, site.width)) & mask;
        let contexts = [hash(9, class), hash(10, self.hits & 3), 0, 0];
        let same = self.models.flags.bit(
            self.coder,
            &contexts,
            40,
            u32::from(made(value) == actual),
        );
        if same == 1 {
            let target = self
                .models
                .fresh
                .target(self.coder, &aimed, value, tape);
            let found = made(target);
            for i in 0..width {
                tape.push((found >> (8 * i)) as u8)?;
                self.models.fresh.took(tape.history());
            }
            return Ok(found);
        }
        let mut found = 0u64;
        for i in 0..width {
            let byte = (expected >> (8 * i)) as u8;
            let next = (stored >> (8 * i)) as u8;
            let kind = 1 + i.min(3) as u32 + if width == 8 { 4 } else { 0 };
            let byte = self.odd(byte, next, kind, (actual >> (8 * i)) as u8, tape);
            found |= u64::from(byte) << (8 * i);
            tape.push(byte)?;
            self.models.fresh.took(tape.history());
        }
        Ok(found)
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
        M::Relative(_) | M::Address | M::Based(_) => 0,
        M::Page => 1,
        M::Extent(_) => 2,
        M::Within(..) => 3,
        M::Offset | M::Back => 4,
        M::Symbol(..) => 5,
        M::Numbered(kind) => 8 + kind,
        M::Below(_) => 0,
        M::Slot(_) => 10,
        _ => 6,
    }
}
