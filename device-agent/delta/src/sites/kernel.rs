//! Tables inside of a kernel's sections, found by their content: symbols' places and the order of their names
//! (`scripts/kallsyms.c`), branches that are patched at run time (`include/linux/jump_label.h`), places to relocate
//! (`arch/x86/tools/relocs.c`).

use super::tables::plain;
use super::{Form, Meaning, Site};
use crate::elf::{Elf, Machine, Section};
use crate::image::{self, Sort};
use crate::source::Source;

/// Entries that no chance makes.
const LEAST: u64 = 1 << 9;
const SYMBOLS: u64 = 1 << 12;
/// How far a branch reaches that is patched.
const NEAR: u64 = 1 << 16;

/// What a table's entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// 32 bits: one less than this address minus that of a symbol.
    Below(u64),
    /// 24 bits, highest first: number in the table of [`Entry::Below`] that begins at this offset.
    Slot(u64),
    /// Place, target (32 bits, from their own places), key (64 bits).
    Branch,
    /// The lower half of an address.
    Half,
    /// 32 bits: address of a symbol, minus this one.
    Above(u64),
    /// Twelve bytes that begin with numbers of 32 bits that count from their own places.
    Twelve(Sort),
}

impl Entry {
    /// Bytes.
    pub(crate) fn size(self) -> u64 {
        match self {
            Self::Below(_) | Self::Above(_) | Self::Half => 4,
            Self::Slot(_) => 3,
            Self::Branch => 16,
            Self::Twelve(_) => 12,
        }
    }

    /// The number that tells entries apart.
    pub(crate) fn meaning(self) -> Meaning {
        match self {
            Self::Below(base) => Meaning::Below(base),
            Self::Slot(begin) => Meaning::Slot(begin),
            Self::Above(base) => Meaning::Based(base),
            Self::Branch | Self::Twelve(_) => Meaning::Relative(0),
            Self::Half => Meaning::Address,
        }
    }

    pub(crate) fn form(self) -> Form {
        match self {
            Self::Slot(_) => Form::Big24,
            _ => Form::Plain,
        }
    }

    /// Whether both are tables of the same things.
    #[cfg(feature = "make")]
    pub(crate) fn is_like(self, other: Self) -> bool {
        match (self, other) {
            (Self::Twelve(a), Self::Twelve(b)) => a == b,
            _ => std::mem::discriminant(&self) == std::mem::discriminant(&other),
        }
    }

    /// Bytes of that number.
    pub(crate) fn width(self) -> u8 {
        match self {
            Self::Slot(_) => 3,
            _ => 4,
        }
    }
}

/// A table, by its offsets in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Table {
    pub begin: u64,
    pub end: u64,
    pub entry: Entry,
}

/// All tables of a kernel, in order; none if `file` is none.
pub(crate) fn tables(
    file: &dyn Source,
    elf: &Elf,
    name: &dyn Fn(&Section) -> Vec<u8>,
) -> Vec<Table> {
    let mut found = Vec::new();
    if elf.image {
        return of_image(file, elf);
    }
    let kernel =
        elf.wide && !elf.relocatable && elf.sections.iter().any(|s| name(s) == b"__ksymtab");
    if !kernel {
        return found;
    }
    let Some(text) = elf.sections.iter().find(|s| s.is_code()) else {
        return found;
    };
    let code = elf.sections.iter().filter(|s| s.is_code());
    let largest = code.max_by_key(|s| s.size).unwrap_or(text);
    for section in elf.sections.iter().filter(|s| name(s) == b".rodata") {
        let mut bytes = vec![0; section.stored() as usize];
        if file.read_at(section.offset, &mut bytes).is_err() {
            continue;
        }
        match elf.machine {
            Machine::X86 => symbols(&bytes, section, text, &mut found),
            _ => image::symbols(&bytes, section.offset, Some(text.addr), &mut found),
        }
        branches(&bytes, section, largest, &mut found);
    }
    if let Some(begin) = elf.trailer(file.len()) {
        found.push(Table {
            begin,
            end: file.len(),
            entry: Entry::Half,
        });
    }
    found.sort_by_key(|table| table.begin);
    found
}

/// The tables of an AArch64 image.
fn of_image(file: &dyn Source, elf: &Elf) -> Vec<Table> {
    let mut found = Vec::new();
    let Some(text) = elf.sections.iter().find(|s| s.is_code()) else {
        return found;
    };
    for section in elf.sections.iter().filter(|s| elf.is_named(s, b".rodata")) {
        let Some(bytes) = read(file, section.offset, section.offset + section.size) else {
            continue;
        };
        image::symbols(&bytes, section.offset, None, &mut found);
        branches(&bytes, section, text, &mut found);
        image::tables(&bytes, section.offset, elf, &mut found);
    }
    // Code that is used once is followed by tables in the same page.
    let once = elf.sections.iter().find(|s| elf.is_named(s, b".init.text"));
    let bytes = once.and_then(|s| Some((s.offset, read(file, s.offset, file.len())?)));
    if let Some((offset, bytes)) = bytes {
        image::tables(&bytes, offset, elf, &mut found);
    }
    found.sort_by_key(|table| table.begin);
    found
}

