//! GRUB in a partition of its own: its image is assembled from the modules of the product's suite by that suite's
//! own `grub-mkimage`, and told where on the disk its parts and its configuration stand.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use bsp::board::{Board, Core, CoreTarget, Role};
use bsp::boot::grub::core::{install_i386_pc, modules, prefix};
use bsp::disk::{Layout, PlacedPartition, SECTOR};

use super::programs::Programs;

/// Debian package of [`PROGRAM`].
pub const PACKAGE: &str = "grub-common";
/// What assembles images.
const PROGRAM: &str = "usr/bin/grub-mkimage";
/// What an image for Open Firmware begins with: ELF, 32 bits, big-endian.
const ELF: &[u8] = b"\x7fELF\x01\x02";

/// What stands outside file systems: first byte on the disk and content. Nothing where the firmware starts files.
/// `unpacked` are the packages of the boot loader by name; `programs` those of the builder's tools.
pub fn areas(
    board: &Board,
    layout: &Layout,
    unpacked: &[(String, PathBuf)],
    programs: &Programs,
) -> Result<Vec<(u64, Vec<u8>)>> {
    let Some(core) = &board.boot.core else {
        return Ok(Vec::new());
    };
    let making = || format!("making the GRUB image for {}", core.target.as_str());
    let place = |role| {
        let partition = layout.partition(role);
        partition.with_context(|| format!("the board has no {} partition", role.as_str()))
    };
    let (own, firmware) = (
        place(Role::BootLoader).with_context(making)?,
        place(Role::Firmware).with_context(making)?,
    );
    let directory = modules_of(core, unpacked).with_context(making)?;
    let prefix = prefix(firmware.number, board.config_directory());
    let image = assemble(core.target, &directory, &prefix, programs).with_context(making)?;
    install(core.target, &directory, own, image).with_context(making)
}

fn modules_of(core: &Core, unpacked: &[(String, PathBuf)]) -> Result<PathBuf> {
    let mut packages = unpacked.iter();
    let found = packages.find(|(name, _)| *name == core.package);
    let (_, dir) = found.with_context(|| {
        format!(
            "package {} is not locked; run `builder update-lock`",
            core.package
        )
    })?;
    let modules = dir.join(core.target.directory());
    ensure!(
        modules.is_dir(),
        "package {} has no /{}, where GRUB's modules would be",
        core.package,
        core.target.directory()
    );
    Ok(modules)
}

fn assemble(
    target: CoreTarget,
    directory: &Path,
    prefix: &str,
    programs: &Programs,
) -> Result<Vec<u8>> {
    let scratch = tempfile::tempdir().context("creating a scratch directory")?;
    let out = scratch.path().join("core");
    programs
        .command(&programs.find(&[PROGRAM])?)
        .args(["-O", target.as_str(), "-p", prefix])
        .arg("-d")
        .arg(directory)
        .arg("-o")
        .arg(&out)
        .args(modules(target))
        .run()?;
    fs::read(&out).with_context(|| format!("reading {}", out.display()))
}

/// The image in its partition, and on a PC the code that loads it.
fn install(
    target: CoreTarget,
    directory: &Path,
    partition: &PlacedPartition,
    mut image: Vec<u8>,
) -> Result<Vec<(u64, Vec<u8>)>> {
    ensure!(
        image.len() as u64 <= partition.size,
        "it has {} bytes, and the partition \"{}\" {}; make that larger in the board file",
        image.len(),
        partition.label,
        partition.size
    );
    let mut areas = Vec::new();
    match target {
        CoreTarget::I386Pc => {
            let path = directory.join("boot.img");
            let boot = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let code = install_i386_pc(&boot, &mut image, partition.start / SECTOR)?;
            areas.push((0, code.to_vec()));
        }
        CoreTarget::PowerpcIeee1275 => ensure!(
            image.starts_with(ELF),
            "what grub-mkimage made is no program for Open Firmware"
        ),
    }
    areas.push((partition.start, image));
    Ok(areas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bsp::boot::grub::core::BOOT_CODE;
    use bsp::disk::plan;

    /// With this machine's GRUB in place of the suite's.
    fn made(board: &Board, unpacked: &[(String, PathBuf)]) -> Result<Vec<(u64, Vec<u8>)>> {
        let layout = plan(board, &Default::default()).unwrap();
        let programs = Programs::from_unpacked(&[PathBuf::from("/")]).unwrap();
        areas(board, &layout, unpacked, &programs)
    }

    fn here(package: &str) -> Vec<(String, PathBuf)> {
        vec![(package.to_string(), PathBuf::from("/"))]
    }

    #[test]
    fn a_pc_gets_code_in_its_first_sector_and_the_image_in_its_partition() {
        let board = bsp::board::builtin("x86_64-bios").unwrap();
        let made_once =
            made(&board, &here("grub-pc-bin")).expect("install grub-common, grub-pc-bin");
        let [(code_at, code), (image_at, image)] = made_once.as_slice() else {
            panic!("{} areas", made_once.len());
        };
        assert_eq!((*code_at, code.len()), (0, BOOT_CODE));
        assert_eq!(*image_at, 1 << 20);
        assert_eq!(code[0x5c..0x60], 2048u32.to_le_bytes());
        assert_eq!(image[500..504], 2049u32.to_le_bytes());
        assert_eq!(made(&board, &here("grub-pc-bin")).unwrap(), made_once);
    }

    #[test]
    fn without_modules_or_room_there_is_no_image() {
        let mut board = bsp::board::builtin("x86_64-bios").unwrap();
        let says = |board: &Board, unpacked| format!("{:#}", made(board, unpacked).unwrap_err());
        assert!(says(&board, &[]).contains("not locked"));
        let dir = tempfile::tempdir().unwrap();
        let empty = [("grub-pc-bin".to_string(), dir.path().to_path_buf())];
        assert!(says(&board, &empty).contains("has no /usr/lib/grub/i386-pc"));
        let modules = Path::new("/usr/lib/grub/i386-pc");
        let small = PlacedPartition {
            number: 1,
            label: "bios".into(),
            role: Role::BootLoader,
            start: 1 << 20,
            size: 1 << 20,
            grow: false,
        };
        let error = install(CoreTarget::I386Pc, modules, &small, vec![0; (1 << 20) + 1]);
        assert!(error.unwrap_err().to_string().contains("make that larger"));
        let elf = install(CoreTarget::PowerpcIeee1275, modules, &small, vec![0; 512]);
        assert!(elf.unwrap_err().to_string().contains("Open Firmware"));
        board.boot.core = None;
        assert_eq!(made(&board, &[]).unwrap(), []);
    }
}
