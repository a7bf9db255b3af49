//! What must be known of OSTree's objects: their names, and what a commit and a directory refer to
//! (formats: libostree's `ostree-core.h`; GVariant serialisation, version 1.0).

use sha2::{Digest, Sha256};

use crate::Error;

/// The name of an object: a SHA-256.
pub type Checksum = [u8; 32];

/// Kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A commit.
    Commit,
    /// A directory's entries.
    DirTree,
    /// A directory's owner, mode and attributes.
    DirMeta,
}

/// The name of an object without a header of its own: commits and directories.
pub fn name_of(bytes: &[u8]) -> Checksum {
    Sha256::digest(bytes).into()
}

/// Counts up the name of a file object.
pub(crate) struct FileName(Sha256);

impl FileName {
    /// `header`: the serialised `(uuuusa(ayay))`.
    pub(crate) fn new(header: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update((header.len() as u32).to_be_bytes());
        hash.update([0; 4]);
        hash.update(header);
        Self(hash)
    }

    pub(crate) fn update(&mut self, content: &[u8]) {
        self.0.update(content);
    }

    pub(crate) fn finish(self) -> Checksum {
        self.0.finalize().into()
    }
}

/// A directory's entries: files and their names, directories with content and metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Directory {
    pub files: Vec<(String, Checksum)>,
    pub directories: Vec<(String, Checksum, Checksum)>,
}

const SHAPE: Error = Error::Damaged("an object is not what OSTree makes");

/// Bytes of an offset in a container of this length.
fn offset_size(length: usize) -> usize {
    match length {
        0..=0xff => 1,
        0x100..=0xffff => 2,
        _ => 4,
    }
}

/// The offset stored `place` offsets from the end, counted from one.
fn offset(bytes: &[u8], place: usize) -> Result<usize, Error> {
    let size = offset_size(bytes.len());
    let at = bytes.len().checked_sub(size * place).ok_or(SHAPE)?;
    let raw = bytes.get(at..at + size).ok_or(SHAPE)?;
    let value = raw
        .iter()
        .rev()
        .fold(0usize, |sum, b| sum << 8 | usize::from(*b));
    if value > at {
        return Err(SHAPE);
    }
    Ok(value)
}

/// Elements of an array whose elements have no fixed size.
fn elements(bytes: &[u8]) -> Result<Vec<&[u8]>, Error> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let size = offset_size(bytes.len());
    let end = offset(bytes, 1)?;
    let count = (bytes.len() - end) / size;
    let mut begin = 0;
    (0..count)
        .map(|i| {
            let end = offset(bytes, count - i)?;
            let element = bytes.get(begin..end).ok_or(SHAPE)?;
            begin = end;
            Ok(element)
        })
        .collect()
}

fn checksum(bytes: Option<&[u8]>) -> Result<Checksum, Error> {
    bytes.and_then(|b| b.try_into().ok()).ok_or(SHAPE)
}

fn text(bytes: Option<&[u8]>) -> Result<String, Error> {
    let (last, text) = bytes.and_then(<[u8]>::split_last).ok_or(SHAPE)?;
    if *last != 0 {
        return Err(SHAPE);
    }
    String::from_utf8(text.to_vec()).map_err(|_| SHAPE)
}

impl Directory {
    /// Reads a directory object, `(a(say)a(sayay))`.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let middle = offset(bytes, 1)?;
        let end = bytes.len() - offset_size(bytes.len());
        let mut directory = Self::default();
        for entry in elements(&bytes[..middle])? {
            let split = offset(entry, 1)?;
            let end = entry.len() - offset_size(entry.len());
            directory
                .files
                .push((text(entry.get(..split))?, checksum(entry.get(split..end))?));
        }
        for entry in elements(bytes.get(middle..end).ok_or(SHAPE)?)? {
            let (first, second) = (offset(entry, 1)?, offset(entry, 2)?);
            let end = entry.len() - 2 * offset_size(entry.len());
            directory.directories.push((
                text(entry.get(..first))?,
                checksum(entry.get(first..second))?,
                checksum(entry.get(second..end))?,
            ));
        }
        Ok(directory)
    }
}

/// A commit's root directory: its entries and its metadata. The commit is `(a{sv}aya(say)sstayay)`.
pub(crate) fn root_of(commit: &[u8]) -> Result<(Checksum, Checksum), Error> {
    // Offsets of six members stand at the end, that of the entries' name first.
    let split = offset(commit, 6)?;
    let end = commit.len() - 6 * offset_size(commit.len());
    let begin = split.checked_sub(32).ok_or(SHAPE)?;
    Ok((
        checksum(commit.get(begin..split))?,
        checksum(commit.get(split..end))?,
    ))
}
