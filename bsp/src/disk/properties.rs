//! What holds of every layout that the solver accepts: other tools read back what was meant, and nothing overlaps,
//! on the disk and in the boot partitions of an eMMC.

use std::collections::BTreeMap;
use std::process::Command;

use gpt::disk::LogicalBlockSize;
use proptest::prelude::*;

use super::golden::fdisk;
use super::{plan, write_table, TableIds};
use crate::board::{builtin, Medium, RawArea, Size, EMMC_BOOT_MAX, EMMC_BOOT_UNIT};

fn sizes(firmware: u64, root: u64, data: u64) -> BTreeMap<String, Size> {
    let sizes = [("firmware", firmware), ("root", root), ("data", data)];
    BTreeMap::from(sizes.map(|(label, mib)| (label.to_owned(), Size(mib << 20))))
}

fn area(name: &str, start: u64, end: u64) -> RawArea {
    let mut area = builtin("a64-olinuxino-emmc").unwrap().disk.raw[0].clone();
    (area.name, area.place) = (name.into(), Medium::EmmcBoot);
    (area.offset, area.size) = (Size(start), Size(end - start));
    area
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn a_table_is_read_back_with_either_size_of_sectors(
        firmware in 8u64..600, root in 64u64..5000, data in 16u64..3000, large: bool
    ) {
        let mut board = builtin("x86_64-uefi").unwrap();
        let (sector, block) = match large {
            true => (4096, LogicalBlockSize::Lb4096),
            false => (512, LogicalBlockSize::Lb512),
        };
        board.disk.sector_size = sector;
        let layout = plan(&board, &sizes(firmware, root, data)).unwrap();
        for pair in layout.regions.windows(2) {
            prop_assert!(pair[0].bytes.end <= pair[1].bytes.start);
        }
        for region in &layout.regions {
            prop_assert_eq!(region.bytes.start % u64::from(sector), 0);
        }
        let mut disk = tempfile::NamedTempFile::new().unwrap();
        disk.as_file().set_len(layout.disk_bytes).unwrap();
        let ids = TableIds { product: "shop", board: &board.id, arch: &board.arch };
        write_table(&layout, ids, disk.as_file_mut()).unwrap();
        let read = gpt::GptConfig::new().logical_block_size(block).open(disk.path()).unwrap();
        let found: Vec<_> = read
            .partitions()
            .values()
            .map(|p| (p.name.clone(), p.first_lba, p.last_lba + 1))
            .collect();
        let sector = u64::from(sector);
        let meant: Vec<_> = layout
            .partitions
            .iter()
            .map(|p| (p.label.clone(), p.start / sector, (p.start + p.size) / sector))
            .collect();
        prop_assert_eq!(found, meant);
        if large {
            let said = fdisk(disk.path(), &[], "v\nq\n");
            prop_assert!(said.contains("No errors detected"), "{said}");
        } else {
            let output = Command::new("sfdisk").arg("--verify").arg(disk.path()).output();
            let output = output.expect("sfdisk not found: install fdisk");
            prop_assert!(output.status.success(), "{output:?}");
        }
    }
}

proptest! {
    #[test]
    fn boot_partitions_hold_what_does_not_overlap(
        first in 0u64..1000, first_end in 1u64..300, second in 0u64..1000, second_end in 1u64..300
    ) {
        let range = |start: u64, end: u64| start * 32768..end * EMMC_BOOT_UNIT;
        let (a, b) = (range(first, first_end), range(second, second_end));
        prop_assume!(a.start < a.end && b.start < b.end);
        let mut board = builtin("a64-olinuxino-emmc").unwrap();
        board.disk.raw = vec![area("spl", a.start, a.end), area("u-boot", b.start, b.end)];
        let apart = a.end <= b.start || b.end <= a.start;
        let fit = a.end.max(b.end) <= EMMC_BOOT_MAX;
        match plan(&board, &BTreeMap::new()) {
            Ok(layout) => {
                prop_assert!(apart && fit);
                prop_assert_eq!(layout.emmc_boot.len(), 2);
                prop_assert_eq!(layout.emmc_boot_bytes(), a.end.max(b.end));
                // The disk itself has no part in it.
                prop_assert!(layout.regions.iter().all(|region| !region.owner.contains("spl")));
            }
            Err(error) => {
                prop_assert!(!(apart && fit), "{error}");
                let text = error.to_string();
                prop_assert!(text.contains("of the eMMC's boot partitions"), "{text}");
            }
        }
    }
}
