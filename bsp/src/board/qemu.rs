//! The virtual machine of a board.

use serde::{Deserialize, Serialize};

use super::PackageFile;

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
    /// What QEMU loads as `-bios`: a file of a package that is resolved and locked with the boot loader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bios: Option<PackageFile>,
    /// What QEMU loads as `-kernel` where it takes the place of the vendor's firmware; locked likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PackageFile>,
    /// How the machine sees its disk.
    #[serde(default)]
    pub disk: DiskBus,
    /// Whether the machine has a network device; otherwise updates come from a second disk.
    #[serde(default = "yes")]
    pub network: bool,
    /// Nodes of the device tree that the machine does not have (`/soc/hdmi@7ef00700`): disabled in what
    /// the virtual device boots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disabled_nodes: Vec<String>,
}

fn yes() -> bool {
    true
}

/// How a virtual machine sees its disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum DiskBus {
    /// Paravirtual, on PCI.
    #[default]
    Virtio,
    /// An SD card; its size is a power of two.
    Sd,
}
