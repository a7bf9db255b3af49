//! What a commit holds: its metadata, signatures, directories and files, read from a repository.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use ostree::{gio, glib, ObjectType, Repo};

pub(super) const NO_CANCEL: Option<&gio::Cancellable> = None;

/// Bytes of a block of the device's file system: what a file takes is rounded up to it.
const BLOCK: u64 = 4096;
/// Bytes of an inode.
const INODE: u64 = 256;
/// Bytes of a symbolic link's target that fit into its inode.
const FAST_LINK: u64 = 59;

/// A commit in a repository.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) checksum: String,
    /// `(a{sv}aya(say)sstayay)`, as libostree defines it.
    pub(super) variant: glib::Variant,
    /// Detached metadata `a{sv}`, where the signatures are.
    pub(super) detached: Option<glib::Variant>,
}

/// A directory: checksums of its two metadata objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Dir {
    pub(super) contents: String,
    pub(super) meta: String,
}

/// Everything a commit holds, by path with leading slash.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) dirs: BTreeMap<String, Dir>,
    /// Checksums of file objects.
    pub(super) files: BTreeMap<String, String>,
}

/// Opens a repository that exists.
pub(super) fn open(path: &Path) -> Result<Repo> {
    let repo = Repo::new_for_path(path);
    repo.open(NO_CANCEL)
        .with_context(|| format!("opening the OSTree repository {}", path.display()))?;
    Ok(repo)
}

impl Commit {
    /// Reads a commit object and its detached metadata.
    pub(super) fn load(repo: &Repo, checksum: &str) -> Result<Self> {
        let (variant, _) = repo
            .load_commit(checksum)
            .with_context(|| format!("reading commit {checksum}"))?;
        let detached = repo
            .read_commit_detached_metadata(checksum, NO_CANCEL)
            .with_context(|| format!("reading the signatures of commit {checksum}"))?;
        Ok(Self {
            checksum: checksum.to_string(),
            variant,
            detached,
        })
    }

    /// A string of the commit's metadata.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        glib::VariantDict::new(Some(&self.variant.child_value(0)))
            .lookup::<String>(key)
            .ok()
            .flatten()
    }

    /// The bytes that are signed.
    pub(super) fn bytes(&self) -> glib::Bytes {
        self.variant.data_as_bytes()
    }

    /// The ed25519 signatures.
    pub(super) fn signatures(&self) -> Vec<Vec<u8>> {
        glib::VariantDict::new(self.detached.as_ref())
            .lookup::<Vec<Vec<u8>>>(keys::commit::METADATA_KEY)
            .ok()
            .flatten()
            .unwrap_or_default()
    }

    /// When it was made, seconds since 1970. The commit holds it in big-endian order.
    pub(super) fn timestamp(&self) -> u64 {
        u64::from_be(self.variant.child_value(5).get().unwrap_or(0))
    }

    /// Walks its directories.
    pub(super) fn contents(&self, repo: &Repo) -> Result<Contents> {
        let root = Dir {
            contents: hex_child(&self.variant, 6)?,
            meta: hex_child(&self.variant, 7)?,
        };
        let mut found = Contents::default();
        let mut waiting = vec![(String::from("/"), root)];
        while let Some((path, dir)) = waiting.pop() {
            let tree = repo
                .load_variant(ObjectType::DirTree, &dir.contents)
                .with_context(|| format!("reading directory {path} of commit {}", self.checksum))?;
            let base = if path == "/" { "" } else { path.as_str() };
            for entry in tree.child_value(0).iter() {
                let name = text_child(&entry, 0)?;
                let file = hex_child(&entry, 1)?;
                found.files.insert(format!("{base}/{name}"), file);
            }
            for entry in tree.child_value(1).iter() {
                let name = text_child(&entry, 0)?;
                let dir = Dir {
                    contents: hex_child(&entry, 1)?,
                    meta: hex_child(&entry, 2)?,
                };
                waiting.push((format!("{base}/{name}"), dir));
            }
            found.dirs.insert(path, dir);
        }
        Ok(found)
    }
}

impl Contents {
    /// Upper bound of what the installed commit takes on the device's root partition: every object
    /// once (deployments are hard links into the repository) and the deployment's directories.
    pub(super) fn installed_bytes(&self, repo: &Repo) -> Result<u64> {
        let mut sum = 0;
        for checksum in self.files.values().collect::<BTreeSet<_>>() {
            let entry = entry(repo, checksum)?;
            let blocks = match entry.link {
                true if entry.size <= FAST_LINK => 0,
                _ => entry.size.next_multiple_of(BLOCK),
            };
            sum += blocks + INODE;
        }
        let mut objects = BTreeSet::new();
        for dir in self.dirs.values() {
            objects.insert(&dir.contents);
            objects.insert(&dir.meta);
        }
        // A directory object is a small file in the repository; one of more than a block is rare
        // enough to be covered by the rounding of the others.
        sum += objects.len() as u64 * (BLOCK + INODE);
        sum += self.dirs.len() as u64 * (BLOCK + INODE);
        Ok(sum)
    }
}

/// Size and kind of a file object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Bytes of a regular file, or of a link's target.
    pub(super) size: u64,
    /// Whether it is a symbolic link.
    pub(super) link: bool,
}

/// Size and kind of the file object `checksum`.
pub(super) fn entry(repo: &Repo, checksum: &str) -> Result<Entry> {
    let (_, info, _) = repo
        .load_file(checksum, NO_CANCEL)
        .with_context(|| format!("reading file object {checksum}"))?;
    Ok(match info.symlink_target() {
        Some(target) => Entry {
            size: target.as_os_str().len() as u64,
            link: true,
        },
        None => Entry {
            size: u64::try_from(info.size()).unwrap_or(0),
            link: false,
        },
    })
}

fn hex_child(variant: &glib::Variant, index: usize) -> Result<String> {
    let child = variant.child_value(index);
    let bytes = child
        .fixed_array::<u8>()
        .context("reading a checksum in an OSTree object")?;
    anyhow::ensure!(
        bytes.len() == 32,
        "reading a checksum in an OSTree object: it has {} bytes, not 32; run ostree fsck on the repository",
        bytes.len()
    );
    Ok(hex::encode(bytes))
}

fn text_child(variant: &glib::Variant, index: usize) -> Result<String> {
    variant
        .child_value(index)
        .get::<String>()
        .context("reading a file name in an OSTree directory object: not a string")
}
