//! OSTree's object formats (libostree, `ostree-core.h`): numbers are big-endian, whatever GVariant's
//! own order; a file object's checksum covers its framed header and its content.

use std::collections::BTreeMap;
use std::io::{Chain, Cursor, Read};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use ostree::glib::prelude::*;
use ostree::{glib, ObjectType};
use sha2::{Digest, Sha256};

use super::Directory;
use crate::tree::{Content, Kind, Node, Reader, Tree};

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;

/// A regular file or symbolic link as an object.
#[derive(Debug)]
pub(super) struct FileObject {
    /// 64 hex digits.
    pub checksum: String,
    header: Vec<u8>,
    content_len: u64,
}

impl FileObject {
    /// Bytes of the content stream: header and content.
    pub fn stream_len(&self) -> u64 {
        self.header.len() as u64 + self.content_len
    }

    /// The content stream.
    pub fn stream(&self, node: &Node) -> Result<Chain<Cursor<Vec<u8>>, Reader>> {
        let content = match &node.kind {
            Kind::File(content) => content.open()?,
            _ => Content::bytes([]).open()?,
        };
        Ok(Cursor::new(self.header.clone()).chain(content))
    }

    fn of(node: &Node) -> Result<Self> {
        let mut object = Self {
            checksum: String::new(),
            header: header(node),
            content_len: match &node.kind {
                Kind::File(content) => content.len(),
                _ => 0,
            },
        };
        let mut stream = object.stream(node)?;
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 17];
        loop {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
        }
        object.checksum = hex::encode(hash.finalize());
        Ok(object)
    }
}

/// Objects of all files and links of a tree, by path.
pub(super) fn files(tree: &Tree) -> Result<BTreeMap<String, FileObject>> {
    let nodes: Vec<(&str, &Node)> = tree.iter().filter(|(_, node)| !node.is_dir()).collect();
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || -> Result<Vec<(String, FileObject)>> {
        let mut done = Vec::new();
        while let Some((path, node)) = nodes.get(next.fetch_add(1, Ordering::Relaxed)) {
            let object = FileObject::of(node).with_context(|| format!("reading /{path}"))?;
            done.push(((*path).to_string(), object));
        }
        Ok(done)
    };
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut all = BTreeMap::new();
        for thread in running {
            let part = thread
                .join()
                .map_err(|_| anyhow::anyhow!("computing checksums: a thread panicked"))?;
            all.extend(part?);
        }
        Ok(all)
    })
}

/// Size (big-endian), padding to eight bytes, then `(uuuusa(ayay))`: uid, gid, mode, rdev, link target,
/// extended attributes.
fn header(node: &Node) -> Vec<u8> {
    let (kind, target) = match &node.kind {
        Kind::Symlink(target) => (S_IFLNK, target.as_str()),
        _ => (S_IFREG, ""),
    };
    // Every symbolic link has mode 0777 on Linux.
    let mode = if kind == S_IFLNK { 0o777 } else { node.mode };
    let variant = (
        node.uid.to_be(),
        node.gid.to_be(),
        (kind | mode).to_be(),
        0u32,
        target,
        xattrs(node),
    )
        .to_variant();
    let data = variant.data();
    let mut bytes = Vec::with_capacity(8 + data.len());
    bytes.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(data);
    bytes
}

fn xattrs(node: &Node) -> Vec<(Vec<u8>, Vec<u8>)> {
    node.xattrs
        .iter()
        .map(|(name, value)| ([name.as_slice(), &[0]].concat(), value.clone()))
        .collect()
}

/// A metadata object.
pub(super) struct Metadata {
    pub kind: ObjectType,
    pub variant: glib::Variant,
}

impl Metadata {
    pub fn checksum(&self) -> String {
        hex::encode(Sha256::digest(self.variant.data()))
    }
}

/// `(uuua(ayay))`: uid, gid, mode, extended attributes.
pub(super) fn dirmeta(node: &Node) -> Metadata {
    let variant = (
        node.uid.to_be(),
        node.gid.to_be(),
        (S_IFDIR | node.mode).to_be(),
        xattrs(node),
    )
        .to_variant();
    Metadata {
        kind: ObjectType::DirMeta,
        variant,
    }
}

/// `(a(say)a(sayay))`: files with checksum, directories with checksums of content and metadata; sorted.
pub(super) fn dirtree(
    files: Vec<(String, String)>,
    dirs: Vec<(String, Directory)>,
) -> Result<Metadata> {
    let mut names = Vec::new();
    for (name, checksum) in files {
        names.push((name, hex::decode(checksum)?));
    }
    names.sort();
    let mut subdirs = Vec::new();
    for (name, dir) in dirs {
        subdirs.push((name, hex::decode(dir.contents)?, hex::decode(dir.meta)?));
    }
    subdirs.sort();
    Ok(Metadata {
        kind: ObjectType::DirTree,
        variant: (names, subdirs).to_variant(),
    })
}
