//! Tables: which entry of the new one is which of the old one.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::sections::{name, string};
use super::{types, Alike};
use crate::elf::{Elf, Section, DYNSYM, RELA, SYMTAB};
use crate::layout::{place_of, Layout};
use crate::pieces::{disjoint, Piece};
use crate::sites::kernel::{self, Entry, Table};
use crate::sites::tables::relative;
use crate::sites::Meaning;

/// An entry: its offset in the file, its length, what it is known by (in terms of the new file).
pub(super) struct Record {
    pub at: usize,
    pub length: usize,
    pub key: u64,
}

/// Entries after one that must be the same.
const NEIGHBOURS: usize = 2;

pub(super) fn number(file: &[u8], at: usize, width: usize) -> u64 {
    let mut bytes = [0u8; 8];
    if let Some(found) = file.get(at..at + width) {
        bytes[..width].copy_from_slice(found);
    }
    u64::from_le_bytes(bytes)
}

pub(super) fn key(parts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Relocations,
    Symbols,
    Unwind,
    UnwindIndex,
    /// Entries of so many bytes that begin with a number that counts from its own place.
    Relative(u64),
    /// A kernel's.
    Kernel(Entry),
}

fn table(file: &[u8], elf: &Elf, section: &Section) -> Option<Kind> {
    match section.kind {
        RELA if elf.wide => Some(Kind::Relocations),
        SYMTAB | DYNSYM if elf.wide => Some(Kind::Symbols),
        _ if elf.relocatable => None,
        _ => match name(file, elf, section) {
            b".eh_frame" => Some(Kind::Unwind),
            b".eh_frame_hdr" => Some(Kind::UnwindIndex),
            name => relative(elf.machine, name).map(|(size, _)| Kind::Relative(size)),
        },
    }
}

fn kernels(file: &[u8], elf: &Elf) -> Vec<Table> {
    kernel::tables(&file, elf, &|section| name(file, elf, section).to_vec())
}

/// Ranges of the file that are tables, in order.
pub(super) fn ranges(file: &[u8], elf: &Elf) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = elf
        .sections
        .iter()
        .filter(|s| s.stored() > 0 && table(file, elf, s).is_some())
        .map(|s| (s.offset as usize, (s.offset + s.stored()) as usize))
        .collect();
    if !elf.image {
        let headers = elf.headers as usize;
        ranges.push((
            headers,
            headers + elf.sections.len() * elf.header_size() as usize,
        ));
    }
    ranges.extend(types::range(file, elf));
    ranges.extend(
        kernels(file, elf)
            .iter()
            .map(|t| (t.begin as usize, t.end as usize)),
    );
    ranges.sort_unstable();
    ranges
}

