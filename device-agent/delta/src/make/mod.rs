//! Making deltas: finding what the old and the new file have in common.

mod delta;
mod entries;
mod kept;
mod matching;
mod packed;
mod pairing;
mod records;
mod sections;
mod similar;
mod targets;
mod types;

pub use delta::{make, FileCost, Made, Objects};
#[cfg(fuzzing)]
pub(crate) use packed::find as packed_in;
#[cfg(test)]
pub(crate) use packed::tests::content as packed_content;

use crate::elf::Elf;
use crate::layout::{Layout, Step};
use crate::plan::{Plan, STEPS};
use crate::sites::{Meaning, Sites};

/// A stretch of the new file that resembles one of the old.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alike {
    pub new: usize,
    pub length: usize,
    pub old: usize,
}

/// How to build `new` from `old`; `elf`: whether they may be ELF files.
pub(crate) fn plan(old: &[u8], new: &[u8], elf: bool) -> Plan {
    let elves = Elf::parse(&old).zip(Elf::parse(&new)).filter(|_| elf);
    let mut plan = Plan {
        length: new.len() as u64,
        ..Plan::default()
    };
    let found = match &elves {
        Some((a, b)) => {
            let pairing = sections::pair(old, new, a, b);
            plan.sections = sections::described(b);
            plan.pairs = pairing;
            let rewritten = targets::sparse(new, b);
            let masked = (mask(old, a), mask(new, b));
            let tables = records::ranges(new, b);
            let mut found = matching::find(&masked.0, &masked.1, &tables);
            let known = steps(&found, new.len());
            let layout = Layout::new(a, plan.sections.clone(), plan.pairs.clone(), &known);
            for (i, j) in rewritten {
                targets::by_target(old, new, a, b, &layout, &plan.pairs, (i, j), &mut found);
            }
            let steps = steps(&found, new.len());
            let layout = Layout::new(a, plan.sections.clone(), plan.pairs.clone(), &steps);
            found.extend(records::align(old, new, a, b, &layout, &plan.pairs));
            found.sort_by_key(|f| f.new);
            found
        }
        None => matching::find(old, new, &[]),
    };
    plan.steps = steps(&found, new.len());
    // What a device can hold is worth more than the last short stretches.
    let mut least = 8;
    while plan.steps.len() as u64 > STEPS {
        let long: Vec<Alike> = found
            .iter()
            .copied()
            .filter(|f| f.length >= least)
            .collect();
        plan.steps = steps(&long, new.len());
        least *= 2;
    }
    plan
}

/// The file with zeros where numbers depend on places.
fn mask(file: &[u8], elf: &Elf) -> Vec<u8> {
    let mut masked = file.to_vec();
    let source = file;
    let mut sites = Sites::new(&source, elf.clone());
    let mut found = Vec::new();
    for section in elf.sections.iter().filter(|s| s.stored() > 0) {
        found.clear();
        sites.within(
            section.offset,
            section.offset + section.stored(),
            &mut found,
        );
        let mut name = 0;
        for site in &found {
            let at = site.at as usize;
            let field = &mut masked[at..at + usize::from(site.width)];
            let mut bytes = [0u8; 8];
            bytes[..field.len()].copy_from_slice(field);
            let mut number = 0;
            if site.meaning == Meaning::Numbered(0) {
                // Names are numbered in the order of their use: the steps between them are worth comparing.
                let own = site.form.get(u64::from_le_bytes(bytes), site.width);
                number = if own == 0 {
                    0
                } else {
                    own - std::mem::replace(&mut name, own)
                };
            }
            let blank = site
                .form
                .set(u64::from_le_bytes(bytes), number)
                .to_le_bytes();
            let width = field.len();
            field.copy_from_slice(&blank[..width]);
        }
    }
    masked
}

/// Stretches in the order of the new file, with what lies between them.
fn steps(found: &[Alike], length: usize) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut at = 0;
    let mut end = (0u64, 0usize);
    for f in found {
        let (skip, new) = if f.new < at {
            (at - f.new, at)
        } else {
            (0, f.new)
        };
        if skip >= f.length {
            continue;
        }
        let (old, count) = ((f.old + skip) as u64, f.length - skip);
        match steps.last_mut() {
            Some(last) if end == (old, new) => last.alike += count as u64,
            _ => steps.push(Step {
                fresh: (new - at) as u64,
                alike: count as u64,
                old,
            }),
        }
        at = new + count;
        end = (old + count as u64, at);
    }
    if at < length {
        steps.push(Step {
            fresh: (length - at) as u64,
            alike: 0,
            old: 0,
        });
    }
    steps
}
