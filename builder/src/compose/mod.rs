//! The root file system that a tree starts from, as one plain tar: made from the packages of a lock
//! ([`suite`]), or taken from a tarball ([`rootfs`]) or an OCI image layout ([`oci`]).
//!
//! The result is a function of the lock and the product: the same bytes as root and as a user, today and
//! tomorrow. It is sorted by path, has no times, no device nodes, and keeps hard links and extended
//! attributes (as pax records, see [`plain`]).

mod foreign;
mod layers;
mod oci;
mod plain;
mod read;
pub(crate) mod repository;
mod rootfs;
mod strip;
mod suite;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use crate::cache::{sha256_file, Cache, Inputs};
use crate::lock::{BoardLock, LockedBase};
use crate::progress::{Progress, Stage};
use crate::project::Merged;

/// Bump when the bytes that the same inputs give change.
const REVISION: u32 = 1;

/// A root file system as a tar.
#[derive(Debug, Clone)]
pub struct BaseTar {
    /// An uncompressed tar in the cache.
    pub path: PathBuf,
    /// Hash of everything that it was made from, 64 hex digits.
    pub key: String,
}

/// Makes the root file system of a product for a board from its lock, or takes it from the cache.
/// `source_date_epoch` is the lock's time, in seconds since 1970.
pub fn base(
    merged: &Merged,
    lock: &BoardLock,
    source_date_epoch: u64,
    cache: &Cache,
    progress: Progress,
) -> Result<BaseTar> {
    let stage = progress.stage("compose");
    let key = key(merged, lock, source_date_epoch)?;
    if let Some(base) = &lock.base {
        verify(merged, base)?;
    }
    let cached = cache.path("base", &key).exists();
    let path = cache.get_or_make("base", &key, |out| match &lock.base {
        None => suite::make(
            merged,
            lock,
            source_date_epoch,
            cache,
            progress,
            &stage,
            out,
        ),
        Some(_) => taken(merged, &stage, out),
    })?;
    if cached {
        stage.done("cached");
    } else {
        let size = fs::metadata(&path).map_or(0, |found| found.len());
        stage.done(format_args!("{:.0} MB", size as f64 / 1e6));
    }
    Ok(BaseTar { path, key })
}

fn key(merged: &Merged, lock: &BoardLock, source_date_epoch: u64) -> Result<String> {
    let inputs = Inputs::new("compose", REVISION).add(&merged.board.arch);
    let inputs = match &lock.base {
        Some(base) => inputs
            .add(if merged.product.base.oci.is_some() {
                "oci"
            } else {
                "rootfs"
            })
            .add(&base.sha256),
        None => {
            let mut hashes: Vec<&str> = lock
                .packages
                .iter()
                .map(|package| package.sha256.as_str())
                .collect();
            hashes.sort_unstable();
            inputs
                .add("suite")
                .json(&hashes)?
                .json(&merged.product.keep)?
                .add(&merged.product.system.locale)
                .add(source_date_epoch.to_le_bytes())
        }
    };
    Ok(inputs.key())
}

/// Where the base named in `product.toml` stands: the tarball, or the directory of the layout.
fn base_path(merged: &Merged) -> Result<PathBuf> {
    let base = &merged.product.base;
    let path = base.rootfs.as_ref().or(base.oci.as_ref()).context(
        "product.lock has a root file system as its base, product.toml has none: run `builder update-lock`",
    )?;
    Ok(merged.dir.join(path))
}

fn verify(merged: &Merged, locked: &LockedBase) -> Result<()> {
    let path = base_path(merged)?;
    let file = if merged.product.base.rootfs.is_some() {
        path
    } else {
        path.join("index.json")
    };
    let found = sha256_file(&file)?;
    ensure!(
        found == locked.sha256,
        "{} is not what product.lock was made from (its SHA-256 is {found}, the lock has {}): if it was \
         changed on purpose, run `builder update-lock`",
        file.display(),
        locked.sha256
    );
    Ok(())
}

/// A base that somebody else made: as it is, in the form that the tree is read from.
fn taken(merged: &Merged, stage: &Stage, out: &Path) -> Result<()> {
    let path = base_path(merged)?;
    let scratch = out
        .parent()
        .context("the cache gave a path without a directory")?;
    let layers = if merged.product.base.rootfs.is_some() {
        stage.note("unpacking the root file system");
        rootfs::layers(&path, scratch)
    } else {
        stage.note("merging the layers of the image");
        oci::layers(&path, &merged.board.arch, scratch)
    };
    layers
        .and_then(|layers| layers.write(out, |_| true))
        .with_context(|| format!("taking the root file system from {}", path.display()))
}
