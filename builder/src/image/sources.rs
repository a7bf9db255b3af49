//! The boot loader's files, from where the board file says.

use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use bsp::board::{Board, Medium, RawArea, Source, RECORD_BYTES};
use bsp::loader::Record;
use sha2::{Digest, Sha256};

use crate::deploy;
use crate::lock::LockedFile;
use crate::tree::{join, kernel};

/// Where boot-loader files can come from.
pub struct Sources<'a> {
    /// The unpacked firmware packages by name.
    pub unpacked: &'a [(String, PathBuf)],
    /// The product's directory.
    pub dir: &'a Path,
    /// Its files, as they were locked.
    pub files: &'a [LockedFile],
    /// The kernel's device trees.
    pub device_trees: DeviceTrees<'a>,
}

/// Where device trees can come from.
#[derive(Clone, Copy)]
pub enum DeviceTrees<'a> {
    /// A deployment.
    Commit {
        /// Repository.
        repo: &'a Path,
        /// Commit in it.
        checksum: &'a str,
        /// Kernel version of that commit.
        kernel_version: &'a str,
    },
    /// Unpacked kernel packages by name.
    Packages(&'a [(String, PathBuf)]),
}

impl Sources<'_> {
    /// The content of a file.
    pub fn read(&self, source: Source<'_>) -> Result<Vec<u8>> {
        match source {
            Source::Text(text) => Ok(text.as_bytes().to_vec()),
            Source::Package { package, file } => self.packaged(package, file),
            Source::DeviceTree(file) => self.device_tree(file),
            Source::User(path) => self.user(path),
        }
    }

    fn packaged(&self, package: &str, file: &str) -> Result<Vec<u8>> {
        let Some((_, dir)) = self.unpacked.iter().find(|(name, _)| name == package) else {
            bail!("package {package} is not locked; run `builder update-lock`");
        };
        std::fs::read(dir.join(file)).with_context(|| {
            format!("reading {file} of package {package}, which the board file names; is it there in this suite?")
        })
    }

    fn device_tree(&self, file: &str) -> Result<Vec<u8>> {
        match self.device_trees {
            DeviceTrees::Commit {
                repo,
                checksum,
                kernel_version,
            } => {
                let path = join(&kernel::device_tree_dir(kernel_version), file);
                deploy::read_file(repo, checksum, &path)
            }
            DeviceTrees::Packages(packages) => {
                let places = packages.iter().map(|(name, dir)| {
                    // Debian names the directory after the package.
                    dir.join("usr/lib").join(name).join(file)
                });
                let found = places.into_iter().find(|path| path.is_file());
                let path = found.with_context(|| format!("no kernel package has {file}"))?;
                std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
            }
        }
    }

    fn user(&self, path: &str) -> Result<Vec<u8>> {
        let full = self.dir.join(path);
        let content =
            std::fs::read(&full).with_context(|| format!("reading {}", full.display()))?;
        let found = hex::encode(Sha256::digest(&content));
        let Some(locked) = self.files.iter().find(|file| file.path == path) else {
            bail!("{path} is not locked; run `builder update-lock`");
        };
        ensure!(
            locked.sha256 == found,
            "{} has changed since it was locked (SHA-256 {found}, product.lock says {}); run `builder update-lock` if that is meant",
            full.display(),
            locked.sha256
        );
        Ok(content)
    }

    /// What stands in the board's raw areas on the disk: first byte and content.
    pub fn raw_areas(&self, board: &Board) -> Result<Vec<(u64, Vec<u8>)>> {
        self.areas(board, Medium::Disk)
    }

    /// What stands in each boot partition of the board's eMMC: first byte and content.
    pub fn emmc_boot_areas(&self, board: &Board) -> Result<Vec<(u64, Vec<u8>)>> {
        self.areas(board, Medium::EmmcBoot)
    }

    fn areas(&self, board: &Board, place: Medium) -> Result<Vec<(u64, Vec<u8>)>> {
        let mut found = Vec::new();
        for area in board.disk.raw.iter().filter(|area| area.place == place) {
            let content = self.area(area)?;
            let Some(copies) = area.copies() else {
                found.push((area.offset.0, content));
                continue;
            };
            let record = Record::of(area.edition, &content).render();
            let mut offsets = copies.offsets.to_vec();
            // Both boot partitions have the same places.
            offsets.dedup();
            for offset in offsets {
                found.push((offset, content.clone()));
                found.push((offset + copies.slot - RECORD_BYTES, record.clone()));
            }
        }
        Ok(found)
    }

    /// The content of one raw area.
    pub fn area(&self, area: &RawArea) -> Result<Vec<u8>> {
        self.raw(area)
            .with_context(|| format!("making the raw area \"{}\"", area.name))
    }

    fn raw(&self, area: &RawArea) -> Result<Vec<u8>> {
        let content = self.read(area.source().map_err(anyhow::Error::msg)?)?;
        ensure!(!content.is_empty(), "its file is empty");
        let room = area.room();
        ensure!(
            content.len() as u64 <= room.0,
            "its file has {} bytes, and the area {room} ({} bytes); make room for it in the board file",
            content.len(),
            room.0
        );
        if let Some(magic) = &area.magic {
            ensure!(
                magic.is_in(&content),
                "its file does not have {} at byte {}, by which the boot ROM knows it; is it the right file?",
                magic.hex,
                magic.offset
            );
        }
        Ok(content)
    }
}
