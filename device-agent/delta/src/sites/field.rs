//! Numbers inside instructions of a fixed width (encodings: Arm Architecture Reference Manuals A-profile, "Encoding";
//! Power ISA, book I).

/// A number inside an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// So many bits from this one on, signed, in units of so many bits.
    Signed { from: u8, bits: u8, unit: u8 },
    /// So many bits from this one on, in units of so many bits: the lowest of a number.
    Low { from: u8, bits: u8, unit: u8 },
    /// AArch64 `adrp`: 21 bits in two parts.
    Adrp,
    /// Thumb-2 `bl`, `blx`, `b.w`: 25 bits in parts.
    Thumb,
}

impl Field {
    pub(super) fn get(self, word: u64) -> i64 {
        let word = word as u32;
        match self {
            Self::Signed { from, bits, unit } => {
                let top = word << (32 - from - bits);
                i64::from((top as i32) >> (32 - bits)) << unit
            }
            Self::Low { from, bits, unit } => i64::from(word >> from & ((1 << bits) - 1)) << unit,
            Self::Adrp => {
                let value = ((word >> 5) & 0x7_ffff) << 2 | ((word >> 29) & 3);
                i64::from(((value << 11) as i32) >> 11)
            }
            Self::Thumb => {
                let (high, low) = (word & 0xffff, word >> 16);
                let sign = (high >> 10) & 1;
                let i1 = 1 ^ ((low >> 13) & 1) ^ sign;
                let i2 = 1 ^ ((low >> 11) & 1) ^ sign;
                let value =
                    sign << 24 | i1 << 23 | i2 << 22 | (high & 0x3ff) << 12 | (low & 0x7ff) << 1;
                i64::from(((value << 7) as i32) >> 7)
            }
        }
    }

    pub(super) fn set(self, word: u64, number: i64) -> u64 {
        let word = word as u32;
        let new = match self {
            Self::Signed { from, bits, unit } | Self::Low { from, bits, unit } => {
                let mask = (((1u64 << bits) - 1) as u32) << from;
                (word & !mask) | (((number >> unit) as u32) << from & mask)
            }
            Self::Adrp => {
                let value = number as u32;
                (word & 0x9f00_001f) | (value & 3) << 29 | ((value >> 2) & 0x7_ffff) << 5
            }
            Self::Thumb => {
                let value = number as u32;
                let sign = (value >> 24) & 1;
                let j1 = 1 ^ ((value >> 23) & 1) ^ sign;
                let j2 = 1 ^ ((value >> 22) & 1) ^ sign;
                let high = sign << 10 | (value >> 12) & 0x3ff;
                let low = j1 << 13 | j2 << 11 | (value >> 1) & 0x7ff;
                (word & 0xd000_f800) | high | low << 16
            }
        };
        new.into()
    }
}
