//! Disk images: partition table, boot loader, file systems; without root and without loop devices.
//!
//! A commit becomes a sysroot stream (`deploy`), the stream an ext4 file system (`mke2fs`), the parts
//! a raw image (`assemble`), the raw image the formats that are wanted. The same commit, product and
//! board give the same bytes on every machine.

mod assemble;
mod bmap;
mod ext4_map;
mod fat_map;
mod firmware;
mod format;
mod geometry;
mod mke2fs;
mod publish;
mod ranges;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bsp::board::{stable_uuid, Purpose, Role};
use bsp::disk::{self, Layout, PlacedPartition};
use serde::{Deserialize, Serialize};

use crate::cache::{Cache, Inputs};
use crate::deploy::{kargs_of, Site, Sysroot};
use crate::lock::{self, BoardLock, LockedPackage};
use crate::progress::Progress;
use crate::project::Merged;
use assemble::Parts;
use mke2fs::{Ext4, Mke2fs};
use publish::{Scratch, Sums, SUMS};

pub use format::Format;

/// File systems kept in the cache; each has the size of the tree.
const KEPT_FILE_SYSTEMS: usize = 3;

/// What to build.
#[derive(Debug, Clone)]
pub struct ImageRequest<'a> {
    /// Product and board.
    pub merged: &'a Merged,
    /// Where boot loader and tools come from.
    pub lock: &'a BoardLock,
    /// Archive-mode OSTree repository.
    pub repo: &'a Path,
    /// Commit in it.
    pub checksum: &'a str,
    /// Time of everything that has no time of its own, seconds since 1970.
    pub source_date_epoch: u64,
    /// Directory of the results.
    pub out_dir: &'a Path,
    /// Formats wanted.
    pub formats: &'a [Format],
}

/// What has been built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFiles {
    /// One file per format.
    pub images: Vec<ImageFile>,
    /// Block map of the raw image, also for its compressed forms.
    pub bmap: PathBuf,
    /// `SHA256SUMS` of everything.
    pub sums: PathBuf,
    /// Size of the disk, bytes.
    pub disk_bytes: u64,
    /// Bytes of it that mean something.
    pub mapped_bytes: u64,
}

/// One image file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageFile {
    /// Its format.
    pub format: Format,
    /// Where it is.
    pub path: PathBuf,
    /// SHA-256, 64 hex digits.
    pub sha256: String,
}

/// Builds a disk image. On failure, or when killed, earlier results stay as they are.
pub fn build(request: &ImageRequest<'_>, cache: &Cache, progress: Progress) -> Result<ImageFiles> {
    let builder = Builder {
        request,
        cache,
        layout: disk::plan(&request.merged.board, &BTreeMap::new()).context("planning the disk")?,
    };
    let unpacked = builder.unpack(&request.lock.firmware, progress)?;
    let tools = builder.tools(progress)?;
    let stage = progress.stage("image");
    stage.note("file systems");
    let root = builder.root(&tools)?;
    let data = builder.data(&tools)?;
    stage.note("disk");
    let scratch = Scratch::open(request.out_dir)?;
    let name = |ending: &str| format!("{}.{ending}", request.merged.stem());
    let raw = scratch.path("disk");
    let mapped = assemble::assemble(
        &Parts {
            product: &request.merged.product.name,
            board: &request.merged.board,
            layout: &builder.layout,
            firmware: &builder.firmware(&unpacked)?,
            root: &root,
            data: &data,
        },
        &raw,
    )?;
    let disk = fs::File::open(&raw).context("opening the image")?;
    let map = bmap::describe(&disk, &mapped)?;
    let map_name = name("raw.bmap");
    fs::write(scratch.path(&map_name), &map).context("writing the block map")?;
    let formats = in_order(request.formats);
    for format in &formats {
        stage.note(format!("{format}"));
        format.convert(&raw, &scratch.path(&name(format.ending())))?;
    }
    stage.note("checksums");
    let mut names: Vec<String> = formats.iter().map(|f| name(f.ending())).collect();
    names.push(map_name);
    let files = finish(&scratch, request, &names, &map)?;
    prune(cache)?;
    let mapped_bytes = mapped.bytes();
    stage.done(format!(
        "{} MiB in use of {} MiB",
        mapped_bytes >> 20,
        builder.layout.disk_bytes >> 20
    ));
    let images = formats
        .into_iter()
        .zip(&files)
        .map(|(format, (path, sha256))| ImageFile {
            format,
            path: path.clone(),
            sha256: sha256.clone(),
        });
    Ok(ImageFiles {
        images: images.collect(),
        bmap: request.out_dir.join(name("raw.bmap")),
        sums: request.out_dir.join(SUMS),
        disk_bytes: builder.layout.disk_bytes,
        mapped_bytes,
    })
}

/// Raw comes last: it takes the raw file away.
fn in_order(formats: &[Format]) -> Vec<Format> {
    let mut formats = formats.to_vec();
    formats.sort_by(|a, b| b.cmp(a));
    formats.dedup();
    formats
}

