//! What a field aims at, in the old file and in the new one.

use crate::layout::{Layout, Mapped, NewSection};
use crate::sites::{Base, Meaning};

/// What a field aims at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aim {
    /// The old target: by it corrections are remembered.
    pub target: u64,
    pub mapped: Mapped,
    /// What is taken from the new target.
    pub base: u64,
    /// Whether the number is the base minus the target.
    pub negative: bool,
}

impl Aim {
    /// The new number, if the mapping is off by so much.
    pub(crate) fn number(&self, off: i64) -> i64 {
        let to = self.mapped.to.wrapping_add(off as u64);
        if self.negative {
            self.base.wrapping_sub(to) as i64
        } else {
            to.wrapping_sub(self.base) as i64
        }
    }

    /// By how much the mapping was off, if this is the new number.
    pub(crate) fn off(&self, number: i64) -> i64 {
        let to = if self.negative {
            self.base.wrapping_sub(number as u64)
        } else {
            self.base.wrapping_add(number as u64)
        };
        to.wrapping_sub(self.mapped.to) as i64
    }

    /// Where this number aims in the new file.
    pub(crate) fn target_of(&self, number: i64) -> u64 {
        if self.negative {
            self.base.wrapping_sub(number as u64)
        } else {
            self.base.wrapping_add(number as u64)
        }
    }

    /// The number that aims there, as far as it goes into so many bytes.
    pub(crate) fn number_of(&self, target: u64, width: u8) -> i64 {
        let number = if self.negative {
            self.base.wrapping_sub(target)
        } else {
            target.wrapping_sub(self.base)
        };
        let unused = 64 - 8 * u32::from(width);
        ((number << unused) as i64) >> unused
    }
}

impl Layout {
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
