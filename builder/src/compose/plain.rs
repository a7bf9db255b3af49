//! The plain tar that a tree is read from: POSIX ustar blocks, with pax records for what they cannot hold
//! (long names, extended attributes). POSIX.1-2017, "pax Interchange Format".

use std::io::Write;

use anyhow::{Context, Result};
use base64::Engine;
use tar::{EntryType, Header};

use super::layers::{Item, Kind};

/// Prefix of a pax record with an extended attribute as it is.
pub(super) const GNU_XATTR: &str = "SCHILY.xattr.";
/// Prefix of a pax record with an extended attribute in base64.
pub(super) const LIBARCHIVE_XATTR: &str = "LIBARCHIVE.xattr.";

const BLOCK: u64 = 512;
/// What a ustar header holds of a name without its prefix field.
const SHORT: usize = 100;

/// Whether a path is inside a directory that something is mounted on as soon as the system runs.
pub(super) fn is_mount_point_content(path: &str) -> bool {
    ["dev/", "proc/", "run/", "sys/", "tmp/"]
        .iter()
        .any(|dir| path.starts_with(dir))
}

/// Writes the header of an item; a file's content and [`pad`] must follow.
pub(super) fn write_item(out: &mut impl Write, path: &str, item: &Item) -> Result<()> {
    match &item.kind {
        Kind::Dir => write_header(out, path, EntryType::Directory, None, 0, item),
        Kind::Symlink(target) => write_header(out, path, EntryType::Symlink, Some(target), 0, item),
        Kind::File { len, .. } => write_header(out, path, EntryType::Regular, None, *len, item),
    }
}

/// Writes another name of a file that was written before.
pub(super) fn write_hard_link(
    out: &mut impl Write,
    path: &str,
    target: &str,
    item: &Item,
) -> Result<()> {
    write_header(out, path, EntryType::Link, Some(target), 0, item)
}

/// Fills the block that a content of `len` bytes ends in.
pub(super) fn pad(out: &mut impl Write, len: u64) -> Result<()> {
    let rest = (BLOCK - len % BLOCK) % BLOCK;
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), rest), out)?;
    Ok(())
}

/// Ends the archive.
pub(super) fn finish(out: &mut impl Write) -> Result<()> {
    Ok(out.write_all(&[0; 2 * BLOCK as usize])?)
}

fn write_header(
    out: &mut impl Write,
    path: &str,
    kind: EntryType,
    link: Option<&str>,
    size: u64,
    item: &Item,
) -> Result<()> {
    let name = match (path, kind) {
        ("", _) => "./".to_string(),
        (path, EntryType::Directory) => format!("{path}/"),
        (path, _) => path.to_string(),
    };
    let mut records = Vec::new();
    if name.len() > SHORT {
        record(&mut records, "path", name.as_bytes());
    }
    if let Some(link) = link.filter(|link| link.len() > SHORT) {
        record(&mut records, "linkpath", link.as_bytes());
    }
    if kind != EntryType::Link {
        for (key, value) in &item.xattrs {
            xattr(&mut records, key, value);
        }
    }
    if !records.is_empty() {
        let len = records.len() as u64;
        out.write_all(header("pax", EntryType::XHeader, None, len, 0o644, 0, 0)?.as_bytes())?;
        out.write_all(&records)?;
        pad(out, len)?;
    }
    let header = header(&name, kind, link, size, item.mode, item.uid, item.gid)?;
    Ok(out.write_all(header.as_bytes())?)
}

fn header(
    name: &str,
    kind: EntryType,
    link: Option<&str>,
    size: u64,
    mode: u32,
    uid: u64,
    gid: u64,
) -> Result<Header> {
    let mut header = Header::new_ustar();
    fill(&mut header.as_old_mut().name, name);
    fill(&mut header.as_old_mut().linkname, link.unwrap_or(""));
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mtime(0);
    header
        .set_device_major(0)
        .and_then(|()| header.set_device_minor(0))
        .context("writing a tar header")?;
    header.set_cksum();
    Ok(header)
}

/// What does not fit stands in a pax record too, which wins.
fn fill(field: &mut [u8; SHORT], text: &str) {
    let bytes = text.as_bytes();
    let len = bytes.len().min(SHORT);
    field[..len].copy_from_slice(&bytes[..len]);
}

/// As GNU tar writes it; a value with a line end, on which readers stumble, as libarchive does, in base64.
fn xattr(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    if value.contains(&b'\n') {
        let text = base64::engine::general_purpose::STANDARD_NO_PAD.encode(value);
        record(
            records,
            &format!("{LIBARCHIVE_XATTR}{key}"),
            text.as_bytes(),
        );
    } else {
        record(records, &format!("{GNU_XATTR}{key}"), value);
    }
}

/// `length key=value\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    records.extend_from_slice(format!("{len} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}
