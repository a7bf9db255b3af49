//! Tar archives laid over each other, as a value; written out as one plain tar.
//!
//! Nothing is unpacked: the value names ranges of the archives. Paths are followed as they would be inside
//! the root file system (a symbolic link in a directory part leads to another place in the same value), so
//! no entry can reach outside.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};

use super::plain;
use super::read::{self, Found};

/// Prefix of an OCI whiteout: the path without it is gone.
const WHITEOUT: &str = ".wh.";
/// OCI whiteout of everything that lower layers have in a directory.
const OPAQUE: &str = ".wh..wh..opq";
/// Links followed in one path before it counts as a loop.
const MOST_LINKS: usize = 40;

/// A root file system put together from archives.
#[derive(Debug, Default)]
pub(super) struct Layers {
    archives: Vec<File>,
    items: BTreeMap<String, Item>,
}

/// What stands at a path.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    /// Names such as `security.capability`, sorted.
    pub xattrs: BTreeMap<String, Vec<u8>>,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Dir,
    Symlink(String),
    /// A range of the archive with this index. Hard links share it.
    File {
        archive: usize,
        offset: u64,
        len: u64,
    },
}

impl Layers {
    /// Lays an uncompressed tar over what is there. Whiteouts are entries like any other.
    pub fn add(&mut self, tar: &Path) -> Result<()> {
        self.add_archive(tar, false)
            .with_context(|| format!("reading {}", tar.display()))
    }

    /// Lays an uncompressed layer of an OCI image over what is there; its whiteouts take away what lower
    /// layers have.
    pub fn add_oci(&mut self, tar: &Path) -> Result<()> {
        self.add_archive(tar, true)
            .with_context(|| format!("reading the layer {}", tar.display()))
    }

    fn add_archive(&mut self, tar: &Path, whiteouts: bool) -> Result<()> {
        let index = self.archives.len();
        let file = File::open(tar)?;
        let entries = read::entries(&file, index)?;
        self.archives.push(file);
        let mut kept = Vec::with_capacity(entries.len());
        for (path, entry) in entries {
            let (dir, name) = split(&path);
            if !whiteouts || !name.starts_with(WHITEOUT) {
                kept.push((path, entry));
            } else if name == OPAQUE {
                let dir = self.resolve(dir)?;
                self.remove_below(&dir);
            } else {
                let gone = self.place(&join(dir, &name[WHITEOUT.len()..]))?;
                self.remove(&gone);
            }
        }
        for (path, entry) in kept {
            self.insert(&path, entry)
                .with_context(|| format!("entry {path:?}"))?;
        }
        Ok(())
    }

    fn insert(&mut self, path: &str, entry: Found) -> Result<()> {
        let place = self.place(path)?;
        let item = match entry {
            Found::Item(item) => item,
            Found::HardLink(target) => {
                let target = self.place(&target)?;
                let item = self
                    .items
                    .get(&target)
                    .with_context(|| format!("a hard link to {target:?}, which is not there"))?;
                ensure!(
                    item.kind != Kind::Dir,
                    "a hard link to the directory {target:?}"
                );
                item.clone()
            }
        };
        ensure!(
            !place.is_empty() || item.kind == Kind::Dir,
            "the root of the file system is not a directory"
        );
        if item.kind != Kind::Dir {
            self.remove_below(&place);
        }
        self.make_parents(&place)?;
        self.items.insert(place, item);
        Ok(())
    }

    fn make_parents(&mut self, path: &str) -> Result<()> {
        if path.is_empty() {
            return Ok(());
        }
        let (dir, _) = split(path);
        match self.items.get(dir) {
            Some(item) if item.kind == Kind::Dir => Ok(()),
            Some(_) => bail!("{dir:?}, which should be its directory, is not one"),
            None => {
                self.make_parents(dir)?;
                self.items.insert(dir.to_string(), directory());
                Ok(())
            }
        }
    }

