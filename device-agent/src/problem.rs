//! What goes wrong, sorted by what a caller can do about it, and the exit code of each kind.

use std::fmt;

/// Why a command failed. The exit codes are part of the interface: scripts rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Anything without a kind of its own: exit code 1.
    Other,
    /// The configuration is missing or wrong: exit code 3.
    Config,
    /// Another device-agent is at work: exit code 4.
    Locked,
    /// The device is not in a state that allows it (on trial, nothing to roll back to): exit code 5.
    State,
    /// Server or network out of reach: exit code 6.
    Network,
    /// A signature, hash or length is wrong, or metadata has expired: exit code 7.
    Trust,
    /// Not enough room on a file system: exit code 8.
    Room,
    /// The release is not for this device, failed here before, or is older than allowed: exit code 9.
    Refused,
    /// The boot state cannot be read or written: exit code 10.
    BootState,
    /// Needs root: exit code 11.
    Privilege,
}

impl Kind {
    /// Every kind, for the documentation of exit codes.
    pub const ALL: [Kind; 10] = [
        Kind::Other,
        Kind::Config,
        Kind::Locked,
        Kind::State,
        Kind::Network,
        Kind::Trust,
        Kind::Room,
        Kind::Refused,
        Kind::BootState,
        Kind::Privilege,
    ];

    /// The exit code. 0 is success, 2 a wrong command line.
    pub const fn exit_code(self) -> u8 {
        match self {
            Kind::Other => 1,
            Kind::Config => 3,
            Kind::Locked => 4,
            Kind::State => 5,
            Kind::Network => 6,
            Kind::Trust => 7,
            Kind::Room => 8,
            Kind::Refused => 9,
            Kind::BootState => 10,
            Kind::Privilege => 11,
        }
    }

    /// Short name, as in JSON output.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Other => "other",
            Kind::Config => "config",
            Kind::Locked => "locked",
            Kind::State => "state",
            Kind::Network => "network",
            Kind::Trust => "trust",
            Kind::Room => "room",
            Kind::Refused => "refused",
            Kind::BootState => "boot-state",
            Kind::Privilege => "privilege",
        }
    }
}

/// An error with a kind and, where there is one, something to try.
#[derive(Debug)]
pub struct Problem {
    /// What sort of failure.
    pub kind: Kind,
    /// What was being done, with what, and what is wrong.
    pub text: String,
    /// What to try.
    pub hint: Option<String>,
    /// Whether no other way to the same release can help.
    pub conclusive: bool,
}

impl Problem {
    /// A problem without a hint.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            hint: None,
            conclusive: false,
        }
    }

    /// The same problem, of the release itself: no other way to it can help.
    pub fn conclusive(mut self) -> Self {
        self.conclusive = true;
        self
    }

    /// The same problem with something to try.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Problem {}

/// The kind of an error: that of the outermost [`Problem`] in its chain.
pub fn kind_of(error: &anyhow::Error) -> Kind {
    error
        .downcast_ref::<Problem>()
        .map_or(Kind::Other, |problem| problem.kind)
}

/// Whether another way to the same release may succeed: not if the release itself is at fault, or this
/// device has no room.
pub fn another_way_may_help(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Problem>()
        .is_none_or(|problem| !problem.conclusive && problem.kind != Kind::Room)
}

/// The hint of an error, if the outermost [`Problem`] in its chain has one.
pub fn hint_of(error: &anyhow::Error) -> Option<&str> {
    error
        .downcast_ref::<Problem>()
        .and_then(|problem| problem.hint.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn the_kind_survives_context_on_both_sides() {
        let inner: Result<(), _> = Err(Problem::new(Kind::Room, "full").hint("delete something"));
        let error = inner.context("staging 1.1.0").unwrap_err();
        assert_eq!(kind_of(&error), Kind::Room);
        assert_eq!(hint_of(&error), Some("delete something"));
        let outer = anyhow::anyhow!("connection refused")
            .context(Problem::new(Kind::Network, "reading the channel"));
        assert_eq!(kind_of(&outer), Kind::Network);
        assert_eq!(
            format!("{outer:#}"),
            "reading the channel: connection refused"
        );
    }

    #[test]
    fn exit_codes_are_distinct_and_leave_room_for_usage_errors() {
        let mut codes: Vec<u8> = Kind::ALL.iter().map(|k| k.exit_code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Kind::ALL.len());
        assert!(!codes.contains(&0) && !codes.contains(&2));
    }
}
