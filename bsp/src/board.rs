//! Board files: one TOML file a board, data only. The built-in ones are compiled in from `boards/`.
//!
//! The schema stands here; [`from_toml`] reads and checks a file, [`stable_uuid`] names things.

mod check;
mod core;
mod disk;
pub(crate) mod efi_loader;
mod extends;
mod load;
mod qemu;
mod reader;
mod secure_boot;
mod size;
mod sources;
mod update;
mod uuid;

pub use core::{Core, CoreTarget};
pub use disk::{Disk, Magic, Partition, RawArea, Role, Table, ERASE_BLOCK};
pub use efi_loader::EfiLoader;
pub use extends::{BoardFile, Find};
pub use load::{builtin, from_toml, from_toml_beside, list, BoardError};
pub use qemu::{DiskBus, Qemu, SecureMachine, TEST_PORT};
pub use reader::Reader;
pub use secure_boot::{OwnGrub, SecureBoot};
pub use size::Size;
pub use sources::{FirmwareFile, PackageFile, Source};
pub use update::{Copies, Medium, UpdateWay, EMMC_BOOT_MAX, EMMC_BOOT_UNIT, RECORD_BYTES};
pub use uuid::{disk_id, disk_uuid, partition_uuid, stable_uuid, Purpose};

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
    #[serde(default)]
    pub tier: Tier,
    /// Who answers for it.
    pub maintainers: Vec<String>,
    /// Debian architecture: `amd64`, `arm64`, `armhf`, `ppc64el`.
    pub arch: String,
    /// Packages every tree for this board gets (kernel, firmware, boot loader's user space).
    pub packages: Vec<String>,
    /// Components of the archive that this board's packages need besides the product's, e.g.
    /// `non-free-firmware`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<String>,
    /// Kernel arguments every deployment on this board gets.
    pub kernel_args: Vec<String>,
    /// Modules (by name) that the initramfs loads, in order, before it looks for the root device.
    pub initramfs_modules: Vec<String>,
    /// Module set to load early for the hardware watchdog, e.g. `i6300esb`.
    #[serde(default)]
    pub watchdog_modules: Vec<String>,
    /// The longest time in seconds that this driver can be given, if that is less than two minutes: a longer one is
    /// an error to it, and systemd would leave the watchdog alone, unfed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog_max_seconds: Option<u32>,
    /// Device trees of the board; without them the firmware's own is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_trees: Option<DeviceTrees>,
    /// How the board boots and where its boot state stands.
    pub boot: Boot,
    /// Disk layout.
    pub disk: Disk,
    /// Files of the firmware partition and where each comes from.
    #[serde(default)]
    pub firmware: Vec<FirmwareFile>,
    /// How devices replace the programs that UEFI firmware starts; without it they never do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efi_loader: Option<EfiLoader>,
    /// The QEMU machine that runs it, if there is one.
    #[serde(default)]
    pub qemu: Option<Qemu>,
}

/// Device trees of a board. They come from the kernel package and belong to the deployment. Paths are
/// relative to the directory in which that package keeps them: `broadcom/bcm2711-rpi-4-b.dtb` on arm64,
/// `bcm2836-rpi-2-b.dtb` on armhf. No others go into the tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DeviceTrees {
    /// The one that is booted.
    pub default: String,
    /// Those of further models that this board file is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<String>,
    /// U-Boot knows the model (its variable `fdtfile`): that file is booted if it is one of these, the
    /// default otherwise.
    #[serde(default)]
    pub detect: bool,
    /// Overlays that are applied to it, in order: files of the tree, without leading slash. They are kept
    /// beside the device trees as `overlays/<file name>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overlays: Vec<String>,
}

impl DeviceTrees {
    /// All files that stand in the kernel's directory of device trees: the default first.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.default)
            .chain(&self.others)
            .map(String::as_str)
    }

    /// Overlays as they stand in the kernel's directory of device trees, in order.
    pub fn overlay_files(&self) -> impl Iterator<Item = String> + '_ {
        self.overlays.iter().map(|path| {
            let name = path.rsplit('/').next().unwrap_or(path);
            format!("overlays/{name}")
        })
    }
}

/// How far a board is proven.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Boots in `builder test`.
    Tested,
    /// Its layout is proven; nobody has booted it here.
    #[default]
    Built,
}

impl Tier {
    /// The word for it in board files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tested => "tested",
            Self::Built => "built",
        }
    }
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
    /// What reads the static configuration (`grub` only).
    #[serde(default, skip_serializing_if = "Reader::is_default")]
    pub reader: Reader,
    /// The GRUB image in a partition of its own, for firmware that starts no files (`grub` only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<Core>,
    /// Whose signatures start this board (UEFI only).
    #[serde(default, skip_serializing_if = "SecureBoot::is_default")]
    pub secure_boot: SecureBoot,
    /// The format of the boot script (`uboot` only).
    #[serde(default, skip_serializing_if = "ScriptImage::is_default")]
    pub script: ScriptImage,
    /// Where the boot state stands (`uboot` only).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<Environment>,
    /// Where U-Boot loads what it boots (`uboot` only). Absent: where its own `kernel_addr_r`,
    /// `ramdisk_addr_r` and `fdt_addr_r` say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub load_addresses: Option<LoadAddresses>,
    /// What U-Boot writes, in order, to start the hardware watchdog right before it starts a deployment on trial
    /// (`uboot` only): a kernel that hangs or panics before its initramfs has the driver is then reset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub watchdog_start: Vec<RegisterWrite>,
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

/// Formats of boot scripts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ScriptImage {
    /// The one that `mkimage -T script` makes; every U-Boot with `CONFIG_LEGACY_IMAGE_FORMAT` runs it.
    #[default]
    Legacy,
    /// A flattened image tree, for a U-Boot that was built without that.
    Fit,
}

impl ScriptImage {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Addresses in memory. What follows must leave room for what stands before: `booti` moves an arm64 kernel
/// to the next multiple of 2 MiB, and it then takes the `image_size` of its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LoadAddresses {
    /// Kernel. Before it is loaded, the boot script works here.
    pub kernel: u64,
    /// Initial RAM file system.
    pub ramdisk: u64,
    /// Device tree.
    pub device_tree: u64,
    /// With `secure-boot = "own"`: what is signed, 80 KiB that nothing else uses, below all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<u64>,
}

/// A 32-bit number to be written to a register of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RegisterWrite {
    /// Physical address.
    pub address: u32,
    /// What is written there.
    pub value: u32,
}

/// Where a redundant U-Boot environment stands, in bytes from the start of the disk. Each copy is written
/// alone, so the two never share an erase block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Environment {
    /// First copy; like the second a multiple of [`ERASE_BLOCK`], and alone in that block.
    pub offset: Size,
    /// Second copy.
    pub redundant_offset: Size,
    /// Size of one copy, CRC and flag byte included: a multiple of 512.
    pub size: Size,
}
