//! Objects of the archive repository, read through libostree and checked against their names.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use ostree::gio::prelude::*;
use ostree::{gio, glib, ObjectType, Repo};
use sha2::{Digest, Sha256};

/// Extended attributes, name without terminating NUL, as the object lists them.
pub(super) type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// Owner, mode, time and extended attributes. Objects have time 0, as in every OSTree repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Permission bits only.
    pub(super) mode: u32,
    /// Modification time, seconds since 1970.
    pub(super) mtime: u64,
    pub(super) xattrs: Xattrs,
}

impl Meta {
    /// Owned by root, without extended attributes.
    pub(super) fn root(mode: u32, mtime: u64) -> Self {
        Self {
            uid: 0,
            gid: 0,
            mode,
            mtime,
            xattrs: Vec::new(),
        }
    }
}

/// What a content object (`.file`) is.
#[derive(Debug, Clone)]
pub(super) struct FileObject {
    pub(super) meta: Meta,
    pub(super) body: Body,
}

/// Kind of a content object.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// A regular file of this many bytes.
    Regular(u64),
    /// A symbolic link to this target.
    Symlink(String),
}

/// One directory: its files and its subdirectories, by name.
#[derive(Debug)]
pub(super) struct Listing {
    /// Name and checksum of the content object.
    pub(super) files: Vec<(String, String)>,
    /// Name, checksum of the `.dirtree`, checksum of the `.dirmeta`.
    pub(super) dirs: Vec<(String, String, String)>,
}

/// The parts of a commit that a deployment needs.
#[derive(Debug)]
pub(super) struct Commit {
    /// Checksum of the root's `.dirtree`.
    pub(super) tree: String,
    /// Checksum of the root's `.dirmeta`.
    pub(super) meta: String,
    /// Seconds since 1970.
    pub(super) timestamp: u64,
    /// Metadata key `version`.
    pub(super) version: Option<String>,
}

/// An archive-mode repository.
pub(super) struct Store {
    repo: Repo,
    path: PathBuf,
}

