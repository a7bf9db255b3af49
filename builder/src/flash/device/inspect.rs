//! Reads the disks of a system.

use std::collections::BTreeSet;
use std::path::Path;

use super::describe::{bus, identity};
use super::mounts::{mounts, swaps, Mount};
use super::names::clean;
use super::{Bus, Device, Part, System, Use};

/// Every disk of the system, by name. Drives without a medium have size 0.
pub fn list(system: &System) -> Vec<Device> {
    let entries = std::fs::read_dir(system.at("sys/block"));
    let mut names: Vec<String> = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mounts = mounts(system);
    let swaps = swaps(system);
    names
        .iter()
        .filter_map(|name| device(system, name, &mounts, &swaps))
        .collect()
}

fn device(system: &System, name: &str, mounts: &[Mount], swaps: &[String]) -> Option<Device> {
    let dir = Path::new("sys/block").join(name);
    let text = |file: &str| system.text(dir.join(file));
    let number = |file: &str| text(file).and_then(|text| text.parse::<u64>().ok());
    let bus = bus(system, name);
    let identity = identity(system, name);
    let mut device = Device {
        name: name.to_string(),
        // The kernel writes `!` for a slash in a name.
        path: Path::new("/dev").join(name.replace('!', "/")),
        number: text("dev")?,
        sequence: number("diskseq"),
        size: number("size").unwrap_or(0).saturating_mul(512),
        bus,
        removable: number("removable") == Some(1),
        read_only: number("ro") == Some(1),
        discards: number("queue/discard_max_bytes").is_some_and(|bytes| bytes > 0),
        vendor: clean(&identity.vendor),
        model: clean(&identity.model),
        serial: clean(&identity.serial),
        partitions: partitions(system, &dir, name),
        uses: Vec::new(),
    };
    device.uses = uses(system, &device, mounts, swaps);
    Some(device)
}

fn partitions(system: &System, dir: &Path, disk: &str) -> Vec<Part> {
    let entries = std::fs::read_dir(system.at(dir));
    let mut parts: Vec<Part> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with(disk) {
                return None;
            }
            let text = |file: &str| system.text(dir.join(&name).join(file));
            text("partition")?;
            let number = |file: &str| text(file).and_then(|text| text.parse::<u64>().ok());
            Some(Part {
                number: text("dev")?,
                start: number("start")?.saturating_mul(512),
                size: number("size")?.saturating_mul(512),
                name,
            })
        })
        .collect();
    parts.sort_by(|a, b| (a.start, &a.name).cmp(&(b.start, &b.name)));
    parts
}

/// What a disk and its partitions are used for, also through what is built on them.
fn uses(system: &System, device: &Device, mounts: &[Mount], swaps: &[String]) -> Vec<Use> {
    let mut uses = Vec::new();
    let whole = (device.name.as_str(), device.number.as_str());
    let parts = device.partitions.iter();
    let all = std::iter::once(whole).chain(parts.map(|p| (p.name.as_str(), p.number.as_str())));
    for (name, number) in all {
        let dir = if name == device.name {
            Path::new("sys/block").join(name)
        } else {
            Path::new("sys/block").join(&device.name).join(name)
        };
        used_as(system, name, number, mounts, swaps, &mut uses);
        let mut seen = BTreeSet::new();
        holders(system, name, &dir, mounts, swaps, &mut seen, &mut uses);
        member(system, name, number, mounts, &mut uses);
    }
    uses
}

fn used_as(
    system: &System,
    name: &str,
    number: &str,
    mounts: &[Mount],
    swaps: &[String],
    uses: &mut Vec<Use>,
) {
    let file = format!("/dev/{name}");
    let names = aliases(system, name);
    let is = |path: &str| path == file || names.iter().any(|alias| alias == path);
    for mount in mounts {
        if mount.number == number || is(&mount.source) {
            uses.push(Use::Mounted {
                on: name.to_string(),
                at: mount.at.clone(),
                system: mount.is_system(),
            });
        }
    }
    if swaps.iter().any(|swap| is(swap)) {
        uses.push(Use::Swap {
            on: name.to_string(),
        });
    }
}

/// Other paths that device-mapper gives the device.
fn aliases(system: &System, name: &str) -> Vec<String> {
    let dm = system.text(Path::new("sys/block").join(name).join("dm/name"));
    dm.map(|dm| format!("/dev/mapper/{dm}"))
        .into_iter()
        .collect()
}

fn holders(
    system: &System,
    on: &str,
    dir: &Path,
    mounts: &[Mount],
    swaps: &[String],
    seen: &mut BTreeSet<String>,
    uses: &mut Vec<Use>,
) {
    let entries = std::fs::read_dir(system.at(dir.join("holders")));
    for entry in entries.into_iter().flatten().flatten() {
        let by = entry.file_name().to_string_lossy().into_owned();
        if !seen.insert(by.clone()) {
            continue;
        }
        let above = Path::new("sys/block").join(&by);
        uses.push(Use::Holder {
            on: on.to_string(),
            kind_of: kind_of(system, &above, &by),
            by: by.clone(),
        });
        let number = system.text(above.join("dev")).unwrap_or_default();
        used_as(system, &by, &number, mounts, swaps, uses);
        holders(system, &by, &above, mounts, swaps, seen, uses);
    }
}

fn kind_of(system: &System, dir: &Path, name: &str) -> String {
    let dm = system.text(dir.join("dm/uuid")).unwrap_or_default();
    let kind = match dm.split_once('-') {
        Some(("LVM", _)) => "LVM",
        Some(("CRYPT", _)) => "encryption",
        Some(("mpath", _)) => "multipath",
        Some(_) => "device-mapper",
        None if name.starts_with("md") => "RAID",
        None if name.starts_with("bcache") => "bcache",
        None if name.starts_with("dm-") => "device-mapper",
        None => "another device",
    };
    kind.to_string()
}

/// What udev found written on it.
fn member(system: &System, name: &str, number: &str, mounts: &[Mount], uses: &mut Vec<Use>) {
    let Some(data) = system.text(Path::new("run/udev/data").join(format!("b{number}"))) else {
        return;
    };
    let kind = data
        .lines()
        .find_map(|line| line.strip_prefix("E:ID_FS_TYPE="))
        .unwrap_or_default();
    if let Some(of) = super::signature::member_of(kind) {
        // ZFS tells nobody which disks a pool has.
        let system = of == "ZFS" && mounts.iter().any(|m| m.fs == "zfs" && m.is_system());
        uses.push(Use::Member {
            on: name.to_string(),
            of: of.to_string(),
            system,
        });
    }
}

impl Bus {
    /// Whether a disk on it is a thing one takes in the hand.
    pub(super) fn is_handy(self) -> bool {
        matches!(self, Self::Usb | Self::Sd)
    }
}
