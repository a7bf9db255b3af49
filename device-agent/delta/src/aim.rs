//! What a field aims at, in the old file and in the new one.

use crate::layout::Mapped;

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
