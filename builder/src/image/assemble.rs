//! One raw disk image out of its parts, and the map of what in it means something.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use bsp::board::{stable_uuid, Board, Purpose, Role};
use bsp::disk::{create_fat, write_table, FatVolume, Layout, PlacedPartition, TableIds, Window};

use super::mke2fs::{Ext4, Mke2fs};
use super::ranges::Ranges;
use super::{ext4_map, fat_map};
use crate::deploy::Sysroot;

/// The parts.
pub struct Parts<'a> {
    /// Product name.
    pub product: &'a str,
    /// The board.
    pub board: &'a Board,
    /// Where everything stands.
    pub layout: &'a Layout,
    /// Files of the firmware partition.
    pub firmware: &'a [(String, Vec<u8>)],
    /// What makes the ext4 file systems.
    pub mke2fs: &'a Mke2fs,
    /// Content of the root partition; `None` leaves it empty.
    pub root: Option<&'a Sysroot>,
    /// Time of everything that has no time of its own, seconds since 1970.
    pub source_date_epoch: u64,
}

/// Writes the disk image as the new file `out` and returns the byte ranges that must be written to a
/// disk. They come from the file systems' own tables, never from zeros or holes. All else is zero.
pub fn assemble(parts: &Parts<'_>, out: &Path) -> Result<Ranges> {
    let mut disk = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(out)
        .with_context(|| format!("creating {}", out.display()))?;
    disk.set_len(parts.layout.disk_bytes)
        .with_context(|| format!("sizing {}", out.display()))?;
    let mut used = tables(parts.layout);
    for partition in &parts.layout.partitions {
        let own = match partition.role {
            Role::Firmware => parts.firmware(partition, &mut disk)?,
            Role::Root => parts.file_system(partition, parts.root, &disk, out)?,
            Role::Data => parts.file_system(partition, None, &disk, out)?,
        };
        used.extend(own.shifted(partition.start));
    }
    let ids = TableIds {
        product: parts.product,
        board: &parts.board.id,
        arch: &parts.board.arch,
    };
    write_table(parts.layout, ids, &mut disk)?;
    Ok(Ranges::of(used))
}

/// What belongs to no partition: the partition tables.
fn tables(layout: &Layout) -> Vec<Range<u64>> {
    let inside = |range: &Range<u64>| {
        layout
            .partitions
            .iter()
            .any(|p| p.start <= range.start && range.end <= p.start + p.size)
    };
    let regions = layout.regions.iter().map(|region| region.bytes.clone());
    regions.filter(|range| !inside(range)).collect()
}

impl Parts<'_> {
    fn id(&self, partition: &PlacedPartition, purpose: Purpose) -> String {
        stable_uuid(self.product, &self.board.id, &partition.label, purpose)
    }

    fn firmware(&self, partition: &PlacedPartition, disk: &mut File) -> Result<Ranges> {
        let volume = FatVolume {
            bytes: partition.size,
            id: FatVolume::id_from_uuid(&self.id(partition, Purpose::Fat)),
            label: partition.label.clone(),
        };
        let files: Vec<(&str, &[u8])> = self
            .firmware
            .iter()
            .map(|(path, content)| (path.as_str(), content.as_slice()))
            .collect();
        let end = partition.start + partition.size;
        let mut window = Window::new(&mut *disk, partition.start..end);
        create_fat(&volume, &files, &mut window)?;
        fat_map::used(disk, partition.start)
    }

    fn file_system(
        &self,
        partition: &PlacedPartition,
        content: Option<&Sysroot>,
        disk: &File,
        path: &Path,
    ) -> Result<Ranges> {
        let fs = Ext4 {
            start: partition.start,
            size: partition.size,
            label: &partition.label,
            uuid: &self.id(partition, Purpose::Filesystem),
            hash_seed: &self.id(partition, Purpose::HashSeed),
            grows: partition.grow,
            source_date_epoch: self.source_date_epoch,
        };
        self.mke2fs.make(&fs, content, path)?;
        ext4_map::used(disk, partition.start)
            .with_context(|| format!("mapping the file system \"{}\"", partition.label))
    }
}
