//! libostree's hook: writes the boot menu into the loader directory that is about to become the current one.
//!
//! libostree runs `$OSTREE_GRUB2_EXEC -o <loader.N>/grub.cfg` after it has written the new boot entries and
//! before the one rename that makes them count.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{bail, Context, Result};
use bsp::boot::entry;
use bsp::boot::grub::{self, sealed};

use crate::record;

/// Name under which the program does this (a symlink to it).
pub const NAME: &str = "grub-menu";
/// Where that symlink stands on a device.
pub const PROGRAM: &str = "/usr/libexec/device-agent/grub-menu";

/// Handles the arguments after the program's name.
pub fn run(args: &[OsString]) -> Result<()> {
    let output = output(args)?;
    let loader = output.parent().with_context(|| {
        format!(
            "writing the boot menu: {} has no directory",
            output.display()
        )
    })?;
    let entries = entry::load_dir(loader)?;
    // For a GRUB that takes signed files only, and so reads the menu as data.
    let block = sealed::menu_block(&entries);
    record::write(&loader.join(sealed::MENU_NAME), block.as_bytes())
        .context("writing the boot menu")?;
    record::write(&output, grub::menu(&entries).as_bytes()).context("writing the boot menu")
}

fn output(args: &[OsString]) -> Result<PathBuf> {
    match args {
        [flag, path] if flag == "-o" => Ok(PathBuf::from(path)),
        _ => bail!("{NAME}: usage: {NAME} -o <loader directory>/grub.cfg"),
    }
}
