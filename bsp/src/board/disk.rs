//! The disk: partition table, boot loader areas, partitions.

use serde::{Deserialize, Serialize};

use super::{Medium, Size, UpdateWay};

/// What flash memory erases and rewrites at once, at most, in the places where the boot state stands:
/// half a MiB, as eMMC and SD controllers have it. A copy of the state shares such a block with nothing.
pub const ERASE_BLOCK: u64 = 512 * 1024;

/// Disk layout of a board. Sizes are strings such as `"64MiB"`; a product may override them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Disk {
    /// Partition table.
    pub table: Table,
    /// Entries that the GUID partition table has room for; fewer than the usual 128 where a boot loader
    /// stands in its place (56 end before byte 8192).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_entries: Option<u32>,
    /// Where the entries of the primary GUID partition table stand, if a boot loader has the place behind its
    /// header: a multiple of 512, within the first MiB. The header stays in the second sector and names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_entries_offset: Option<Size>,
    /// Bytes in a sector of the disk: 512, or 4096 (disks without an emulation of the smaller ones, "4Kn"). An
    /// image is for disks with sectors of this size only.
    #[serde(default = "sector", skip_serializing_if = "is_sector")]
    pub sector_size: u32,
    /// Where the first partition begins: a multiple of 1 MiB, behind the boot loader's areas. Default: 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_partition: Option<Size>,
    /// Areas outside every partition that the SoC's boot ROM or its loader reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub raw: Vec<RawArea>,
    /// Partitions in the order they stand on the disk; the last one may grow on the device.
    pub partitions: Vec<Partition>,
}

/// Partition tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Table {
    /// GUID partition table with a protective MBR.
    Gpt,
    /// GUID partition table, and an MBR whose first entry is the firmware partition: for boot ROMs that
    /// read nothing but an MBR. Everybody else sees the GUID partition table.
    Hybrid,
    /// MBR with up to four primary partitions, for SoCs that have their boot loader where a GUID partition
    /// table would stand. No partition of it can grow on the device.
    Mbr,
}

/// An area outside every partition with a boot loader in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawArea {
    /// What it is, for people: `spl`, `u-boot`.
    pub name: String,
    /// Which memory it is in.
    #[serde(default, skip_serializing_if = "Medium::is_default")]
    pub place: Medium,
    /// First byte on the disk (or in the boot partitions of an eMMC), a multiple of 512.
    pub offset: Size,
    /// The most that the file may have: the area is kept free for later ones. Where it can be replaced, the
    /// area holds both copies (`spare-offset`), each with 1 KiB for the record of its edition.
    pub size: Size,
    /// Rises with every content that devices in the field shall take over. 0: none ever was.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub edition: u32,
    /// The safe way to replace it on a device, if there is one.
    #[serde(default, skip_serializing_if = "UpdateWay::is_default")]
    pub update: UpdateWay,
    /// First byte of the second copy, within the area (`two-places` only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spare_offset: Option<Size>,
    /// Debian package that the content comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Path inside the package, without leading slash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// Instead of a package: a file of the product, relative to its directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_file: Option<String>,
    /// What the boot ROM looks for; a file without it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub magic: Option<Magic>,
}

fn sector() -> u32 {
    512
}

fn is_sector(size: &u32) -> bool {
    *size == sector()
}

fn is_zero(edition: &u32) -> bool {
    *edition == 0
}

/// Bytes by which a boot loader's file is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Magic {
    /// Where they stand in the file.
    #[serde(default)]
    pub offset: u64,
    /// The bytes, two hex digits each.
    pub hex: String,
}

impl Magic {
    /// The bytes; `None` if they are not written in hex digits.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let digits = self.hex.as_bytes();
        if digits.is_empty() || digits.len() % 2 != 0 {
            return None;
        }
        let value = |digit: u8| char::from(digit).to_digit(16);
        digits
            .chunks(2)
            .map(|pair| u8::try_from(value(pair[0])? << 4 | value(pair[1])?).ok())
            .collect()
    }

    /// Whether `content` has them.
    pub fn is_in(&self, content: &[u8]) -> bool {
        let rest = usize::try_from(self.offset)
            .ok()
            .and_then(|offset| content.get(offset..));
        match (rest, self.bytes()) {
            (Some(rest), Some(bytes)) => rest.starts_with(&bytes),
            _ => false,
        }
    }
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Partition {
    /// Partition label: `firmware`, `root`, `data`.
    pub label: String,
    /// What it is for.
    pub role: Role,
    /// Size, e.g. `"64MiB"`.
    pub size: Size,
    /// Grown to the end of the disk on first boot.
    #[serde(default)]
    pub grow: bool,
}

/// What a partition is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// FAT file system with boot loader, static configuration and boot state (an ESP on UEFI).
    Firmware,
    /// ext4 with the OSTree sysroot, `/boot` inside.
    Root,
    /// ext4, mounted on `/var`.
    Data,
    /// The image of [`super::Core`], without a file system: a BIOS boot partition, a PReP partition.
    BootLoader,
}

impl Role {
    /// The word for it in board files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Root => "root",
            Self::Data => "data",
            Self::BootLoader => "boot-loader",
        }
    }
}
