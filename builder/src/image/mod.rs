//! Disk images: partition table, boot loader, file systems; without root and without loop devices.
//!
//! A commit becomes a sysroot stream (`deploy`), the stream an ext4 file system (`mke2fs`), the parts
//! a raw image (`assemble`), the raw image the formats that are wanted. The same commit, product and
//! board give the same bytes on every machine.

mod assemble;
pub mod bmap;
mod boot_only;
pub(crate) mod core_image;
pub(crate) mod efi_files;
mod efi_grub;
mod emmc_boot;
mod ext4_map;
mod fat_map;
mod firmware;
mod format;
pub(crate) mod geometry;
mod mapped;
mod mke2fs;
mod programs;
mod publish;
pub(crate) mod ranges;
pub(crate) mod sources;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use bsp::board::Role;
use bsp::disk::{self, Layout};
use serde::{Deserialize, Serialize};

use crate::cache::{sha256_file, Cache};
use crate::deploy::{kargs_of, Site, Sysroot};
use crate::lock::{self, BoardLock, LockedPackage};
use crate::progress::Progress;
use crate::project::Merged;
use crate::secure_boot::Pair;
use assemble::{Parts, Systems};
use mapped::MappedImage;
use mke2fs::Mke2fs;
use programs::Programs;
use publish::{Scratch, Sums, SUMS};
use ranges::Ranges;
use sources::{DeviceTrees, Sources};

pub use boot_only::boot_only;
pub use emmc_boot::ENDING as EMMC_BOOT;
pub use format::Format;

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
    /// The db key, if the board starts what is signed with it.
    pub secure_boot: Option<&'a Pair>,
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
    /// What belongs into both boot partitions of an eMMC, if the board starts from those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emmc_boot: Option<PathBuf>,
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
        layout: disk::plan(&request.merged.board, &BTreeMap::new()).context("planning the disk")?,
    };
    let unpacked = unpack(&request.lock.firmware, request.merged, cache, progress)?;
    let programs = programs(request.lock, request.merged, cache, progress)?;
    let tools = Mke2fs::new(&programs)?;
    let stage = progress.stage("image");
    stage.note("file systems");
    let sysroot = builder.sysroot()?;
    let kernel_version = sysroot.info().kernel_version;
    let sources = Sources {
        unpacked: &unpacked,
        dir: &request.merged.dir,
        files: &request.lock.files,
        device_trees: DeviceTrees::Commit {
            repo: request.repo,
            checksum: request.checksum,
            kernel_version: &kernel_version,
        },
    };
    // Everything that can be refused is, before the first byte is written.
    let firmware = builder.firmware(&sources, &programs)?;
    let areas = builder.areas(&sources, &programs)?;
    let emmc_boot = emmc_boot::content(&request.merged.board, &builder.layout, &sources)?;
    let scratch = Scratch::open(request.out_dir)?;
    let disk = scratch.path("disk");
    let mapped = assemble::assemble(
        &Parts {
            product: &request.merged.product.name,
            board: &request.merged.board,
            layout: &builder.layout,
            firmware: &firmware,
            areas: &areas,
        },
        &Systems {
            mke2fs: &tools,
            root: Some(&sysroot),
            source_date_epoch: request.source_date_epoch,
        },
        &disk,
    )?;
    stage.note("checksums");
    let about = bmap::About {
        product: request.merged.product.name.clone(),
        version: request.merged.product.version.clone(),
        board: request.merged.board.id.clone(),
    };
    let (map, raw_sum) = describe(&disk, &mapped, &about)?;
    let name = |ending: &str| format!("{}.{ending}", request.merged.stem());
    let map_name = name("raw.bmap");
    fs::write(scratch.path(&map_name), &map).context("writing the block map")?;
    let formats = in_order(request.formats);
    for format in &formats {
        stage.note(format!("{format}"));
        format.convert(&disk, &mapped, &scratch.path(&name(format.ending())))?;
    }
    let mut names: Vec<String> = formats.iter().map(|f| name(f.ending())).collect();
    names.push(map_name);
    let emmc_name = emmc_boot.is_some().then(|| name(emmc_boot::ENDING));
    if let (Some(content), Some(name)) = (&emmc_boot, &emmc_name) {
        fs::write(scratch.path(name), content).context("writing the boot partitions")?;
        names.push(name.clone());
    }
    let known = Sums::from([(name(Format::Raw.ending()), raw_sum)]);
    let files = finish(&scratch, request, &names, known, &map)?;
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
        emmc_boot: emmc_name.map(|name| request.out_dir.join(name)),
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

