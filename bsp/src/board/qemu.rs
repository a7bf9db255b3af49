//! The virtual machine of a board.

use serde::{Deserialize, Serialize};

use super::PackageFile;

/// The paravirtual port that tests speak to, below `/dev`.
pub const TEST_PORT: &str = "virtio-ports/treeline.test";

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
    /// What differs when the machine checks signatures of the product's own keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secure_boot: Option<SecureMachine>,
    /// What QEMU loads as `-bios`: a file of a package that is resolved and locked with the boot loader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bios: Option<PackageFile>,
    /// What QEMU loads as `-kernel` where it takes the place of the vendor's firmware; locked likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<PackageFile>,
    /// Where in memory it is loaded and started, if QEMU's own choice does not do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_address: Option<u32>,
    /// How the machine sees its disk.
    #[serde(default)]
    pub disk: DiskBus,
    /// Whether the machine has a network device; otherwise updates come from a second disk.
    #[serde(default = "yes")]
    pub network: bool,
    /// Whether the machine has a watchdog that waits until its time is over; otherwise the kernel's own
    /// stands in for it in tests.
    #[serde(default = "yes")]
    pub watchdog: bool,
    /// Whether QEMU can save and load the machine's whole state; otherwise every test boots it anew.
    #[serde(default = "yes")]
    pub snapshots: bool,
    /// Number of the serial port that is the console, as QEMU counts them, from 0.
    #[serde(default)]
    pub console_port: u8,
    /// What the guest calls the serial port that tests speak to (`ttyAMA0`): the first one that is not the
    /// console; one on USB is added to the machine (`ttyUSB0`); `virtio-ports/treeline.test` is the paravirtual
    /// port, for a kernel that cannot read QEMU's configuration device. None: that port, and the guest learns of
    /// it at boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_port: Option<String>,
    /// What the machine lacks of the board, or has otherwise: device-tree source, without its header, that is
    /// laid over the device trees of U-Boot and of the deployment when they start in QEMU
    /// (`&{/soc/hdmi@7ef00700} { status = "disabled"; };`). Only where QEMU loads U-Boot as its kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_tree: Option<String>,
    /// The same for U-Boot's device tree alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loader_device_tree: Option<String>,
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
    /// An SD card; its size is a power of two. Such a machine has no PCI.
    Sd,
}

/// A virtual machine with Secure Boot on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SecureMachine {
    /// `-machine` value.
    pub machine: String,
    /// Firmware images for pflash unit 0, as in `pflash`.
    pub code: Vec<String>,
    /// The same for unit 1, if others than in `pflash`: keys in them are replaced by the product's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub variables: Vec<String>,
    /// Arguments besides, one word each.
    #[serde(default)]
    pub args: Vec<String>,
}
