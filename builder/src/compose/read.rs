//! Entries of a tar as anybody makes them: ustar, GNU and pax.
//!
//! The `tar` crate's own view of pax records ends a value at a line end, which the values of extended
//! attributes may have inside; so its raw entries are put together here.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};

use anyhow::{bail, ensure, Context, Result};
use base64::Engine;
use tar::{Entry, EntryType, Header};

use super::layers::{Item, Kind};
use super::plain::{GNU_XATTR, LIBARCHIVE_XATTR};

/// The longest name or set of pax records that is read.
const MOST_EXTENSION: u64 = 1 << 20;

/// An entry as it was read, before it has its place.
pub(super) enum Found {
    Item(Item),
    HardLink(String),
}

/// What stands before an entry and is about it.
#[derive(Default)]
struct Extensions {
    pax: BTreeMap<String, Vec<u8>>,
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

/// The entries of an uncompressed tar, which is the archive with this index.
pub(super) fn entries(file: &File, archive: usize) -> Result<Vec<(String, Found)>> {
    let mut tar = tar::Archive::new(BufReader::with_capacity(1 << 20, file));
    let mut found = Vec::new();
    let mut extensions = Extensions::default();
    for entry in tar.entries_with_seek()?.raw(true) {
        let mut entry = entry?;
        match entry.header().entry_type() {
            EntryType::XHeader => extensions.pax = records(&content(&mut entry)?)?,
            EntryType::GNULongName => extensions.name = Some(terminated(content(&mut entry)?)),
            EntryType::GNULongLink => extensions.link = Some(terminated(content(&mut entry)?)),
            // About the archive as a whole, e.g. where it was made from.
            EntryType::XGlobalHeader => {}
            _ => {
                let about = std::mem::take(&mut extensions);
                let name = about.name(entry.header());
                let place = (archive, entry.raw_file_position());
                let one = one(entry.header(), &about, place)
                    .with_context(|| format!("entry {:?}", String::from_utf8_lossy(&name)))?;
                found.extend(one);
            }
        }
    }
    Ok(found)
}

fn one(
    header: &Header,
    about: &Extensions,
    (archive, offset): (usize, u64),
) -> Result<Option<(String, Found)>> {
    let path = inner_path(&about.name(header))?;
    let size = header.entry_size()?;
    // A size that the header cannot hold is more than 8 GiB.
    ensure!(
        about.number("size")?.unwrap_or(size) == size,
        "it is too large for a tree"
    );
    ensure!(
        header.entry_type() != EntryType::GNUSparse
            && !about.pax.keys().any(|key| key.starts_with("GNU.sparse.")),
        "a sparse file; make the archive without `--sparse`"
    );
    let kind = match header.entry_type() {
        EntryType::Directory => Kind::Dir,
        EntryType::Regular | EntryType::Continuous => Kind::File {
            archive,
            offset,
            len: size,
        },
        EntryType::Symlink => Kind::Symlink(
            String::from_utf8(about.link(header)?).context("its target is not UTF-8")?,
        ),
        EntryType::Link => {
            return Ok(Some((
                path,
                Found::HardLink(inner_path(&about.link(header)?)?),
            )))
        }
        // systemd makes device nodes, FIFOs and sockets on the device.
        EntryType::Char | EntryType::Block | EntryType::Fifo => return Ok(None),
        other => bail!("type {other:?} is not known"),
    };
    let item = Item {
        mode: header.mode()? & 0o7777,
        uid: about.number("uid")?.map_or_else(|| header.uid(), Ok)?,
        gid: about.number("gid")?.map_or_else(|| header.gid(), Ok)?,
        xattrs: about.xattrs()?,
        kind,
    };
    Ok(Some((path, Found::Item(item))))
}

impl Extensions {
    fn name(&self, header: &Header) -> Vec<u8> {
        self.pax
            .get("path")
            .or(self.name.as_ref())
            .cloned()
            .unwrap_or_else(|| header.path_bytes().into_owned())
    }

    fn link(&self, header: &Header) -> Result<Vec<u8>> {
        self.pax
            .get("linkpath")
            .or(self.link.as_ref())
            .cloned()
            .or_else(|| header.link_name_bytes().map(|bytes| bytes.into_owned()))
            .context("a link without a target")
    }

    fn number(&self, key: &str) -> Result<Option<u64>> {
        let Some(value) = self.pax.get(key) else {
            return Ok(None);
        };
        let number = std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok())
            .with_context(|| format!("its pax record {key} is not a number"))?;
        Ok(Some(number))
    }

    fn xattrs(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let mut found = BTreeMap::new();
        for (key, value) in &self.pax {
            if let Some(name) = key.strip_prefix(GNU_XATTR) {
                found.insert(name.to_string(), value.clone());
            } else if let Some(name) = key.strip_prefix(LIBARCHIVE_XATTR) {
                let text = value.strip_suffix(b"=").unwrap_or(value);
                let text = text.strip_suffix(b"=").unwrap_or(text);
                let value = base64::engine::general_purpose::STANDARD_NO_PAD
                    .decode(text)
                    .with_context(|| format!("its extended attribute {name} is not base64"))?;
                // bsdtar writes both forms, of the same value.
                found.entry(name.to_string()).or_insert(value);
            }
        }
        Ok(found)
    }
}

/// Pax records: `length key=value\n`, where the length counts everything.
fn records(mut bytes: &[u8]) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    while !bytes.is_empty() {
        let record = || -> Option<(usize, String, Vec<u8>)> {
            let space = bytes.iter().position(|byte| *byte == b' ')?;
            let len: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            let body = bytes.get(space + 1..len)?.strip_suffix(b"\n")?;
            let equals = body.iter().position(|byte| *byte == b'=')?;
            let key = std::str::from_utf8(&body[..equals]).ok()?;
            Some((len, key.to_string(), body[equals + 1..].to_vec()))
        };
        let (len, key, value) = record().context("a pax record is malformed")?;
        found.insert(key, value);
        bytes = &bytes[len..];
    }
    Ok(found)
}

fn content<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>> {
    ensure!(
        entry.size() <= MOST_EXTENSION,
        "an extended header of {} bytes",
        entry.size()
    );
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn terminated(mut bytes: Vec<u8>) -> Vec<u8> {
    let len = bytes.iter().position(|byte| *byte == 0);
    bytes.truncate(len.unwrap_or(bytes.len()));
    bytes
}

/// A path of an archive without `./` and without slashes at its ends; the root is empty.
fn inner_path(bytes: &[u8]) -> Result<String> {
    let path = std::str::from_utf8(bytes).context("its path is not UTF-8")?;
    ensure!(
        !path.starts_with('/'),
        "its path is absolute; make the archive with `tar -C DIR -cf FILE .`"
    );
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => bail!("its path leads upwards"),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_records() {
        let found = records(b"8 a=b\nc\n6 d==\n").unwrap();
        assert_eq!(found["a"], b"b\nc");
        assert_eq!(found["d"], b"=");
        for bad in [
            &b"x"[..],
            b"5 a=b",
            b"99 a=b\n",
            b"0 a=b\n",
            b"1 a=b\n",
            b"3 \n",
            b"6 a b\n\n",
            b"18446744073709551615 a=b\n",
        ] {
            assert!(records(bad).is_err(), "{bad:?}");
        }
    }
}
