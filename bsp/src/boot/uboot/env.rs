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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: u64 = 0x400;

    fn state(good: &str, trial: Option<&str>, tries: u8) -> Variables {
        let mut variables = Variables::new();
        let state = BootState {
            good: good.into(),
            trial: trial.map(str::to_owned),
            tries,
        };
        set_state(&mut variables, &state).unwrap();
        variables
    }

    fn copy(flag: u8) -> Copy {
        Copy {
            flag,
            variables: Variables::new(),
        }
    }

    #[test]
    fn the_newer_copy_counts_even_after_255() {
        for (first, second, want) in [
            (1, 0, 0),
            (1, 2, 1),
            (3, 3, 0),
            (255, 0, 1),
            (0, 255, 0),
            (254, 255, 1),
            (255, 1, 0),
        ] {
            let (a, b) = (copy(first), copy(second));
            assert_eq!(newest([Some(&a), Some(&b)]), Some(want), "{first} {second}");
        }
        assert_eq!(newest([Some(&copy(0)), None]), Some(0));
        assert_eq!(newest([None, Some(&copy(0))]), Some(1));
        assert_eq!(newest([None, None]), None);
    }

    #[test]
    fn torn_foreign_and_erased_copies_are_none() {
        let whole = render_copy(7, &state("a", Some("b"), 3), SIZE).unwrap();
        assert_eq!(parse_copy(&whole).unwrap().flag, 7);
        for at in [0, 3, HEADER, 40, whole.len() - 1] {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            assert!(matches!(parse_copy(&torn), Err(EnvError::Checksum { .. })));
        }
        // The flag is not covered: it is what makes a copy the one that counts.
        let mut newer = whole;
        newer[4] = 8;
        assert_eq!(parse_copy(&newer).unwrap().flag, 8);
        for foreign in [vec![0; 0x400], vec![0xff; 0x400], Vec::new(), vec![0; 4]] {
            assert!(parse_copy(&foreign).is_err());
        }
    }

    #[test]
    fn what_is_not_ours_stays() {
        let mut variables = state("a", Some("b"), 3);
        variables.insert("serial".into(), "4711".into());
        set_state(&mut variables, &BootState::confirmed("b")).unwrap();
        assert_eq!(variables["serial"], "4711");
        assert_eq!(
            variables::to_state(&variables),
            Some(BootState::confirmed("b"))
        );
        set_good(&mut variables, "c").unwrap();
        assert_eq!(variables["serial"], "4711");
        assert_eq!(variables::to_state(&variables), None);
        assert_eq!(variables::to_good(&variables).as_deref(), Some("c"));
    }

    #[test]
    fn reads_as_u_boot_does() {
        let data = b"a=1\0noequals\0b=\0c=x=y\0=z\0a=2\0\0hidden=1\0";
        let variables = parse_data(data);
        let want = [("a", "2"), ("c", "x=y")].map(|(n, v)| (n.to_owned(), v.to_owned()));
        assert_eq!(variables, Variables::from(want));
    }

    #[test]
    fn refuses_what_would_not_fit_or_not_be_read_back() {
        let longest = "f".repeat(crate::boot::state::MAX_ID_LENGTH);
        let full = state(&longest, Some(&longest), 9);
        render_copy(0, &full, 512).unwrap();
        assert!(matches!(
            render_copy(0, &full, 256),
            Err(EnvError::TooLong { room: 251, .. })
        ));
        assert_eq!(render_copy(0, &full, 4), Err(EnvError::TooShort(4)));
        for (name, value) in [("a=b", "c"), ("", "c"), ("a\0", "c"), ("a", "\0")] {
            let variables = Variables::from([(name.into(), value.into())]);
            assert!(render_copy(0, &variables, SIZE).is_err(), "{name:?}");
        }
        let mut variables = Variables::new();
        for id in ["a b", "", "-x", "a\0b"] {
            assert!(set_state(&mut variables, &BootState::confirmed(id)).is_err());
            assert!(set_good(&mut variables, id).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_copy(&bytes);
            let mut valid = crc32fast::hash(&bytes).to_le_bytes().to_vec();
            valid.push(1);
            valid.extend(&bytes);
            let copy = parse_copy(&valid).unwrap();
            let _ = (variables::to_state(&copy.variables), variables::to_good(&copy.variables));
        }

        #[test]
        fn states_survive(good in "[a-zA-Z0-9][a-zA-Z0-9._-]{0,127}", trial in proptest::option::of("[a-z0-9][a-z0-9.-]{0,127}"), tries in 0u8..=9, flag: u8) {
            let variables = state(&good, trial.as_deref(), tries);
            let copy = parse_copy(&render_copy(flag, &variables, SIZE).unwrap()).unwrap();
            prop_assert_eq!(copy.flag, flag);
            prop_assert_eq!(variables::to_state(&copy.variables), Some(BootState { good, trial, tries }));
        }

        #[test]
        fn variables_survive(name in "[^=\0]{1,20}", value in "[^\0]{1,100}") {
            let variables = Variables::from([(name, value)]);
            let copy = parse_copy(&render_copy(0, &variables, SIZE).unwrap()).unwrap();
            prop_assert_eq!(copy.variables, variables);
        }
    }
}
