//! The disk-layout solver.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{Layout, PlacedPartition, ALIGNMENT, SECTOR};
use crate::board::{
    Board, Disk, Environment, Medium, Partition, RawArea, Role, Size, Table, EMMC_BOOT_MAX,
    ERASE_BLOCK,
};

/// Entries of a GPT that does not say otherwise.
pub(super) const GPT_ENTRIES: u32 = 128;
/// Bytes of an entry.
const ENTRY: u64 = 128;
/// Largest disk: beyond it nothing that the builder makes is meant to go, and sums cannot overflow.
const MAX_DISK: u64 = 1 << 50;
/// Largest disk with an MBR: its numbers of sectors have 32 bits.
const MBR_DISK: u64 = SECTOR << 32;

/// What a byte range is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Part of a partition table.
    Table,
    /// Boot loader outside every partition.
    Raw,
    /// A copy of the boot environment.
    Environment,
    /// A partition.
    Partition,
}

/// A byte range and who it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// What it is for.
    pub kind: Kind,
    /// Owner, for people: `primary partition table`, `partition "root"`.
    pub owner: String,
    /// Bytes on the disk.
    pub bytes: Range<u64>,
}

/// A layout that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Two things want the same bytes.
    #[error("{} (bytes {} to {}) and {} (bytes {} to {}) overlap; {fits}",
        first.owner, first.bytes.start, first.bytes.end, second.owner, second.bytes.start, second.bytes.end)]
    Overlap {
        /// The one that stands first.
        first: Region,
        /// The other.
        second: Region,
        /// What would fit.
        fits: String,
    },
    /// Something ends beyond the disk.
    #[error("{} (bytes {} to {}) does not fit a disk of {disk_bytes} bytes; make it smaller or the disk larger",
        region.owner, region.bytes.start, region.bytes.end)]
    BeyondDisk {
        /// What ends too late.
        region: Region,
        /// Size of the disk.
        disk_bytes: u64,
    },
    /// A partition could not hold what belongs on it.
    #[error("partition \"{label}\" has {size}, but a {} partition needs at least {minimum}", role.as_str())]
    TooSmall {
        /// The partition's label.
        label: String,
        /// What it is for.
        role: Role,
        /// Its size.
        size: Size,
        /// The smallest sensible size.
        minimum: Size,
    },
    /// A size was given for a partition that the board does not have.
    #[error("there is no partition \"{label}\" on board {board}; it has {}", known.join(", "))]
    UnknownLabel {
        /// The label that was asked for.
        label: String,
        /// The board.
        board: String,
        /// Labels it has.
        known: Vec<String>,
    },
    /// No disk is that large.
    #[error("the partitions take more than {}", Size(MAX_DISK))]
    TooLarge,
}

/// The smallest size at which a partition can do its work: FAT with shim and GRUB, two deployments of
/// the smallest tree, an ext4 with a journal.
fn minimum(role: Role) -> Size {
    Size(match role {
        Role::Firmware => 8 * Size::MIB,
        Role::Root => 64 * Size::MIB,
        Role::Data => 16 * Size::MIB,
        Role::BootLoader => Size::MIB,
    })
}

