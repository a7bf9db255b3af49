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
use crate::secure_boot;

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

/// Writes the device tree that QEMU makes for a machine to `tree`. It depends on whether there is a `bios`.
pub fn dump(qemu: &Qemu, bios: Option<&Path>, tree: &Path) -> Result<()> {
    let made = tree
        .to_str()
        .with_context(|| format!("the path {} is not UTF-8", tree.display()))?;
    let machine = format!("{},dumpdtb={}", qemu.machine, made.replace(',', ",,"));
    let memory = qemu.memory_mib.to_string();
    let mut command = Command::new(&qemu.program, "qemu-system-arm");
    if let Some(bios) = bios {
        command = command.arg("-bios").arg(bios);
    }
    command
        .args(["-machine", &machine, "-cpu", &qemu.cpu, "-m", &memory])
        .args(["-display", "none"])
        .args(&qemu.args)
        .run()
        .map(drop)
        .context("asking QEMU for the device tree of a virtual machine")
}

/// Enters the public key in `keys` (of the product, for Secure Boot) into U-Boot's device tree `tree`, as whoever
/// builds U-Boot for a board does.
pub fn add_keys(tree: &Path, keys: &Path) -> Result<()> {
    let adding = || format!("entering the product's key into {}", tree.display());
    let source = tree.with_extension("keys.dts");
    let text = Command::new("dtc", PACKAGE)
        .args(["-q", "-I", "dtb", "-O", "dts"])
        .arg(tree)
        .text()
        .with_context(adding)?;
    let nodes = keys.join(secure_boot::UBOOT_KEYS);
    let nodes = fs::read_to_string(&nodes)
        .with_context(|| format!("reading {}", nodes.display()))
        .with_context(adding)?;
    fs::write(&source, format!("{text}\n{nodes}")).with_context(adding)?;
    Command::new("dtc", PACKAGE)
        .args(["-q", "-I", "dts", "-O", "dtb", "-o"])
        .args([tree, &source])
        .run()
        .with_context(adding)
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
