//! What the tree under test carries on boards whose machine has no other way for it: the test shell where QEMU
//! cannot hand systemd a unit, the kernel's own watchdog where the machine has none, the address of a disk
//! where it has no network. Only trees under test have it, never the product's own.

use std::path::Path;

use anyhow::{Context, Result};
use bsp::board::{Board, Qemu};

use super::variant;
use crate::command::Command;
use crate::manifest::{Overlay, Product};
use crate::qemu::shell;

/// Label of the file system with the published updates.
const LABEL: &str = "treeline-offer";
/// Where a test mounts it on the device.
const MOUNTED: &str = "/run/treeline-offer";
/// QEMU's USB controller of a Raspberry Pi never comes back once Linux has let it sleep.
const USB_AWAKE: &str = "usbcore.autosuspend=-1";
/// Bytes of that disk: the published directory of a test and room to spare; blocks that are never written
/// take none.
const OFFER_BYTES: u64 = 4 << 30;

/// The update server as a device on `qemu` sees it; `port` is that of the server on this machine.
pub fn url(qemu: Option<&Qemu>, port: u16) -> String {
    match qemu {
        Some(qemu) if !qemu.network => format!("file://{MOUNTED}/"),
        _ => format!("https://10.0.2.2:{port}/"),
    }
}

/// Lays over `product` what `board`'s machine needs in the tree; the files are made in `dir`.
pub fn lay_into(product: &mut Product, board: &Board, dir: &Path) -> Result<()> {
    if board.qemu.as_ref().is_some_and(|qemu| !qemu.network) {
        product.kernel_args.push(USB_AWAKE.into());
    }
    let files = files(board);
    if files.is_empty() {
        return Ok(());
    }
    let files = files
        .iter()
        .map(|(path, text)| (&path[..], text.as_bytes()));
    variant::write_files(dir, files)?;
    let overlay = Overlay {
        path: dir.to_string_lossy().into(),
        rules: Vec::new(),
    };
    variant::lay_over(product, &board.id, overlay)
}

fn files(board: &Board) -> Vec<(String, String)> {
    let Some(qemu) = &board.qemu else {
        return Vec::new();
    };
    let mut files = Vec::new();
    if let Some(port) = &qemu.test_port {
        let units = "usr/lib/systemd/system";
        files.push((format!("{units}/{}", shell::UNIT), shell::unit(port)));
        files.push((
            format!("{units}/-.slice.d/50-treeline-test.conf"),
            shell::WANT.into(),
        ));
    }
    if !qemu.watchdog {
        files.push((
            "usr/lib/modules-load.d/treeline-test.conf".into(),
            "softdog\n".into(),
        ));
    }
    files
}

/// Makes the disk `file` with the directory `updates` on it.
pub fn offer_disk(updates: &Path, file: &Path) -> Result<()> {
    Command::new("mke2fs", "e2fsprogs")
        .args(["-q", "-F", "-t", "ext4", "-m", "0"])
        .args(["-L", LABEL, "-O", "^has_journal", "-d"])
        .args([updates, file])
        .arg(format!("{}k", OFFER_BYTES / 1024))
        .run()
        .context("making the disk that updates are offered on")
        .map(drop)
}

/// Succeeds on a device that has mounted that disk.
pub fn is_mounted() -> String {
    format!("mountpoint -q {MOUNTED}")
}

/// Mounts that disk on the device, as soon as it is seen.
pub fn mount_command() -> String {
    format!(
        "mkdir -p {MOUNTED}; until [ -e /dev/disk/by-label/{LABEL} ]; do sleep 1; done; \
         mount -o ro /dev/disk/by-label/{LABEL} {MOUNTED}"
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use bsp::board::builtin;

    #[test]
    fn only_machines_that_need_it_get_anything() {
        for board in bsp::board::list() {
            let board = builtin(board).unwrap();
            let Some(qemu) = &board.qemu else { continue };
            let names: Vec<String> = files(&board).into_iter().map(|(name, _)| name).collect();
            assert_eq!(
                names.iter().any(|n| n.ends_with("/t.service")),
                qemu.test_port.is_some()
            );
            assert_eq!(
                names.iter().any(|n| n.contains("modules-load")),
                !qemu.watchdog
            );
            assert_eq!(url(Some(qemu), 1).starts_with("file:///"), !qemu.network);
        }
    }

    #[test]
    fn the_disk_holds_the_updates() {
        let dir = tempfile::tempdir().unwrap();
        let updates = dir.path().join("updates");
        fs::create_dir(&updates).unwrap();
        fs::write(updates.join("timestamp.json"), "signed").unwrap();
        let disk = dir.path().join("disk");
        offer_disk(&updates, &disk).unwrap();
        let read = Command::new("debugfs", "e2fsprogs")
            .args(["-R", "cat /timestamp.json"])
            .arg(&disk)
            .output()
            .unwrap();
        assert_eq!(read, b"signed");
    }
}
