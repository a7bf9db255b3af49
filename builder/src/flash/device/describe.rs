//! How a disk is connected and what it calls itself.

use std::path::{Component, Path, PathBuf};

use super::{Bus, System};

/// What a disk calls itself, as it says it.
#[derive(Debug, Default)]
pub struct Identity {
    pub vendor: String,
    pub model: String,
    pub serial: String,
}

/// Where `/sys/block/<name>` leads, e.g. `devices/pci0000:00/…/usb1/…/block/sdb`.
fn link(system: &System, name: &str) -> PathBuf {
    let link = system.at(Path::new("sys/block").join(name));
    let target = std::fs::read_link(link).unwrap_or_default();
    let inside = target
        .components()
        .skip_while(|part| matches!(part, Component::ParentDir));
    inside.collect()
}

pub fn bus(system: &System, name: &str) -> Bus {
    let way = link(system, name).to_string_lossy().into_owned();
    let has = |part: &str| way.split('/').any(|word| word.starts_with(part));
    if name.starts_with("loop") {
        return Bus::Loop;
    }
    if way.starts_with("devices/virtual/") || name.starts_with("nbd") || name.starts_with("rbd") {
        return Bus::Made;
    }
    if has("usb") {
        return Bus::Usb;
    }
    if name.starts_with("mmcblk") || has("mmc_host") {
        let kind = system.text(Path::new("sys/block").join(name).join("device/type"));
        return match kind.as_deref() {
            Some("SD") => Bus::Sd,
            _ => Bus::Emmc,
        };
    }
    if name.starts_with("nvme") {
        return Bus::Nvme;
    }
    if has("virtio") || name.starts_with("xvd") {
        return Bus::Virtual;
    }
    if has("ata") || has("host") || has("target") {
        return Bus::Scsi;
    }
    Bus::Other
}

pub fn identity(system: &System, name: &str) -> Identity {
    let dir = Path::new("sys/block").join(name).join("device");
    let text = |file: &str| system.text(dir.join(file)).unwrap_or_default();
    let first = |files: [&str; 2]| {
        let found = files.into_iter().map(text).find(|text| !text.is_empty());
        found.unwrap_or_default()
    };
    let usb = usb_device(system, name);
    let of_usb = |file: &str| {
        let found = usb.as_ref().and_then(|dir| system.text(dir.join(file)));
        found.unwrap_or_default()
    };
    let mut identity = Identity {
        vendor: text("vendor"),
        model: first(["model", "name"]),
        serial: text("serial"),
    };
    // SCSI cuts names short and knows no serial number.
    for (ours, theirs) in [
        (&mut identity.vendor, of_usb("manufacturer")),
        (&mut identity.model, of_usb("product")),
    ] {
        if ours.is_empty() || theirs.starts_with(ours.as_str()) {
            *ours = theirs;
        }
    }
    if identity.serial.is_empty() {
        identity.serial = of_usb("serial");
    }
    // A number is no name: virtio's vendor.
    if identity.vendor.starts_with("0x") {
        identity.vendor.clear();
    }
    identity
}

/// The USB device that a disk is part of.
fn usb_device(system: &System, name: &str) -> Option<PathBuf> {
    let way = Path::new("sys").join(link(system, name));
    let found = way
        .ancestors()
        .find(|dir| system.at(dir.join("idVendor")).exists());
    found.map(Path::to_path_buf)
}
