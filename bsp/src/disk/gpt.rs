//! Writing the partition table.
//!
//! The types are those of the UEFI specification and of the UAPI group's Discoverable Partitions
//! Specification, so that other tools know what they see.

mod entries;

use std::fmt::Debug;
use std::io::{Read, Seek, Write};

use super::solver::GPT_ENTRIES;
use super::{mbr, DiskError, Layout, PlacedPartition};
use crate::board::{stable_uuid, Purpose, Role, Table};

/// Type of the firmware partition: EFI system partition.
pub const FIRMWARE_TYPE: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
/// Type of the data partition: `linux-generic`. It is the only one of this type on the disk, so
/// systemd-repart finds it by its type and grows it.
pub const DATA_TYPE: &str = "0fc63daf-8483-4772-8e79-3d69d8477de4";

/// Types of the root partition by Debian architecture.
const ROOT_TYPES: &[(&str, &str)] = &[
    ("amd64", "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
    ("arm64", "b921b045-1df0-41c3-af44-4c6f280d3fae"),
    ("armhf", "69dad710-2ce4-4e3c-b16c-21a1d49abed3"),
    ("ppc64el", "c31c45e6-3f39-412e-80fb-4809c4980599"),
];

/// Types of the partition that holds a boot loader without a file system, by Debian architecture: GRUB's BIOS boot
/// partition (GRUB manual, "BIOS installation"), the PReP boot partition of POWER machines.
const BOOT_LOADER_TYPES: &[(&str, &str)] = &[
    ("amd64", "21686148-6449-6e6f-744e-656564454649"),
    ("ppc64el", "9e1a2d38-c612-4316-aa26-8b49521e5a8b"),
];

/// The GUIDs of a disk: functions of product and board, see [`stable_uuid`].
#[derive(Debug, Clone, Copy)]
pub struct TableIds<'a> {
    /// Product name.
    pub product: &'a str,
    /// Board id.
    pub board: &'a str,
    /// Debian architecture of the board.
    pub arch: &'a str,
}

/// The type GUID of a partition with this role on this Debian architecture, lower case.
pub fn partition_type(role: Role, arch: &str) -> Result<&'static str, DiskError> {
    match role {
        Role::Firmware => Ok(FIRMWARE_TYPE),
        Role::Data => Ok(DATA_TYPE),
        Role::BootLoader => of_arch(BOOT_LOADER_TYPES, role, arch),
        Role::Root => of_arch(ROOT_TYPES, role, arch),
    }
}

