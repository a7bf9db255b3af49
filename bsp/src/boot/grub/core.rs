//! GRUB images outside file systems: what is in them, and how the parts of one find each other.
//!
//! On a PC the code in the first sector of the disk (`boot.img`) loads the first sector of the image
//! (`diskboot.img`), and that loads the rest. `grub-bios-setup` writes into both where the next part stands; so
//! does [`install_i386_pc`]. The fields are those of GRUB's `include/grub/i386/pc/boot.h` and `offsets.h`.

use super::script;
use crate::board::CoreTarget;

/// Bytes of the first sector that are code; behind them stand the disk's signature and the MBR
/// (`GRUB_BOOT_MACHINE_WINDOWS_NT_MAGIC`).
pub const BOOT_CODE: usize = 0x1b8;
/// Bytes in a sector.
const SECTOR: usize = 512;
/// `GRUB_BOOT_MACHINE_KERNEL_SECTOR` in `boot.img`: sector of the image, 64 bits, little-endian.
const KERNEL_SECTOR: usize = 0x5c;
/// `GRUB_BOOT_MACHINE_BOOT_DRIVE` in `boot.img`: drive of the image.
const BOOT_DRIVE: usize = 0x64;
/// The drive that the BIOS has started.
const SAME_DRIVE: u8 = 0xff;
/// `GRUB_BOOT_MACHINE_DRIVE_CHECK` in `boot.img`: a jump over the lines for BIOSes that name a wrong drive. On
/// hard disks two `nop`s take its place.
const DRIVE_CHECK: usize = 0x66;
/// Jump, as it is before that.
const JUMP: u8 = 0xeb;
const NOP: u8 = 0x90;
/// The list of blocks at the end of `diskboot.img`, read backwards: sector (64 bits), number of sectors (16 bits),
/// segment (16 bits), little-endian. The first entry, filled in by `grub-mkimage` but for the sector.
const BLOCK: usize = SECTOR - 12;
/// Where its number of sectors stands.
const BLOCK_LENGTH: usize = BLOCK + 8;
/// Where its segment stands.
const BLOCK_SEGMENT: usize = BLOCK + 10;
/// `GRUB_BOOT_I386_PC_KERNEL_SEG` plus a sector: where the rest is loaded.
const SEGMENT: u16 = 0x820;

/// A few commands for whoever looks for a fault. `grub-mkimage` adds what these and the rule's own modules need.
const COMMANDS: [&str; 3] = ["ls", "cat", "minicmd"];

/// Modules of an image for `target`.
pub fn modules(target: CoreTarget) -> Vec<&'static str> {
    let own: &[&str] = match target {
        CoreTarget::I386Pc => &["biosdisk", "serial", "terminal"],
        // Disks and console of Open Firmware are part of GRUB's kernel.
        CoreTarget::PowerpcIeee1275 => &[],
    };
    let all = script::MODULES.iter().chain(&COMMANDS).chain(own);
    all.copied().collect()
}

/// The prefix of an image: a directory on a partition of the disk that the image was started from.
pub fn prefix(partition: u32, directory: &str) -> String {
    format!("(,gpt{partition})/{directory}")
}

/// Parts of GRUB that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file} is not GRUB's, or of a version with other fields: {problem}")]
pub struct CoreError {
    /// The file.
    pub file: &'static str,
    /// What is wrong.
    pub problem: String,
}

/// The code for the first sector of the disk, for an image (`core.img`, which is changed) that begins at the
/// sector `start`. Both are checked before: a field that is not where it should be is an error.
pub fn install_i386_pc(
    boot_img: &[u8],
    core: &mut [u8],
    start: u64,
) -> Result<[u8; BOOT_CODE], CoreError> {
    let wrong = |problem: &str| CoreError {
        file: "boot.img",
        problem: problem.into(),
    };
    let mut code = [0; BOOT_CODE];
    if boot_img.len() != SECTOR {
        return Err(wrong("it has not 512 bytes"));
    }
    code.copy_from_slice(&boot_img[..BOOT_CODE]);
    if code[KERNEL_SECTOR..BOOT_DRIVE] != 1u64.to_le_bytes() || code[DRIVE_CHECK] != JUMP {
        return Err(wrong("no sector at byte 0x5c or no jump at byte 0x66"));
    }
    code[KERNEL_SECTOR..BOOT_DRIVE].copy_from_slice(&start.to_le_bytes());
    code[BOOT_DRIVE] = SAME_DRIVE;
    code[DRIVE_CHECK..DRIVE_CHECK + 2].fill(NOP);
    list_blocks(core, start)?;
    Ok(code)
}