/// The block map of a raw image and the SHA-256 of all of it.
fn describe(disk: &Path, mapped: &Ranges, about: &bmap::About) -> Result<(String, String)> {
    let image = MappedImage::open(disk, mapped)?;
    let file = fs::File::open(disk).context("opening the image")?;
    std::thread::scope(|scope| {
        let whole = scope.spawn(move || image.sha256());
        let map = bmap::describe(&file, mapped, Some(about))?;
        let sum = whole
            .join()
            .unwrap_or_else(|_| bail!("hashing the image: the thread died"))?;
        Ok((map, sum))
    })
}

/// Moves the finished files to their places and writes the checksums; returns path and sum of each.
fn finish(
    scratch: &Scratch,
    request: &ImageRequest<'_>,
    names: &[String],
    known: Sums,
    map: &str,
) -> Result<Vec<(PathBuf, String)>> {
    let dir = request.out_dir;
    let stem = request.merged.stem();
    let before = fs::read_to_string(dir.join(format!("{stem}.raw.bmap"))).unwrap_or_default();
    let mut sums = publish::keep_or_remove(dir, &stem, before == map)?;
    let mut files = Vec::new();
    for name in names {
        let sum = match known.get(name) {
            Some(sum) => sum.clone(),
            None => sha256_file(&scratch.path(name))?,
        };
        sums.insert(name.clone(), sum.clone());
        files.push((scratch.publish(name)?, sum));
    }
    fs::write(scratch.path(SUMS), publish::render(&sums)).context("writing the checksums")?;
    scratch.publish(SUMS)?;
    Ok(files)
}

/// One's own GRUB for Secure Boot, if the board starts by it: path and content.
fn own_grub(
    merged: &Merged,
    layout: &Layout,
    unpacked: &[(String, PathBuf)],
    programs: &Programs,
    pair: Option<&Pair>,
) -> Result<Option<(String, Vec<u8>)>> {
    let (product, board) = (&merged.product.name, &merged.board);
    if board.own_grub().is_none() {
        return Ok(None);
    }
    let config = firmware::grub_config(product, board, layout)?;
    efi_grub::file(board, &config, unpacked, programs, pair)
}

/// Brings packages into the cache and unpacks them: name and directory of each.
pub(crate) fn unpack(
    packages: &[LockedPackage],
    merged: &Merged,
    cache: &Cache,
    progress: Progress,
) -> Result<Vec<(String, PathBuf)>> {
    let debs = lock::fetch(packages, merged, cache, progress)?;
    let dirs = debs.iter().map(|deb| lock::unpack(deb, cache));
    packages
        .iter()
        .zip(dirs)
        .map(|(package, dir)| Ok((package.name.clone(), dir?)))
        .collect()
}

/// The builder's tools, as they were locked.
fn programs(
    lock: &BoardLock,
    merged: &Merged,
    cache: &Cache,
    progress: Progress,
) -> Result<Programs> {
    let unpacked = unpack(&lock.tools, merged, cache, progress)?;
    let dirs: Vec<PathBuf> = unpacked.into_iter().map(|(_, dir)| dir).collect();
    Programs::from_unpacked(&dirs)
}

struct Builder<'a> {
    request: &'a ImageRequest<'a>,
    layout: Layout,
}

impl Builder<'_> {
    fn firmware(
        &self,
        sources: &Sources<'_>,
        programs: &Programs,
    ) -> Result<Vec<(String, Vec<u8>)>> {
        let merged = self.request.merged;
        let mut files = firmware::files(
            &merged.product.name,
            &merged.board,
            &self.layout,
            sources,
            self.request.checksum,
            self.request.source_date_epoch,
            self.request.secure_boot,
        )?;
        files.extend(own_grub(
            merged,
            &self.layout,
            sources.unpacked,
            programs,
            self.request.secure_boot,
        )?);
        Ok(files)
    }

    /// What stands outside every file system.
    fn areas(&self, sources: &Sources<'_>, programs: &Programs) -> Result<Vec<(u64, Vec<u8>)>> {
        let board = &self.request.merged.board;
        let mut areas = sources.raw_areas(board)?;
        areas.extend(core_image::areas(
            board,
            &self.layout,
            sources.unpacked,
            programs,
        )?);
        areas.extend(firmware::environment_copies(board, self.request.checksum)?);
        Ok(areas)
    }

    /// The deployed commit; fails if it or its first update would not fit.
    fn sysroot(&self) -> Result<Sysroot> {
        let request = self.request;
        let site = Site {
            stateroot: request.merged.product.name.clone(),
            refspec: request.merged.reference(),
            id: request.checksum.to_string(),
            kargs: kargs_of(request.repo, request.checksum)?,
            backend: request.merged.board.boot.backend,
        };
        let sysroot = Sysroot::plan(request.repo, request.checksum, &site)?;
        let root = self
            .layout
            .partition(Role::Root)
            .context("planning the disk: the board has no root partition")?;
        geometry::check(&root.label, root.size, sysroot.info().room)?;
        Ok(sysroot)
    }
}

#[cfg(test)]
mod tests;