fn of_arch(
    types: &[(&str, &'static str)],
    role: Role,
    arch: &str,
) -> Result<&'static str, DiskError> {
    let known = types.iter().find(|(known, _)| *known == arch);
    known.map(|(_, guid)| *guid).ok_or_else(|| {
        DiskError::Table(format!(
            "no {} partition type for architecture \"{arch}\"",
            role.as_str()
        ))
    })
}

/// Writes the partition tables of `layout` into `disk`, which must have exactly `layout.disk_bytes` bytes.
/// Writes nothing else.
pub fn write_table(
    layout: &Layout,
    ids: TableIds<'_>,
    disk: &mut (impl Read + Write + Seek + Debug),
) -> Result<(), DiskError> {
    match layout.table {
        Table::Gpt => write_protective(layout, disk)?,
        Table::Hybrid => mbr::write_hybrid(layout, ids, disk)?,
        Table::Mbr => return mbr::write(layout, ids, disk),
    }
    write_gpt(layout, ids, disk)?;
    let usual = (GPT_ENTRIES, 2 * layout.sector_size);
    if (layout.table_entries, layout.table_entries_offset) != usual {
        entries::adapt(layout, disk)?;
    }
    Ok(())
}

fn write_protective(
    layout: &Layout,
    disk: &mut (impl Read + Write + Seek + Debug),
) -> Result<(), DiskError> {
    let sectors = layout.disk_bytes / layout.sector_size;
    // The field has 32 bits; the specification says to put in the largest number if they do not do.
    let protected = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    gpt::mbr::ProtectiveMBR::with_lb_size(protected)
        .overwrite_lba0(disk)
        .map_err(table_error)?;
    Ok(())
}

fn write_gpt(
    layout: &Layout,
    ids: TableIds<'_>,
    disk: &mut (impl Read + Write + Seek + Debug),
) -> Result<(), DiskError> {
    let guid = stable_uuid(ids.product, ids.board, "", Purpose::Disk);
    let guid = guid.parse().map_err(table_error)?;
    let mut table = gpt::GptConfig::new()
        .writable(true)
        .logical_block_size(sectors(layout))
        .create_from_device(disk, Some(guid))
        .map_err(table_error)?;
    let partitions = layout
        .partitions
        .iter()
        .map(|partition| Ok((partition.number, entry(partition, layout.sector_size, ids)?)))
        .collect::<Result<_, DiskError>>()?;
    table.update_partitions(partitions).map_err(table_error)?;
    table.write().map_err(table_error)?;
    Ok(())
}

fn sectors(layout: &Layout) -> gpt::disk::LogicalBlockSize {
    match layout.sector_size {
        4096 => gpt::disk::LogicalBlockSize::Lb4096,
        _ => gpt::disk::LogicalBlockSize::Lb512,
    }
}

fn entry(
    partition: &PlacedPartition,
    sector: u64,
    ids: TableIds<'_>,
) -> Result<gpt::partition::Partition, DiskError> {
    let guid = stable_uuid(ids.product, ids.board, &partition.label, Purpose::Partition);
    Ok(gpt::partition::Partition {
        part_type_guid: gpt::partition_types::Type {
            guid: partition_type(partition.role, ids.arch)?
                .parse()
                .map_err(table_error)?,
            os: gpt::partition_types::OperatingSystem::None,
        },
        part_guid: guid.parse().map_err(table_error)?,
        first_lba: partition.start / sector,
        last_lba: (partition.start + partition.size) / sector - 1,
        flags: 0,
        name: partition.label.clone(),
    })
}

pub(super) fn table_error(error: impl std::fmt::Display) -> DiskError {
    DiskError::Table(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::SECTOR;
    use super::*;
    use crate::board::builtin;
    use std::process::Command;

    const IDS: TableIds<'static> = TableIds {
        product: "shop",
        board: "x86_64-uefi",
        arch: "amd64",
    };

    fn image(dir: &std::path::Path, name: &str) -> (Layout, std::path::PathBuf) {
        let board = builtin("x86_64-uefi").unwrap();
        let layout = super::super::plan(&board, &Default::default()).unwrap();
        let path = dir.join(name);
        let mut file = std::fs::File::create_new(&path).unwrap();
        file.set_len(layout.disk_bytes).unwrap();
        drop(file);
        file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .unwrap();
        write_table(&layout, IDS, &mut file).unwrap();
        (layout, path)
    }

    fn run(program: &str, package: &str, args: &[&std::ffi::OsStr]) -> String {
        let output = Command::new(program)
            .args(args)
            .output()
            .unwrap_or_else(|e| panic!("{program}: {e}; install {package}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{output:?}");
        text
    }

    #[test]
    fn other_tools_find_nothing_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let (_, path) = image(dir.path(), "disk.raw");
        let text = run("sgdisk", "gdisk", &["--verify".as_ref(), path.as_os_str()]);
        assert!(text.contains("No problems found"), "{text}");
        run("sfdisk", "fdisk", &["--verify".as_ref(), path.as_os_str()]);
    }

    #[test]
    fn other_tools_read_what_was_meant() {
        let dir = tempfile::tempdir().unwrap();
        let (layout, path) = image(dir.path(), "disk.raw");
        let text = run("sfdisk", "fdisk", &["--dump".as_ref(), path.as_os_str()]).to_lowercase();
        let disk = stable_uuid("shop", "x86_64-uefi", "", Purpose::Disk);
        assert!(text.contains(&format!("label-id: {disk}")), "{text}");
        for partition in &layout.partitions {
            let kind = partition_type(partition.role, "amd64").unwrap();
            let guid = stable_uuid("shop", "x86_64-uefi", &partition.label, Purpose::Partition);
            let numbers = |line: &str| line.replace(' ', "");
            let want = format!(
                "start={},size={},type={kind},uuid={guid},name=\"{}\"",
                partition.start / SECTOR,
                partition.size / SECTOR,
                partition.label
            );
            assert!(
                text.lines().any(|line| numbers(line).ends_with(&want)),
                "{want} in {text}"
            );
        }
    }

    #[test]
    fn two_tables_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (_, first) = image(dir.path(), "a.raw");
        let (_, second) = image(dir.path(), "b.raw");
        run("cmp", "diffutils", &[first.as_os_str(), second.as_os_str()]);
    }

    /// A GUID as it stands on the disk: its first three numbers in little-endian order.
    fn uuid_bytes(guid: &str) -> [u8; 16] {
        let digits: Vec<char> = guid.chars().filter(|c| *c != '-').collect();
        let order = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];
        order.map(|byte| {
            let pair: String = digits[2 * byte..2 * byte + 2].iter().collect();
            u8::from_str_radix(&pair, 16).unwrap()
        })
    }

    #[test]
    fn every_architecture_has_a_root_type() {
        for arch in ["amd64", "arm64", "armhf", "ppc64el"] {
            partition_type(Role::Root, arch).unwrap();
        }
        assert!(partition_type(Role::Root, "vax").is_err());
        let bios = partition_type(Role::BootLoader, "amd64").unwrap();
        // What it is known by: GRUB's authors chose it for its text.
        let bytes = uuid_bytes(bios);
        assert_eq!(&bytes, b"Hah!IdontNeedEFI");
        assert!(partition_type(Role::BootLoader, "arm64").is_err());
    }
}
