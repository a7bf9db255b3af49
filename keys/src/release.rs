//! What a release says: the JSON of a release target and of a channel target.
//!
//! Both are targets of The Update Framework, so whoever holds one holds a verified one; the files
//! they name (deltas) are checked against the length and SHA-256 given here.

use serde::{Deserialize, Serialize};

/// Format number of [`Release`] and [`Channel`].
pub const FORMAT: u32 = 1;

/// Where an update server keeps its OSTree repository (archive mode), below its base address.
pub const REPOSITORY: &str = "repo/";

/// Name of the target that describes a release.
///
/// Target names have no directories: clients differ in where they put the hash of a consistent
/// snapshot into a name with a `/` (the specification: before the last part; some clients: before the
/// whole).
pub fn release_target(board: &str, version: &str) -> String {
    format!("release.{board}.{version}.json")
}

/// Name of the target that lists a channel's releases for one board.
pub fn channel_target(board: &str, channel: &str) -> String {
    format!("channel.{board}.{channel}.json")
}

/// Whether a target may bear this name: characters that mean the same in a file name, a URL and
/// every client, no directories, nothing hidden.
pub fn is_target_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 160
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._+~-".contains(&b))
}

/// What is wrong with the content of a release or channel target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ContentError {
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("{0}")]
    Json(String),
    /// Written for another version of this program.
    #[error("it has format {found}, this program reads format {FORMAT}; update the program")]
    Format {
        /// The format number found.
        found: u32,
    },
    /// A field has a value that cannot be.
    #[error("field '{field}' is '{value}', wanted is {wanted}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        wanted: &'static str,
    },
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
    /// The file, in libostree's format.
    pub file: Artifact,
    /// The same in Treeline's own format, which is smaller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compact: Option<Compact>,
}

/// A delta in Treeline's own format, and what applying it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compact {
    /// The file.
    pub file: Artifact,
    /// Version of the format; a device that does not read it takes another way.
    #[serde(default = "first_version")]
    pub version: u8,
    /// Bytes of all objects that it makes: the limit an applier keeps to.
    pub output_bytes: u64,
    /// Bytes that applying it needs on the repository's file system besides, for a while.
    #[serde(default)]
    pub scratch_bytes: u64,
    /// Bytes of memory that applying it takes.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Decisions in it: bits with a prediction of their own, which are what takes the time.
    #[serde(default)]
    pub decisions: u64,
}

fn first_version() -> u8 {
    1
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

impl Release {
    /// Reads and checks the content of a release target.
    pub fn parse(bytes: &[u8]) -> Result<Self, ContentError> {
        let release: Self = parse_format(bytes)?;
        hash("commit", &release.commit)?;
        release.full.check("full")?;
        for delta in &release.deltas {
            hash("deltas.from", &delta.from)?;
            delta.file.check("deltas.file")?;
            if let Some(compact) = &delta.compact {
                compact.file.check("deltas.compact.file")?;
            }
        }
        Ok(release)
    }

    /// The content of the target.
    pub fn to_json(&self) -> Result<Vec<u8>, ContentError> {
        to_json(self)
    }

    /// The smallest way to this release for a device that has the commits `present`: a delta from
    /// one of them, else the whole.
    pub fn artifact_for(&self, present: &[String]) -> &Artifact {
        self.deltas
            .iter()
            .filter(|delta| present.contains(&delta.from))
            .map(|delta| &delta.file)
            .min_by_key(|file| file.length)
            .filter(|file| file.length < self.full.length)
            .unwrap_or(&self.full)
    }
}

impl Release {
    /// The smallest delta in Treeline's own format, in the version that the device reads, for a device that has the
    /// commits `present`; with the commit it starts from.
    pub fn compact_for(&self, present: &[String], version: u8) -> Option<(&str, &Compact)> {
        self.deltas
            .iter()
            .filter(|delta| present.contains(&delta.from))
            .filter_map(|delta| Some((delta.from.as_str(), delta.compact.as_ref()?)))
            .filter(|(_, compact)| compact.version == version)
            .min_by_key(|(_, compact)| compact.file.length)
            .filter(|(_, compact)| compact.file.length < self.artifact_for(present).length)
    }
}

impl Channel {
    /// Reads and checks the content of a channel target.
    pub fn parse(bytes: &[u8]) -> Result<Self, ContentError> {
        parse_format(bytes)
    }

    /// The content of the target.
    pub fn to_json(&self) -> Result<Vec<u8>, ContentError> {
        to_json(self)
    }
}

impl Artifact {
    fn check(&self, field: &'static str) -> Result<(), ContentError> {
        hash(field, &self.sha256)?;
        // The path becomes part of a URL and of a file name: nothing that could leave its place.
        let safe = self.path.split('/').all(is_target_name);
        wanted(safe, field, &self.path, "a plain relative path")
    }
}

/// Reads JSON, looking at the format number first: a newer format is told from a broken file.
fn parse_format<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ContentError> {
    #[derive(Deserialize)]
    struct Head {
        format: u32,
    }
    let json = |e: serde_json::Error| ContentError::Json(e.to_string());
    let head: Head = serde_json::from_slice(bytes).map_err(json)?;
    if head.format != FORMAT {
        return Err(ContentError::Format { found: head.format });
    }
    serde_json::from_slice(bytes).map_err(json)
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, ContentError> {
    let mut bytes =
        serde_json::to_vec_pretty(value).map_err(|e| ContentError::Json(e.to_string()))?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn hash(field: &'static str, value: &str) -> Result<(), ContentError> {
    let good = value.len() == 64
        && value
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    wanted(good, field, value, "64 lower-case hex digits")
}

fn wanted(
    good: bool,
    field: &'static str,
    value: &str,
    wanted: &'static str,
) -> Result<(), ContentError> {
    if good {
        return Ok(());
    }
    Err(ContentError::Field {
        field,
        value: value.chars().take(80).collect(),
        wanted,
    })
}

#[cfg(test)]
mod tests;