impl Store {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let repo = Repo::new_for_path(path);
        repo.open(gio::Cancellable::NONE)
            .with_context(|| format!("opening the OSTree repository {}", path.display()))?;
        Ok(Self {
            repo,
            path: path.to_path_buf(),
        })
    }

    /// The bytes of a metadata object: commit, dirtree or dirmeta.
    pub(super) fn metadata(&self, kind: ObjectType, checksum: &str) -> Result<glib::Variant> {
        let value = self
            .repo
            .load_variant(kind, checksum)
            .with_context(|| self.reading(checksum, kind))?;
        let found = hex::encode(Sha256::digest(value.data()));
        if found != checksum {
            return Err(self.damaged(checksum, kind));
        }
        Ok(value)
    }

    /// Detached metadata of a commit (signatures), serialised; `None` if there is none.
    pub(super) fn detached(&self, checksum: &str) -> Result<Option<Vec<u8>>> {
        let value = self
            .repo
            .read_commit_detached_metadata(checksum, gio::Cancellable::NONE)
            .with_context(|| self.reading(checksum, ObjectType::CommitMeta))?;
        Ok(value.map(|value| value.data().to_vec()))
    }

    pub(super) fn commit(&self, checksum: &str) -> Result<Commit> {
        let value = self.metadata(ObjectType::Commit, checksum)?;
        let field = |index: usize| -> Result<String> {
            let bytes: Vec<u8> = value
                .try_child_value(index)
                .and_then(|child| child.get())
                .with_context(|| self.malformed(checksum, ObjectType::Commit))?;
            Ok(hex::encode(bytes))
        };
        let version = value
            .try_child_value(0)
            .and_then(|dict| glib::VariantDict::new(Some(&dict)).lookup("version").ok()?);
        let timestamp: u64 = value
            .try_child_value(5)
            .and_then(|child| child.get())
            .with_context(|| self.malformed(checksum, ObjectType::Commit))?;
        Ok(Commit {
            timestamp: u64::from_be(timestamp),
            tree: field(6)?,
            meta: field(7)?,
            version,
        })
    }

    pub(super) fn listing(&self, checksum: &str) -> Result<Listing> {
        let value = self.metadata(ObjectType::DirTree, checksum)?;
        let (files, dirs) = value
            .try_get::<ostree::TreeVariantType>()
            .with_context(|| self.malformed(checksum, ObjectType::DirTree))?;
        let hex_pair = |(name, sum): (String, Vec<u8>)| (name, hex::encode(sum));
        Ok(Listing {
            files: files.into_iter().map(hex_pair).collect(),
            dirs: dirs
                .into_iter()
                .map(|(name, tree, meta)| (name, hex::encode(tree), hex::encode(meta)))
                .collect(),
        })
    }

    pub(super) fn directory(&self, checksum: &str) -> Result<Meta> {
        let value = self.metadata(ObjectType::DirMeta, checksum)?;
        let parsed = ostree::DirMetaParsed::from_variant(&value)
            .with_context(|| self.malformed(checksum, ObjectType::DirMeta))?;
        Ok(Meta {
            uid: parsed.uid,
            gid: parsed.gid,
            mode: parsed.mode & 0o7777,
            mtime: 0,
            xattrs: plain_names(parsed.xattrs),
        })
    }

    /// What a content object is, without reading its content.
    pub(super) fn file(&self, checksum: &str) -> Result<FileObject> {
        let (info, xattrs) = self
            .repo
            .query_file(checksum, gio::Cancellable::NONE)
            .with_context(|| self.reading(checksum, ObjectType::File))?;
        self.describe(checksum, &info, &xattrs)
    }

    /// A reader of the content of a regular file.
    pub(super) fn content(&self, checksum: &str) -> Result<Checked> {
        let (input, info, xattrs) = self
            .repo
            .load_file(checksum, gio::Cancellable::NONE)
            .with_context(|| self.reading(checksum, ObjectType::File))?;
        let input = input.with_context(|| self.malformed(checksum, ObjectType::File))?;
        Ok(Checked {
            input: Box::new(input.into_read()),
            hash: header_hash(&info, &xattrs),
            left: u64::try_from(info.size()).unwrap_or(0),
            checksum: checksum.to_string(),
            complaint: self.damaged(checksum, ObjectType::File).to_string(),
        })
    }

    /// The content of a regular file of at most `limit` bytes.
    pub(super) fn read_file(&self, checksum: &str, limit: u64) -> Result<Vec<u8>> {
        match self.file(checksum)?.body {
            Body::Regular(len) if len <= limit => {}
            Body::Regular(len) => bail!(
                "reading object {checksum}.file: {len} bytes, more than the {limit} that make sense here"
            ),
            Body::Symlink(target) => {
                bail!("reading object {checksum}.file: a symbolic link to {target}, not a file")
            }
        }
        let mut content = Vec::new();
        self.content(checksum)?
            .read_to_end(&mut content)
            .with_context(|| self.reading(checksum, ObjectType::File))?;
        Ok(content)
    }

    fn describe(
        &self,
        checksum: &str,
        info: &gio::FileInfo,
        xattrs: &glib::Variant,
    ) -> Result<FileObject> {
        let body = match info.file_type() {
            gio::FileType::Regular => Body::Regular(
                u64::try_from(info.size())
                    .with_context(|| self.malformed(checksum, ObjectType::File))?,
            ),
            gio::FileType::SymbolicLink => Body::Symlink(
                info.symlink_target()
                    .and_then(|target| target.to_str().map(str::to_string))
                    .with_context(|| self.malformed(checksum, ObjectType::File))?,
            ),
            kind => bail!(
                "reading object {checksum}.file of {}: {kind:?} is neither file nor symbolic link",
                self.path.display()
            ),
        };
        Ok(FileObject {
            meta: Meta {
                uid: info.attribute_uint32("unix::uid"),
                gid: info.attribute_uint32("unix::gid"),
                mode: info.attribute_uint32("unix::mode") & 0o7777,
                mtime: 0,
                xattrs: plain_names(xattrs.get().unwrap_or_default()),
            },
            body,
        })
    }

    fn reading(&self, checksum: &str, kind: ObjectType) -> String {
        format!(
            "reading object {} of the repository {}",
            ostree::object_to_string(checksum, kind),
            self.path.display()
        )
    }

    fn malformed(&self, checksum: &str, kind: ObjectType) -> String {
        format!("{}: malformed", self.reading(checksum, kind))
    }

    fn damaged(&self, checksum: &str, kind: ObjectType) -> anyhow::Error {
        anyhow::anyhow!(
            "{}: its content does not match its name; run `ostree fsck --repo={} --delete` and build again",
            self.reading(checksum, kind),
            self.path.display()
        )
    }
}

/// Reads the content of an object; the end comes only if length and hash are right. What has been read
/// before an error must not be used.
pub(super) struct Checked {
    input: Box<dyn Read>,
    hash: Sha256,
    left: u64,
    checksum: String,
    complaint: String,
}

impl Read for Checked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, self.complaint.clone());
        if count > 0 || buffer.is_empty() {
            self.hash.update(&buffer[..count]);
            self.left = self.left.checked_sub(count as u64).ok_or_else(wrong)?;
            return Ok(count);
        }
        if self.left != 0 || hex::encode(self.hash.clone().finalize()) != self.checksum {
            return Err(wrong());
        }
        Ok(0)
    }
}

/// Names in objects end in NUL.
fn plain_names(xattrs: Xattrs) -> Xattrs {
    xattrs
        .into_iter()
        .map(|(mut name, value)| {
            if name.last() == Some(&0) {
                name.pop();
            }
            (name, value)
        })
        .collect()
}

/// The hash that names a content object begins with its header: the length (big-endian `u32`, padded
/// to eight bytes) and the variant `(uuuusa(ayay))` of uid, gid, mode, device, link target, xattrs.
fn header_hash(info: &gio::FileInfo, xattrs: &glib::Variant) -> Sha256 {
    let target = info
        .symlink_target()
        .and_then(|target| target.to_str().map(str::to_string))
        .unwrap_or_default();
    let big_endian = |attribute: &str| info.attribute_uint32(attribute).to_be().to_variant();
    let header = glib::Variant::tuple_from_iter([
        big_endian("unix::uid"),
        big_endian("unix::gid"),
        big_endian("unix::mode"),
        0u32.to_variant(),
        target.to_variant(),
        xattrs.clone(),
    ]);
    let len = u32::try_from(header.size()).unwrap_or(u32::MAX);
    let mut hash = Sha256::new();
    hash.update(len.to_be_bytes());
    hash.update([0; 4]);
    hash.update(header.data());
    hash
}