/// Places the partitions of `board`, one after the other from `disk.first-partition` on; raw areas and boot
/// environment stand where the board says. `sizes` replaces sizes by label. Sizes are
/// rounded up to whole MiB; the disk ends one MiB after the last partition.
pub fn plan(board: &Board, sizes: &BTreeMap<String, Size>) -> Result<Layout, LayoutError> {
    let wanted = &board.disk.partitions;
    if let Some(label) = sizes.keys().find(|l| wanted.iter().all(|p| p.label != **l)) {
        return Err(LayoutError::UnknownLabel {
            label: label.clone(),
            board: board.id.clone(),
            known: wanted.iter().map(|p| p.label.clone()).collect(),
        });
    }
    let mut partitions = Vec::new();
    let mut next = board
        .disk
        .first_partition
        .map_or(ALIGNMENT, |first| first.0);
    for (partition, number) in wanted.iter().zip(1..) {
        let size = size_of(partition, sizes)?;
        partitions.push(PlacedPartition {
            number,
            label: partition.label.clone(),
            role: partition.role,
            start: next,
            size,
            grow: partition.grow,
        });
        next = next
            .checked_add(size)
            .filter(|end| *end <= MAX_DISK)
            .ok_or(LayoutError::TooLarge)?;
    }
    let disk_bytes = next + ALIGNMENT;
    if board.disk.table == Table::Mbr && disk_bytes > MBR_DISK {
        return Err(LayoutError::TooLarge);
    }
    Ok(Layout {
        table: board.disk.table,
        table_entries: board.disk.table_entries.unwrap_or(GPT_ENTRIES),
        table_entries_offset: entries_offset(&board.disk),
        sector_size: u64::from(board.disk.sector_size),
        disk_bytes,
        regions: regions(board, &partitions, disk_bytes)?,
        emmc_boot: emmc_boot(board)?,
        partitions,
    })
}

/// Every byte range that belongs to somebody.
fn regions(
    board: &Board,
    partitions: &[PlacedPartition],
    disk_bytes: u64,
) -> Result<Vec<Region>, LayoutError> {
    let mut regions = Vec::new();
    for region in table_regions(&board.disk, disk_bytes) {
        claim(&mut regions, region, disk_bytes)?;
    }
    for area in areas(board, Medium::Disk) {
        let owner = format!("raw area \"{}\"", area.name);
        claim(&mut regions, raw_region(area, owner), disk_bytes)?;
    }
    for partition in partitions {
        let region = Region {
            kind: Kind::Partition,
            owner: format!("partition \"{}\"", partition.label),
            bytes: partition.start..partition.start + partition.size,
        };
        claim(&mut regions, region, disk_bytes)?;
    }
    if let Some(environment) = &board.boot.environment {
        for region in environment_regions(environment) {
            claim(&mut regions, region, disk_bytes)?;
        }
        // They were claimed with the whole erase block, of which they take the beginning.
        for region in regions.iter_mut().filter(|r| r.kind == Kind::Environment) {
            region.bytes.end = region.bytes.start + environment.size.0;
        }
    }
    Ok(regions)
}

fn areas(board: &Board, place: Medium) -> impl Iterator<Item = &RawArea> {
    let raw = board.disk.raw.iter();
    raw.filter(move |area| area.place == place)
}

fn raw_region(area: &RawArea, owner: String) -> Region {
    Region {
        kind: Kind::Raw,
        owner,
        bytes: area.offset.0..area.offset.0.saturating_add(area.size.0),
    }
}

/// What stands in each boot partition of an eMMC.
fn emmc_boot(board: &Board) -> Result<Vec<Region>, LayoutError> {
    let mut regions = Vec::new();
    for area in areas(board, Medium::EmmcBoot) {
        let owner = format!("raw area \"{}\" of the eMMC's boot partitions", area.name);
        claim(&mut regions, raw_region(area, owner), EMMC_BOOT_MAX)?;
    }
    Ok(regions)
}

/// The copies of the boot environment, each with the erase block that it shares with nothing.
fn environment_regions(environment: &Environment) -> [Region; 2] {
    let region = |owner: &str, offset: Size| Region {
        kind: Kind::Environment,
        owner: owner.into(),
        bytes: offset.0..offset.0.saturating_add(ERASE_BLOCK.max(environment.size.0)),
    };
    [
        region("boot environment, first copy", environment.offset),
        region(
            "boot environment, second copy",
            environment.redundant_offset,
        ),
    ]
}

fn size_of(partition: &Partition, sizes: &BTreeMap<String, Size>) -> Result<u64, LayoutError> {
    let size = *sizes.get(&partition.label).unwrap_or(&partition.size);
    let minimum = minimum(partition.role);
    if size < minimum {
        return Err(LayoutError::TooSmall {
            label: partition.label.clone(),
            role: partition.role,
            size,
            minimum,
        });
    }
    size.0
        .checked_next_multiple_of(ALIGNMENT)
        .ok_or(LayoutError::TooLarge)
}

