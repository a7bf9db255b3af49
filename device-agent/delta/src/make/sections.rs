//! Which section of the new file is which of the old one: by name, in order.

use std::collections::HashMap;

use crate::elf::{Elf, Section};
use crate::layout::NewSection;

pub(super) fn name<'a>(file: &'a [u8], elf: &Elf, section: &Section) -> &'a [u8] {
    if let Some(label) = elf.label(section) {
        return label;
    }
    let Some(strings) = elf.sections.get(elf.names as usize) else {
        return &[];
    };
    string(file, strings, section.name.into())
}

pub(super) fn string<'a>(file: &'a [u8], strings: &Section, at: u64) -> &'a [u8] {
    let begin = strings.offset as usize;
    let table = &file[begin..begin + strings.stored() as usize];
    let rest = table.get(at as usize..).unwrap_or_default();
    rest.split(|&b| b == 0).next().unwrap_or_default()
}

pub(super) fn pair(old: &[u8], new: &[u8], a: &Elf, b: &Elf) -> Vec<Option<usize>> {
    let mut places: HashMap<(&[u8], u32), Vec<usize>> = HashMap::new();
    for (i, section) in b.sections.iter().enumerate().rev() {
        places
            .entry((name(new, b, section), section.kind))
            .or_default()
            .push(i);
    }
    a.sections
        .iter()
        .map(|section| {
            places
                .get_mut(&(name(old, a, section), section.kind))?
                .pop()
        })
        .collect()
}

pub(super) fn described(elf: &Elf) -> Vec<NewSection> {
    elf.sections
        .iter()
        .map(|s| NewSection {
            offset: s.offset,
            size: s.size,
            addr: s.addr,
        })
        .collect()
}
