//! Which bytes of a FAT file system are in use, from its own allocation table.
//!
//! Format: Microsoft's "FAT: General Overview of On-Disk Format". FAT16 and FAT32, as made for the
//! firmware partition; others are refused.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{bail, Context, Result};

use super::ranges::Ranges;

/// The bytes in use in the FAT file system that stands at `start` of `image`, counted from `start`.
pub fn used(image: &File, start: u64) -> Result<Ranges> {
    let mut boot = [0; 512];
    image
        .read_exact_at(&mut boot, start)
        .context("reading the FAT boot sector")?;
    let volume = Volume::parse(&boot)?;
    let mut table = vec![0; usize::try_from(volume.table.end - volume.table.start)?];
    image
        .read_exact_at(&mut table, start + volume.table.start)
        .context("reading the file allocation table")?;
    // Everything before the first cluster: boot sectors, tables, the root directory of FAT16.
    let mut ranges = Vec::from([Range {
        start: 0,
        end: volume.data,
    }]);
    for cluster in 0..volume.clusters {
        // The first two entries of the table belong to no cluster.
        let used = volume
            .entry(&table, cluster + 2)
            .context("reading the file allocation table: too short for its clusters")?;
        if used {
            let first = volume.data + cluster * volume.cluster;
            ranges.push(first..first + volume.cluster);
        }
    }
    Ok(Ranges::of(ranges))
}

#[derive(Debug)]
struct Volume {
    /// The first table, bytes.
    table: Range<u64>,
    /// First byte of the first cluster.
    data: u64,
    /// Bytes in a cluster.
    cluster: u64,
    clusters: u64,
    /// Bytes of a table entry.
    entry: usize,
}

impl Volume {
    fn parse(boot: &[u8; 512]) -> Result<Self> {
        let u16_at = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let u32_at = |at: usize| u16_at(at) | u16_at(at + 2) << 16;
        let either = |short: u64, long: u64| if short == 0 { long } else { short };
        let sector = u16_at(11);
        let cluster = sector * u64::from(boot[13]);
        let reserved = u16_at(14);
        let table = either(u16_at(22), u32_at(36));
        let sectors = either(u16_at(19), u32_at(32));
        if boot[510..] != [0x55, 0xaa] || sector < 512 || cluster == 0 || reserved == 0 {
            bail!("reading the FAT boot sector: this is no FAT file system");
        }
        let root = (u16_at(17) * 32).div_ceil(sector);
        let data = (reserved + u64::from(boot[16]) * table + root) * sector;
        let clusters = (sectors * sector).saturating_sub(data) / cluster;
        if clusters < 4085 {
            bail!("reading the FAT boot sector: FAT12, which Treeline does not make");
        }
        Ok(Self {
            table: reserved * sector..(reserved + table) * sector,
            data,
            cluster,
            clusters,
            entry: if clusters < 65525 { 2 } else { 4 },
        })
    }

    /// Whether cluster `number` is in use.
    fn entry(&self, table: &[u8], number: u64) -> Option<bool> {
        let at = usize::try_from(number).ok()? * self.entry;
        let raw = table.get(at..at + self.entry)?;
        // The top four bits of FAT32's entries are reserved.
        Some(
            raw[..raw.len() - 1].iter().any(|byte| *byte != 0) || {
                let last = raw[raw.len() - 1];
                (if self.entry == 4 { last & 0x0f } else { last }) != 0
            },
        )
    }
}
