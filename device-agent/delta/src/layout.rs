//! Where the old file's parts stand in the new one.

use std::cell::Cell;

use crate::elf::{Elf, Machine, Section};
use crate::pieces::{disjoint, Piece};

/// One step of building the new file: new bytes, then bytes that resemble old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Step {
    /// Bytes without a model.
    pub fresh: u64,
    /// Bytes after them that resemble the old file's…
    pub alike: u64,
    /// …from this offset on.
    pub old: u64,
}

/// A section of the new file, as much of it as prediction needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct NewSection {
    pub offset: u64,
    pub size: u64,
    pub addr: u64,
}

/// The old file's parts and their places in the new one.
pub(crate) struct Layout {
    old: Vec<Section>,
    /// Loaded sections by address.
    by_address: Vec<usize>,
    new: Vec<NewSection>,
    /// By old section: the new one.
    pairs: Vec<Option<usize>>,
    pieces: Vec<Piece>,
    relocatable: bool,
    /// By new section: whether it holds x86-64 code that is linked.
    x86: Vec<bool>,
    /// The sections found last: neighbouring fields are in the same.
    last_old: Cell<usize>,
    last_new: Cell<usize>,
}

/// A mapped place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mapped {
    pub to: u64,
    /// Whether the place itself is known, not only one near it.
    pub exact: bool,
}

