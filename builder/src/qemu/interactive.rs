//! A virtual device with its console in the terminal, for a person.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command as StdCommand, Stdio};

use anyhow::{Context, Result};
use bsp::board::{Board, PackageFile};

use super::{launch, Firmware, MachineRequest};
use crate::command::Command;

/// Size of the device's disk: larger than the image, as in the field, so that the data partition grows.
const DISK: &str = "8G";

/// Whether there is a device in `dir`.
pub fn exists(dir: &Path) -> bool {
    disk(dir).is_file()
}

/// Makes a device in `dir` from an image; one that is there is replaced. `keys` are the product's, `find` gives a
/// file of a locked package.
pub fn create(
    board: &Board,
    image: &Path,
    dir: &Path,
    keys: &Path,
    find: impl Fn(&PackageFile) -> Result<PathBuf>,
) -> Result<()> {
    if dir.exists() {
        fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
    }
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    Firmware::make(board, image, dir, keys, find)?;
    let making = dir.join("disk.making");
    let qemu_img = || Command::new("qemu-img", "qemu-utils");
    qemu_img()
        .args(["convert", "-q", "-f", "raw", "-O", "qcow2"])
        .arg(image)
        .arg(&making)
        .run()?;
    qemu_img()
        .args(["resize", "-q"])
        .arg(&making)
        .arg(DISK)
        .run()?;
    let disk = disk(dir);
    fs::rename(&making, &disk).with_context(|| format!("writing {}", disk.display()))
}

/// Boots the device in `dir` with its console on standard input and output; returns when it is switched
/// off or left.
pub fn run(board: &Board, dir: &Path) -> Result<()> {
    let scratch = tempfile::Builder::new()
        .prefix("treeline-vm-")
        .tempdir()
        .context("creating a directory for the sockets of a virtual device")?;
    let request = MachineRequest {
        board,
        disk: &disk(dir),
        console_log: &dir.join("console.log"),
        firmware: &Firmware::in_dir(board, dir),
        resume: None,
        test_shell: false,
        offer: None,
    };
    let planned = launch::command(&request, scratch.path())?;
    let mut command = StdCommand::new(planned.get_program());
    for arg in planned.get_args() {
        // The same machine as in tests; only its console is shared with QEMU's own monitor.
        if arg == "stdio,id=console,signal=off" {
            command.arg("stdio,id=console,signal=off,mux=on");
        } else {
            command.arg(arg);
        }
    }
    command.args(["-mon", "chardev=console,mode=readline"]);
    command
        .stdin(Stdio::inherit())
        .stdout(Stdio::inherit())
        .stderr(Stdio::inherit());
    let status = command
        .status()
        .context("running setpriv (Debian package util-linux)")?;
    anyhow::ensure!(status.success(), "the virtual device: {status}");
    Ok(())
}

fn disk(dir: &Path) -> PathBuf {
    dir.join("disk.qcow2")
}
