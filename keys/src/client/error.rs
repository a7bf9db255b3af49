//! Why an update server's metadata could not be used, in kinds that a caller acts on.

use std::error::Error as _;

use super::{TransportError, TransportErrorKind};

/// Why metadata or a target is not to be had or not to be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The server could not be reached or broke off: try again later.
    #[error("fetching {url}: {reason}")]
    Network {
        /// What was fetched.
        url: String,
        /// What the transport said.
        reason: String,
    },
    /// Whoever answered is not the server that this device was told to trust.
    #[error("fetching {url}: {reason}; it is another server, or its key was changed")]
    Server {
        /// What was fetched.
        url: String,
        /// What the transport said.
        reason: String,
    },
    /// The server answers but does not have a file that must be there.
    #[error("fetching {url}: the server does not have it; is the address right, and has anything been published?")]
    NotOnServer {
        /// What was fetched.
        url: String,
    },
    /// Metadata is past its time of validity: the server shows an old state, nobody has published
    /// for long, or the device's clock is wrong.
    #[error("checking {role} metadata: it has expired (the device's clock says {now}); publish again, or set the clock if it is wrong")]
    Expired {
        /// The role.
        role: String,
        /// The device's time, RFC 3339.
        now: String,
    },
    /// Not signed by the keys that this system trusts.
    #[error("checking the signature of {role} metadata: {reason}; it is damaged or signed with keys that this system does not trust")]
    Signature {
        /// The role.
        role: String,
        /// What the check said.
        reason: String,
    },
    /// The server shows an older state than this device has seen.
    #[error(
        "checking the version of the metadata: {0}; the server shows an older state than before"
    )]
    Rollback(String),
    /// A file is not the one that the signed metadata names.
    #[error("checking {what}: {reason}; it was changed on the server or on the way")]
    Tampered {
        /// Which file.
        what: String,
        /// What differs.
        reason: String,
    },
    /// The metadata is good, but names no such target.
    #[error("looking for {name}: the server offers no such thing")]
    MissingTarget {
        /// The target.
        name: String,
    },
    /// A file cannot be read: not JSON, or not what it should be.
    #[error("reading {what}: {reason}")]
    Malformed {
        /// Which file.
        what: String,
        /// What is wrong.
        reason: String,
    },
    /// More bytes than a sound server would send.
    #[error("fetching {what}: it has more than the {limit} bytes allowed")]
    TooLarge {
        /// Which file.
        what: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// The root metadata that came with this system is unusable.
    #[error(
        "reading the trusted root metadata of this system: {0}; the system needs a good root.json"
    )]
    TrustedRoot(String),
    /// The device cannot keep what it has seen.
    #[error("keeping the metadata seen last: {0}")]
    Datastore(String),
    /// Anything else.
    #[error("checking for updates: {0}")]
    Other(String),
}

impl ClientError {
    pub(super) fn from_transport(error: &TransportError) -> Self {
        let url = error.url().to_owned();
        match error.kind() {
            TransportErrorKind::FileNotFound => Self::NotOnServer { url },
            TransportErrorKind::Untrusted => Self::Server {
                url,
                reason: reason(error),
            },
            TransportErrorKind::Other => Self::Network {
                url,
                reason: reason(error),
            },
        }
    }
}

/// What lies under a transport's error, all the way down: the last cause is the telling one
/// ("connection refused", "certificate expired").
fn reason(error: &TransportError) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        cause = error.source();
    }
    parts.join(": ")
}
