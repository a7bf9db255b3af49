//! A GUID partition table with fewer entries than usual, where a boot loader stands behind it.
//!
//! Header: UEFI specification, "GPT Header". The array of entries loses its end, which holds nothing; so the
//! number of entries and the two checksums change, and nothing moves.

use std::io::{Read, Seek, SeekFrom, Write};

use super::super::{DiskError, Layout, SECTOR};

/// Bytes of the header that its checksum covers.
const HEADER: usize = 92;
/// Where the header keeps its own checksum (`HeaderCRC32`).
const HEADER_CRC: usize = 16;
/// Where it keeps the first sector of the array (`PartitionEntryLBA`).
const ARRAY_PLACE: usize = 72;
/// Where it keeps the number of entries (`NumberOfPartitionEntries`).
const COUNT: usize = 80;
/// Where it keeps the checksum of the array (`PartitionEntryArrayCRC32`).
const ARRAY_CRC: usize = 88;
/// Bytes of an entry.
const ENTRY: usize = 128;

/// Gives both tables of a disk `layout.table_entries` entries.
pub(super) fn shorten(
    layout: &Layout,
    disk: &mut (impl Read + Write + Seek),
) -> Result<(), DiskError> {
    for header in [SECTOR, layout.disk_bytes - SECTOR] {
        one(header, layout.table_entries, disk).map_err(|source| DiskError::Io {
            doing: "shortening the partition table".into(),
            source,
        })?;
    }
    Ok(())
}

fn one(place: u64, entries: u32, disk: &mut (impl Read + Write + Seek)) -> std::io::Result<()> {
    let mut header = [0; HEADER];
    disk.seek(SeekFrom::Start(place))?;
    disk.read_exact(&mut header)?;
    let mut first = [0; 8];
    first.copy_from_slice(&header[ARRAY_PLACE..ARRAY_PLACE + 8]);
    disk.seek(SeekFrom::Start(u64::from_le_bytes(first) * SECTOR))?;
    let mut array = vec![0; entries as usize * ENTRY];
    disk.read_exact(&mut array)?;
    let mut put = |at: usize, value: u32| header[at..at + 4].copy_from_slice(&value.to_le_bytes());
    put(COUNT, entries);
    put(ARRAY_CRC, crc32fast::hash(&array));
    put(HEADER_CRC, 0);
    let sum = crc32fast::hash(&header);
    header[HEADER_CRC..HEADER_CRC + 4].copy_from_slice(&sum.to_le_bytes());
    disk.seek(SeekFrom::Start(place))?;
    disk.write_all(&header)
}
