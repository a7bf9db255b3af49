//! A planned sysroot: what stands where, and the room that it takes.

use std::collections::{BTreeMap, BTreeSet};

use ostree::ObjectType;

use super::objects::{Body, Meta};

/// Block size of the file systems that room is counted for.
const BLOCK: u64 = 4096;

/// A path of the sysroot.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) meta: Meta,
    pub(super) source: Source,
}

/// Where an entry's content comes from.
#[derive(Debug)]
pub(super) enum Source {
    Directory,
    Symlink(String),
    Bytes(Vec<u8>),
    /// Content object of the repository, as an inode of its own.
    Copy {
        checksum: String,
        len: u64,
    },
    /// Content object of the repository; all such paths are one inode.
    Shared {
        checksum: String,
        body: Body,
    },
    /// Metadata object of the repository.
    Metadata {
        kind: ObjectType,
        checksum: String,
        len: u64,
    },
}

/// A sysroot, planned.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// By path, relative to the root of the file system; the root itself is `""`.
    pub(super) entries: BTreeMap<String, Entry>,
    pub(super) boot_checksum: String,
    pub(super) kernel_version: String,
}

/// Room that a plan takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Inodes.
    pub inodes: u64,
    /// Bytes of data blocks (whole blocks of 4096 bytes).
    pub bytes: u64,
}

impl Plan {
    /// Room that the plan takes in a file system with blocks of 4096 bytes.
    pub(super) fn room(&self) -> Room {
        let mut seen = BTreeSet::new();
        let mut room = Room {
            inodes: 0,
            bytes: 0,
        };
        for (path, entry) in &self.entries {
            let len = match &entry.source {
                Source::Shared { checksum, .. } if !seen.insert(checksum) => continue,
                Source::Shared { body, .. } => match body {
                    Body::Regular(len) => *len,
                    Body::Symlink(target) => link_len(target),
                },
                Source::Directory => self.directory_len(path),
                Source::Symlink(target) => link_len(target),
                Source::Bytes(bytes) => bytes.len() as u64,
                Source::Copy { len, .. } | Source::Metadata { len, .. } => *len,
            };
            room.inodes += 1;
            room.bytes += len.div_ceil(BLOCK) * BLOCK;
        }
        room
    }

    /// Bytes of a directory's entries, a little more than ext4 takes.
    fn directory_len(&self, path: &str) -> u64 {
        let inside = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        let names = self.entries.range(inside.clone()..);
        let children = names
            .take_while(|(path, _)| path.starts_with(&inside))
            .filter(|(path, _)| !path[inside.len()..].contains('/'));
        64 + children
            .map(|(path, _)| (path.len() - inside.len() + 12) as u64)
            .sum::<u64>()
    }
}

/// Targets of up to 59 bytes stand in the inode.
fn link_len(target: &str) -> u64 {
    if target.len() < 60 {
        0
    } else {
        target.len() as u64
    }
}

impl Entry {
    /// The same content as an inode of its own.
    pub(super) fn own(&self, mtime: u64) -> Self {
        let source = match &self.source {
            Source::Shared { checksum, body } => match body {
                Body::Symlink(target) => Source::Symlink(target.clone()),
                Body::Regular(len) => Source::Copy {
                    checksum: checksum.clone(),
                    len: *len,
                },
            },
            Source::Bytes(bytes) => Source::Bytes(bytes.clone()),
            _ => Source::Directory,
        };
        Self {
            meta: Meta {
                mtime,
                ..self.meta.clone()
            },
            source,
        }
    }
}
