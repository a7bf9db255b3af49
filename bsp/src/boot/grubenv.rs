//! GRUB environment blocks: the format, and the boot state in it.
//!
//! A block is 1024 bytes: a signature line, `name=value` lines, then `#` to the end; in values,
//! backslash and newline are escaped with a backslash (the format of `grub-editenv`, described in the
//! GRUB manual under "The GRUB environment block"). Here everything that means something stands in
//! the first 512 bytes, so that one sector write, which is atomic, changes the state.

use super::state::{is_valid_id, BootState, MAX_TRIES};
use super::variables::{self, Variables, FORMAT, GOOD, MARK, TRIAL, TRIES};

/// Bytes in a block.
pub const BLOCK_SIZE: usize = 1024;
/// Bytes in the first sector, where all variables must stand.
pub const SECTOR_SIZE: usize = 512;

const SIGNATURE: &[u8] = b"# GRUB Environment Block\n";

/// A block that cannot be read or made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrubenvError {
    /// The signature line is missing.
    #[error("not a GRUB environment block: it does not begin with \"# GRUB Environment Block\"")]
    NotABlock,
    /// The variables do not fit.
    #[error("the variables take {bytes} bytes; an environment block that is written in one go holds {SECTOR_SIZE}")]
    TooLong {
        /// Bytes needed, with the signature.
        bytes: usize,
    },
    /// GRUB could not read this name back.
    #[error("\"{0}\" cannot be the name of a GRUB variable")]
    BadName(String),
    /// Not an identity.
    #[error("\"{0}\" cannot be the identity of a deployment: letters, digits, \".\", \"_\" and \"-\" only, at most {max} bytes", max = super::state::MAX_ID_LENGTH)]
    BadId(String),
}

/// Reads the variables of a block exactly as GRUB does: lines that begin with `#` are passed over, of two
/// values the later one counts, what is cut off ends the list. Bytes that are not UTF-8 become U+FFFD.
pub fn parse(block: &[u8]) -> Result<Variables, GrubenvError> {
    let mut rest = block
        .strip_prefix(SIGNATURE)
        .ok_or(GrubenvError::NotABlock)?;
    let mut variables = Variables::new();
    while let Some(first) = rest.first() {
        if *first == b'#' {
            rest = unescaped_line(rest).1;
            continue;
        }
        // GRUB looks for the equals sign even beyond the end of the line.
        let Some(equals) = rest.iter().position(|byte| *byte == b'=') else {
            break;
        };
        let (Some(value), after) = unescaped_line(&rest[equals + 1..]) else {
            break;
        };
        variables.insert(
            String::from_utf8_lossy(&rest[..equals]).into_owned(),
            String::from_utf8_lossy(&value).into_owned(),
        );
        rest = after;
    }
    Ok(variables)
}

/// The text up to the next newline that is not escaped, without escapes, and what follows; `None` if
/// there is no such newline.
fn unescaped_line(text: &[u8]) -> (Option<Vec<u8>>, &[u8]) {
    let mut line = Vec::new();
    let mut bytes = text.iter().copied().enumerate();
    while let Some((index, byte)) = bytes.next() {
        match byte {
            b'\n' => return (Some(line), &text[index + 1..]),
            b'\\' => line.extend(bytes.next().map(|(_, escaped)| escaped)),
            other => line.push(other),
        }
    }
    (None, &[])
}

/// Makes a block; refuses variables that would not stand in its first sector.
pub fn render(variables: &Variables) -> Result<[u8; BLOCK_SIZE], GrubenvError> {
    let mut text = SIGNATURE.to_vec();
    for (name, value) in variables {
        if name.is_empty() || name.starts_with('#') || name.contains(['=', '\n', '\\']) {
            return Err(GrubenvError::BadName(name.clone()));
        }
        text.extend(name.bytes());
        text.push(b'=');
        for byte in value.bytes() {
            if matches!(byte, b'\\' | b'\n') {
                text.push(b'\\');
            }
            text.push(byte);
        }
        text.push(b'\n');
    }
    if text.len() > SECTOR_SIZE {
        return Err(GrubenvError::TooLong { bytes: text.len() });
    }
    let mut block = [b'#'; BLOCK_SIZE];
    block[..text.len()].copy_from_slice(&text);
    Ok(block)
}

/// The block that holds a boot state (`treeline/state.env`).
pub fn from_state(state: &BootState) -> Result<[u8; BLOCK_SIZE], GrubenvError> {
    let trial = match &state.trial {
        Some(trial) => checked_id(trial)?,
        None => "",
    };
    let tries = state.tries.min(MAX_TRIES).to_string();
    render_pairs(&[
        (MARK, FORMAT),
        (GOOD, checked_id(&state.good)?),
        (TRIAL, trial),
        (TRIES, &tries),
    ])
}

