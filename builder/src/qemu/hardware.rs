//! What a virtual board lacks, told to U-Boot and to the kernel: QEMU's part of the vendor's firmware.
//!
//! Like that firmware, it reads the device tree from the firmware partition, enters what it knows of the
//! machine and hands it to U-Boot. The kernel gets the deployment's own device tree, from the boot script, which
//! enters the same. Nothing on the disk is changed.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use bsp::board::{Board, Qemu, Role, Source};
use bsp::boot::uboot::VIRTUAL_BOARD;
use bsp::disk::{self, Window};

use crate::command::Command;

/// Where the overlay stands in the machine's memory: above everything that U-Boot loads, below U-Boot itself.
pub const OVERLAY_ADDRESS: u32 = 0x1000_0000;
/// Debian package of the compiler.
const PACKAGE: &str = "device-tree-compiler";

/// Makes `overlay` (for the kernel's device tree) and `tree` (for U-Boot) out of what the board says of its
/// machine and the firmware partition of the disk image `image`.
pub fn make(board: &Board, qemu: &Qemu, image: &Path, tree: &Path, overlay: &Path) -> Result<()> {
    let scratch = tempfile::tempdir().context("creating a scratch directory")?;
    let (base, loader) = (
        scratch.path().join("base.dtb"),
        scratch.path().join("loader.dtbo"),
    );
    let described = qemu.device_tree.as_deref().unwrap_or_default();
    compile(described, overlay)
        .with_context(|| format!("compiling qemu.device-tree of board {}", board.id))?;
    let for_loader = qemu.loader_device_tree.as_deref().unwrap_or_default();
    compile(&format!("{for_loader}\n{}", first_command()), &loader)
        .with_context(|| format!("compiling qemu.loader-device-tree of board {}", board.id))?;
    fs::write(&base, from_firmware_partition(board, image)?)
        .with_context(|| format!("writing {}", base.display()))?;
    Command::new("fdtoverlay", PACKAGE)
        .arg("-i")
        .arg(&base)
        .arg("-o")
        .arg(tree)
        .args([overlay, &loader])
        .run()
        .with_context(|| format!("applying qemu.device-tree of board {}", board.id))
        .map(drop)
}

/// Compiles the body of an overlay.
fn compile(body: &str, to: &Path) -> Result<()> {
    let source = to.with_extension("dts");
    fs::write(&source, format!("/dts-v1/;\n/plugin/;\n{body}"))
        .with_context(|| format!("writing {}", source.display()))?;
    Command::new("dtc", PACKAGE)
        .args(["-q", "-I", "dts", "-O", "dtb", "-o"])
        .args([to, &source])
        .run()
        .map(drop)
}

/// U-Boot takes its first command from `/config` in its device tree: it learns there where the overlay for the
/// kernel stands, and then goes on as ever.
fn first_command() -> String {
    format!(
        "&{{/}} {{\n\tconfig {{\n\t\t\
         bootcmd = \"setenv {VIRTUAL_BOARD} {OVERLAY_ADDRESS:x}; run bootcmd\";\n\t}};\n}};\n"
    )
}

/// The board's default device tree, as it stands on the firmware partition.
fn from_firmware_partition(board: &Board, image: &Path) -> Result<Vec<u8>> {
    let reading = || format!("reading the device tree of a virtual {}", board.id);
    let wanted = board
        .device_trees
        .as_ref()
        .map(|trees| trees.default.as_str());
    let file = board
        .firmware
        .iter()
        .find(|file| matches!(file.source(), Ok(Source::DeviceTree(tree)) if Some(tree) == wanted))
        .context("the firmware partition has none")
        .with_context(reading)?;
    let layout = disk::plan(board, &Default::default()).with_context(reading)?;
    // Nothing before the firmware partition depends on the product's own sizes.
    let partition = layout
        .partition(Role::Firmware)
        .context("the board has no firmware partition")?;
    let disk = File::open(image).with_context(|| format!("opening {}", image.display()))?;
    let mut window = Window::new(disk, partition.start..partition.start + partition.size);
    disk::read_file(&mut window, &file.path)
        .with_context(|| format!("reading {} of {}", file.path, image.display()))
}
