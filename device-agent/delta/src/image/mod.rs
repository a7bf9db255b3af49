//! AArch64 kernels as they are booted (`Documentation/arch/arm64/booting.rst` in Linux, "Call the kernel image"): memory from the
//! first byte on, and a header that says hardly more than how much. What stands where is found by what is there.

mod tables;

pub(crate) use tables::{symbols, tables, Sort};

use crate::elf::{Elf, Machine, Section};
use crate::source::{number_at, Source};

/// Names of the parts, by [`Section::name`].
pub(crate) const NAMES: [&[u8]; 7] = [
    b"",
    b".head",
    b".text",
    b".rodata",
    b".BTF",
    b".init.text",
    b".data",
];
const HEAD: u32 = 1;
const TEXT: u32 = 2;
const RODATA: u32 = 3;
const TYPES: u32 = 4;
const INIT: u32 = 5;
const DATA: u32 = 6;

/// The header's magic number: `ARM`, and its offset.
const MAGIC: (u64, u64) = (0x644d_5241, 56);
/// Parts are told apart by pages of so many bytes.
const PAGE: u64 = 1 << least(12, 7);
/// `ret` says that a page has code; so many pages without any say that code has ended.
const RETURN: u32 = 0xd65f_03c0;
const APART: usize = 256;
/// Smaller images are not looked at.
const LEAST: u64 = 1 << least(20, 9);
/// Offset of the image's size in memory.
const SIZE: u64 = 16;
/// Magic number, version and flags of type information, and the length of its header (`include/uapi/linux/btf.h`).
const BTF: (u32, u32) = (0x0001_eb9f, 24);
/// Places that may begin with them.
const CANDIDATES: usize = 16;

/// An exponent; a fuzzer, whose images are small, takes another.
pub(crate) const fn least(bits: u32, fuzzed: u32) -> u32 {
    if cfg!(fuzzing) {
        fuzzed
    } else {
        bits
    }
}

const PROGBITS: u32 = 1;
const ALLOCATED: u64 = 2;
const EXECUTABLE: u64 = 4;

/// The image's parts as sections; `None` if it is none.
pub(crate) fn parse(source: &dyn Source) -> Option<Elf> {
    let length = source.len();
    if length < LEAST || number_at(source, MAGIC.1, 4)? != MAGIC.0 {
        return None;
    }
    let mut code = Vec::new();
    let mut rising = tables::Rising::default();
    let mut types = Vec::new();
    let mut before = 0;
    let mut page = vec![0; PAGE as usize];
    for at in (0..length).step_by(PAGE as usize) {
        page.truncate((length - at) as usize);
        source.read_at(at, &mut page).ok()?;
        let mut returns = 0;
        for (i, bytes) in page.chunks_exact(4).enumerate() {
            let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            let place = at + 4 * i as u64;
            returns += usize::from(word == RETURN);
            rising.push(place, word);
            if (before, word) == BTF && types.len() < CANDIDATES {
                types.push(place - 4);
            }
            before = word;
        }
        code.push(returns > 0);
    }
    rising.finish();
    let base = tables::counted_from(source, rising.longest?, None)?.1;
    let runs = runs(&code);
    let bounds = |run: usize| {
        let (from, to) = runs.get(run)?;
        Some((*from as u64 * PAGE, (*to as u64 * PAGE).min(length)))
    };
    let text = bounds(0)?;
    let init = bounds(1).unwrap_or((length, length));
    let types = types
        .into_iter()
        .filter_map(|at| Some((at, at + extent(source, at)?)))
        .filter(|t| text.1 <= t.0 && t.1 <= init.0)
        .max_by_key(|t| t.1 - t.0);
    let mut elf = Elf {
        wide: true,
        machine: Machine::Arm64,
        relocatable: false,
        headers: 0,
        names: u32::MAX,
        sections: vec![Section::default()],
        image: true,
    };
    let mut add = |name: u32, from: u64, to: u64| {
        let executable = matches!(name, TEXT | INIT);
        elf.sections.push(Section {
            name,
            kind: PROGBITS,
            flags: ALLOCATED | if executable { EXECUTABLE } else { 0 },
            addr: base.wrapping_add(from),
            offset: from,
            size: to.saturating_sub(from),
            align: 8,
            ..Section::default()
        });
    };
    add(HEAD, 0, text.0);
    add(TEXT, text.0, text.1);
    match types {
        Some((from, to)) => {
            add(RODATA, text.1, from);
            add(TYPES, from, to);
            add(RODATA, to, init.0);
        }
        None => add(RODATA, text.1, init.0),
    }
    add(INIT, init.0, init.1);
    add(DATA, init.1, length);
    let end = base.checked_add(length.max(number_at(source, SIZE, 8)?));
    end.filter(|_| base > 0).map(|_| elf)
}

/// Bytes of type information that begins here.
fn extent(source: &dyn Source, at: u64) -> Option<u64> {
    let strings = number_at(source, at + 16, 4)?;
    Some(24 + strings + number_at(source, at + 20, 4)?)
}

/// Runs of pages with code: the first, and the next after it that lies apart.
fn runs(code: &[bool]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (page, _) in code.iter().enumerate().filter(|(_, code)| **code) {
        match runs.last_mut() {
            Some(last) if page < last.1 + APART => last.1 = page + 1,
            _ => runs.push((page, page + 1)),
        }
    }
    runs
}

#[cfg(test)]
#[path = "tests.rs"]
pub(crate) mod tests;
