//! Boards that start from the boot partitions of their eMMC: those are no part of the disk that is written, and
//! where the disk is written over USB they are out of reach. So what is left to do is said.

use std::path::{Path, PathBuf};

use crate::image::{Format, EMMC_BOOT};

/// The file for the boot partitions that was built with this image.
pub fn beside(image: &Path) -> Option<PathBuf> {
    let name = image.file_name()?.to_str()?;
    // The longest ending first: `.raw.zst` is no `.zst` of something.
    let mut endings = Format::ALL.map(Format::ending);
    endings.sort_by_key(|ending| std::cmp::Reverse(ending.len()));
    let stem = endings
        .iter()
        .find_map(|ending| name.strip_suffix(&format!(".{ending}")))?;
    let file = image.with_file_name(format!("{stem}.{EMMC_BOOT}"));
    file.is_file().then_some(file)
}

/// What is left to do on the board, or here if the eMMC itself is `devices`.
pub fn left_to_do<'a>(file: &Path, devices: impl Iterator<Item = &'a Path>) -> String {
    let name = |device: &Path| Some(device.file_name()?.to_str()?.to_string());
    let mut disks: Vec<String> = devices
        .filter_map(name)
        .filter(|name| name.starts_with("mmcblk"))
        .collect();
    if disks.is_empty() {
        disks.push("mmcblk0".into());
    }
    let mut text = "The boot loader belongs into the boot partitions of the eMMC, which were not written. As root, where the eMMC is, by the name that it has there:\n".to_string();
    for disk in disks {
        for boot in ["boot0", "boot1"] {
            text.push_str(&format!(
                "  echo 0 > /sys/block/{disk}{boot}/force_ro && dd if={} of=/dev/{disk}{boot} conv=fsync\n",
                file.display()
            ));
        }
        text.push_str(&format!("  mmc bootpart enable 1 1 /dev/{disk}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_same_build_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for image in [
            "a-1.0.0-mine.raw",
            "a-1.0.0-mine.raw.zst",
            "a-1.0.0-mine.raw.xz",
        ] {
            assert_eq!(beside(&at(image)), None);
        }
        std::fs::write(at("a-1.0.0-mine.emmc-boot.bin"), "x").unwrap();
        for image in [
            "a-1.0.0-mine.raw",
            "a-1.0.0-mine.raw.zst",
            "a-1.0.0-mine.raw.xz",
        ] {
            assert_eq!(beside(&at(image)), Some(at("a-1.0.0-mine.emmc-boot.bin")));
        }
        assert_eq!(beside(&at("b-1.0.0-mine.raw")), None);
        assert_eq!(beside(Path::new("/")), None);
    }

    #[test]
    fn it_says_what_to_write_where() {
        let file = Path::new("x.bin");
        let text = left_to_do(file, [Path::new("/dev/mmcblk2")].into_iter());
        assert!(text.contains("dd if=x.bin of=/dev/mmcblk2boot1"), "{text}");
        assert!(text.contains("enable 1 1 /dev/mmcblk2\n"), "{text}");
        let text = left_to_do(file, [Path::new("/dev/sda")].into_iter());
        assert!(text.contains("/sys/block/mmcblk0boot0/force_ro"), "{text}");
    }
}
