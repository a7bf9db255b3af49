//! How the numbers of sequences are coded, and how often each code is expected unless a block says otherwise (RFC 8878,
//! sections 3.1.1.3.2.1.1 and 3.1.1.3.2.2).

use super::block::TABLES;
use super::fse::Counts;
use super::BAD;
use crate::Error;

/// States of a table at most, as powers of two, and symbols.
pub(super) const LOG_LIMITS: [u32; TABLES] = [9, 8, 9];
pub(super) const SYMBOLS: [usize; TABLES] = [36, 32, 53];

const LITERALS: [i16; 36] = [
    4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
    -1, -1, -1, -1,
];
const OFFSETS: [i16; 29] = [
    1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
];
const LENGTHS: [i16; 53] = [
    1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
];

pub(super) fn predefined(which: usize) -> Counts {
    let (log, counts) = match which {
        0 => (6, &LITERALS[..]),
        1 => (5, &OFFSETS[..]),
        _ => (6, &LENGTHS[..]),
    };
    Counts {
        log,
        counts: counts.to_vec(),
    }
}

/// Codes of numbers: smallest value and further bits.
const LITERAL_CODES: [(u32, u32); 20] = [
    (16, 1),
    (18, 1),
    (20, 1),
    (22, 1),
    (24, 2),
    (28, 2),
    (32, 3),
    (40, 3),
    (48, 4),
    (64, 6),
    (128, 7),
    (256, 8),
    (512, 9),
    (1024, 10),
    (2048, 11),
    (4096, 12),
    (8192, 13),
    (16384, 14),
    (32768, 15),
    (65536, 16),
];
const LENGTH_CODES: [(u32, u32); 21] = [
    (35, 1),
    (37, 1),
    (39, 1),
    (41, 1),
    (43, 2),
    (47, 2),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 5),
    (131, 7),
    (259, 8),
    (515, 9),
    (1027, 10),
    (2051, 11),
    (4099, 12),
    (8195, 13),
    (16387, 14),
    (32771, 15),
    (65539, 16),
];

/// Smallest value and bits of a code.
pub(super) fn range(which: usize, code: u8) -> Result<(u32, u32), Error> {
    let code = usize::from(code);
    match which {
        0 if code < 16 => Ok((code as u32, 0)),
        0 => LITERAL_CODES.get(code - 16).copied().ok_or(BAD),
        1 if code < 31 => Ok((1 << code, code as u32)),
        1 => Err(BAD),
        _ if code < 32 => Ok((code as u32 + 3, 0)),
        _ => LENGTH_CODES.get(code - 32).copied().ok_or(BAD),
    }
}

/// Code, value of its further bits and how many they are.
pub(super) fn coded(which: usize, value: u32) -> Result<(u8, u32, u32), Error> {
    let (small, first, list) = match which {
        0 => (16, 0, &LITERAL_CODES[..]),
        1 => {
            let code = value.checked_ilog2().ok_or(BAD)?;
            return Ok((code as u8, value - (1 << code), code));
        }
        _ => (35, 3, &LENGTH_CODES[..]),
    };
    let value = value.checked_sub(first).ok_or(BAD)?;
    if value + first < small {
        return Ok((value as u8, 0, 0));
    }
    let place = list.partition_point(|(from, _)| *from <= value + first) - 1;
    let (from, bits) = list[place];
    let rest = value + first - from;
    if rest >> bits != 0 {
        return Err(BAD);
    }
    Ok(((small - first) as u8 + place as u8, rest, bits))
}
