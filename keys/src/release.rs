//! What a release says: the JSON of a release target and of a channel target.
//!
//! Both are targets of The Update Framework, so whoever holds one holds a verified one; the files
//! they name (deltas) are checked against the length and SHA-256 given here.

use serde::{Deserialize, Serialize};

/// Format number of [`Release`] and [`Channel`].
pub const FORMAT: u32 = 1;

/// Name of the target that describes a release.
pub fn release_target(board: &str, version: &str) -> String {
    format!("releases/{board}/{version}.json")
}

/// Name of the target that lists a channel's releases for one board.
pub fn channel_target(board: &str, channel: &str) -> String {
    format!("channels/{board}/{channel}.json")
}

/// One release for one board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// [`FORMAT`].
    pub format: u32,
    /// Product name.
    pub product: String,
    /// Version.
    pub version: String,
    /// Boards this commit may be installed on.
    pub boards: Vec<String>,
    /// Debian architecture.
    pub arch: String,
    /// OSTree commit checksum, 64 hex digits.
    pub commit: String,
    /// Anti-rollback floor: a device that has confirmed a higher epoch refuses this release.
    pub epoch: u64,
    /// When it was made, seconds since 1970.
    pub created: u64,
    /// The whole commit as one file (a static delta from nothing).
    pub full: Artifact,
    /// Deltas from earlier commits.
    pub deltas: Vec<Delta>,
    /// Bytes the installed commit takes, unpacked (upper bound for the room on the root partition).
    pub installed_bytes: u64,
    /// Free text for people.
    #[serde(default)]
    pub notes: String,
}

/// A file on the update server, relative to its base address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// Path relative to the base address, e.g. `deltas/…`.
    pub path: String,
    /// Bytes.
    pub length: u64,
    /// SHA-256, 64 hex digits.
    pub sha256: String,
}

/// A delta from one commit to the release's commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// Commit it starts from.
    pub from: String,
    /// The file.
    pub file: Artifact,
}

/// A channel for one board: newest release first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// [`FORMAT`].
    pub format: u32,
    /// Product name.
    pub product: String,
    /// Channel name.
    pub channel: String,
    /// Board id.
    pub board: String,
    /// Versions, newest first; each has a target named by [`release_target`].
    pub versions: Vec<String>,
}
