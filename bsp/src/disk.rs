//! Disk images: where everything stands, the partition table, the firmware file system. Host only.
//!
//! [`plan`] decides and gives every byte range an owner; [`write_table`] and [`create_fat`] do. All of
//! it is a function of its arguments: the same plan, the same bytes.

mod add;
mod dots;
mod fat;
mod field;
#[cfg(test)]
mod golden;
mod gpt;
mod mbr;
#[cfg(test)]
mod properties;
mod repart;
mod solver;
mod sparse;
mod window;

pub use add::{add_file, read_file};
pub use fat::{create_fat, FatVolume};
pub use field::{Difference, FieldError, FieldLayout, Place, METADATA_KEY};
pub use gpt::{partition_type, write_table, TableIds, DATA_TYPE, FIRMWARE_TYPE};
pub use repart::{repart_files, REPART_ARGUMENTS, REPART_DIR};
pub use solver::{claim, plan, Kind, LayoutError, Region};
pub use window::Window;

use crate::board::{Role, Table};

/// Bytes in a sector of most disks, and the unit of everything outside partitions.
pub const SECTOR: u64 = 512;
/// Partitions begin and end at multiples of this many bytes.
pub const ALIGNMENT: u64 = 1024 * 1024;

/// A disk with everything in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Partition table.
    pub table: Table,
    /// Entries that a GUID partition table has room for.
    pub table_entries: u32,
    /// First byte of the entries of the primary GUID partition table.
    pub table_entries_offset: u64,
    /// Bytes in a sector of the disk: 512 or 4096.
    pub sector_size: u64,
    /// Size of the disk image in bytes, a multiple of [`ALIGNMENT`].
    pub disk_bytes: u64,
    /// Every byte range that belongs to somebody, in order, none overlapping.
    pub regions: Vec<Region>,
    /// Every byte range of an eMMC's boot partitions that belongs to somebody, in order; both partitions have
    /// the same.
    pub emmc_boot: Vec<Region>,
    /// The partitions, in order.
    pub partitions: Vec<PlacedPartition>,
}

impl Layout {
    /// Bytes that each boot partition of the eMMC must have: a multiple of
    /// [`crate::board::EMMC_BOOT_UNIT`]; 0 if there need be none.
    pub fn emmc_boot_bytes(&self) -> u64 {
        let last = self.emmc_boot.iter().map(|region| region.bytes.end).max();
        last.map_or(0, |end| end.next_multiple_of(crate::board::EMMC_BOOT_UNIT))
    }

    /// The partition with this role; every layout that [`plan`] returns has one of each, and at most
    /// one for the boot loader.
    pub fn partition(&self, role: Role) -> Option<&PlacedPartition> {
        self.partitions.iter().find(|p| p.role == role)
    }
}

/// A partition in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedPartition {
    /// Number in the partition table, from 1.
    pub number: u32,
    /// Label, as in the board file.
    pub label: String,
    /// What it is for.
    pub role: Role,
    /// First byte on the disk.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// Grown to the end of the disk on first boot.
    pub grow: bool,
}

/// An image that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Writing or reading the image failed.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done, and where.
        doing: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The partition table could not be made.
    #[error("writing the partition table: {0}")]
    Table(String),
    /// The firmware files do not fit their file system.
    #[error("making the firmware file system ({bytes} bytes): {problem}")]
    Fat {
        /// Size of the file system.
        bytes: u64,
        /// What is wrong and what to change.
        problem: String,
    },
}
