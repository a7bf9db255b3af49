//! A deterministic tar stream: PAX headers for long names, link targets and extended attributes,
//! no user or group names, no times but the modification time.

use std::io::{Read, Write};

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

use super::objects::Meta;

/// A tar stream being written.
pub(super) struct TarStream<W: Write> {
    builder: Builder<W>,
}

impl<W: Write> TarStream<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            builder: Builder::new(out),
        }
    }

    pub(super) fn directory(&mut self, path: &str, meta: &Meta) -> Result<()> {
        self.entry(path, None, EntryType::Directory, meta, 0, std::io::empty())
    }

    pub(super) fn symlink(&mut self, path: &str, target: &str, meta: &Meta) -> Result<()> {
        let kind = EntryType::Symlink;
        self.entry(path, Some(target), kind, meta, 0, std::io::empty())
    }

    /// A further name of what stands earlier in the stream at `target`.
    pub(super) fn hard_link(&mut self, path: &str, target: &str, meta: &Meta) -> Result<()> {
        let bare = Meta {
            xattrs: Vec::new(),
            ..meta.clone()
        };
        let target = name_of(target, false);
        let kind = EntryType::Link;
        self.entry(path, Some(&target), kind, &bare, 0, std::io::empty())
    }

    /// A regular file; `content` must yield exactly `len` bytes.
    pub(super) fn file(
        &mut self,
        path: &str,
        meta: &Meta,
        len: u64,
        content: impl Read,
    ) -> Result<()> {
        self.entry(path, None, EntryType::Regular, meta, len, content)
    }

    pub(super) fn finish(self) -> Result<W> {
        self.builder
            .into_inner()
            .context("writing the end of the tar stream")
    }

    fn entry(
        &mut self,
        path: &str,
        target: Option<&str>,
        kind: EntryType,
        meta: &Meta,
        len: u64,
        content: impl Read,
    ) -> Result<()> {
        let name = name_of(path, kind == EntryType::Directory);
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(meta.mode);
        header.set_uid(meta.uid.into());
        header.set_gid(meta.gid.into());
        header.set_mtime(meta.mtime);
        header.set_size(len);
        let mut records: Vec<(String, &[u8])> = Vec::new();
        fill(&mut header.as_old_mut().name, "path", &name, &mut records);
        if let Some(target) = target {
            let field = &mut header.as_old_mut().linkname;
            fill(field, "linkpath", target, &mut records);
        }
        for (key, value) in &meta.xattrs {
            let key = String::from_utf8_lossy(key);
            records.push((format!("SCHILY.xattr.{key}"), value));
        }
        header.set_cksum();
        if !records.is_empty() {
            let records = records.iter().map(|(key, value)| (key.as_str(), *value));
            self.builder
                .append_pax_extensions(records)
                .with_context(|| format!("writing {name} to the tar stream"))?;
        }
        self.builder
            .append(&header, content)
            .with_context(|| format!("writing {name} to the tar stream"))
    }
}

/// Paths stand below `./`, directories end in `/`.
fn name_of(path: &str, directory: bool) -> String {
    match (path, directory) {
        ("", _) => "./".to_string(),
        (_, true) => format!("./{path}/"),
        (_, false) => format!("./{path}"),
    }
}

/// Puts `value` into a header field, and into a PAX record too if the field is too short for it.
fn fill<'a>(
    field: &mut [u8; 100],
    key: &str,
    value: &'a str,
    records: &mut Vec<(String, &'a [u8])>,
) {
    let bytes = value.as_bytes();
    let fits = bytes.len().min(field.len());
    field[..fits].copy_from_slice(&bytes[..fits]);
    if bytes.len() > field.len() || !value.is_ascii() {
        records.push((key.to_string(), bytes));
    }
}
