//! What a board file must make sense of besides the schema.

use std::collections::BTreeSet;
use std::path::Path;

use super::{
    Backend, Board, DeviceTrees, Disk, Environment, RawArea, Role, ScriptImage, Source, Table,
    ERASE_BLOCK,
};

/// Sectors are the unit of everything outside partitions.
const SECTOR: u64 = 512;
/// Partitions begin at multiples of this.
const MIB: u64 = super::Size::MIB;

/// Debian architectures that a board may have.
const ARCHITECTURES: &[&str] = &["amd64", "arm64", "armhf", "ppc64el"];

/// GRUB terminals that the boot script knows how to set up.
const CONSOLES: &[&str] = &["console", "serial"];

/// Kernel arguments that the builder and libostree set themselves.
const RESERVED_KARGS: &[&str] = &[crate::device::ID_KARG, "ostree", "root"];

/// `Err` is the problem in words.
pub(super) type Checked = Result<(), String>;

pub(super) fn check(board: &Board, file: &Path) -> Checked {
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    if stem != Some(board.id.as_str()) {
        return Err(format!(
            "id is \"{}\"; it must be the file's name without .toml",
            board.id
        ));
    }
    if !is_id(&board.id) {
        return Err(format!(
            "id \"{}\" may hold lower-case letters, digits, _ and - only, a letter first",
            board.id
        ));
    }
    if !ARCHITECTURES.contains(&board.arch.as_str()) {
        return Err(format!(
            "arch \"{}\" is none of {}",
            board.arch,
            ARCHITECTURES.join(", ")
        ));
    }
    if board.maintainers.is_empty() {
        return Err("maintainers is empty; somebody must answer for a board".into());
    }
    check_kargs(&board.kernel_args)?;
    for console in &board.boot.consoles {
        if !CONSOLES.contains(&console.as_str()) {
            return Err(format!(
                "boot.consoles: \"{console}\" is none of {}",
                CONSOLES.join(", ")
            ));
        }
    }
    check_components(&board.components)?;
    check_watchdog(board)?;
    check_environment(board)?;
    check_disk(&board.disk)?;
    check_sectors(board)?;
    for area in &board.disk.raw {
        check_raw(area)?;
    }
    super::update::check(board)?;
    if let Some(trees) = &board.device_trees {
        check_device_trees(trees)?;
    }
    check_firmware(board)?;
    super::efi_loader::check(board)?;
    super::core::check(board)?;
    super::reader::check(board)?;
    board.check_secure_boot()?;
    check_qemu(board)?;
    check_places(board)
}

fn check_components(components: &[String]) -> Checked {
    let strange = components
        .iter()
        .find(|name| !is_id(name) || name.contains('_'));
    match strange {
        Some(name) => Err(format!(
            "components: \"{name}\" is no component of an archive; Debian has main, contrib, non-free, non-free-firmware"
        )),
        None => Ok(()),
    }
}

fn check_watchdog(board: &Board) -> Checked {
    if board.watchdog_max_seconds == Some(0) {
        return Err("watchdog-max-seconds is 0: no time to be fed in".into());
    }
    let start = &board.boot.watchdog_start;
    if board.boot.backend == Backend::Grub && !start.is_empty() {
        return Err(
            "boot.watchdog-start is for the backend \"uboot\": GRUB writes no registers".into(),
        );
    }
    match start.iter().find(|write| write.address % 4 != 0) {
        Some(write) => Err(format!(
            "boot.watchdog-start: address {:#x} is not a multiple of 4, as that of a 32-bit register",
            write.address
        )),
        None => Ok(()),
    }
}

fn check_environment(board: &Board) -> Checked {
    if board.boot.backend == Backend::Grub && board.boot.script != ScriptImage::default() {
        return Err("boot.script is for the backend \"uboot\"".into());
    }
    let environment = match (board.boot.backend, &board.boot.environment) {
        (Backend::Grub, None) => return Ok(()),
        (Backend::Grub, Some(_)) => {
            return Err("boot.environment is for the backend \"uboot\"; GRUB's state stands on the firmware partition".into())
        }
        (Backend::Uboot, None) => {
            return Err("boot.environment is missing: the backend \"uboot\" keeps the boot state there".into())
        }
        (Backend::Uboot, Some(environment)) => environment,
    };
    let Environment {
        offset,
        redundant_offset,
        size,
    } = *environment;
    for (key, place) in [("offset", offset), ("redundant-offset", redundant_offset)] {
        if place.0 % ERASE_BLOCK != 0 {
            return Err(format!(
                "boot.environment.{key} {place} is not aligned: a copy begins at a multiple of 512KiB, so that it shares no erase block"
            ));
        }
    }
    if offset == redundant_offset {
        return Err("boot.environment: both copies have the same offset".into());
    }
    if size.0 == 0 || size.0 % SECTOR != 0 || size.0 > ERASE_BLOCK {
        return Err(format!(
            "boot.environment.size {size} must be a multiple of 512 bytes, at most 512KiB; try \"16KiB\""
        ));
    }
    Ok(())
}

