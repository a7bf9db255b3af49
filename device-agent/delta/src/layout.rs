//! Where the old file's parts stand in the new one.

use std::cell::Cell;

use crate::aim::Aim;
use crate::elf::{Elf, Machine, Section};
use crate::pieces::{disjoint, Piece};
use crate::sites::{Base, Meaning};

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
    fn within(&self, section: u64, offset: u64) -> Option<Mapped> {
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

    fn old_address(&self, offset: u64) -> u64 {
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

    fn new_address(&self, offset: u64) -> u64 {
        if self.relocatable {
            return offset;
        }
        self.new_section(offset).map_or(offset, |i| {
            let s = &self.new[i];
            s.addr.wrapping_add(offset - s.offset)
        })
    }

    /// What a number says, and what it is to be in the new file: the number is the target minus the base,
    /// in the old file and in the new one.
    pub(crate) fn aim(&self, meaning: Meaning, number: i64, old_at: u64, new_at: u64) -> Aim {
        let raw = number as u64;
        let plain = |target: u64, mapped: Mapped, base: u64| Aim {
            target,
            mapped,
            base,
            negative: false,
        };
        let unknown = Mapped {
            to: raw,
            exact: false,
        };
        match meaning {
            Meaning::Relative(adjust) => {
                let adjust = i64::from(adjust) as u64;
                let target = self
                    .old_address(old_at)
                    .wrapping_add(adjust)
                    .wrapping_add(raw);
                let base = self.new_address(new_at).wrapping_add(adjust);
                plain(target, self.address(target), base)
            }
            Meaning::Aligned(adjust) => {
                let adjust = i64::from(adjust) as u64;
                let target = (self.old_address(old_at).wrapping_add(adjust) & !3).wrapping_add(raw);
                let base = self.new_address(new_at).wrapping_add(adjust) & !3;
                plain(target, self.address(target), base)
            }
            Meaning::Page(inside) => {
                let page = (self.old_address(old_at) >> 12).wrapping_add(raw);
                let target = (page << 12).wrapping_add(inside.into());
                let mapped = self.address(target);
                let mapped = Mapped {
                    to: mapped.to >> 12,
                    ..mapped
                };
                plain(target, mapped, self.new_address(new_at) >> 12)
            }
            Meaning::Low(page) => {
                let target = page.wrapping_add(raw);
                let mapped = self.address(target);
                let mapped = Mapped {
                    to: mapped.to & 0xfff,
                    ..mapped
                };
                plain(target, mapped, 0)
            }
            Meaning::Upper(base, lower) => {
                let (old, new) = self.bases(base, old_at, new_at);
                let number = (raw << 16).wrapping_add_signed(lower.into());
                let target = old.wrapping_add(number);
                let mapped = self.address(target);
                let number = mapped.to.wrapping_sub(new).wrapping_add(0x8000) as i64;
                let to = (number >> 16) as u64;
                plain(target, Mapped { to, ..mapped }, 0)
            }
            Meaning::Lower(base, upper) => {
                let (old, new) = self.bases(base, old_at, new_at);
                let number = (i64::from(upper) as u64) << 16;
                let target = old.wrapping_add(number).wrapping_add(raw);
                let mapped = self.address(target);
                let to = mapped.to.wrapping_sub(new) as i16 as u64;
                plain(target, Mapped { to, ..mapped }, 0)
            }
            Meaning::Address => plain(raw, self.address(raw), 0),
            Meaning::Based(base) => {
                let target = base.wrapping_add(raw);
                plain(target, self.address(target), self.address(base).to)
            }
            Meaning::Below(base) => {
                let target = base.wrapping_sub(1).wrapping_sub(raw);
                Aim {
                    negative: true,
                    ..plain(
                        target,
                        self.address(target),
                        self.address(base).to.wrapping_sub(1),
                    )
                }
            }
            Meaning::Slot(begin) => {
                let mapped = self.offset(begin.wrapping_add(raw.wrapping_mul(4)));
                let first = self.offset(begin).to;
                let to = mapped.to.wrapping_sub(first) as i64 / 4;
                plain(
                    raw,
                    Mapped {
                        to: to as u64,
                        ..mapped
                    },
                    0,
                )
            }
            Meaning::Extent(begin) => {
                let target = begin.wrapping_add(raw);
                // The end of one thing is often the beginning of another that has moved away.
                let mut mapped = self.address(target.wrapping_sub(1));
                mapped.to = mapped.to.wrapping_add(1);
                if raw == 0 {
                    mapped = self.address(target);
                }
                plain(target, mapped, self.address(begin).to)
            }
            Meaning::Within(section, bias) => {
                let bias = i64::from(bias) as u64;
                let inside = raw.wrapping_add(bias);
                let mapped = self.within(section.into(), inside).unwrap_or(Mapped {
                    to: inside,
                    exact: false,
                });
                let key = u64::from(section).wrapping_shl(40) ^ inside;
                plain(key, mapped, bias)
            }
            Meaning::Numbered(_) => plain(raw, unknown, 0),
            Meaning::Offset => plain(raw, self.offset(raw), 0),
            Meaning::Back => {
                let target = old_at.wrapping_sub(raw);
                Aim {
                    negative: true,
                    ..plain(target, self.offset(target), new_at)
                }
            }
            Meaning::SectionIndex => match self.pair(raw) {
                Some((index, _)) => plain(
                    raw,
                    Mapped {
                        to: index as u64,
                        exact: true,
                    },
                    0,
                ),
                None => plain(raw, unknown, 0),
            },
            Meaning::Symbol(table, size) => {
                let size = u64::from(size);
                let mapped = self.within(table.into(), raw.wrapping_mul(size));
                let mapped = mapped.map_or(unknown, |m| Mapped {
                    to: m.to / size,
                    exact: m.exact,
                });
                plain(raw, mapped, 0)
            }
            Meaning::HeaderOffset(i) => self.header(i, raw, |s| s.offset),
            Meaning::HeaderSize(i) => self.header(i, raw, |s| s.size),
            Meaning::HeaderAddress(i) => self.header(i, raw, |s| s.addr),
        }
    }

    /// What an address is told from, in the old file and in the new one.
    fn bases(&self, base: Base, old_at: u64, new_at: u64) -> (u64, u64) {
        match base {
            Base::Own(adjust) => {
                let adjust = i64::from(adjust);
                (
                    self.old_address(old_at).wrapping_add_signed(adjust),
                    self.new_address(new_at).wrapping_add_signed(adjust),
                )
            }
            Base::Toc(begin) => (
                begin.wrapping_add(0x8000),
                self.address(begin).to.wrapping_add(0x8000),
            ),
        }
    }

    fn header(&self, section: u32, raw: u64, field: impl Fn(&NewSection) -> u64) -> Aim {
        let pair = self.pair(section.into());
        Aim {
            target: raw,
            mapped: Mapped {
                to: pair.map_or(raw, |(_, new)| field(&new)),
                exact: pair.is_some(),
            },
            base: 0,
            negative: false,
        }
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