/// First byte of the entries of the primary table.
fn entries_offset(disk: &Disk) -> u64 {
    // Behind MBR and header, a sector each.
    disk.table_entries_offset
        .map_or(2 * u64::from(disk.sector_size), |offset| offset.0)
}

fn table_regions(disk: &Disk, disk_bytes: u64) -> Vec<Region> {
    let sector = u64::from(disk.sector_size);
    let region = |owner: &str, sectors: Range<u64>| Region {
        kind: Kind::Table,
        owner: owner.into(),
        bytes: sectors.start * sector..sectors.end * sector,
    };
    let end = disk_bytes / sector;
    let sectors = |entries: u32| (u64::from(entries) * ENTRY).div_ceil(sector);
    let entries = sectors(disk.table_entries.unwrap_or(GPT_ENTRIES));
    // The backup's array keeps its usual place, where other tools look for it.
    let usual = sectors(GPT_ENTRIES);
    let mbr = match disk.table {
        Table::Mbr => return vec![region("MBR", 0..1)],
        Table::Gpt => "protective MBR",
        Table::Hybrid => "hybrid MBR",
    };
    let first = entries_offset(disk) / sector;
    let mut regions = vec![
        region(mbr, 0..1),
        region("backup partition table", end - 1 - usual..end),
    ];
    if first == 2 {
        regions.push(region("primary partition table", 1..2 + entries));
    } else {
        regions.push(region("header of the primary partition table", 1..2));
        let owner = "entries of the primary partition table";
        regions.push(region(owner, first..first + entries));
    }
    regions
}

/// Gives `region` its place among `regions`, which stay in order; refuses what overlaps or ends beyond
/// the disk.
pub fn claim(
    regions: &mut Vec<Region>,
    region: Region,
    disk_bytes: u64,
) -> Result<(), LayoutError> {
    if region.bytes.end > disk_bytes {
        return Err(LayoutError::BeyondDisk { region, disk_bytes });
    }
    let taken = regions
        .iter()
        .find(|other| other.bytes.start < region.bytes.end && region.bytes.start < other.bytes.end);
    if let Some(other) = taken {
        let fits = what_fits(regions, other, &region, disk_bytes);
        let (first, second) = if other.bytes.start <= region.bytes.start {
            (other.clone(), region)
        } else {
            (region, other.clone())
        };
        return Err(LayoutError::Overlap {
            first,
            second,
            fits,
        });
    }
    let place = regions.partition_point(|other| other.bytes.start < region.bytes.start);
    regions.insert(place, region);
    Ok(())
}

