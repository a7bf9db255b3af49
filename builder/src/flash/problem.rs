//! The kinds of failure that scripts tell apart, each with an exit code.

use std::fmt;

use super::engine::FailureKind;

/// Why nothing, or not everything, was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub kind: Kind,
    /// For people.
    pub text: String,
}

/// See [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A safety rule refused a device, or there is no device to choose. Nothing was written.
    Refused,
    /// The question was answered with no, or could not be asked. Nothing was written.
    Declined,
    /// The image is damaged, not trusted, or for another board. Nothing was written.
    Image,
    /// Writing to a device failed.
    Write,
    /// What was written reads back wrong: the device is worn out or counterfeit.
    Verify,
    /// Interrupted.
    Interrupted,
}

impl Kind {
    /// Its exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Refused => 4,
            Self::Declined => 5,
            Self::Image => 6,
            Self::Write => 7,
            Self::Verify => 8,
            Self::Interrupted => 130,
        }
    }
}

impl From<FailureKind> for Kind {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Interrupted => Self::Interrupted,
            FailureKind::Refused => Self::Refused,
            FailureKind::Image => Self::Image,
            FailureKind::Write | FailureKind::Gone => Self::Write,
            FailureKind::Verify | FailureKind::Counterfeit => Self::Verify,
        }
    }
}

impl Problem {
    /// A problem as an error.
    pub fn error(kind: Kind, text: impl Into<String>) -> anyhow::Error {
        Self {
            kind,
            text: text.into(),
        }
        .into()
    }

    /// Refused by a safety rule.
    pub fn refused(text: impl Into<String>) -> anyhow::Error {
        Self::error(Kind::Refused, text)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Problem {}
