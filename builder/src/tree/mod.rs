//! A root file system as a value: paths with owner, mode, extended attributes and content.
//!
//! The builder never unpacks a tree: it reads the tar that the base stage made, changes this value,
//! and commits from it. So no root, no user namespace and no host file system has a say in the result.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

/// A root file system. Paths are relative, without leading or trailing slash; the root itself is `""`.
/// The `BTreeMap` keeps parents before children.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

/// One path of a [`Tree`].
#[derive(Debug, Clone)]
pub struct Node {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Extended attributes (name without terminating NUL).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What it is.
    pub kind: Kind,
}

/// What a node is. Device nodes, FIFOs and sockets do not exist in a tree.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file. Hard links of the base become files that share a content.
    File(Content),
    /// A symbolic link and its target.
    Symlink(String),
}

/// Content of a regular file.
#[derive(Debug, Clone)]
pub enum Content {
    /// Held in memory.
    Bytes(Arc<[u8]>),
    /// A range of an uncompressed tar file.
    Slice {
        /// The tar file.
        archive: Arc<File>,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// A file on the host (overlay).
    Host {
        /// Its path.
        path: PathBuf,
        /// Bytes.
        len: u64,
    },
}
