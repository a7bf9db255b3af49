//! Master boot records: as the only partition table, and beside a GUID partition table for boot ROMs that
//! know nothing else.

use std::fmt::Debug;
use std::io::{Read, Seek, Write};

use mbrman::{MBRPartitionEntry, BOOT_INACTIVE, CHS, MBR};

use super::fat::FAT32_FROM;
use super::gpt::{table_error, TableIds};
use super::{DiskError, Layout, PlacedPartition, SECTOR};
use crate::board::{disk_id, Role};

/// FAT32 with LBA; boot ROMs look for it.
const FAT32_LBA: u8 = 0x0c;
/// FAT16 with LBA.
const FAT16_LBA: u8 = 0x0e;
/// A Linux file system.
const LINUX: u8 = 0x83;
/// A boot loader without a file system; Open Firmware looks for it.
const PREP: u8 = 0x41;
/// "Here is a GUID partition table" (UEFI specification).
const PROTECTIVE: u8 = 0xee;

/// Writes an MBR with all partitions of `layout`.
pub(super) fn write(
    layout: &Layout,
    ids: TableIds<'_>,
    disk: &mut (impl Read + Write + Seek + Debug),
) -> Result<(), DiskError> {
    let entries = layout
        .partitions
        .iter()
        .map(|partition| entry(partition, type_of(partition)))
        .collect::<Result<Vec<_>, _>>()?;
    put(entries, ids, disk)
}

/// Writes an MBR that shows the firmware partition and protects the GUID partition table before it.
///
/// The firmware partition is its first entry: boot ROMs exist that look at no other. The protective entry
/// begins at sector 1, by which the kernel and U-Boot know that the GUID partition table counts.
pub(super) fn write_hybrid(
    layout: &Layout,
    ids: TableIds<'_>,
    disk: &mut (impl Read + Write + Seek + Debug),
) -> Result<(), DiskError> {
    let firmware = layout.partition(Role::Firmware).ok_or_else(|| {
        DiskError::Table("a hybrid MBR shows the firmware partition, and there is none".into())
    })?;
    let shown = entry(firmware, type_of(firmware))?;
    let guard = used(PROTECTIVE, 1, shown.starting_lba.saturating_sub(1));
    put(vec![shown, guard], ids, disk)
}

fn type_of(partition: &PlacedPartition) -> u8 {
    match partition.role {
        Role::Firmware if partition.size < FAT32_FROM => FAT16_LBA,
        Role::Firmware => FAT32_LBA,
        Role::Root | Role::Data => LINUX,
        Role::BootLoader => PREP,
    }
}

fn entry(partition: &PlacedPartition, kind: u8) -> Result<MBRPartitionEntry, DiskError> {
    let sectors = |bytes: u64| {
        u32::try_from(bytes / SECTOR).map_err(|_| {
            DiskError::Table(format!(
                "partition \"{}\" is beyond the 2 TiB that an MBR can tell",
                partition.label
            ))
        })
    };
    Ok(used(
        kind,
        sectors(partition.start)?,
        sectors(partition.size)?,
    ))
}

fn used(kind: u8, starting_lba: u32, sectors: u32) -> MBRPartitionEntry {
    MBRPartitionEntry {
        boot: BOOT_INACTIVE,
        first_chs: CHS::empty(),
        sys: kind,
        last_chs: CHS::empty(),
        starting_lba,
        sectors,
    }
}

fn put(
    entries: Vec<MBRPartitionEntry>,
    ids: TableIds<'_>,
    disk: &mut (impl Read + Write + Seek),
) -> Result<(), DiskError> {
    let signature = disk_id(ids.product, ids.board).to_le_bytes();
    let mut mbr = MBR::new_from(disk, SECTOR as u32, signature).map_err(table_error)?;
    for (index, entry) in entries.into_iter().enumerate() {
        let place = mbr
            .get_mut(index + 1)
            .ok_or_else(|| DiskError::Table("an MBR has four entries".into()))?;
        *place = entry;
    }
    mbr.write_into(disk).map_err(table_error)
}