/// Pairs the entries of all tables.
pub(super) fn align(
    old: &[u8],
    new: &[u8],
    a: &Elf,
    b: &Elf,
    layout: &Layout,
    pairs: &[Option<usize>],
) -> Vec<Alike> {
    let mut found = Vec::new();
    let size = a.header_size() as usize;
    for (i, pair) in pairs.iter().enumerate() {
        let Some(j) = pair else { continue };
        let (from, to) = (&a.sections[i], &b.sections[*j]);
        if a.header_size() == b.header_size() && !a.image && !b.image {
            found.push(Alike {
                new: b.headers as usize + j * size,
                length: size,
                old: a.headers as usize + i * size,
            });
        }
        let Some(kind) = table(new, b, to) else {
            continue;
        };
        if from.stored() == 0 || to.stored() == 0 || table(old, a, from) != Some(kind) {
            continue;
        }
        let left = records(
            kind,
            old,
            a,
            from,
            |at, meaning, value| {
                let aim = layout.aim(meaning, value, at as u64, at as u64);
                aim.mapped.to
            },
            |s| pairs.get(s).copied().flatten(),
        );
        let right = records(
            kind,
            new,
            b,
            to,
            |at, meaning, value| own(b, at, meaning, value),
            Some,
        );
        pair_up(&left, &right, &mut found);
    }
    types::align(old, new, a, b, &mut found);
    let mut others = kernels(new, b);
    for from in &kernels(old, a) {
        let Some(place) = others.iter().position(|to| to.entry.is_like(from.entry)) else {
            continue;
        };
        let to = &others.remove(place);
        // Where one refers to another, that one has been paired before.
        let whole = |table: &Table| Section {
            offset: table.begin,
            size: table.end - table.begin,
            kind: 1,
            ..Section::default()
        };
        let slots: Vec<Piece>;
        let moved: Box<dyn Fn(usize, Meaning, i64) -> u64> = match from.entry {
            Entry::Slot(begin) => {
                slots = found
                    .iter()
                    .map(|f| Piece {
                        old: f.old as u64,
                        length: f.length as u64,
                        new: f.new as u64,
                    })
                    .collect();
                let slots = disjoint(slots);
                let first = place_of(&slots, begin).to;
                Box::new(move |_, _, value| {
                    place_of(&slots, begin + 4 * value as u64)
                        .to
                        .wrapping_sub(first)
                        / 4
                })
            }
            _ => Box::new(|at, meaning, value| {
                layout.aim(meaning, value, at as u64, at as u64).mapped.to
            }),
        };
        let left = records(Kind::Kernel(from.entry), old, a, &whole(from), moved, Some);
        let itself = |at, meaning, value| own(b, at, meaning, value);
        let right = records(Kind::Kernel(to.entry), new, b, &whole(to), itself, Some);
        match from.entry {
            Entry::Slot(_) | Entry::Above(_) | Entry::Below(_) => {
                pair_in_order(&left, &right, &mut found);
            }
            _ => pair_up(&left, &right, &mut found),
        }
    }
    found
}

/// Relocation tables of the new file, with the sections they fill, where these hold hardly anything else:
/// only the relocations tell which entry is which.
pub(super) fn sparse(new: &[u8], elf: &Elf) -> Vec<(usize, usize)> {
    if !elf.relocatable || !elf.wide {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (i, table) in elf
        .sections
        .iter()
        .enumerate()
        .filter(|(_, s)| s.kind == RELA)
    {
        let Some(home) = elf.sections.get(table.info as usize) else {
            continue;
        };
        let content = &new[home.offset as usize..(home.offset + home.stored()) as usize];
        let set = content.iter().filter(|b| **b != 0).count();
        if !home.is_code() && set * 8 <= content.len() && !content.is_empty() {
            found.push((i, table.info as usize));
        }
    }
    found
}

/// Pairs the entries of a relocation table by what they point to, and the places they fill with them.
#[expect(
    clippy::too_many_arguments,
    reason = "two files and what is known of them"
)]
pub(super) fn by_target(
    old: &[u8],
    new: &[u8],
    a: &Elf,
    b: &Elf,
    layout: &Layout,
    pairs: &[Option<usize>],
    (table, home): (usize, usize),
    found: &mut Vec<Alike>,
) {
    let back = |j: usize| pairs.iter().position(|p| *p == Some(j));
    let (Some(i), Some(old_home)) = (back(table), back(home)) else {
        return;
    };
    let left = targets(old, a, &a.sections[i], |section, addend| {
        let mapped = layout
            .aim(Meaning::Within(section as u32, 0), addend, 0, 0)
            .mapped
            .to;
        (pairs.get(section).copied().flatten(), mapped)
    });
    let right = targets(new, b, &b.sections[table], |section, addend| {
        (Some(section), addend as u64)
    });
    let mut entries = Vec::new();
    pair_up(&left, &right, &mut entries);
    let (from, to) = (a.sections[old_home].offset, b.sections[home].offset);
    let end = (to + b.sections[home].stored()) as usize;
    let old_end = (from + a.sections[old_home].stored()) as usize;
    let places: Vec<(usize, usize)> = entries
        .iter()
        .map(|e| {
            let place =
                |file: &[u8], at: usize, base: u64| base.wrapping_add(number(file, at, 8)) as usize;
            (place(new, e.new, to), place(old, e.old, from))
        })
        .filter(|(n, o)| *n < end && *o < old_end)
        .collect();
    if places.is_empty() || !places.windows(2).all(|w| w[0].0 < w[1].0) {
        return;
    }
    cut(found, to as usize, end);
    for (i, &(new_at, old_at)) in places.iter().enumerate() {
        // The first goes back to the section's beginning, each reaches up to the next.
        let back = if i == 0 {
            (new_at - to as usize).min(old_at - from as usize)
        } else {
            0
        };
        let next = places.get(i + 1).map_or(end, |p| p.0);
        found.push(Alike {
            new: new_at - back,
            length: (next - new_at).min(old_end - old_at) + back,
            old: old_at - back,
        });
    }
    found.sort_by_key(|f| f.new);
}

