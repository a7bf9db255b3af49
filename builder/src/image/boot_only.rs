//! A disk with everything that leads to a system, and no system: to see whether a board starts its boot
//! loader, and for the tests of every board's layout.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bsp::board::Source;
use bsp::disk;

use super::assemble::{self, Parts};
use super::publish::Scratch;
use super::sources::{DeviceTrees, Sources};
use super::{core_image, emmc_boot, firmware, own_grub, programs, unpack};
use crate::cache::Cache;
use crate::lock::{BoardLock, LockedPackage};
use crate::progress::Progress;
use crate::project::Merged;
use crate::secure_boot::Pair;

/// Identity that stands in the boot state: there is no deployment.
const NO_DEPLOYMENT: &str = "none";

/// Writes the image `<name>-<version>-<board>.boot.raw` into `out_dir` and returns its path; beside it what
/// belongs into the boot partitions of an eMMC, if the board starts from those. `pair` is the db key of a board
/// that starts what is signed with it.
pub fn boot_only(
    merged: &Merged,
    lock: &BoardLock,
    source_date_epoch: u64,
    pair: Option<&Pair>,
    out_dir: &Path,
    cache: &Cache,
    progress: Progress,
) -> Result<PathBuf> {
    let board = &merged.board;
    let layout = disk::plan(board, &Default::default()).context("planning the disk")?;
    let unpacked = unpack(&lock.firmware, merged, cache, progress)?;
    let kernels = unpack(&kernels(merged, lock), merged, cache, progress)?;
    let stage = progress.stage("image");
    let sources = Sources {
        unpacked: &unpacked,
        dir: &merged.dir,
        files: &lock.files,
        device_trees: DeviceTrees::Packages(&kernels),
    };
    let product = &merged.product.name;
    let mut firmware = firmware::files(
        product,
        board,
        &layout,
        &sources,
        NO_DEPLOYMENT,
        source_date_epoch,
        pair,
    )?;
    let mut areas = sources.raw_areas(board)?;
    if board.boot.core.is_some() || board.own_grub().is_some() {
        let programs = programs(lock, merged, cache, progress)?;
        firmware.extend(own_grub(merged, &layout, &unpacked, &programs, pair)?);
        areas.extend(core_image::areas(board, &layout, &unpacked, &programs)?);
    }
    areas.extend(firmware::environment_copies(board, NO_DEPLOYMENT)?);
    let scratch = Scratch::open(out_dir)?;
    let name = format!("{}.boot.raw", merged.stem());
    let parts = Parts {
        product,
        board,
        layout: &layout,
        firmware: &firmware,
        areas: &areas,
    };
    assemble::boot_only(&parts, &scratch.path(&name))?;
    if let Some(content) = emmc_boot::content(board, &layout, &sources)? {
        let name = format!("{}.boot.{}", merged.stem(), emmc_boot::ENDING);
        fs::write(scratch.path(&name), content).context("writing the boot partitions")?;
        scratch.publish(&name)?;
    }
    let path = scratch.publish(&name)?;
    stage.done(format_args!(
        "boot loader only, {} MiB",
        fs::metadata(&path).map_or(0, |meta| meta.len()) >> 20
    ));
    Ok(path)
}

/// The kernel packages, if the firmware partition has device trees of theirs.
fn kernels(merged: &Merged, lock: &BoardLock) -> Vec<LockedPackage> {
    let mut sources = merged.board.firmware.iter().map(|file| file.source());
    if !sources.any(|source| matches!(source, Ok(Source::DeviceTree(_)))) {
        return Vec::new();
    }
    let packages = lock.packages.iter();
    packages
        .filter(|package| package.name.starts_with("linux-image-"))
        .cloned()
        .collect()
}
