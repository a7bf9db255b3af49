//! The redundant U-Boot environment: one copy of it, and which of two copies counts.
//!
//! A copy is a CRC-32 (IEEE, little-endian) of the data, one flag byte that the CRC does not cover, and
//! the data: `name=value` texts, each ended by a zero byte, an empty one at the end, zeros to the size of
//! the copy. Of two valid copies the one with the higher flag counts, 0 being higher than 255; of equal
//! ones the first. (U-Boot's `include/env_internal.h` and `env/common.c`; libubootenv does the same.)

use crate::boot::state::{is_valid_id, BootState, MAX_TRIES};
use crate::boot::variables::{self, Variables};

/// Bytes before the data: the CRC and the flag.
pub const HEADER: usize = 5;

/// One valid copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// Which of two copies is the newer one.
    pub flag: u8,
    /// What it holds.
    pub variables: Variables,
}

/// A copy that cannot be read or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// Smaller than any copy.
    #[error("a U-Boot environment of {0} bytes has no room for anything")]
    TooShort(u64),
    /// Torn, erased, or something else.
    #[error("not a U-Boot environment: the checksum is {found:#010x}, but that of the data is {data:#010x}")]
    Checksum {
        /// What stands there.
        found: u32,
        /// What would be right.
        data: u32,
    },
    /// The variables do not fit.
    #[error("the variables take {bytes} bytes; this U-Boot environment has {room}")]
    TooLong {
        /// Bytes needed.
        bytes: usize,
        /// Bytes there are.
        room: usize,
    },
    /// It could not be read back.
    #[error("\"{0}\" cannot be the name of a U-Boot variable")]
    BadName(String),
    /// It could not be read back.
    #[error("the value of the U-Boot variable \"{0}\" holds a zero byte")]
    BadValue(String),
    /// Not an identity.
    #[error("\"{0}\" cannot be the identity of a deployment: letters, digits, \".\", \"_\" and \"-\" only, at most {max} bytes", max = crate::boot::state::MAX_ID_LENGTH)]
    BadId(String),
}

/// Reads a copy. As in U-Boot, a variable without a value is none, of two values the later one counts,
/// and texts without an equals sign are passed over. Bytes that are not UTF-8 become U+FFFD.
pub fn parse_copy(copy: &[u8]) -> Result<Copy, EnvError> {
    let too_short = || EnvError::TooShort(copy.len() as u64);
    let (crc, rest) = copy.split_first_chunk::<4>().ok_or_else(too_short)?;
    let (flag, data) = rest.split_first().ok_or_else(too_short)?;
    let (found, right) = (u32::from_le_bytes(*crc), crc32fast::hash(data));
    if found != right {
        return Err(EnvError::Checksum { found, data: right });
    }
    Ok(Copy {
        flag: *flag,
        variables: parse_data(data),
    })
}

fn parse_data(data: &[u8]) -> Variables {
    let mut variables = Variables::new();
    for text in data.split(|byte| *byte == 0) {
        if text.is_empty() {
            break;
        }
        let Some(equals) = text.iter().position(|byte| *byte == b'=') else {
            continue;
        };
        let name = String::from_utf8_lossy(&text[..equals]).into_owned();
        let value = String::from_utf8_lossy(&text[equals + 1..]).into_owned();
        if value.is_empty() {
            variables.remove(&name);
        } else if !name.is_empty() {
            variables.insert(name, value);
        }
    }
    variables
}

/// Makes a copy of `size` bytes. Variables without a value are left out, as U-Boot does.
pub fn render_copy(flag: u8, variables: &Variables, size: u64) -> Result<Vec<u8>, EnvError> {
    let mut data = Vec::new();
    for (name, value) in variables.iter().filter(|(_, value)| !value.is_empty()) {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(EnvError::BadName(name.clone()));
        }
        if value.contains('\0') {
            return Err(EnvError::BadValue(name.clone()));
        }
        data.extend(name.bytes());
        data.push(b'=');
        data.extend(value.bytes());
        data.push(0);
    }
    data.push(0);
    let room = usize::try_from(size)
        .ok()
        .and_then(|size| size.checked_sub(HEADER))
        .ok_or(EnvError::TooShort(size))?;
    // An environment without variables is two zero bytes.
    let bytes = data.len().max(2);
    if bytes > room {
        return Err(EnvError::TooLong { bytes, room });
    }
    data.resize(room, 0);
    let mut copy = crc32fast::hash(&data).to_le_bytes().to_vec();
    copy.push(flag);
    copy.append(&mut data);
    Ok(copy)
}

/// Which of two copies counts: 0 or 1; `None` if neither is valid.
pub fn newest(copies: [Option<&Copy>; 2]) -> Option<usize> {
    match copies {
        [None, None] => None,
        [Some(_), None] => Some(0),
        [None, Some(_)] => Some(1),
        [Some(first), Some(second)] => Some(match (first.flag, second.flag) {
            (u8::MAX, 0) => 1,
            (0, u8::MAX) => 0,
            (first, second) => usize::from(second > first),
        }),
    }
}

/// Puts a boot state among the variables; the others stay.
pub fn set_state(variables: &mut Variables, state: &BootState) -> Result<(), EnvError> {
    set_good(variables, &state.good)?;
    if let Some(trial) = &state.trial {
        variables.insert(variables::TRIAL.into(), checked_id(trial)?.into());
    }
    let tries = state.tries.min(MAX_TRIES).to_string();
    variables.insert(variables::TRIES.into(), tries);
    Ok(())
}

/// Makes the variables a spare record of the confirmed identity; those that are not ours stay.
pub fn set_good(variables: &mut Variables, good: &str) -> Result<(), EnvError> {
    variables.insert(variables::MARK.into(), variables::FORMAT.into());
    variables.insert(variables::GOOD.into(), checked_id(good)?.into());
    variables.remove(variables::TRIAL);
    variables.remove(variables::TRIES);
    Ok(())
}

fn checked_id(id: &str) -> Result<&str, EnvError> {
    if is_valid_id(id) {
        Ok(id)
    } else {
        Err(EnvError::BadId(id.into()))
    }
}
