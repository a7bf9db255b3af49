//! One raw disk image out of its parts, and the map of what in it means something.

use std::fs::{File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use bsp::board::{stable_uuid, Board, Purpose, Role};
use bsp::boot::grub::core::BOOT_CODE;
use bsp::disk::{
    create_fat, write_table, FatVolume, Kind, Layout, PlacedPartition, Region, TableIds, Window,
};

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
    /// What stands outside every file system: first byte on the disk and content of the boot loader's raw areas, its
    /// partition and the first sector's code, and of the boot environment.
    pub areas: &'a [(u64, Vec<u8>)],
}

/// The file systems of a disk besides the firmware partition.
pub struct Systems<'a> {
    /// What makes the ext4 file systems.
    pub mke2fs: &'a Mke2fs,
    /// Content of the root partition; `None` leaves it empty.
    pub root: Option<&'a Sysroot>,
    /// Time of everything that has no time of its own, seconds since 1970.
    pub source_date_epoch: u64,
}

/// Writes the disk image as the new file `out` and returns the byte ranges that must be written to a
/// disk. They come from the file systems' own tables, never from zeros or holes. All else is zero.
pub fn assemble(parts: &Parts<'_>, systems: &Systems<'_>, out: &Path) -> Result<Ranges> {
    let mut disk = create(parts.layout, out)?;
    let mut used = parts.boot(&mut disk)?;
    for partition in &parts.layout.partitions {
        let content = match partition.role {
            Role::Firmware | Role::BootLoader => continue,
            Role::Root => systems.root,
            Role::Data => None,
        };
        let own = parts.file_system(systems, partition, content, &disk, out)?;
        used.extend(own.shifted(partition.start));
    }
    Ok(Ranges::of(used))
}

/// The same without the systems: partition table, boot loader and firmware partition.
pub fn boot_only(parts: &Parts<'_>, out: &Path) -> Result<()> {
    parts.boot(&mut create(parts.layout, out)?).map(drop)
}

fn create(layout: &Layout, out: &Path) -> Result<File> {
    let disk = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(out)
        .with_context(|| format!("creating {}", out.display()))?;
    disk.set_len(layout.disk_bytes)
        .with_context(|| format!("sizing {}", out.display()))?;
    Ok(disk)
}

/// The partition tables.
fn tables(layout: &Layout) -> Vec<Range<u64>> {
    let tables = layout.regions.iter().filter(|r| r.kind == Kind::Table);
    tables.map(|region| region.bytes.clone()).collect()
}

/// Where room for a boot loader that begins with this region ends: in the first sector before the MBR, and in
/// partitions that are not made for it there is none.
fn end(layout: &Layout, region: &Region) -> u64 {
    match region.kind {
        Kind::Raw | Kind::Environment => region.bytes.end,
        Kind::Table if region.bytes.start == 0 => BOOT_CODE as u64,
        Kind::Table => region.bytes.start,
        Kind::Partition => layout
            .partition(Role::BootLoader)
            .filter(|partition| partition.start == region.bytes.start)
            .map_or(region.bytes.start, |_| region.bytes.end),
    }
}

/// Writes `content` where the layout has a place for it, and nowhere else.
fn area(layout: &Layout, offset: u64, content: &[u8], disk: &File) -> Result<Range<u64>> {
    let range = offset..offset + content.len() as u64;
    let mut places = layout.regions.iter();
    let place = places.find(|region| {
        // An area of the boot loader may have more than one copy in it.
        let begins = match region.kind {
            Kind::Raw => region.bytes.start <= offset,
            _ => region.bytes.start == offset,
        };
        begins && range.end <= end(layout, region)
    });
    ensure!(
        place.is_some(),
        "writing {} bytes at byte {offset} of the image: the layout keeps no place for them there",
        content.len()
    );
    disk.write_all_at(content, offset)
        .with_context(|| format!("writing at byte {offset} of the image"))?;
    Ok(range)
}

impl Parts<'_> {
    /// Writes what the boot loader is made of, and what leads to it.
    fn boot(&self, disk: &mut File) -> Result<Vec<Range<u64>>> {
        let mut used = tables(self.layout);
        let firmware = self.layout.partition(Role::Firmware);
        let partition =
            firmware.context("making the image: the board has no firmware partition")?;
        used.extend(self.firmware(partition, disk)?.shifted(partition.start));
        let ids = TableIds {
            product: self.product,
            board: &self.board.id,
            arch: &self.board.arch,
        };
        write_table(self.layout, ids, disk)?;
        for (offset, content) in self.areas {
            used.push(area(self.layout, *offset, content, disk)?);
        }
        Ok(used)
    }

    fn id(&self, partition: &PlacedPartition, purpose: Purpose) -> String {
        stable_uuid(self.product, &self.board.id, &partition.label, purpose)
    }

    fn firmware(&self, partition: &PlacedPartition, disk: &mut File) -> Result<Ranges> {
        let volume = FatVolume {
            sector: self.layout.sector_size,
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
        systems: &Systems<'_>,
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
            source_date_epoch: systems.source_date_epoch,
        };
        systems.mke2fs.make(&fs, content, path)?;
        ext4_map::used(disk, partition.start)
            .with_context(|| format!("mapping the file system \"{}\"", partition.label))
    }
}