fn check_raw(area: &RawArea) -> Checked {
    let name = &area.name;
    if !is_id(name) {
        return Err(format!(
            "raw area \"{name}\": its name may hold lower-case letters, digits, _ and - only, a letter first"
        ));
    }
    if area.offset.0 % SECTOR != 0 || area.size.0 % SECTOR != 0 || area.size.0 == 0 {
        return Err(format!(
            "raw area \"{name}\": offset {} and size {} must be multiples of 512 bytes, the size not 0",
            area.offset, area.size
        ));
    }
    check_source(&format!("raw area \"{name}\""), area.source()?)?;
    match &area.magic {
        Some(magic) if magic.bytes().is_none() => Err(format!(
            "raw area \"{name}\": magic.hex \"{}\" is not made of pairs of hex digits",
            magic.hex
        )),
        _ => Ok(()),
    }
}

fn check_source(what: &str, source: Source<'_>) -> Checked {
    match source {
        Source::Package { file, .. } => check_path(&format!("{what}: file"), file),
        Source::User(path) => check_path(&format!("{what}: user-file"), path),
        Source::DeviceTree(path) => check_path(&format!("{what}: device-tree"), path),
        Source::Text(_) => Ok(()),
    }
}

fn check_device_trees(trees: &DeviceTrees) -> Checked {
    let mut seen = BTreeSet::new();
    for file in trees.files() {
        check_path("device-trees:", file)?;
        if !file.ends_with(".dtb") || !seen.insert(file) {
            return Err(format!(
                "device-trees: \"{file}\" must end in .dtb and be named once"
            ));
        }
    }
    let mut names = BTreeSet::new();
    for (path, name) in trees.overlays.iter().zip(trees.overlay_files()) {
        check_path("device-trees.overlays:", path)?;
        if !path.ends_with(".dtbo") || !names.insert(name) {
            return Err(format!(
                "device-trees.overlays: \"{path}\" must end in .dtbo and have a file name of its own"
            ));
        }
    }
    Ok(())
}

/// Everything has its place on the disk, nothing overlaps.
#[cfg(feature = "host")]
fn check_places(board: &Board) -> Checked {
    crate::disk::plan(board, &std::collections::BTreeMap::new())
        .map(drop)
        .map_err(|error| error.to_string())
}

/// The device never lays out a disk.
#[cfg(not(feature = "host"))]
fn check_places(_: &Board) -> Checked {
    Ok(())
}

fn is_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
}

fn check_kargs(args: &[String]) -> Checked {
    for arg in args {
        let key = arg.split('=').next().unwrap_or_default();
        if RESERVED_KARGS.contains(&key) {
            return Err(format!(
                "kernel-args: \"{arg}\" is set by the builder; leave it out"
            ));
        }
        if arg.trim() != arg || arg.is_empty() || arg.contains(['\n', '\'']) {
            return Err(format!(
                "kernel-args: \"{arg}\" is not one kernel argument; give each its own string, without single quotes"
            ));
        }
    }
    Ok(())
}

fn check_table(disk: &Disk) -> Checked {
    if let Some(first) = disk.first_partition {
        if first.0 == 0 || first.0 % MIB != 0 {
            return Err(format!(
                "disk.first-partition {first} must be a multiple of 1MiB"
            ));
        }
    }
    // Four entries fill a sector.
    if let Some(entries) = disk.table_entries {
        if disk.table == Table::Mbr || entries % 4 != 0 || !(4..=128).contains(&entries) {
            return Err(format!(
                "disk.table-entries {entries} must be a multiple of 4, at most 128; an MBR always has four"
            ));
        }
    }
    if let Some(offset) = disk.table_entries_offset {
        // The array has 16 KiB at most. Who writes disks replaces the first MiB last, with the table in it.
        let fits = (2 * SECTOR..=MIB - 16 * 1024).contains(&offset.0);
        if disk.table == Table::Mbr || offset.0 % SECTOR != 0 || !fits {
            return Err(format!(
                "disk.table-entries-offset {offset} must be a multiple of 512, from 1KiB to 1008KiB; an MBR has no such place"
            ));
        }
    }
    let room = match disk.table {
        Table::Mbr => 4,
        _ => disk.table_entries.unwrap_or(128) as usize,
    };
    if disk.partitions.len() > room {
        return Err(format!(
            "there are {} partitions; the partition table has room for {room}",
            disk.partitions.len()
        ));
    }
    match disk.partitions.iter().find(|partition| partition.grow) {
        Some(partition) if disk.table == Table::Mbr => Err(format!(
            "partition \"{}\" has grow = true, but with table = \"mbr\" nothing can grow; take gpt or hybrid, or give it its size",
            partition.label
        )),
        _ => Ok(()),
    }
}

