//! Where the boot state stands on this device.

use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use bsp::board::{Backend, Environment};
use bsp::boot::store::{BootStore, GrubStore};
use bsp::boot::uboot::UbootStore;
use bsp::device::BootPlace;

use crate::paths::Paths;
use crate::problem::{Kind, Problem};

/// Opens the boot state of this device; reads only.
pub fn open(paths: &Paths, place: &BootPlace) -> Result<Box<dyn BootStore>> {
    let partition = paths
        .at("dev/disk/by-partuuid")
        .join(&place.firmware_partuuid);
    let store = match place.backend {
        Backend::Grub => grub(&partition),
        Backend::Uboot => uboot(paths, &partition, place.environment.as_ref()),
    };
    store.with_context(|| {
        let kind = if nix::unistd::geteuid().is_root() {
            Kind::BootState
        } else {
            Kind::Privilege
        };
        let device = partition.display();
        Problem::new(kind, format!("opening the boot state on {device}"))
    })
}

fn grub(partition: &Path) -> Result<Box<dyn BootStore>> {
    Ok(Box::new(GrubStore::open(partition)?))
}

fn uboot(
    paths: &Paths,
    partition: &Path,
    environment: Option<&Environment>,
) -> Result<Box<dyn BootStore>> {
    let environment = environment.with_context(|| {
        format!(
            "the configuration ({}) does not say where the U-Boot environment stands",
            bsp::device::CONFIG_PATH
        )
    })?;
    let disk = whole_disk(paths, partition)?;
    Ok(Box::new(UbootStore::open(&disk, environment)?))
}

/// The disk that a partition is on, as the kernel tells it: in sysfs, the directory of a partition stands
/// in that of its disk.
pub(crate) fn whole_disk(paths: &Paths, partition: &Path) -> Result<PathBuf> {
    let device = std::fs::canonicalize(partition)
        .with_context(|| format!("looking for the partition {}", partition.display()))?;
    let name = device.file_name().context("it has no name")?;
    let link = paths.at("sys/class/block").join(name);
    let directory = std::fs::canonicalize(&link).with_context(|| {
        format!(
            "looking for the disk of {}: {}",
            device.display(),
            link.display()
        )
    })?;
    if !directory.join("partition").exists() {
        bail!(
            "{} is not a partition: {} says so",
            device.display(),
            directory.display()
        );
    }
    let disk = directory
        .parent()
        .and_then(Path::file_name)
        .with_context(|| format!("{} is on no disk", device.display()))?;
    Ok(paths.at("dev").join(disk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bsp::board::Size;
    use std::os::unix::fs::symlink;

    /// A device whose firmware partition is `name`, as the kernel shows it in `directory`.
    fn device(name: &str, directory: &str, is_partition: bool) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        for dir in ["dev/disk/by-partuuid", "sys/class/block"] {
            std::fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        let own = root.path().join("sys/devices").join(directory);
        std::fs::create_dir_all(&own).unwrap();
        if is_partition {
            std::fs::write(own.join("partition"), "1\n").unwrap();
        }
        symlink(own, root.path().join("sys/class/block").join(name)).unwrap();
        std::fs::write(root.path().join("dev").join(name), "").unwrap();
        let link = root.path().join("dev/disk/by-partuuid/1234-01");
        symlink(Path::new("../..").join(name), &link).unwrap();
        (root, link)
    }

    #[test]
    fn the_disk_is_found_whatever_it_is_called() {
        for (partition, disk) in [
            ("mmcblk0p1", "mmcblk0"),
            ("sda1", "sda"),
            ("nvme0n1p1", "nvme0n1"),
        ] {
            let (root, link) = device(partition, &format!("soc/block/{disk}/{partition}"), true);
            let found = whole_disk(&Paths::below(root.path()), &link).unwrap();
            assert_eq!(found, root.path().join("dev").join(disk));
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let environment = Environment {
            offset: Size(0),
            redundant_offset: Size(0x8_0000),
            size: Size(0x4000),
        };
        let (root, link) = device("sda", "soc/block/sda", false);
        let paths = Paths::below(root.path());
        let text = |result: Result<Box<dyn BootStore>>| format!("{:#}", result.err().unwrap());
        assert!(text(uboot(&paths, &link, Some(&environment))).contains("is not a partition"));
        assert!(text(uboot(&paths, &link, None)).contains("does not say where"));
        let place = BootPlace {
            backend: Backend::Uboot,
            firmware_partuuid: "gone".into(),
            environment: Some(environment),
            tries: 3,
        };
        let error = text(open(&paths, &place));
        assert!(error.contains("opening the boot state on"), "{error}");
        assert!(error.contains("by-partuuid/gone"), "{error}");
    }
}
