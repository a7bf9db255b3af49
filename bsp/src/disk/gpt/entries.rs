//! A GUID partition table whose entries are fewer than usual, or stand elsewhere, because a boot loader has their
//! place.
//!
//! Header: UEFI specification, "GPT Header". What is left out at the end of the array holds nothing. The header
//! names number and place of the entries, and the backup table keeps its own at the end of the disk.

use std::io::{Read, Seek, SeekFrom, Write};

use super::super::{DiskError, Layout, SECTOR};

/// Bytes of the header that its checksum covers.
const HEADER: usize = 92;
/// Where the header keeps its own checksum (`HeaderCRC32`).
const HEADER_CRC: usize = 16;
/// Where it keeps the first sector of the array (`PartitionEntryLBA`).
const ARRAY_PLACE: usize = 72;
/// Where it keeps the first sector that partitions may have (`FirstUsableLBA`).
const FIRST_USABLE: usize = 40;
/// Where it keeps the number of entries (`NumberOfPartitionEntries`).
const COUNT: usize = 80;
/// Where it keeps the checksum of the array (`PartitionEntryArrayCRC32`).
const ARRAY_CRC: usize = 88;
/// Bytes of an entry.
const ENTRY: usize = 128;

/// Gives both tables of a disk `layout.table_entries` entries, the primary one at their place.
pub(super) fn adapt(
    layout: &Layout,
    disk: &mut (impl Read + Write + Seek),
) -> Result<(), DiskError> {
    let place = layout.table_entries_offset / SECTOR;
    let moved = (layout.table_entries_offset != 2 * SECTOR).then_some(place);
    for (header, primary) in [(SECTOR, true), (layout.disk_bytes - SECTOR, false)] {
        one(header, layout.table_entries, moved, primary, disk).map_err(|source| {
            DiskError::Io {
                doing: "arranging the entries of the partition table".into(),
                source,
            }
        })?;
    }
    Ok(())
}

/// One table: its header's first byte, and the first sector that the primary one's entries move to.
fn one(
    at: u64,
    entries: u32,
    moved: Option<u64>,
    primary: bool,
    disk: &mut (impl Read + Write + Seek),
) -> std::io::Result<()> {
    let mut header = [0; HEADER];
    disk.seek(SeekFrom::Start(at))?;
    disk.read_exact(&mut header)?;
    let mut first = [0; 8];
    first.copy_from_slice(&header[ARRAY_PLACE..ARRAY_PLACE + 8]);
    let old = u64::from_le_bytes(first);
    let mut array = vec![0; entries as usize * ENTRY];
    disk.seek(SeekFrom::Start(old * SECTOR))?;
    disk.read_exact(&mut array)?;
    if let Some(new) = moved {
        // Partitions come behind them.
        let usable = new + (array.len() as u64).div_ceil(SECTOR);
        header[FIRST_USABLE..FIRST_USABLE + 8].copy_from_slice(&usable.to_le_bytes());
    }
    if let Some(new) = moved.filter(|_| primary) {
        disk.seek(SeekFrom::Start(old * SECTOR))?;
        disk.write_all(&vec![0; array.len()])?;
        disk.seek(SeekFrom::Start(new * SECTOR))?;
        disk.write_all(&array)?;
        header[ARRAY_PLACE..ARRAY_PLACE + 8].copy_from_slice(&new.to_le_bytes());
    }
    let mut put = |at: usize, value: u32| header[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(COUNT, entries);
    put(ARRAY_CRC, crc32fast::hash(&array));
    put(HEADER_CRC, 0);
    let sum = crc32fast::hash(&header);
    header[HEADER_CRC..HEADER_CRC + 4].copy_from_slice(&sum.to_le_bytes());
    disk.seek(SeekFrom::Start(at))?;
    disk.write_all(&header)
}