/// What may be done about `region`, which runs into `other`: end before it, or begin behind it.
fn what_fits(regions: &[Region], other: &Region, region: &Region, disk_bytes: u64) -> String {
    let before = other.bytes.start.saturating_sub(region.bytes.start);
    if before > 0 {
        return format!(
            "where it begins, {} may have at most {before} bytes",
            region.owner
        );
    }
    let mut begin = other.bytes.end;
    let mut end = disk_bytes;
    let behind = regions.iter().map(|region| &region.bytes);
    for next in behind.skip_while(|bytes| bytes.start < other.bytes.end) {
        if next.start > begin {
            end = next.start;
            break;
        }
        begin = next.end;
    }
    format!(
        "{} may begin at byte {begin} at the earliest, with at most {} bytes",
        region.owner,
        end.saturating_sub(begin)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::builtin;
    use proptest::prelude::*;

    fn board() -> Board {
        builtin("x86_64-uefi").unwrap()
    }

    fn sizes(pairs: &[(&str, &str)]) -> BTreeMap<String, Size> {
        pairs
            .iter()
            .map(|(label, size)| ((*label).into(), size.parse().unwrap()))
            .collect()
    }

    #[test]
    fn every_byte_that_matters_has_one_owner() {
        let layout = plan(
            &board(),
            &sizes(&[("root", "512MiB"), ("data", "20000KiB")]),
        )
        .unwrap();
        let mib = Size::MIB;
        let shape: Vec<_> = layout
            .regions
            .iter()
            .map(|r| (r.owner.as_str(), r.bytes.clone()))
            .collect();
        assert_eq!(
            shape,
            [
                ("protective MBR", 0..512),
                ("primary partition table", 512..34 * 512),
                ("partition \"firmware\"", mib..65 * mib),
                ("partition \"root\"", 65 * mib..577 * mib),
                ("partition \"data\"", 577 * mib..597 * mib),
                ("backup partition table", 598 * mib - 33 * 512..598 * mib),
            ]
        );
        assert_eq!(layout.disk_bytes, 598 * mib);
        assert_eq!(layout.partition(Role::Root).unwrap().number, 2);
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let cases = [
            (
                sizes(&[("rot", "1GiB")]),
                "no partition \"rot\" on board x86_64-uefi; it has firmware, root, data",
            ),
            (
                sizes(&[("root", "1MiB")]),
                "partition \"root\" has 1MiB, but a root partition needs at least 64MiB",
            ),
            (sizes(&[("root", "2000TiB")]), "more than"),
        ];
        for (sizes, want) in cases {
            let text = plan(&board(), &sizes).unwrap_err().to_string();
            assert!(text.contains(want), "{text}");
        }
    }

    #[test]
    fn an_overlap_names_both_owners_and_their_ranges() {
        let region = |owner: &str, bytes| Region {
            kind: Kind::Raw,
            owner: owner.into(),
            bytes,
        };
        let mut regions = Vec::new();
        claim(&mut regions, region("boot loader", 100..200), 1000).unwrap();
        claim(&mut regions, region("table", 0..100), 1000).unwrap();
        let told = |wanted, regions: &mut Vec<Region>| {
            claim(regions, wanted, 1000).unwrap_err().to_string()
        };
        let text = told(region("spl", 250..350), &mut vec![region("root", 300..400)]);
        assert!(
            text.ends_with("where it begins, spl may have at most 50 bytes"),
            "{text}"
        );
        let taken = ["a", "b", "c"]
            .into_iter()
            .zip([0..100, 100..300, 500..600]);
        let mut taken: Vec<_> = taken.map(|(owner, bytes)| region(owner, bytes)).collect();
        let text = told(region("spl", 50..60), &mut taken);
        assert!(
            text.ends_with("spl may begin at byte 300 at the earliest, with at most 200 bytes"),
            "{text}"
        );
        let text = told(region("environment", 50..150), &mut regions);
        assert!(
            text.starts_with(
                "environment (bytes 50 to 150) and boot loader (bytes 100 to 200) overlap"
            ) || text
                .starts_with("table (bytes 0 to 100) and environment (bytes 50 to 150) overlap"),
            "{text}"
        );
        let text = claim(&mut regions, region("root", 900..1001), 1000)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("root (bytes 900 to 1001) does not fit a disk of 1000 bytes"),
            "{text}"
        );
        assert_eq!(regions.len(), 2);
    }

    proptest! {
        #[test]
        fn nothing_ever_overlaps(firmware: u64, root: u64, data: u64, shift in 0u32..64) {
            let sizes = BTreeMap::from([
                ("firmware".to_owned(), Size(firmware >> shift)),
                ("root".to_owned(), Size(root >> shift)),
                ("data".to_owned(), Size(data >> shift)),
            ]);
            if let Ok(layout) = plan(&board(), &sizes) {
                for pair in layout.regions.windows(2) {
                    prop_assert!(pair[0].bytes.end <= pair[1].bytes.start);
                }
                prop_assert_eq!(layout.regions.last().unwrap().bytes.end, layout.disk_bytes);
                for p in &layout.partitions {
                    prop_assert_eq!((p.start % ALIGNMENT, p.size % ALIGNMENT), (0, 0));
                    prop_assert!(p.size >= sizes[&p.label].0);
                }
            }
        }
    }
}