fn read(file: &dyn Source, from: u64, to: u64) -> Option<Vec<u8>> {
    let mut bytes = vec![0; to.checked_sub(from)? as usize];
    file.read_at(from, &mut bytes).ok()?;
    Some(bytes)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

/// A long run of falling numbers that begins with -1, the numbers of per-processor symbols before it; behind it
/// the address that they count from, and the order of the names.
fn symbols(bytes: &[u8], section: &Section, text: &Section, found: &mut Vec<Table>) {
    let words = bytes.len() / 4;
    let at = |i: usize| word(bytes, 4 * i);
    let mut i = 0;
    while i + 1 < words {
        if at(i) != u32::MAX {
            i += 1;
            continue;
        }
        let mut end = i + 1;
        while end < words && at(end) <= at(end - 1) && at(end) > u32::MAX / 4 {
            end += 1;
        }
        if ((end - i) as u64) < SYMBOLS {
            i = end;
            continue;
        }
        let mut begin = i;
        while begin > 0 && at(begin - 1) < 1 << 24 && (begin == i || at(begin - 1) <= at(begin)) {
            begin -= 1;
        }
        let base = text.addr.to_le_bytes();
        // Its lower half may look like one more number.
        let mut places = ((4 * end - 4) & !7..bytes.len().min(4 * end + 64)).step_by(8);
        let behind = places.find(|p| bytes.get(*p..*p + 8) == Some(&base));
        let end = behind.map_or(end, |p| end.min(p / 4));
        let names = behind.map(|p| p + 8);
        let first = section.offset + 4 * begin as u64;
        found.push(Table {
            begin: first,
            end: section.offset + 4 * end as u64,
            entry: Entry::Below(text.addr),
        });
        if let Some(names) = names.filter(|n| n + 3 * (end - begin) <= bytes.len()) {
            let names = section.offset + names as u64;
            found.push(Table {
                begin: names,
                end: names + 3 * (end - begin) as u64,
                entry: Entry::Slot(first),
            });
        }
        return;
    }
}

/// A long run of entries whose places and targets lie close together in code.
fn branches(bytes: &[u8], section: &Section, text: &Section, found: &mut Vec<Table>) {
    let is_one = |at: usize| {
        let place = section.addr.wrapping_add(at as u64);
        let from = place.wrapping_add(word(bytes, at) as i32 as u64);
        let to = place
            .wrapping_add(4)
            .wrapping_add(word(bytes, at + 4) as i32 as u64);
        let high = word(bytes, at + 12);
        from.wrapping_sub(text.addr) < text.size
            && to.wrapping_sub(from).wrapping_add(NEAR) < 2 * NEAR
            && (high == 0 || high == u32::MAX)
    };
    let mut at = 0;
    while at + 16 <= bytes.len() {
        let mut end = at;
        while end + 16 <= bytes.len() && is_one(end) {
            end += 16;
        }
        if (end - at) as u64 >= LEAST * 16 {
            found.push(Table {
                begin: section.offset + at as u64,
                end: section.offset + end as u64,
                entry: Entry::Branch,
            });
        }
        at = end.max(at + 8);
    }
}

/// Fields of the tables that touch a range.
pub(super) fn fields(tables: &[Table], from: u64, to: u64, out: &mut Vec<Site>) {
    for table in tables.iter().filter(|t| t.begin < to && from < t.end) {
        let size = table.entry.size();
        let first = from.saturating_sub(table.begin) / size;
        let mut at = table.begin + first * size;
        while at < to.min(table.end) {
            out.push(Site {
                at,
                width: table.entry.width(),
                form: table.entry.form(),
                meaning: table.entry.meaning(),
                class: match table.entry {
                    Entry::Below(_) => 26,
                    Entry::Slot(_) => 27,
                    Entry::Branch => 28,
                    Entry::Half => 29,
                    Entry::Above(_) => 31,
                    Entry::Twelve(_) => 25,
                },
            });
            match table.entry {
                Entry::Branch => {
                    out.push(plain(at + 4, 4, Meaning::Relative(0), 28));
                    out.push(plain(at + 8, 8, Meaning::Relative(0), 30));
                }
                Entry::Twelve(sort) => {
                    out.push(plain(at + 4, 4, Meaning::Relative(0), 25));
                    if sort == Sort::Symbol {
                        out.push(plain(at + 8, 4, Meaning::Relative(0), 25));
                    }
                }
                _ => {}
            }
            at += size;
        }
    }
}