fn list_blocks(core: &mut [u8], start: u64) -> Result<(), CoreError> {
    let wrong = |problem: String| CoreError {
        file: "core.img",
        problem,
    };
    let (sectors, rest) = (core.len().div_ceil(SECTOR), core.len() > SECTOR);
    if !rest {
        return Err(wrong(format!("it has {} bytes", core.len())));
    }
    let number = |at: usize| u16::from_le_bytes([core[at], core[at + 1]]);
    let (length, segment) = (number(BLOCK_LENGTH), number(BLOCK_SEGMENT));
    if usize::from(length) != sectors - 1 || segment != SEGMENT {
        return Err(wrong(format!(
            "its first block has {length} sectors for segment {segment:#x}, not {} for {SEGMENT:#x}",
            sectors - 1
        )));
    }
    core[BLOCK..BLOCK_LENGTH].copy_from_slice(&(start + 1).to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boot_img() -> Vec<u8> {
        let mut sector = vec![0x11; SECTOR];
        sector[KERNEL_SECTOR..BOOT_DRIVE].copy_from_slice(&1u64.to_le_bytes());
        sector[DRIVE_CHECK] = JUMP;
        sector
    }

    fn core_img(bytes: usize) -> Vec<u8> {
        let mut image = vec![0x22; bytes];
        image[BLOCK..BLOCK_LENGTH].copy_from_slice(&2u64.to_le_bytes());
        let sectors = u16::try_from(bytes.div_ceil(SECTOR) - 1).unwrap();
        image[BLOCK_LENGTH..BLOCK_SEGMENT].copy_from_slice(&sectors.to_le_bytes());
        image[BLOCK_SEGMENT..SECTOR].copy_from_slice(&SEGMENT.to_le_bytes());
        image
    }

    #[test]
    fn each_part_is_told_where_the_next_one_stands() {
        let mut core = core_img(3 * SECTOR + 1);
        let code = install_i386_pc(&boot_img(), &mut core, 0x1_0203_0405).unwrap();
        assert_eq!(code[0x5c..0x64], [5, 4, 3, 2, 1, 0, 0, 0]);
        assert_eq!(code[0x64..0x69], [0xff, 0x11, 0x90, 0x90, 0x11]);
        assert_eq!(core[500..508], [6, 4, 3, 2, 1, 0, 0, 0]);
        assert_eq!(core[508..512], [3, 0, 0x20, 0x08]);
        assert!(core[512..].iter().all(|byte| *byte == 0x22));
    }

    #[test]
    fn what_is_not_grubs_is_refused() {
        let good = core_img(5 * SECTOR);
        let says = |boot: &[u8], core: &[u8]| {
            let error = install_i386_pc(boot, &mut core.to_vec(), 2048).unwrap_err();
            error.to_string()
        };
        assert!(says(&boot_img()[1..], &good).contains("boot.img"));
        assert!(says(&[0; SECTOR], &good).contains("0x5c"));
        assert!(says(&boot_img(), &good[..SECTOR]).contains("core.img"));
        assert!(says(&boot_img(), &good[..2 * SECTOR]).contains("not 1"));
        assert!(says(&boot_img(), &[0; 2 * SECTOR]).contains("0 sectors"));
    }

    #[test]
    fn the_image_looks_on_its_own_disk() {
        assert_eq!(prefix(2, "grub"), "(,gpt2)/grub");
        assert!(modules(CoreTarget::I386Pc).contains(&"biosdisk"));
        assert!(!modules(CoreTarget::PowerpcIeee1275).contains(&"serial"));
    }
}
