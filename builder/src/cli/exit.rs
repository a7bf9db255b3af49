//! How the program ends: exit codes, and errors as people read them.

use std::io;
use std::process::ExitCode;

use crate::flash::problem::Problem;
use crate::manifest::Rejected;

/// Something failed.
pub const FAILED: u8 = 1;
/// A file that the user wrote is wrong. (2, wrong usage, is clap's.)
pub const BAD_INPUT: u8 = 3;
/// `builder keys status`: something expires soon.
pub const EXPIRES_SOON: u8 = 10;
/// `builder keys status`: something has expired.
pub const HAS_EXPIRED: u8 = 11;

/// Prints the error, what caused it and what may help; returns the exit code.
pub fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("{}", render(error));
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    let problem = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Problem>());
    if let Some(problem) = problem {
        return problem.kind.exit_code();
    }
    if error.chain().any(|cause| cause.is::<Rejected>()) {
        BAD_INPUT
    } else {
        FAILED
    }
}

fn render(error: &anyhow::Error) -> String {
    let mut text = format!("error: {error}");
    let mut shown = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // Some errors repeat their cause in their own text.
        if !shown.contains(&cause) {
            text += &format!("\n  because: {cause}");
            shown = cause;
        }
    }
    if let Some(hint) = hint(error) {
        text += &format!("\n  hint: {hint}");
    }
    text
}

/// What may help, where the kind of the cause tells.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let cause = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>())?;
    match cause.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(
            "out/ and the cache (TREELINE_CACHE, default ~/.cache/treeline) may be emptied at any \
             time, or moved to a larger disk",
        ),
        io::ErrorKind::ReadOnlyFilesystem => {
            Some("the cache can stand elsewhere: set TREELINE_CACHE")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn chain_and_hint_are_shown_and_nothing_twice() {
        let full = io::Error::from_raw_os_error(nix::libc::ENOSPC);
        let error = Err::<(), _>(full)
            .context("writing out/x.raw")
            .context("making the image")
            .unwrap_err();
        let text = render(&error);
        assert_eq!(
            text.lines()
                .map(|l| &l[..l.len().min(26)])
                .collect::<Vec<_>>(),
            [
                "error: making the image",
                "  because: writing out/x.r",
                "  because: No space left o",
                "  hint: out/ and the cache"
            ],
            "{text}"
        );
        let twice = anyhow::anyhow!("inner").context("outer: inner");
        assert_eq!(render(&twice), "error: outer: inner");
    }

    #[test]
    fn a_wrong_file_has_a_code_of_its_own() {
        let rejected = Rejected::new("f", "", Vec::new());
        assert_eq!(
            code(&anyhow::Error::new(rejected).context("reading")),
            BAD_INPUT
        );
        assert_eq!(code(&anyhow::anyhow!("x")), FAILED);
    }
}
