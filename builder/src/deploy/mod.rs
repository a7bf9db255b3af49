//! A commit as the sysroot that `ostree admin deploy` would have made, written as one tar stream.
//!
//! Nothing is deployed on the host: the tree is planned from the objects of the archive repository
//! and streamed, sorted by path, every object once and its other names as hard links. So
//! the stream depends on the commit and the site only, and needs neither root nor disk space.
//!
//! Known differences from a sysroot made by `ostree admin`: times are the
//! commit's; the immutable flag of the
//! deployment root cannot stand in a tar (libostree sets it on deployments it makes itself, and the
//! root file system is read-only anyway); there is no lock file in the repository; the boot entry is
//! named as trixie's libostree names it and its paths begin with `/boot`.

mod boot;
mod objects;
mod plan;
mod planner;
mod stream;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use anyhow::{bail, Context, Result};
use bsp::board::Backend;

pub use plan::Room;

use objects::{Body, Store};
use plan::{Entry, Plan, Source};
use stream::TarStream;

use crate::tree::KARGS_PATH;

/// How a commit is deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// Name of the stateroot.
    pub stateroot: String,
    /// Ref that the deployment follows, `<product>/<board>`.
    pub refspec: String,
    /// Identity of the deployment (value of `treeline.id=`).
    pub id: String,
    /// Kernel arguments besides the identity and `ostree=`.
    pub kargs: Vec<String>,
    /// What reads the boot entries.
    pub backend: Backend,
}

/// What has been written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SysrootInfo {
    /// SHA-256 over kernel, initramfs and device trees, part of the boot paths.
    pub boot_checksum: String,
    /// Kernel version.
    pub kernel_version: String,
    /// Room that the sysroot takes.
    pub room: Room,
}

/// A planned sysroot: its room is known, nothing is written yet.
pub struct Sysroot {
    store: Store,
    plan: Plan,
}

impl Sysroot {
    /// Plans the deployment of `commit` from the archive repository `repo`.
    pub fn plan(repo: &Path, commit: &str, site: &Site) -> Result<Self> {
        let store = Store::open(repo)?;
        let plan = planner::plan(&store, commit, site).with_context(|| {
            format!(
                "planning the deployment of {commit} from {}",
                repo.display()
            )
        })?;
        Ok(Self { store, plan })
    }

    /// What it is.
    pub fn info(&self) -> SysrootInfo {
        SysrootInfo {
            boot_checksum: self.plan.boot_checksum.clone(),
            kernel_version: self.plan.kernel_version.clone(),
            room: self.plan.room(),
        }
    }

    /// Writes it as a tar stream. After an error the stream must not be used.
    pub fn write_tar(&self, out: &mut impl Write) -> Result<()> {
        let mut stream = TarStream::new(std::io::BufWriter::with_capacity(1 << 20, out));
        let mut carriers: BTreeMap<&str, &str> = BTreeMap::new();
        // A directory is followed by its content, so that unpacking tools can finish it.
        let mut entries: Vec<(&String, &Entry)> = self.plan.entries.iter().collect();
        entries.sort_by(|(a, _), (b, _)| a.split('/').cmp(b.split('/')));
        for (path, entry) in entries {
            self.write_entry(&mut stream, &mut carriers, path, entry)?;
        }
        stream
            .finish()?
            .flush()
            .context("writing the end of the tar stream")
    }

    fn write_entry<'a>(
        &'a self,
        stream: &mut TarStream<impl Write>,
        carriers: &mut BTreeMap<&'a str, &'a str>,
        path: &'a str,
        entry: &'a Entry,
    ) -> Result<()> {
        let meta = &entry.meta;
        match &entry.source {
            Source::Directory => stream.directory(path, meta),
            Source::Symlink(target) => stream.symlink(path, target, meta),
            Source::Bytes(bytes) => stream.file(path, meta, bytes.len() as u64, bytes.as_slice()),
            Source::Copy { checksum, len } => {
                stream.file(path, meta, *len, self.store.content(checksum)?)
            }
            Source::Metadata {
                kind,
                checksum,
                len,
            } => {
                let value = self.store.metadata(*kind, checksum)?;
                stream.file(path, meta, *len, value.data())
            }
            Source::Shared { checksum, body } => {
                if let Some(carrier) = carriers.get(checksum.as_str()) {
                    return stream.hard_link(path, carrier, meta);
                }
                carriers.insert(checksum, path);
                match body {
                    Body::Regular(len) => {
                        stream.file(path, meta, *len, self.store.content(checksum)?)
                    }
                    Body::Symlink(target) => stream.symlink(path, target, meta),
                }
            }
        }
    }
}

/// Plans and writes in one go.
pub fn write_sysroot_tar(
    repo: &Path,
    commit: &str,
    site: &Site,
    out: &mut impl Write,
) -> Result<SysrootInfo> {
    let sysroot = Sysroot::plan(repo, commit, site)?;
    sysroot.write_tar(out)?;
    Ok(sysroot.info())
}

/// The kernel arguments that a commit asks for (`usr/lib/device-agent/kargs`).
pub fn kargs_of(repo: &Path, commit: &str) -> Result<Vec<String>> {
    let content = read_file(repo, commit, KARGS_PATH)?;
    let text = String::from_utf8(content)
        .with_context(|| format!("reading {KARGS_PATH} of commit {commit}"))?;
    let words: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(str::to_string)
        .collect();
    if words.is_empty() {
        bail!("reading {KARGS_PATH} of commit {commit}: it names no kernel argument");
    }
    Ok(words)
}

/// Content of a small file of a commit (at most 1 MiB); `path` without leading slash.
pub fn read_file(repo: &Path, commit: &str, path: &str) -> Result<Vec<u8>> {
    let store = Store::open(repo)?;
    let missing = || format!("reading {path} of commit {commit}: not found");
    let mut tree = store.commit(commit)?.tree;
    let (dirs, name) = path.rsplit_once('/').unwrap_or(("", path));
    for dir in dirs.split('/').filter(|dir| !dir.is_empty()) {
        let listing = store.listing(&tree)?;
        let found = listing.dirs.into_iter().find(|(name, ..)| name == dir);
        tree = found.with_context(missing)?.1;
    }
    let listing = store.listing(&tree)?;
    let found = listing.files.into_iter().find(|(file, _)| file == name);
    store.read_file(&found.with_context(missing)?.1, 1 << 20)
}

#[cfg(test)]
mod tests;