/// Takes a range of the new file out of the stretches.
fn cut(found: &mut Vec<Alike>, from: usize, to: usize) {
    let mut rest = Vec::new();
    for f in found.drain(..) {
        let end = f.new + f.length;
        if f.new < from {
            rest.push(Alike {
                length: f.length.min(from - f.new),
                ..f
            });
        }
        if end > to {
            let skip = to.saturating_sub(f.new);
            rest.push(Alike {
                new: f.new + skip,
                length: f.length - skip,
                old: f.old + skip,
            });
        }
    }
    *found = rest;
}

fn targets(
    file: &[u8],
    elf: &Elf,
    table: &Section,
    aim: impl Fn(usize, i64) -> (Option<usize>, u64),
) -> Vec<Record> {
    let symbols = elf.sections.get(table.link as usize);
    let mut records = Vec::new();
    let begin = table.offset as usize;
    for at in (begin..begin + table.stored() as usize).step_by(24) {
        let (kind, symbol) = (number(file, at + 8, 4), number(file, at + 12, 4) as usize);
        let addend = number(file, at + 16, 8) as i64;
        let entry = symbols.map_or(0, |s| s.offset as usize + symbol * 24);
        let info = number(file, entry + 4, 1);
        let key = if info & 15 == 3 {
            key((kind, aim(number(file, entry + 6, 2) as usize, addend)))
        } else {
            key((kind, symbol_name(file, elf, table, symbol as u64), addend))
        };
        records.push(Record {
            at,
            length: 24,
            key,
        });
    }
    records
}

/// The name of a symbol of a relocation table.
fn symbol_name<'a>(file: &'a [u8], elf: &Elf, table: &Section, symbol: u64) -> &'a [u8] {
    let symbols = elf.sections.get(table.link as usize);
    let strings = symbols.and_then(|s| elf.sections.get(s.link as usize));
    let entry = symbols.map_or(0, |s| s.offset.wrapping_add(symbol * 24));
    strings.map_or(&[], |s| string(file, s, number(file, entry as usize, 4)))
}

/// What a number of the new file aims at.
fn own(elf: &Elf, at: usize, meaning: Meaning, value: i64) -> u64 {
    match meaning {
        Meaning::Relative(adjust) => elf
            .sections
            .iter()
            .find(|s| s.is_loaded() && s.offset <= at as u64 && at as u64 - s.offset < s.stored())
            .map_or(0, |s| s.addr + (at as u64 - s.offset))
            .wrapping_add_signed(value + i64::from(adjust)),
        Meaning::Below(base) => base.wrapping_sub(1).wrapping_add_signed(-value),
        Meaning::Based(base) => base.wrapping_add_signed(value),
        _ => value as u64,
    }
}

