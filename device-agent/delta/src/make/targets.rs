//! Relocations of object files: which is which by what they point to.

use super::entries::{key, number, pair_up, Record};
use super::sections::string;
use super::Alike;
use crate::elf::{Elf, Section, RELA};
use crate::layout::Layout;
use crate::sites::Meaning;

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
pub(super) fn symbol_name<'a>(file: &'a [u8], elf: &Elf, table: &Section, symbol: u64) -> &'a [u8] {
    let symbols = elf.sections.get(table.link as usize);
    let strings = symbols.and_then(|s| elf.sections.get(s.link as usize));
    let entry = symbols.map_or(0, |s| s.offset.wrapping_add(symbol * 24));
    strings.map_or(&[], |s| string(file, s, number(file, entry as usize, 4)))
}
