//! Tables of a kernel image, found by their content: symbols' places, as they rise (`scripts/kallsyms.c`), and entries of
//! twelve bytes that begin with numbers counting from their own place (`arch/arm64/include/asm/extable.h` and
//! `alternative.h`, `include/asm-generic/bug.h`, `include/linux/export-internal.h`).

use super::least;
use crate::elf::Elf;
use crate::sites::kernel::{Entry, Table};
use crate::source::{number_at, Source};

/// Symbols that are at least there, and bytes that they cover.
const SYMBOLS: u64 = 1 << least(12, 4);
const COVERED: u32 = 1 << least(20, 8);
/// Places of symbols are lower.
const HIGHEST: u32 = 1 << 28;
/// Symbols at the first place, at most.
const FIRST: u64 = 64;

/// Bytes of an entry; words of it.
const ENTRY: u64 = 12;
const WORDS: usize = 3;
/// Entries of a table at least, and entries of another kind that may stand between.
const LEAST: usize = 1 << least(8, 3);
const GAP: usize = 256;
/// Strings lie behind their symbols by less.
const NEAR: i32 = 1 << 22;
/// What counts from its own place reaches further than this, or it may be any number.
const FAR: u32 = 1 << least(12, 6);

/// What entries of twelve bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    /// Two places in code.
    Code,
    /// A place in code, and one elsewhere.
    Text,
    /// A place, its name, its name space.
    Symbol,
}

/// The longest run of words that do not fall, as they come.
#[derive(Debug, Default)]
pub(crate) struct Rising {
    begin: u64,
    end: u64,
    last: u32,
    /// From where to where.
    pub longest: Option<(u64, u64)>,
}

impl Rising {
    pub(crate) fn push(&mut self, at: u64, word: u32) {
        if word < self.last || word >= HIGHEST || at != self.end {
            self.finish();
            self.begin = at;
            self.last = 0;
        }
        if word == 0 {
            // Of many zeros only the last may belong to it.
            self.begin = self.begin.max((at + 4).saturating_sub(4 * FIRST));
        }
        if word < HIGHEST {
            self.last = word;
            self.end = at + 4;
        }
    }

    /// No more words come, or not here.
    pub(crate) fn finish(&mut self) {
        let length = self.end.saturating_sub(self.begin);
        let more = self.longest.is_none_or(|(from, to)| length > to - from);
        if length >= 4 * SYMBOLS && self.last >= COVERED && more {
            self.longest = Some((self.begin, self.end));
        }
    }
}

/// Where a table of places ends, and the address that they count from, which stands behind it; `base`: what that must be.
pub(crate) fn counted_from(
    source: &dyn Source,
    (begin, end): (u64, u64),
    base: Option<u64>,
) -> Option<(u64, u64)> {
    let first = end.saturating_sub(4) & !7;
    (first..end + 64).step_by(8).find_map(|at| {
        let address = number_at(source, at, 8)?;
        let plausible = address >> 48 == 0xffff && address & 0xffff == 0;
        let is = base.map_or(plausible, |base| base == address);
        (is && at > begin).then_some((at, address))
    })
}

/// The places of symbols in `bytes`, which stand at `offset` in the file, and the order of their names behind them; `base`: the
/// address that they count from, if it is known.
pub(crate) fn symbols(bytes: &[u8], offset: u64, base: Option<u64>, found: &mut Vec<Table>) {
    let mut rising = Rising::default();
    for (i, word) in bytes.chunks_exact(4).enumerate() {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        rising.push(4 * i as u64, word);
    }
    rising.finish();
    let Some((begin, end)) = rising.longest else {
        return;
    };
    let Some((behind, base)) = counted_from(&bytes, (begin, end), base) else {
        return;
    };
    let end = end.min(behind);
    let first = offset + begin;
    found.push(Table {
        begin: first,
        end: offset + end,
        entry: Entry::Above(base),
    });
    let names = behind + 8;
    let last = names + 3 * ((end - begin) / 4);
    if last <= bytes.len() as u64 {
        found.push(Table {
            begin: offset + names,
            end: offset + last,
            entry: Entry::Slot(first),
        });
    }
}

/// A table in the making.
#[derive(Clone, Copy)]
struct Run {
    sort: Sort,
    begin: usize,
    end: usize,
    entries: usize,
}

/// Tables of entries of twelve bytes in `bytes`, but where there are others.
pub(crate) fn tables(bytes: &[u8], offset: u64, elf: &Elf, found: &mut Vec<Table>) {
    let code: Vec<(u64, u64)> = elf
        .sections
        .iter()
        .filter(|s| s.is_code())
        .map(|s| (s.offset, s.offset + s.size))
        .collect();
    let last = elf.sections.iter().map(|s| s.offset + s.size).max();
    let look = Look {
        bytes,
        offset,
        code: &code,
        last: last.unwrap_or(0),
    };
    let mut runs: Vec<Run> = Vec::new();
    let mut open: [Option<Run>; WORDS] = [None; WORDS];
    for at in 0..(bytes.len() / 4).saturating_sub(WORDS - 1) {
        let Some(sort) = look.sort(4 * at) else {
            continue;
        };
        let run = &mut open[at % WORDS];
        let new = Run {
            sort,
            begin: at,
            end: at + WORDS,
            entries: 1,
        };
        match run {
            Some(run) if run.sort == sort && at - run.end <= GAP * WORDS => {
                run.end = at + WORDS;
                run.entries += 1;
            }
            _ => runs.extend(run.replace(new)),
        }
    }
    runs.extend(open.into_iter().flatten());
    runs.retain(|r| r.entries >= LEAST && r.entries * WORDS * 4 >= (r.end - r.begin) * 3);
    // The longest first: what another way of cutting the same words gives is no table.
    runs.sort_by_key(|r| (std::cmp::Reverse(r.entries), r.begin));
    for run in runs {
        let (begin, end) = (offset + 4 * run.begin as u64, offset + 4 * run.end as u64);
        if found.iter().all(|t| t.end <= begin || end <= t.begin) {
            found.push(Table {
                begin,
                end,
                entry: Entry::Twelve(run.sort),
            });
        }
    }
}

/// What words look like.
struct Look<'a> {
    bytes: &'a [u8],
    offset: u64,
    code: &'a [(u64, u64)],
    /// Where the image ends.
    last: u64,
}

impl Look<'_> {
    /// What an entry at this place would say.
    fn sort(&self, at: usize) -> Option<Sort> {
        let words = self.bytes.get(at..at + ENTRY as usize)?;
        let word = |i: usize| {
            let bytes = &words[4 * i..4 * i + 4];
            u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as i32
        };
        let (a, b, c) = (word(0), word(1), word(2));
        if a.unsigned_abs() < FAR {
            return None;
        }
        let place = self.offset + at as u64;
        let to = place.wrapping_add_signed(a.into());
        if (1..NEAR).contains(&b) && (1..NEAR).contains(&c) {
            return (to < self.last).then_some(Sort::Symbol);
        }
        if !self.is_code(to) || b.unsigned_abs() < FAR {
            return None;
        }
        let to = (place + 4).wrapping_add_signed(b.into());
        if self.is_code(to) {
            Some(Sort::Code)
        } else {
            (to < self.last).then_some(Sort::Text)
        }
    }

    fn is_code(&self, offset: u64) -> bool {
        let inside = |range: &(u64, u64)| range.0 <= offset && offset < range.1;
        offset % 4 == 0 && self.code.iter().any(inside)
    }
}
