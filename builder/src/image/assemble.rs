//! One raw disk image out of its parts, and the map of what in it means something.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::ops::Range;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use bsp::board::{stable_uuid, Board, Purpose, Role};
use bsp::disk::{create_fat, write_table, FatVolume, Layout, PlacedPartition, TableIds, Window};

use super::ranges::Ranges;
use super::{ext4_map, fat_map};

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
    /// File-system image of the root partition.
    pub root: &'a Path,
    /// File-system image of the data partition.
    pub data: &'a Path,
}

/// Writes the disk image as the new file `out` and returns the byte ranges that must be written to a
/// disk. They come from the file systems' own tables, never from zeros or holes.
pub fn assemble(parts: &Parts<'_>, out: &Path) -> Result<Ranges> {
    let mut disk = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(out)
        .with_context(|| format!("creating {}", out.display()))?;
    disk.set_len(parts.layout.disk_bytes)
        .with_context(|| format!("sizing {}", out.display()))?;
    let ids = TableIds {
        product: parts.product,
        board: &parts.board.id,
        arch: &parts.board.arch,
    };
    write_table(parts.layout, ids, &mut disk)?;
    let mut used = tables(parts.layout);
    for partition in &parts.layout.partitions {
        let own = match partition.role {
            Role::Firmware => firmware(parts, partition, &mut disk)?,
            Role::Root => file_system(parts.root, partition, &disk)?,
            Role::Data => file_system(parts.data, partition, &disk)?,
        };
        used.extend(own.shifted(partition.start));
    }
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

fn firmware(parts: &Parts<'_>, partition: &PlacedPartition, disk: &mut File) -> Result<Ranges> {
    let id = stable_uuid(
        parts.product,
        &parts.board.id,
        &partition.label,
        Purpose::Fat,
    );
    let volume = FatVolume {
        bytes: partition.size,
        id: FatVolume::id_from_uuid(&id),
        label: partition.label.clone(),
    };
    let files: Vec<(&str, &[u8])> = parts
        .firmware
        .iter()
        .map(|(path, content)| (path.as_str(), content.as_slice()))
        .collect();
    let end = partition.start + partition.size;
    let mut window = Window::new(&mut *disk, partition.start..end);
    create_fat(&volume, &files, &mut window)?;
    fat_map::used(disk, partition.start)
}

/// Copies what the file system in `image` uses into its partition.
fn file_system(image: &Path, partition: &PlacedPartition, disk: &File) -> Result<Ranges> {
    let mut from = File::open(image).with_context(|| format!("opening {}", image.display()))?;
    let len = from.metadata().context("measuring a file system")?.len();
    ensure!(
        len == partition.size,
        "assembling the image: the file system \"{}\" has {len} bytes, its partition {}",
        partition.label,
        partition.size
    );
    let used = ext4_map::used(&from)?;
    let mut to = disk.try_clone().context("sharing the image file")?;
    for range in used.iter() {
        let len = range.end - range.start;
        let copied = from
            .seek(SeekFrom::Start(range.start))
            .and_then(|_| to.seek(SeekFrom::Start(partition.start + range.start)))
            .and_then(|_| std::io::copy(&mut std::io::Read::take(&mut from, len), &mut to))
            .with_context(|| format!("copying the file system \"{}\"", partition.label))?;
        ensure!(
            copied == len,
            "copying the file system \"{}\": {} ended early",
            partition.label,
            image.display()
        );
    }
    Ok(used)
}