impl Layout {
    pub(crate) fn new(
        elf: &Elf,
        new: Vec<NewSection>,
        pairs: Vec<Option<usize>>,
        steps: &[Step],
    ) -> Self {
        let old = elf.sections.clone();
        let mut by_address: Vec<usize> = (0..old.len())
            .filter(|&i| old[i].is_loaded() && old[i].addr != 0)
            .collect();
        by_address.sort_by_key(|&i| (old[i].addr, i));
        let pieces = disjoint(self::pieces(steps));
        let mut x86 = vec![false; new.len()];
        if elf.machine == Machine::X86 && elf.wide && !elf.relocatable {
            for (section, pair) in old.iter().zip(&pairs) {
                if let Some(is) = pair.and_then(|pair| x86.get_mut(pair)) {
                    *is |= section.is_code();
                }
            }
        }
        Self {
            x86,
            old,
            by_address,
            new,
            pairs,
            pieces,
            relocatable: elf.relocatable,
            last_old: Cell::new(0),
            last_new: Cell::new(0),
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> u64 {
        let sections = size_of_val(&*self.old) + size_of_val(&*self.new);
        // Setting them apart held them all, and the list of what came out while it grew.
        (sections + 4 * size_of_val(&*self.pieces)) as u64
    }

    pub(crate) fn pair(&self, section: u64) -> Option<(usize, NewSection)> {
        let index = (*self.pairs.get(usize::try_from(section).ok()?)?)?;
        Some((index, *self.new.get(index)?))
    }

    /// Where an offset of the old file has come.
    pub(crate) fn offset(&self, old: u64) -> Mapped {
        place_of(&self.pieces, old)
    }

    /// Where an offset in an old section has come, as an offset in the new section.
    pub(crate) fn within(&self, section: u64, offset: u64) -> Option<Mapped> {
        let old = self.old.get(usize::try_from(section).ok()?)?;
        let (_, new) = self.pair(section)?;
        if old.stored() == 0 {
            return Some(Mapped {
                to: offset,
                exact: false,
            });
        }
        let mapped = self.offset(old.offset.wrapping_add(offset));
        let inside = mapped.to.wrapping_sub(new.offset);
        Some(if inside <= new.size {
            Mapped {
                to: inside,
                ..mapped
            }
        } else {
            Mapped {
                to: offset,
                exact: false,
            }
        })
    }

    fn section_at(&self, address: u64) -> Option<usize> {
        let after = self
            .by_address
            .partition_point(|&i| self.old[i].addr <= address);
        // Empty sections share addresses with others; the end of one belongs to it if nothing begins there.
        self.by_address[..after]
            .iter()
            .rev()
            .take(4)
            .copied()
            .find(|&i| address - self.old[i].addr < self.old[i].size)
            .or_else(|| {
                self.by_address[..after]
                    .iter()
                    .rev()
                    .take(4)
                    .copied()
                    .find(|&i| address - self.old[i].addr == self.old[i].size)
            })
    }

    /// Where an address of the old file has come (an offset, in object files).
    pub(crate) fn address(&self, old: u64) -> Mapped {
        if self.relocatable {
            return self.offset(old);
        }
        let same = Mapped {
            to: old,
            exact: false,
        };
        let Some(index) = self.section_at(old) else {
            return same;
        };
        let Some((_, new)) = self.pair(index as u64) else {
            return same;
        };
        let inside = old - self.old[index].addr;
        self.within(index as u64, inside)
            .map_or(same, |mapped| Mapped {
                to: new.addr.wrapping_add(mapped.to),
                ..mapped
            })
    }

    pub(crate) fn old_address(&self, offset: u64) -> u64 {
        if self.relocatable {
            return offset;
        }
        let holds = |i: usize| {
            let s = &self.old[i];
            s.is_loaded() && s.addr != 0 && s.offset <= offset && offset - s.offset < s.stored()
        };
        let found = found_again(&self.last_old, self.old.len(), holds);
        found.map_or(offset, |i| {
            let s = &self.old[i];
            s.addr.wrapping_add(offset - s.offset)
        })
    }

    fn new_section(&self, offset: u64) -> Option<usize> {
        let holds = |i: usize| {
            let s = &self.new[i];
            s.addr != 0 && s.offset <= offset && offset - s.offset < s.size
        };
        found_again(&self.last_new, self.new.len(), holds)
    }

    /// The address of an offset in the new file, if x86-64 code is there.
    pub(crate) fn x86_at(&self, offset: u64) -> Option<u64> {
        let section = self.new_section(offset)?;
        let s = &self.new[section];
        self.x86[section].then(|| s.addr.wrapping_add(offset - s.offset))
    }

    pub(crate) fn new_address(&self, offset: u64) -> u64 {
        if self.relocatable {
            return offset;
        }
        self.new_section(offset).map_or(offset, |i| {
            let s = &self.new[i];
            s.addr.wrapping_add(offset - s.offset)
        })
    }
}

/// The alike stretches, in the order of the new file.
pub(crate) fn pieces(steps: &[Step]) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(steps.len());
    let mut at = 0u64;
    for step in steps {
        at += step.fresh;
        if step.alike > 0 {
            pieces.push(Piece {
                old: step.old,
                length: step.alike,
                new: at,
            });
        }
        at += step.alike;
    }
    pieces
}

/// Where a place of the old file has come, by disjoint pieces in the old file's order.
pub(crate) fn place_of(pieces: &[Piece], old: u64) -> Mapped {
    let after = pieces.partition_point(|p| p.old <= old);
    let shift = |p: &Piece| p.new.wrapping_add(old.wrapping_sub(p.old));
    if after > 0 {
        let p = &pieces[after - 1];
        if old - p.old < p.length {
            return Mapped {
                to: shift(p),
                exact: true,
            };
        }
        let nearer = pieces
            .get(after)
            .filter(|next| next.old - old < old - (p.old + p.length));
        return Mapped {
            to: shift(nearer.unwrap_or(p)),
            exact: false,
        };
    }
    Mapped {
        to: pieces.first().map_or(old, shift),
        exact: false,
    }
}

/// One of `count` that fits: the one found last, else the first.
fn found_again(last: &Cell<usize>, count: usize, fits: impl Fn(usize) -> bool) -> Option<usize> {
    if last.get() < count && fits(last.get()) {
        return Some(last.get());
    }
    let found = (0..count).find(|&i| fits(i))?;
    last.set(found);
    Some(found)
}
