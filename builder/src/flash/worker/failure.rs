//! How a job can fail, and what state that leaves the disk in.

use std::fmt;
use std::io;

use nix::libc;
use serde::Serialize;

/// The kinds of failure that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// The user or another program ended it.
    Interrupted,
    /// A safety rule refused it.
    Refused,
    /// The image is not what it was.
    Image,
    /// The device failed or refused a write.
    Write,
    /// The device is gone.
    Gone,
    /// What was written reads back wrong.
    Verify,
    /// The device has less room than it claims.
    Counterfeit,
}

/// Why a job failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// For people.
    pub text: String,
    /// Whether the disk is still as it was; otherwise it does not boot.
    pub untouched: bool,
}

impl Failure {
    /// A failure after the boot area was closed.
    pub fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            untouched: false,
        }
    }

    /// A failure before the first byte was written.
    pub fn untouched(kind: FailureKind, text: impl Into<String>) -> Self {
        Self {
            untouched: true,
            ..Self::new(kind, text)
        }
    }

    /// What the device said while `doing` something.
    pub(super) fn io(error: &io::Error, doing: impl fmt::Display) -> Self {
        let (kind, hint) = match error.raw_os_error() {
            Some(libc::ENODEV | libc::ENXIO | libc::ENOMEDIUM) => (
                FailureKind::Gone,
                "; the device is gone. Plug it in again and go on with --resume",
            ),
            Some(libc::ENOSPC) => (
                FailureKind::Write,
                "; for a file or thin disk, the disk below it is full",
            ),
            Some(libc::EIO) => (
                FailureKind::Write,
                "; the device failed or was unplugged. Try another reader or cable, then another card; \
                 --resume goes on where it stopped",
            ),
            Some(libc::EROFS | libc::EPERM | libc::EACCES) => {
                (FailureKind::Write, "; is its write protection on?")
            }
            _ => (FailureKind::Write, ""),
        };
        Self::new(kind, format!("{doing}: {error}{hint}"))
    }

    /// Write protection shows at the first write: then nothing has changed.
    pub(super) fn untouched_if_nothing_was_written(mut self) -> Self {
        self.untouched = self.text.ends_with("write protection on?");
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.text)?;
        if !self.untouched {
            write!(
                f,
                "\n  The disk is unfinished and does not boot. Flash it again before use."
            )?;
        }
        Ok(())
    }
}
