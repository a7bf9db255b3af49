//! Type information of a kernel (`.BTF`): which record of the new one is which of the old one, by what they name.

use super::entries::{key, number, pair_up, Record};
use super::sections::name;
use super::Alike;
use crate::elf::{Elf, Section};
use crate::sites::btf;

/// The section with type information. That of a module names much by numbers of the kernel's, which are not there.
fn section<'a>(file: &[u8], elf: &'a Elf) -> Option<&'a Section> {
    let mut sections = elf.sections.iter().filter(|s| s.stored() > 0);
    sections.find(|s| !elf.relocatable && name(file, elf, s) == b".BTF")
}

/// The range of the file that records take.
pub(super) fn range(file: &[u8], elf: &Elf) -> Option<(usize, usize)> {
    let section = section(file, elf)?;
    let begin = *btf::records(&file, section).first()? as usize;
    let records = section.offset as usize;
    let end = begin + number(file, records + 12, 4) as usize;
    (end <= records + section.stored() as usize).then_some((begin, end))
}

/// Pairs the records.
pub(super) fn align(old: &[u8], new: &[u8], a: &Elf, b: &Elf, found: &mut Vec<Alike>) {
    if let (Some(left), Some(right)) = (records(old, a), records(new, b)) {
        pair_up(&left, &right, found);
    }
}

/// Records, and the members of those that have some, each for itself.
fn records(file: &[u8], elf: &Elf) -> Option<Vec<Record>> {
    let section = section(file, elf)?;
    let (_, end) = range(file, elf)?;
    let home = section.offset as usize;
    let strings = home + number(file, home + 4, 4) as usize + number(file, home + 16, 4) as usize;
    let text = |at: usize| {
        let at = strings.saturating_add(number(file, at, 4) as usize);
        let rest = file.get(at..).unwrap_or_default();
        rest.split(|b| *b == 0).next().unwrap_or_default()
    };
    let begins = btf::records(&file, section);
    let mut records = Vec::with_capacity(begins.len());
    for (i, begin) in begins.iter().map(|at| *at as usize).enumerate() {
        let next = begins.get(i + 1).map_or(end, |at| *at as usize);
        let info = number(file, begin + 4, 4);
        let whole = key((info, text(begin)));
        let Some(size) = btf::member(info) else {
            records.push(Record {
                at: begin,
                length: next - begin,
                key: whole,
            });
            continue;
        };
        // It is the same if it has one member more.
        let own = key((info & !0xffff, text(begin)));
        records.push(Record {
            at: begin,
            length: 12,
            key: own,
        });
        for at in (begin + 12..next).step_by(size) {
            records.push(Record {
                at,
                length: size,
                key: key((own, text(at))),
            });
        }
    }
    Some(records)
}
