//! Disks as the kernel describes them in `/sys`, and which of them may be written to.
//!
//! Everything is read below a root directory, so that tests can lay out any machine as files.

mod describe;
mod inspect;
mod mounts;
mod names;
mod refuse;
pub mod signature;

use std::path::{Path, PathBuf};

pub use inspect::list;
pub use refuse::{candidate, refusals, Objection, Severity};

/// Where the system's own files stand: `/`, or a test's directory.
#[derive(Debug, Clone)]
pub struct System {
    root: PathBuf,
}

impl Default for System {
    fn default() -> Self {
        Self::below("/")
    }
}

impl System {
    /// A system whose `/sys`, `/proc` and `/run` stand below `root`.
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// `path` (without leading slash) of the system.
    pub fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.root.join(path)
    }

    /// Bytes in a sector of the disk at `device`, as the kernel addresses it; `None` if it does not say.
    pub fn sector_size(&self, device: &Path) -> Option<u64> {
        let disk = Path::new("sys/class/block").join(device.file_name()?);
        let size = self.text(disk.join("queue/logical_block_size"))?;
        size.parse().ok()
    }

    fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = std::fs::read(self.at(path)).ok()?;
        Some(String::from_utf8_lossy(&text).trim().to_string())
    }
}

/// How a disk is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bus {
    /// USB, card readers included.
    Usb,
    /// SD card in a reader of the machine's own.
    Sd,
    /// Soldered flash memory.
    Emmc,
    /// NVMe.
    Nvme,
    /// SATA, SAS, SCSI.
    Scsi,
    /// A disk of a virtual machine.
    Virtual,
    /// A file that looks like a disk.
    Loop,
    /// Made of other disks or of memory: RAID, LVM, zram, network.
    Made,
    /// Anything else.
    Other,
}

/// A disk.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Device {
    /// Kernel name, e.g. `sdb`.
    pub name: String,
    /// Its device file.
    pub path: PathBuf,
    /// Device number, `major:minor`.
    pub number: String,
    /// Counts every disk that was ever plugged in; tells a disk from its successor of the same name.
    pub sequence: Option<u64>,
    /// Size, bytes.
    pub size: u64,
    /// Connection.
    pub bus: Bus,
    /// The kernel calls the medium removable.
    pub removable: bool,
    /// Write protection.
    pub read_only: bool,
    /// Takes discards.
    pub discards: bool,
    /// Maker, cleaned for display.
    pub vendor: String,
    /// Model, cleaned for display.
    pub model: String,
    /// Serial number, cleaned for display.
    pub serial: String,
    /// Its partitions, in order.
    pub partitions: Vec<Part>,
    /// What it is used for, itself or a partition.
    pub uses: Vec<Use>,
}

/// A partition as the kernel knows it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Part {
    /// Kernel name, e.g. `sdb1`.
    pub name: String,
    /// Device number.
    pub number: String,
    /// First byte on the disk.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

/// Something that a disk is used for.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Use {
    /// A mounted file system.
    Mounted {
        /// Device or partition.
        on: String,
        /// Where, as the kernel names it.
        at: String,
        /// Part of the running system.
        system: bool,
    },
    /// Active swap.
    Swap {
        /// Device or partition.
        on: String,
    },
    /// Another block device is made of it: RAID, LVM, encryption, bcache.
    Holder {
        /// Device or partition.
        on: String,
        /// The device on top.
        by: String,
        /// What it is, e.g. `LVM`, `RAID`.
        kind_of: String,
    },
    /// It carries the signature of a member of something, whether that is active or not.
    Member {
        /// Device or partition.
        on: String,
        /// Of what, e.g. `ZFS`.
        of: String,
        /// Part of the running system.
        system: bool,
    },
}

impl Device {
    /// Maker, model and serial number in one line, as far as known.
    pub fn title(&self) -> String {
        let mut words: Vec<&str> = vec![&self.vendor, &self.model];
        words.retain(|word| !word.is_empty());
        let mut text = words.join(" ");
        if text.is_empty() {
            text = "unnamed disk".into();
        }
        if !self.serial.is_empty() {
            text += &format!(", serial {}", self.serial);
        }
        text
    }
}

#[cfg(test)]
pub(crate) mod tests;
