//! Fields of machines with instructions of fixed width: AArch64, ARM and Thumb, POWER (encodings: Arm
//! Architecture Reference Manuals A-profile, "Encoding"; Power ISA, book I, "Branch Facility").

use super::{Form, Meaning, Site};
use crate::elf::Machine;

/// A number inside an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// So many bits from this one on, signed, in units of so many bits.
    Signed { from: u8, bits: u8, unit: u8 },
    /// AArch64 `adrp`: 21 bits in two parts.
    Adrp,
    /// Thumb-2 `bl`, `b.w`: 25 bits in parts.
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
            Self::Signed { from, bits, unit } => {
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

/// The fields in `code`, which stands at `base` in the file.
pub(super) fn scan(machine: Machine, code: &[u8], base: u64, out: &mut Vec<Site>) {
    // Pieces begin at multiples of four of the section.
    match machine {
        Machine::Arm => arm(code, base, out),
        _ => {
            for (i, bytes) in code.chunks_exact(4).enumerate() {
                let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                let found = if machine == Machine::Arm64 {
                    arm64(word)
                } else {
                    power(word)
                };
                if let Some((field, meaning, class)) = found {
                    out.push(site(base + 4 * i as u64, field, meaning, class));
                }
            }
        }
    }
}

fn site(at: u64, field: Field, meaning: Meaning, class: u8) -> Site {
    Site {
        at,
        width: 4,
        form: Form::Instruction(field),
        meaning,
        class,
    }
}

fn signed(from: u8, bits: u8, unit: u8) -> Field {
    Field::Signed { from, bits, unit }
}

fn arm64(word: u32) -> Option<(Field, Meaning, u8)> {
    let near = Meaning::Relative(0);
    match word >> 24 {
        _ if (word >> 26) & 0x1f == 5 => Some((signed(0, 26, 2), near, 17)),
        0x54 | 0x34 | 0x35 | 0xb4 | 0xb5 => Some((signed(5, 19, 2), near, 18)),
        0x36 | 0x37 | 0xb6 | 0xb7 => Some((signed(5, 14, 2), near, 19)),
        0x18 | 0x58 | 0x1c | 0x5c | 0x9c | 0x98 => Some((signed(5, 19, 2), near, 18)),
        _ if word & 0x9f00_0000 == 0x9000_0000 => Some((Field::Adrp, Meaning::Page, 20)),
        _ => None,
    }
}

fn power(word: u32) -> Option<(Field, Meaning, u8)> {
    match word >> 26 {
        18 if word & 2 == 0 => Some((signed(2, 24, 2), Meaning::Relative(0), 17)),
        16 if word & 2 == 0 => Some((signed(2, 14, 2), Meaning::Relative(0), 18)),
        _ => None,
    }
}

fn arm(code: &[u8], base: u64, out: &mut Vec<Site>) {
    let mut at = 0;
    while at + 4 <= code.len() {
        let word = u32::from_le_bytes([code[at], code[at + 1], code[at + 2], code[at + 3]]);
        let (high, low) = (word & 0xffff, word >> 16);
        // Thumb-2: bl, blx and b.w are told by their first half; code of Debian's armhf is Thumb.
        if high & 0xf800 == 0xf000
            && low & 0xd000 >= 0x9000
            && low & 0x8000 != 0
            && low & 0x1000 != 0
        {
            out.push(site(
                base + at as u64,
                Field::Thumb,
                Meaning::Relative(4),
                17,
            ));
            at += 4;
        } else if at % 4 == 0 && word & 0x0f00_0000 == 0x0b00_0000 && word >> 28 != 15 {
            out.push(site(
                base + at as u64,
                signed(0, 24, 2),
                Meaning::Relative(8),
                17,
            ));
            at += 4;
        } else if high & 0xe000 == 0xe000 && high & 0x1800 != 0 {
            at += 4;
        } else {
            at += 2;
        }
    }
}
