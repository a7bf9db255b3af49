//! The layout of every built-in board, byte for byte as devices in the field have it: one file a board in
//! `golden/`. A change of one is a new board, not a correction.
//!
//! Judges of the tables: `sgdisk`, `sfdisk`, and for MBRs beside a GUID partition table `sfdisk --type dos`.

use std::path::Path;
use std::process::Command;

use super::{plan, write_table, Layout, TableIds, SECTOR};
use crate::board::{builtin, list, Board, Role, Table};

fn ids(board: &Board) -> TableIds<'_> {
    TableIds {
        product: "shop",
        board: &board.id,
        arch: &board.arch,
    }
}

/// Compares with a golden file, or writes it if `TREELINE_BLESS` is set.
fn golden(id: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/disk/golden/{id}.txt"));
    if std::env::var_os("TREELINE_BLESS").is_some() {
        std::fs::write(&path, got).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        got == expected,
        "{} differs; if the change is meant, run again with TREELINE_BLESS=1. Now it would be:\n{got}",
        path.display()
    );
}

fn text(layout: &Layout) -> String {
    let regions = layout.regions.iter().map(|region| {
        let bytes = &region.bytes;
        format!("{:>12} {:>12}  {}\n", bytes.start, bytes.end, region.owner)
    });
    let head = format!("{:>12} {:>12}  owner\n", "first byte", "end");
    let disk = format!("{:>12} {:>12}  disk\n", 0, layout.disk_bytes);
    head + &disk + &regions.collect::<String>()
}

/// An empty disk with the board's partition table.
fn disk(dir: &Path, board: &Board, layout: &Layout) -> std::path::PathBuf {
    let path = dir.join(format!("{}.raw", board.id));
    let mut file = std::fs::File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    file.set_len(layout.disk_bytes).unwrap();
    write_table(layout, ids(board), &mut file).unwrap();
    path
}

fn run(program: &str, package: &str, args: &[&str], path: &Path) -> String {
    let output = Command::new(program)
        .args(args)
        .arg(path)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}; install {package}"));
    assert!(output.status.success(), "{program} {args:?}: {output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text + &String::from_utf8_lossy(&output.stderr)
}

/// Start and size, in bytes, of the lines of `sfdisk --dump`.
fn dumped(dump: &str) -> Vec<(u64, u64)> {
    let field = |line: &str, name: &str| -> Option<u64> {
        let rest = line.split_once(name)?.1;
        rest.split(',').next()?.trim().parse().ok()
    };
    dump.lines()
        .filter_map(|line| {
            Some((
                field(line, "start=")? * SECTOR,
                field(line, "size=")? * SECTOR,
            ))
        })
        .filter(|(_, size)| *size > 0)
        .collect()
}

fn judge(board: &Board, layout: &Layout, path: &Path) {
    let placed: Vec<_> = layout
        .partitions
        .iter()
        .map(|p| (p.start, p.size))
        .collect();
    let dump = run("sfdisk", "fdisk", &["--dump"], path);
    assert_eq!(dumped(&dump), placed, "{}: {dump}", board.id);
    run("sfdisk", "fdisk", &["--verify"], path);
    if layout.table == Table::Mbr {
        assert!(dump.contains("label: dos"), "{dump}");
        return;
    }
    let label = |name: &str| dump.contains(&format!("{name}\n"));
    assert!(label("label: gpt"), "{dump}");
    if layout.table_entries != 128 {
        assert!(
            label(&format!("table-length: {}", layout.table_entries)),
            "{dump}"
        );
    }
    let said = run("sgdisk", "gdisk", &["--verify"], path);
    assert!(said.contains("No problems found"), "{}: {said}", board.id);
    if layout.table == Table::Hybrid {
        let firmware = layout.partition(Role::Firmware).unwrap();
        let mbr = run(
            "sfdisk",
            "fdisk",
            &["--label-nested", "dos", "--dump"],
            path,
        );
        let guard = (SECTOR, firmware.start - SECTOR);
        assert_eq!(
            dumped(&mbr),
            [(firmware.start, firmware.size), guard],
            "{mbr}"
        );
        assert!(
            mbr.contains("type=c\n") && mbr.contains("type=ee\n"),
            "{mbr}"
        );
    }
}

#[test]
fn every_board_keeps_its_layout_and_other_tools_read_its_tables() {
    let dir = tempfile::tempdir().unwrap();
    for id in list() {
        let board = builtin(id).unwrap();
        let layout = plan(&board, &Default::default()).unwrap();
        golden(id, &text(&layout));
        let path = disk(dir.path(), &board, &layout);
        judge(&board, &layout, &path);
    }
}

#[test]
fn a_board_with_an_mbr_is_what_other_tools_expect() {
    let dir = tempfile::tempdir().unwrap();
    let mut board = builtin("x86_64-uefi").unwrap();
    board.disk.table = Table::Mbr;
    let layout = plan(&board, &Default::default()).unwrap();
    assert_eq!(layout.regions.last().unwrap().owner, "partition \"data\"");
    let path = disk(dir.path(), &board, &layout);
    judge(&board, &layout, &path);
    let output = Command::new("sfdisk")
        .arg("--dump")
        .arg(&path)
        .output()
        .unwrap();
    let dump = String::from_utf8_lossy(&output.stdout).into_owned();
    let id = crate::board::disk_id("shop", &board.id);
    assert!(dump.contains(&format!("label-id: {id:#010x}")), "{dump}");
    // Beyond what 32 bits of sectors can tell.
    let sizes = std::collections::BTreeMap::from([("data".into(), "2TiB".parse().unwrap())]);
    assert!(plan(&board, &sizes).is_err());
}

#[test]
fn no_byte_of_a_boot_loader_is_in_the_partition_table() {
    let board = builtin("orangepi-pc").unwrap();
    let layout = plan(&board, &Default::default()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path(), &board, &layout);
    let bytes = std::fs::read(&path).unwrap();
    for area in &board.disk.raw {
        let start = usize::try_from(area.offset.0).unwrap();
        let end = start + usize::try_from(area.size.0).unwrap();
        assert!(
            bytes[start..end].iter().all(|byte| *byte == 0),
            "{}",
            area.name
        );
    }
}
