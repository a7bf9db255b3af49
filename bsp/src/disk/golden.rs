//! The layout of every built-in board, byte for byte as devices in the field have it: one file a board in
//! `golden/`. A change of one is a new board, not a correction.
//!
//! Judges of the tables: `sgdisk`, `sfdisk`, and for MBRs beside a GUID partition table `sfdisk --type dos`.

use std::path::Path;
use std::process::Command;

use super::{plan, write_table, Kind, Layout, TableIds, SECTOR};
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

/// What `fdisk` says of a disk with sectors of 4096 bytes, given these commands. `sgdisk` and older `sfdisk` take
/// every file for a disk with sectors of 512 bytes.
pub(super) fn fdisk(path: &Path, args: &[&str], commands: &str) -> String {
    let mut script = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut script, commands.as_bytes()).unwrap();
    std::io::Seek::rewind(&mut script).unwrap();
    let output = Command::new("fdisk")
        .env("LC_ALL", "C")
        .args(["--sector-size", "4096"])
        .args(args)
        .arg(path)
        .stdin(script)
        .output()
        .unwrap_or_else(|e| panic!("fdisk: {e}; install fdisk"));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A server's disk without an emulation of smaller sectors.
#[test]
fn sectors_of_4096_bytes_are_what_other_tools_expect() {
    let dir = tempfile::tempdir().unwrap();
    for id in ["x86_64-uefi", "aarch64-uefi"] {
        let mut board = builtin(id).unwrap();
        board.disk.sector_size = 4096;
        let layout = plan(&board, &Default::default()).unwrap();
        let tables = layout.regions.iter().filter(|r| r.kind == Kind::Table);
        let tables: Vec<_> = tables.map(|r| r.bytes.clone()).collect();
        let end = layout.disk_bytes;
        assert_eq!(tables, [0..4096, 4096..24576, end - 20480..end]);
        let path = disk(dir.path(), &board, &layout);
        let dump = fdisk(&path, &["--list", "--output", "Start,Sectors"], "");
        assert!(
            dump.contains("Disklabel type: gpt") && dump.contains("sectors of 1 * 4096"),
            "{dump}"
        );
        let listed: Vec<(u64, u64)> = dump
            .lines()
            .filter_map(|line| {
                let mut numbers = line.split_whitespace().map(str::parse);
                Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
            })
            .collect();
        let placed = layout.partitions.iter();
        let placed = placed.map(|p| (p.start / 4096, p.size / 4096));
        assert_eq!(listed, placed.collect::<Vec<_>>(), "{dump}");
        let said = fdisk(&path, &[], "v\nq\n");
        assert!(said.contains("No errors detected"), "{said}");
        // To the byte what is said of every part; nothing outside the tables.
        let bytes = std::fs::read(&path).unwrap();
        let (first, last) = (24576, usize::try_from(end - 20480).unwrap());
        assert!(bytes[first..last].iter().all(|byte| *byte == 0));
        // Told that the sectors are small, it finds no table.
        let other = Command::new("sfdisk")
            .arg("--dump")
            .arg(&path)
            .output()
            .unwrap();
        let other = String::from_utf8_lossy(&other.stdout).into_owned();
        assert!(!other.contains("label: gpt\n"), "{other}");
    }
}

#[test]
fn sectors_that_no_machine_of_a_board_has_are_refused() {
    let said = |id: &str, lines: &str| {
        let text = format!("id = \"mine\"\ndescription = \"d\"\nextends = \"{id}\"\n{lines}");
        let read = crate::board::from_toml(&text, Path::new("boards/mine.toml"));
        read.map(drop).map_err(|error| error.to_string())
    };
    said("aarch64-uefi", "[disk]\nsector-size = 4096\n").unwrap();
    for (id, lines, wanted) in [
        ("x86_64-uefi", "sector-size = 2048", "neither 512 nor 4096"),
        ("rockpro64", "sector-size = 4096", "for machines with UEFI"),
        ("x86_64-bios", "sector-size = 4096", "for machines with UEFI"),
        ("qemu-pseries", "sector-size = 4096", "for machines with UEFI"),
        ("x86_64-uefi", "sector-size = 4096\ntable = \"hybrid\"", "needs table"),
        ("x86_64-uefi", "sector-size = 4096\ntable-entries = 56", "needs table"),
        (
            "x86_64-uefi",
            "sector-size = 4096\n[[disk.raw]]\nname = \"x\"\nuser-file = \"x\"\noffset = \"33KiB\"\nsize = \"4KiB\"",
            "multiples of 4096",
        ),
    ] {
        let lines = format!("[disk]\n{lines}\n");
        let text = said(id, &lines).unwrap_err();
        assert!(text.contains(wanted), "{id}: {text}");
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