fn records(
    kind: Kind,
    file: &[u8],
    elf: &Elf,
    section: &Section,
    aim: impl Fn(usize, Meaning, i64) -> u64,
    pair: impl Fn(usize) -> Option<usize>,
) -> Vec<Record> {
    let (begin, end) = (
        section.offset as usize,
        (section.offset + section.stored()) as usize,
    );
    let mut records = Vec::new();
    let mut at = begin;
    while at < end {
        let (length, key) = match kind {
            // What refers to a symbol is known by it: the slots that such entries fill are all alike.
            Kind::Relocations if !elf.relocatable && number(file, at + 12, 4) != 0 => {
                let text = symbol_name(file, elf, section, number(file, at + 12, 4));
                let (kind, addend) = (number(file, at + 8, 4), number(file, at + 16, 8));
                (24, key((kind, text, addend)))
            }
            Kind::Relocations => {
                let place = number(file, at, 8) as i64;
                let meaning = if elf.relocatable {
                    Meaning::Within(section.info, 0)
                } else {
                    Meaning::Address
                };
                (24, key((aim(at, meaning, place), number(file, at + 8, 4))))
            }
            Kind::Symbols => {
                let strings = elf.sections.get(section.link as usize);
                let text = strings.map_or(&[][..], |s| string(file, s, number(file, at, 4)));
                let info = number(file, at + 4, 1);
                let home = if info & 15 == 3 {
                    pair(number(file, at + 6, 2) as usize)
                } else {
                    None
                };
                (24, key((text, info, home)))
            }
            Kind::Unwind => {
                let length = number(file, at, 4) as usize;
                if length >= 0xffff_fff0 || at + 4 + length > end {
                    break;
                }
                let key = if length == 0 {
                    0
                } else if number(file, at + 4, 4) == 0 {
                    key(&file[at..at + 4 + length])
                } else {
                    let number = number(file, at + 8, 4) as i32;
                    key(aim(at + 8, Meaning::Relative(0), number.into()))
                };
                (4 + length, key)
            }
            Kind::Relative(size) => {
                let number = number(file, at, 4) as i32;
                (
                    size as usize,
                    key(aim(at, Meaning::Relative(0), number.into())),
                )
            }
            Kind::Kernel(entry) => {
                let bytes = number(file, at, entry.width().into());
                let number = entry.form().get(bytes, entry.width());
                (entry.size() as usize, key(aim(at, entry.meaning(), number)))
            }
            Kind::UnwindIndex => {
                if at == begin {
                    (12, 1)
                } else {
                    let number = number(file, at, 4) as i32;
                    (8, key(aim(at, Meaning::Based(section.addr), number.into())))
                }
            }
        };
        records.push(Record {
            at,
            length: length.min(end - at),
            key,
        });
        at += length;
    }
    records
}

pub(super) fn pair_up(old: &[Record], new: &[Record], found: &mut Vec<Alike>) {
    let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
    for (i, record) in old.iter().enumerate() {
        places.entry(record.key).or_default().push(i);
    }
    let wanted: HashSet<u64> = new.iter().map(|r| r.key).collect();
    let mut next = 0;
    for record in new {
        let place = if old.get(next).is_some_and(|r| r.key == record.key) {
            Some(next)
        } else {
            places
                .get(&record.key)
                .and_then(|all| all.iter().copied().min_by_key(|p| p.abs_diff(next)))
        };
        // An entry that has no like takes the place of one that has gone.
        let gone = || (next < old.len() && !wanted.contains(&old[next].key)).then_some(next);
        let Some(place) = place.or_else(gone) else {
            continue;
        };
        found.push(Alike {
            new: record.at,
            length: record.length.min(old[place].length),
            old: old[place].at,
        });
        next = place + 1;
    }
}

/// Pairs small entries whose order hardly changes, and of which not all are known by their keys: only those that have
/// neighbours in common are taken from elsewhere.
fn pair_in_order(old: &[Record], new: &[Record], found: &mut Vec<Alike>) {
    let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
    for (i, record) in old.iter().enumerate() {
        places.entry(record.key).or_default().push(i);
    }
    let same = |i: usize, place: usize| match (new.get(i), old.get(place)) {
        (Some(a), Some(b)) => a.key == b.key,
        (None, None) => true,
        _ => false,
    };
    let mut next = 0;
    for (i, record) in new.iter().enumerate() {
        let confirmed = |place: &usize| (1..=NEIGHBOURS).all(|k| same(i + k, place + k));
        let elsewhere = || {
            let all = places.get(&record.key)?;
            let confirmed = all.iter().copied().filter(confirmed);
            confirmed.min_by_key(|p| p.abs_diff(next))
        };
        let place = if same(i, next) {
            Some(next)
        } else {
            elsewhere().or_else(|| same(i + 1, next + 1).then_some(next))
        };
        let Some((place, like)) = place.and_then(|place| Some((place, old.get(place)?))) else {
            continue;
        };
        found.push(Alike {
            new: record.at,
            length: record.length.min(like.length),
            old: like.at,
        });
        next = place + 1;
    }
}
