//! `product.lock`: exactly which packages a product is made of, and the way from a name to a verified `.deb`.
//!
//! [`resolve`] asks apt (in a root of its own, never the machine's) what a product needs; the answer is kept as
//! a [`Lock`]. [`fetch`] brings the packages of a lock into the cache and checks every one of them;
//! [`unpack`] opens one. Nothing outside this module talks to an archive.

mod apt;
mod archive;
mod diff;
mod fetch;
mod file;
mod parse;
mod resolve;
mod suites;
mod unpack;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use diff::{diff, Change, LockDiff};
pub use fetch::fetch;
pub use resolve::{resolve, BASE_PACKAGES, HELPERS};
pub use suites::DEFAULT_SUITE;
pub use unpack::unpack;

/// The newest format of `product.lock` that this program knows.
pub const FORMAT: u32 = 1;

/// Name of the package that stands in for an initramfs generator: Debian's kernels depend on one, the builder
/// assembles the initramfs by itself. The resolver takes it as installed; `compose` makes it.
pub(crate) const INITRAMFS_STAND_IN: &str = "treeline-initramfs";

/// Content of `product.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// Format of the file; see [`FORMAT`].
    pub format: u32,
    /// Time that everything built from this lock carries, in seconds since 1970: the newest date of the suites
    /// when they were resolved.
    pub source_date_epoch: u64,
    /// What each board is made of, by board id.
    #[serde(default)]
    pub boards: BTreeMap<String, BoardLock>,
}

/// What a product is made of on one board.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BoardLock {
    /// Hash of what was asked for, to tell that `product.toml` asks for something else since; empty: not
    /// known.
    #[serde(default)]
    pub request: String,
    /// State of the suites that the packages were taken from.
    #[serde(default)]
    pub suites: Vec<SuiteState>,
    /// Packages of the tree; none where the base is a root file system.
    #[serde(default)]
    pub packages: Vec<LockedPackage>,
    /// Packages of which only files are taken (boot loader); without their dependencies.
    #[serde(default)]
    pub firmware: Vec<LockedPackage>,
    /// Files of the product that become part of the boot loader.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<LockedFile>,
    /// Packages of the host programs that write the image (mke2fs), with their dependencies.
    #[serde(default)]
    pub tools: Vec<LockedPackage>,
    /// Packages of this machine's architecture whose programs stand in for the tree's own while packages of
    /// another architecture are installed, with their dependencies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub helpers: Vec<LockedPackage>,
    /// The root file system or image layout that the tree starts from, instead of packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<LockedBase>,
}

impl BoardLock {
    /// The newest date of the suites, in seconds since 1970; 0 without suites.
    pub fn newest_date(&self) -> u64 {
        self.suites
            .iter()
            .map(|suite| suite.date)
            .max()
            .unwrap_or(0)
    }
}

/// State of a suite when it was resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuiteState {
    /// Name, e.g. `trixie-security`.
    pub name: String,
    /// Date of its Release file, in seconds since 1970.
    pub date: u64,
    /// SHA-256 of its signed Release file.
    pub sha256: String,
}

/// One package, exactly.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedPackage {
    /// Name.
    pub name: String,
    /// Version, with epoch if it has one.
    pub version: String,
    /// Architecture of the package: the board's or `all`.
    pub arch: String,
    /// Bytes of the `.deb`.
    pub size: u64,
    /// SHA-256 of the `.deb`, 64 hex digits.
    pub sha256: String,
    /// Archive it stands in: `main` or `security`.
    pub archive: String,
    /// Path below the address of the archive.
    pub filename: String,
}

/// A file of the product.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedFile {
    /// Path relative to the product's directory.
    pub path: String,
    /// SHA-256, 64 hex digits.
    pub sha256: String,
}

/// The root file system that a tree starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockedBase {
    /// Path as in `product.toml`.
    pub path: String,
    /// SHA-256 of the tarball, or of the `index.json` of an OCI layout (which names everything else by digest).
    pub sha256: String,
}