/// Moves the finished files to their places and writes the checksums; returns path and sum of each.
fn finish(
    scratch: &Scratch,
    request: &ImageRequest<'_>,
    names: &[String],
    map: &str,
) -> Result<Vec<(PathBuf, String)>> {
    let dir = request.out_dir;
    let stem = request.merged.stem();
    let paths: Vec<PathBuf> = names.iter().map(|name| scratch.path(name)).collect();
    let hashes = publish::hash(&paths)?;
    let before = fs::read_to_string(dir.join(format!("{stem}.raw.bmap"))).unwrap_or_default();
    let mut sums: Sums = publish::keep_or_remove(dir, &stem, before == map)?;
    let mut files = Vec::new();
    for (name, hash) in names.iter().zip(hashes) {
        sums.insert(name.clone(), hash.clone());
        files.push((scratch.publish(name)?, hash));
    }
    fs::write(scratch.path(SUMS), publish::render(&sums)).context("writing the checksums")?;
    scratch.publish(SUMS)?;
    Ok(files)
}

struct Builder<'a> {
    request: &'a ImageRequest<'a>,
    cache: &'a Cache,
    layout: Layout,
}

impl Builder<'_> {
    /// Brings packages into the cache and unpacks them: name and directory of each.
    fn unpack(
        &self,
        packages: &[LockedPackage],
        progress: Progress,
    ) -> Result<Vec<(String, PathBuf)>> {
        let debs = lock::fetch(packages, self.request.merged, self.cache, progress)?;
        let dirs = debs.iter().map(|deb| lock::unpack(deb, self.cache));
        packages
            .iter()
            .zip(dirs)
            .map(|(package, dir)| Ok((package.name.clone(), dir?)))
            .collect()
    }

    fn tools(&self, progress: Progress) -> Result<Mke2fs> {
        let unpacked = self.unpack(&self.request.lock.tools, progress)?;
        let dirs: Vec<PathBuf> = unpacked.into_iter().map(|(_, dir)| dir).collect();
        let hashes = self.request.lock.tools.iter();
        Mke2fs::from_unpacked(&dirs, hashes.map(|package| package.sha256.as_str()))
    }

    fn partition(&self, role: Role) -> Result<&PlacedPartition> {
        self.layout
            .partition(role)
            .with_context(|| format!("planning the disk: the board has no {role:?} partition"))
    }

    fn id(&self, label: &str, purpose: Purpose) -> String {
        let merged = self.request.merged;
        stable_uuid(&merged.product.name, &merged.board.id, label, purpose)
    }

    fn firmware(&self, unpacked: &[(String, PathBuf)]) -> Result<Vec<(String, Vec<u8>)>> {
        let merged = self.request.merged;
        firmware::files(
            &merged.product.name,
            &merged.board,
            &self.layout,
            unpacked,
            self.request.checksum,
        )
    }

    /// The root file system with the deployed commit.
    fn root(&self, tools: &Mke2fs) -> Result<PathBuf> {
        let request = self.request;
        let site = Site {
            stateroot: request.merged.product.name.clone(),
            refspec: request.merged.reference(),
            id: request.checksum.to_string(),
            kargs: kargs_of(request.repo, request.checksum)?,
        };
        let partition = self.partition(Role::Root)?;
        let sysroot = Sysroot::plan(request.repo, request.checksum, &site)?;
        let info = sysroot.info();
        geometry::check(&partition.label, partition.size, info.room)?;
        let inputs = Inputs::new("root", 1)
            .add(request.checksum)
            .json(&(&site.stateroot, &site.refspec, &site.id, &site.kargs))?
            .add(sysroot.signatures());
        self.file_system(tools, partition, inputs, Some(&sysroot))
    }

    /// The empty data file system.
    fn data(&self, tools: &Mke2fs) -> Result<PathBuf> {
        let partition = self.partition(Role::Data)?;
        self.file_system(tools, partition, Inputs::new("data", 1), None)
    }

    fn file_system(
        &self,
        tools: &Mke2fs,
        partition: &PlacedPartition,
        inputs: Inputs,
        content: Option<&Sysroot>,
    ) -> Result<PathBuf> {
        let fs = Ext4 {
            size: partition.size,
            label: &partition.label,
            uuid: &self.id(&partition.label, Purpose::Filesystem),
            hash_seed: &self.id(&partition.label, Purpose::HashSeed),
            grows: partition.grow,
            source_date_epoch: self.request.source_date_epoch,
        };
        let key = inputs
            .add(tools.identity())
            .add(mke2fs::REVISION.to_le_bytes())
            .json(&(
                fs.size,
                fs.label,
                fs.uuid,
                fs.hash_seed,
                fs.grows,
                fs.source_date_epoch,
            ))?
            .key();
        self.cache
            .get_or_make(FILE_SYSTEMS, &key, |out| tools.make(&fs, content, out))
    }
}

/// Kind of the cache entries that hold file systems.
const FILE_SYSTEMS: &str = "ext4";

/// Removes all but the newest file systems from the cache: every build of a changed tree adds one.
fn prune(cache: &Cache) -> Result<()> {
    let dir = cache.root().join(FILE_SYSTEMS);
    let reading = || format!("reading {}", dir.display());
    let mut entries = Vec::new();
    for entry in fs::read_dir(&dir).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let meta = entry.metadata().with_context(reading)?;
        if meta.is_file() {
            entries.push((meta.modified().with_context(reading)?, entry.path()));
        }
    }
    entries.sort();
    // The empty data file systems are small: they count as little as they weigh.
    let large = |path: &PathBuf| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(path).is_ok_and(|meta| meta.blocks() * 512 > 64 << 20)
    };
    entries.retain(|(_, path)| large(path));
    let outdated = entries.len().saturating_sub(KEPT_FILE_SYSTEMS);
    for (_, path) in &entries[..outdated] {
        fs::remove_file(path).with_context(|| format!("removing {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