/// Larger sectors are those of servers' disks; no boot ROM that looks at a byte of the disk knows them.
fn check_sectors(board: &Board) -> Checked {
    let disk = &board.disk;
    match disk.sector_size {
        512 => return Ok(()),
        4096 => {}
        other => {
            return Err(format!(
                "disk.sector-size {other} is neither 512 nor 4096: no disk has such sectors"
            ))
        }
    }
    if disk.table != Table::Gpt
        || disk.table_entries.is_some()
        || disk.table_entries_offset.is_some()
    {
        return Err(
            "disk.sector-size = 4096 needs table = \"gpt\", whole and in its usual place".into(),
        );
    }
    if board.boot.backend != Backend::Grub || board.boot.core.is_some() {
        return Err("disk.sector-size = 4096 is for machines with UEFI: U-Boot's boards, a PC's BIOS and Open Firmware read sectors of 512 bytes".into());
    }
    match disk.raw.iter().find(|area| area.offset.0 % 4096 != 0 || area.size.0 % 4096 != 0) {
        Some(area) => Err(format!(
            "raw area \"{}\": offset {} and size {} must be multiples of 4096 bytes, the disk's sectors",
            area.name, area.offset, area.size
        )),
        None => Ok(()),
    }
}

fn check_disk(disk: &Disk) -> Checked {
    check_table(disk)?;
    let mut names = BTreeSet::new();
    if let Some(area) = disk.raw.iter().find(|area| !names.insert(&area.name)) {
        return Err(format!("two raw areas have the name \"{}\"", area.name));
    }
    let mut labels = BTreeSet::new();
    for partition in &disk.partitions {
        let label = &partition.label;
        // 11 is the length of a FAT volume label, the shortest of the places where a label stands.
        if !is_id(label) || label.len() > 11 {
            return Err(format!(
                "partition label \"{label}\" must be 1 to 11 lower-case letters, digits, _ or -, a letter first"
            ));
        }
        if !labels.insert(label) {
            return Err(format!("two partitions have the label \"{label}\""));
        }
        if partition.size.0 == 0 {
            return Err(format!("partition \"{label}\" has size 0"));
        }
    }
    for role in [Role::Firmware, Role::Root, Role::Data] {
        let count = disk.partitions.iter().filter(|p| p.role == role).count();
        if count != 1 {
            return Err(format!(
                "there must be exactly one partition with role \"{}\"; there are {count}",
                role.as_str()
            ));
        }
    }
    let last = disk.partitions.len().saturating_sub(1);
    match disk
        .partitions
        .iter()
        .enumerate()
        .find(|(index, p)| p.grow && *index != last)
    {
        Some((_, partition)) => Err(format!(
            "partition \"{}\" has grow = true, but only the last one on the disk can grow",
            partition.label
        )),
        None => Ok(()),
    }
}

fn check_firmware(board: &Board) -> Checked {
    // FAT does not tell upper from lower case.
    let mut taken: BTreeSet<String> = crate::boot::STATE_FILES
        .iter()
        .chain([&board.boot.config.as_str()])
        .map(|path| path.to_ascii_lowercase())
        .collect();
    check_path("boot.config", &board.boot.config)?;
    for file in &board.firmware {
        check_path("firmware path", &file.path)?;
        let source = file.source()?;
        check_source(&format!("firmware path \"{}\"", file.path), source)?;
        if let Source::DeviceTree(tree) = source {
            let known = board.device_trees.as_ref();
            if !known.is_some_and(|trees| trees.files().any(|file| file == tree)) {
                return Err(format!(
                    "firmware path \"{}\": device-tree \"{tree}\" is not in device-trees",
                    file.path
                ));
            }
        }
        if !taken.insert(file.path.to_ascii_lowercase()) {
            return Err(format!(
                "firmware path \"{}\" is taken twice (the builder itself writes the boot configuration and the boot state)",
                file.path
            ));
        }
    }
    Ok(())
}

fn check_path(what: &str, path: &str) -> Checked {
    let sound = !path.is_empty()
        && path
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\n']));
    if sound {
        Ok(())
    } else {
        Err(format!(
            "{what} \"{path}\" must be a relative path without \"..\", e.g. \"EFI/BOOT/BOOTX64.EFI\""
        ))
    }
}

fn check_qemu(board: &Board) -> Checked {
    let Some(qemu) = &board.qemu else {
        return Ok(());
    };
    if qemu.memory_mib == 0 {
        return Err("qemu.memory-mib is 0".into());
    }
    for from in [&qemu.bios, &qemu.kernel].into_iter().flatten() {
        check_path("qemu: file", &from.file)?;
    }
    if qemu.pflash.iter().any(Vec::is_empty) {
        return Err("qemu.pflash holds an empty list of candidates".into());
    }
    if qemu.loader_device_tree.is_some() && qemu.device_tree.is_none() {
        return Err("qemu.loader-device-tree needs qemu.device-tree".into());
    }
    if qemu.device_tree.is_some() && (qemu.kernel.is_none() || board.device_trees.is_none()) {
        return Err("qemu.device-tree needs qemu.kernel (U-Boot) and [device-trees]".into());
    }
    if let Some(port) = &qemu.test_port {
        let is_serial = !port.is_empty() && port.bytes().all(|c| c.is_ascii_alphanumeric());
        if !is_serial && port != super::TEST_PORT {
            return Err(format!(
                "qemu.test-port \"{port}\" must be the name of a serial port, e.g. \"ttyAMA0\", or \"{}\"",
                super::TEST_PORT
            ));
        }
    }
    Ok(())
}
