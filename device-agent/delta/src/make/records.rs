//! Tables: which entry of the new one is which of the old one.

use super::entries::{key, number, pair_in_order, pair_up, Record};
use super::sections::{name, string};
use super::targets::symbol_name;
use super::{types, Alike};
use crate::elf::{Elf, Section, DYNSYM, RELA, SYMTAB};
use crate::layout::{place_of, Layout};
use crate::pieces::{disjoint, Piece};
use crate::sites::kernel::{self, Entry, Table};
use crate::sites::tables::relative;
use crate::sites::Meaning;

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
