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
fn whole_disk(paths: &Paths, partition: &Path) -> Result<PathBuf> {
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
