//! What a virtual device boots with besides its disk.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bsp::board::{Backend, Board, PackageFile};

use super::{hardware, launch};
use crate::command::Command;
use crate::secure_boot;

const VARIABLES: &str = "firmware-vars.qcow2";
const ENROLLED: &str = "firmware-vars.fd";
const BIOS: &str = "bios.bin";
const KERNEL: &str = "kernel.bin";
const DEVICE_TREE: &str = "device-tree.dtb";
const OVERLAY: &str = "device-tree.dtbo";

/// A machine's firmware: private copies, so that a machine goes on as it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// The firmware's variables (pflash unit 1), which it writes.
    pub variables: Option<PathBuf>,
    /// `-bios`.
    pub bios: Option<PathBuf>,
    /// `-kernel`.
    pub kernel: Option<PathBuf>,
    /// `-dtb`, for U-Boot.
    pub device_tree: Option<PathBuf>,
    /// What the boot script lays over the deployment's device tree.
    pub overlay: Option<PathBuf>,
}

impl Firmware {
    /// Makes what the board needs in `dir` for a machine with the raw disk image `image`; `find` gives a file
    /// of a locked package. A board that starts what is signed with the product's keys, in `keys`, has them enrolled.
    pub fn make(
        board: &Board,
        image: &Path,
        dir: &Path,
        keys: &Path,
        find: impl Fn(&PackageFile) -> Result<PathBuf>,
    ) -> Result<Self> {
        let made = Self::in_dir(board, dir);
        let qemu = board.qemu.as_ref();
        let (bios, kernel) = (
            qemu.and_then(|qemu| qemu.bios.as_ref()),
            qemu.and_then(|qemu| qemu.kernel.as_ref()),
        );
        for (from, to) in [(bios, &made.bios), (kernel, &made.kernel)] {
            if let (Some(from), Some(to)) = (from, to) {
                let from = find(from)?;
                fs::copy(&from, to).with_context(|| {
                    format!(
                        "copying {}, which starts a virtual {}",
                        from.display(),
                        board.id
                    )
                })?;
            }
        }
        let address = qemu.and_then(|qemu| qemu.kernel_address);
        if let (Some(address), Some(kernel)) = (address, &made.kernel) {
            place(kernel, &board.arch, address)?;
        }
        if let (Some(template), Some(to)) = (launch::pflash(board, 1)?, &made.variables) {
            let enrolled = match board.own_grub() {
                Some(_) => Some(enrol(&template, keys, dir)?),
                None => None,
            };
            let template = enrolled.unwrap_or(template);
            // qcow2, so that snapshots work.
            Command::new("qemu-img", "qemu-utils")
                .args(["convert", "-q", "-f", "raw", "-O", "qcow2"])
                .arg(&template)
                .arg(to)
                .run()
                .with_context(|| format!("copying {}", template.display()))?;
        }
        if let (Some(qemu), Some(tree)) = (qemu, &made.device_tree) {
            if let Some(overlay) = &made.overlay {
                hardware::make(board, qemu, image, tree, overlay)?;
            } else {
                hardware::dump(qemu, made.bios.as_deref(), tree)?;
            }
            if board.starts_own() {
                hardware::add_keys(tree, &keys.join(secure_boot::DIRECTORY))?;
            }
        }
        Ok(made)
    }

    /// What [`Firmware::make`] has left in `dir`.
    pub fn in_dir(board: &Board, dir: &Path) -> Self {
        let qemu = board.qemu.as_ref();
        let has =
            |wanted: Option<bool>, name: &str| wanted.unwrap_or_default().then(|| dir.join(name));
        Self {
            variables: has(qemu.map(|qemu| qemu.pflash.len() > 1), VARIABLES),
            bios: has(qemu.map(|qemu| qemu.bios.is_some()), BIOS),
            kernel: has(qemu.map(|qemu| qemu.kernel.is_some()), KERNEL),
            device_tree: has(
                qemu.map(|qemu| {
                    // U-Boot has the keys that it trusts in its own device tree.
                    let checks = board.boot.backend == Backend::Uboot && board.starts_own();
                    qemu.device_tree.is_some() || checks
                }),
                DEVICE_TREE,
            ),
            overlay: has(qemu.map(|qemu| qemu.device_tree.is_some()), OVERLAY),
        }
    }

    /// The same firmware with variables of its own, copied into `dir`.
    pub fn fork(&self, dir: &Path) -> Result<Self> {
        let variables = match &self.variables {
            None => None,
            Some(from) => {
                let to = dir.join(VARIABLES);
                fs::copy(from, &to).with_context(|| format!("copying {}", from.display()))?;
                Some(to)
            }
        };
        Ok(Self {
            variables,
            ..self.clone()
        })
    }
}

/// The firmware's variables in `template` with the product's keys, Secure Boot on.
fn enrol(template: &Path, keys: &Path, dir: &Path) -> Result<PathBuf> {
    let (keys, out) = (keys.join(secure_boot::DIRECTORY), dir.join(ENROLLED));
    let owner = secure_boot::owner(&keys)?;
    // A template may have keys of others.
    let mut command = Command::new("virt-fw-vars", "python3-virt-firmware")
        .args(
            ["PK", "KEK", "db", "dbx"]
                .iter()
                .flat_map(|name| ["-d", name]),
        )
        .arg("-i")
        .arg(template)
        .arg("-o")
        .arg(&out)
        .arg("--secure-boot");
    for (option, name) in [("--set-pk", "PK"), ("--add-kek", "KEK"), ("--add-db", "db")] {
        let certificate = keys.join(format!("{name}.pem"));
        command = command.args([option, &owner]).arg(certificate);
    }
    command
        .run()
        .context("giving a virtual device's firmware the product's keys")?;
    Ok(out)
}

/// Wraps `kernel` as an image that says where it is loaded and started.
fn place(kernel: &Path, arch: &str, address: u32) -> Result<()> {
    let bare = kernel.with_extension("bare");
    fs::rename(kernel, &bare).with_context(|| format!("moving {}", kernel.display()))?;
    let arch = if arch == "arm64" { "arm64" } else { "arm" };
    let at = format!("{address:#x}");
    Command::new("mkimage", "u-boot-tools")
        .args(["-A", arch, "-O", "linux", "-T", "kernel", "-C", "none"])
        .args(["-a", &at, "-e", &at, "-d"])
        .args([&bare, kernel])
        .output()
        .context("telling QEMU where U-Boot is loaded")?;
    fs::remove_file(&bare).with_context(|| format!("removing {}", bare.display()))
}
