//! Board files: one TOML file a board, data only. The built-in ones are compiled in from `boards/`.
//!
//! The schema stands here; [`from_toml`] reads and checks a file, [`stable_uuid`] names things.

mod load;
mod uuid;

pub use load::{builtin, from_toml, list, BoardError};
pub use uuid::{stable_uuid, Purpose};

use serde::{Deserialize, Serialize};

/// A board as described by its file in `boards/` (or a user's own file).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Board {
    /// Identity: lower-case letters, digits, `_` and `-`; the same as the file's stem.
    pub id: String,
    /// What it is, for people.
    pub description: String,
    /// How far it is proven.
    pub tier: Tier,
    /// Who answers for it.
    pub maintainers: Vec<String>,
    /// Debian architecture: `amd64`, `arm64`, `armhf`, `ppc64el`.
    pub arch: String,
    /// Packages every tree for this board gets (kernel, firmware, boot loader's user space).
    pub packages: Vec<String>,
    /// Kernel arguments every deployment on this board gets.
    pub kernel_args: Vec<String>,
    /// Modules (by name) that the initramfs loads, in order, before it looks for the root device.
    pub initramfs_modules: Vec<String>,
    /// Module set to load early for the hardware watchdog, e.g. `i6300esb`.
    #[serde(default)]
    pub watchdog_modules: Vec<String>,
    /// How the board boots and where its boot state stands.
    pub boot: Boot,
    /// Disk layout.
    pub disk: Disk,
    /// Files of the firmware partition and where each comes from.
    #[serde(default)]
    pub firmware: Vec<FirmwareFile>,
    /// The QEMU machine that runs it, if there is one.
    #[serde(default)]
    pub qemu: Option<Qemu>,
}

/// How far a board is proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Boots in `builder test`.
    Tested,
    /// Its layout is proven; nobody has booted it here.
    Built,
}

/// Boot backend of a board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Boot {
    /// The backend that holds the trial logic.
    pub backend: Backend,
    /// Path on the firmware partition of the static boot-loader configuration (`grub`: grub.cfg, `uboot`:
    /// the boot script).
    pub config: String,
    /// Where the boot state stands (`uboot` only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// Consoles that GRUB talks on, in GRUB's words: `console` (the firmware's) and `serial` (the first
    /// serial port at 115200 baud; left out at boot if the machine has none). Empty: the firmware's.
    #[serde(default)]
    pub consoles: Vec<String>,
}

/// The boot backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// GRUB with a static configuration and a one-sector state block on the firmware partition.
    Grub,
    /// U-Boot with a boot script on the firmware partition and a redundant environment in an area of its
    /// own, outside every partition.
    Uboot,
}

/// Where a redundant U-Boot environment stands, in bytes from the start of the disk. Each copy is written
/// alone, so the two never share an erase block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Environment {
    /// First copy.
    pub offset: Size,
    /// Second copy.
    pub redundant_offset: Size,
    /// Size of one copy, CRC and flag byte included: a multiple of 512.
    pub size: Size,
}

/// Disk layout of a board. Sizes are strings such as `"64MiB"`; a product may override them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Disk {
    /// Partition table.
    pub table: Table,
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
}

impl Role {
    /// The word for it in board files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firmware => "firmware",
            Self::Root => "root",
            Self::Data => "data",
        }
    }
}

/// A file on the firmware partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FirmwareFile {
    /// Path on the firmware partition, e.g. `EFI/BOOT/BOOTX64.EFI`.
    pub path: String,
    /// Debian package it comes from (product's suite, resolved and locked like the tree).
    pub package: String,
    /// Path inside the package, without leading slash.
    pub file: String,
}

/// How QEMU runs a board.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Qemu {
    /// Program, e.g. `qemu-system-x86_64`.
    pub program: String,
    /// `-machine` value.
    pub machine: String,
    /// `-cpu` value.
    pub cpu: String,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Further arguments, one word each.
    #[serde(default)]
    pub args: Vec<String>,
    /// Firmware images for pflash unit 0 (code, read-only) and 1 (variables, copied): absolute paths
    /// inside Debian packages, first existing one wins; with the package that brings them.
    #[serde(default)]
    pub pflash: Vec<Vec<String>>,
    /// Debian package that brings the pflash images.
    #[serde(default)]
    pub firmware_package: Option<String>,
}

/// A size in bytes, written as a number with a binary unit: `"64MiB"`, `"1GiB"`, `"512KiB"`, `"4096"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Size {
    /// One MiB.
    pub const MIB: u64 = 1024 * 1024;
}

impl std::str::FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let factor = match &text[digits.len()..] {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1u64 << 40,
            unit => {
                return Err(format!(
                    "size \"{text}\": unknown unit \"{unit}\"; try KiB, MiB or GiB"
                ))
            }
        };
        let number: u64 = digits
            .trim()
            .parse()
            .map_err(|_| format!("size \"{text}\" is not a number with a unit; try \"512MiB\""))?;
        number
            .checked_mul(factor)
            .map(Size)
            .ok_or_else(|| format!("size \"{text}\" is larger than any disk"))
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (unit, bytes) in [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= bytes && self.0 % bytes == 0 {
                return write!(f, "{}{unit}", self.0 / bytes);
            }
        }
        write!(f, "{}B", self.0)
    }
}

impl Serialize for Size {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "host")]
impl schemars::JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A number of bytes with a binary unit.",
            "pattern": "^[0-9]+(B|KiB|MiB|GiB|TiB)?$",
            "examples": ["512MiB", "2GiB"]
        })
    }
}