/// The boot state in a block; `None` if it is torn, foreign or makes no sense. The boot script must
/// come to the same conclusion (see [`super::grub::static_config`]).
pub fn to_state(block: &[u8]) -> Option<BootState> {
    variables::to_state(&parse(block).ok()?)
}

/// The block that holds the spare record of the confirmed identity (`treeline/good.env`).
pub fn from_good(good: &str) -> Result<[u8; BLOCK_SIZE], GrubenvError> {
    render_pairs(&[(MARK, FORMAT), (GOOD, checked_id(good)?)])
}

/// The confirmed identity in a spare record; `None` if it is torn or foreign.
pub fn to_good(block: &[u8]) -> Option<String> {
    variables::to_good(&parse(block).ok()?)
}

fn checked_id(id: &str) -> Result<&str, GrubenvError> {
    if is_valid_id(id) {
        Ok(id)
    } else {
        Err(GrubenvError::BadId(id.into()))
    }
}

fn render_pairs(pairs: &[(&str, &str)]) -> Result<[u8; BLOCK_SIZE], GrubenvError> {
    let variables = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    render(&variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::process::Command;

    fn editenv(args: &[&std::ffi::OsStr]) -> String {
        let output = Command::new("grub-editenv")
            .args(args)
            .output()
            .expect("grub-editenv not found: install grub-common");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn grub_editenv_reads_what_we_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.env");
        let state = BootState::confirmed("a1").armed("b2-2", 3);
        std::fs::write(&path, from_state(&state).unwrap()).unwrap();
        let text = editenv(&[path.as_os_str(), "list".as_ref()]);
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["good=a1", "treeline=1", "trial=b2-2", "tries=3"]);
    }

    #[test]
    fn we_read_what_grub_editenv_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.env");
        editenv(&[path.as_os_str(), "create".as_ref()]);
        assert_eq!(to_state(&std::fs::read(&path).unwrap()), None);
        let set = [
            "set",
            "treeline=1",
            "good=a1",
            "trial=",
            "tries=0",
            "odd=x\\y=z",
        ];
        let mut args = vec![path.as_os_str()];
        args.extend(set.iter().map(|word| std::ffi::OsStr::new(*word)));
        editenv(&args);
        let block = std::fs::read(&path).unwrap();
        assert_eq!(block.len(), BLOCK_SIZE);
        assert_eq!(parse(&block).unwrap()["odd"], "x\\y=z");
        assert_eq!(to_state(&block), Some(BootState::confirmed("a1")));
        assert_eq!(to_good(&block), Some("a1".into()));
    }

    #[test]
    fn foreign_and_torn_states_are_no_states() {
        let good = from_state(&BootState::confirmed("a").armed("b", 9)).unwrap();
        assert!(to_state(&good).is_some());
        for (from, to) in [
            ("# GRUB", "# BURG"),
            ("treeline=1", "treeline=2"),
            ("tries=9", "tries=x"),
            ("tries=9", "trees=9"),
            ("good=a", "good=/"),
            ("good=a", "good=-"),
            ("trial=b", "trial=$"),
        ] {
            let text = String::from_utf8(good.to_vec()).unwrap();
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            assert_eq!(to_state(changed.as_bytes()), None, "{to}");
        }
        assert_eq!(to_state(&[]), None);
        assert_eq!(to_state(&[0; BLOCK_SIZE]), None);
        assert_eq!(to_state(&[b'#'; BLOCK_SIZE]), None);
    }

    #[test]
    fn refuses_what_would_not_fit_or_not_be_read_back() {
        let long = "x".repeat(SECTOR_SIZE);
        assert!(matches!(
            render_pairs(&[("a", &long)]),
            Err(GrubenvError::TooLong { bytes }) if bytes > SECTOR_SIZE
        ));
        assert!(matches!(
            from_state(&BootState::confirmed("a b")),
            Err(GrubenvError::BadId(_))
        ));
        assert!(matches!(from_good("a\nb"), Err(GrubenvError::BadId(_))));
        let longest = "f".repeat(super::super::state::MAX_ID_LENGTH);
        from_state(&BootState::confirmed(&*longest).armed(&*longest, 9)).unwrap();
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..1100)) {
            let mut block = SIGNATURE.to_vec();
            block.extend(&bytes);
            let _ = (parse(&bytes), parse(&block), to_state(&block), to_good(&block));
        }

        #[test]
        fn values_survive(value in "[ -~\n]{0,150}", name in "[a-z_]{1,20}") {
            let variables = BTreeMap::from([(name, value)]);
            prop_assert_eq!(parse(&render(&variables).unwrap()).unwrap(), variables);
        }

        #[test]
        fn states_survive(good in "[a-zA-Z0-9][a-zA-Z0-9._-]{0,127}", trial in proptest::option::of("[a-z0-9][a-z0-9.-]{0,127}"), tries in 0u8..=9) {
            let state = BootState { good, trial, tries };
            prop_assert_eq!(to_state(&from_state(&state).unwrap()), Some(state));
        }
    }
}