    /// Where a path stands once the links in its directory part are followed.
    fn place(&self, path: &str) -> Result<String> {
        let (dir, name) = split(path);
        Ok(join(&self.resolve(dir)?, name))
    }

    fn resolve(&self, path: &str) -> Result<String> {
        let mut rest: Vec<String> = path.split('/').rev().map(str::to_string).collect();
        let mut done = String::new();
        let mut links = 0;
        while let Some(part) = rest.pop() {
            match part.as_str() {
                "" | "." => continue,
                ".." => {
                    done = split(&done).0.to_string();
                    continue;
                }
                _ => {}
            }
            let next = join(&done, &part);
            match self.items.get(&next).map(|item| &item.kind) {
                Some(Kind::Symlink(target)) => {
                    links += 1;
                    ensure!(links <= MOST_LINKS, "symbolic links go round in {path:?}");
                    if target.starts_with('/') {
                        done.clear();
                    }
                    rest.extend(target.split('/').rev().map(str::to_string));
                }
                _ => done = next,
            }
        }
        Ok(done)
    }

    fn remove(&mut self, path: &str) {
        self.items.remove(path);
        self.remove_below(path);
    }

    fn remove_below(&mut self, path: &str) {
        let prefix = if path.is_empty() {
            String::new()
        } else {
            format!("{path}/")
        };
        let gone: Vec<String> = self
            .items
            .range(prefix.clone()..)
            .take_while(|(key, _)| key.starts_with(&prefix))
            .filter(|(key, _)| !key.is_empty())
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.items.remove(&key);
        }
    }

    /// Writes what `keeps` says as one plain tar: sorted, without times, the second and later names of a
    /// file as hard links to the first.
    pub fn write(&self, out: &Path, keeps: impl Fn(&str) -> bool) -> Result<()> {
        let write = || -> Result<()> {
            let mut writer = BufWriter::with_capacity(1 << 20, File::create(out)?);
            let mut first: HashMap<(usize, u64), &str> = HashMap::new();
            plain::write_item(&mut writer, "", self.items.get("").unwrap_or(&directory()))?;
            for (path, item) in &self.items {
                if path.is_empty() || plain::is_mount_point_content(path) || !keeps(path) {
                    continue;
                }
                let Kind::File {
                    archive,
                    offset,
                    len,
                } = item.kind
                else {
                    plain::write_item(&mut writer, path, item)?;
                    continue;
                };
                match first.get(&(archive, offset)) {
                    // Two empty files may share an offset without being one file.
                    Some(target) if len > 0 => {
                        plain::write_hard_link(&mut writer, path, target, item)?;
                    }
                    _ => {
                        first.insert((archive, offset), path);
                        plain::write_item(&mut writer, path, item)?;
                        self.copy(archive, offset, len, &mut writer)
                            .with_context(|| format!("copying {path:?}"))?;
                    }
                }
            }
            plain::finish(&mut writer)?;
            let file = writer
                .into_inner()
                .map_err(std::io::IntoInnerError::into_error)?;
            file.sync_all()?;
            Ok(())
        };
        write().with_context(|| format!("writing {}", out.display()))
    }

    fn copy(&self, archive: usize, offset: u64, len: u64, out: &mut impl Write) -> Result<()> {
        let mut file = self
            .archives
            .get(archive)
            .context("an archive is missing")?;
        file.seek(SeekFrom::Start(offset))?;
        let count = std::io::copy(&mut file.take(len), out)?;
        ensure!(
            count == len,
            "the archive ends after {count} of {len} bytes"
        );
        plain::pad(out, len)
    }
}

fn directory() -> Item {
    Item {
        mode: 0o755,
        uid: 0,
        gid: 0,
        xattrs: BTreeMap::new(),
        kind: Kind::Dir,
    }
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() {
        name.to_string()
    } else {
        format!("{dir}/{name}")
    }
}

#[cfg(test)]
#[path = "layers_test.rs"]
pub(super) mod tests;
