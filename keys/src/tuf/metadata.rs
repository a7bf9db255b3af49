//! The four kinds of metadata.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};

use jiff::Timestamp as Time;
use serde::Deserialize;
use sha2::{Digest as _, Sha256, Sha512};

use super::key::Key;

/// What every kind has.
pub(crate) trait Role: for<'de> Deserialize<'de> {
    /// The value of `_type`.
    const TYPE: &'static str;
    fn version(&self) -> NonZeroU64;
    fn expires(&self) -> Time;
}

/// Who may sign: key ids, and how many of them must.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RoleKeys {
    pub(crate) keyids: Vec<String>,
    pub(crate) threshold: NonZeroU32,
}

/// Section 4.3: which keys sign for the top-level roles.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Root {
    version: NonZeroU64,
    expires: Time,
    #[serde(default)]
    pub(crate) consistent_snapshot: bool,
    pub(crate) keys: BTreeMap<String, Key>,
    pub(crate) roles: TopRoles,
}

/// The roles that root metadata must name.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct TopRoles {
    pub(crate) root: RoleKeys,
    pub(crate) timestamp: RoleKeys,
    pub(crate) snapshot: RoleKeys,
    pub(crate) targets: RoleKeys,
}

/// Section 4.6: which snapshot is the newest.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Timestamp {
    version: NonZeroU64,
    expires: Time,
    pub(crate) meta: TimestampMeta,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct TimestampMeta {
    #[serde(rename = "snapshot.json")]
    pub(crate) snapshot: MetaFile,
}

/// Section 4.4: the versions of all targets metadata that belong together.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Snapshot {
    version: NonZeroU64,
    expires: Time,
    pub(crate) meta: BTreeMap<String, MetaFile>,
}

/// A metadata file as the role above describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct MetaFile {
    pub(crate) version: NonZeroU64,
    pub(crate) length: Option<u64>,
    pub(crate) hashes: Option<Hashes>,
}

/// Hashes by the name of their algorithm, in hex.
pub(crate) type Hashes = BTreeMap<String, String>;

/// Section 4.5: targets, and to whom others are left.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Targets {
    version: NonZeroU64,
    expires: Time,
    pub(crate) targets: BTreeMap<String, Target>,
    #[serde(default)]
    pub(crate) delegations: Option<Delegations>,
}

/// A file on offer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Target {
    pub(crate) length: u64,
    pub(crate) hashes: Hashes,
}

/// To whom targets metadata leaves targets.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Delegations {
    pub(crate) keys: BTreeMap<String, Key>,
    #[serde(default)]
    pub(crate) roles: Vec<DelegatedRole>,
    #[serde(default)]
    pub(crate) succinct_roles: Option<SuccinctRoles>,
}

/// A role that may sign for some targets.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct DelegatedRole {
    pub(crate) name: String,
    pub(crate) keyids: Vec<String>,
    pub(crate) threshold: NonZeroU32,
    #[serde(default)]
    pub(crate) terminating: bool,
    #[serde(default)]
    pub(crate) paths: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) path_hash_prefixes: Option<Vec<String>>,
}

/// TAP 15: 2^`bit_length` roles, each for the targets whose names hash into its bin.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct SuccinctRoles {
    pub(crate) keyids: Vec<String>,
    pub(crate) threshold: NonZeroU32,
    pub(crate) bit_length: u8,
    pub(crate) name_prefix: String,
}

macro_rules! role {
    ($($kind:ident $name:literal),*) => {$(
        impl Role for $kind {
            const TYPE: &'static str = $name;
            fn version(&self) -> NonZeroU64 {
                self.version
            }
            fn expires(&self) -> Time {
                self.expires
            }
        }
    )*};
}
role!(Root "root", Timestamp "timestamp", Snapshot "snapshot", Targets "targets");

/// Whether the bytes have these hashes: all whose algorithm is known, and one of those at least.
pub(crate) fn fits(hashes: &Hashes, bytes: &[u8]) -> bool {
    let mut known = 0;
    for (algorithm, expected) in hashes {
        let found = match algorithm.as_str() {
            "sha256" => hex::encode(Sha256::digest(bytes)),
            "sha512" => hex::encode(Sha512::digest(bytes)),
            _ => continue,
        };
        if found != expected.to_ascii_lowercase() {
            return false;
        }
        known += 1;
    }
    known > 0
}
