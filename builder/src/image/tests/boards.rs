//! Every board's image with stand-ins for its boot loader (the whole-system tests take the real ones), and
//! what is refused before a byte is written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bsp::board::{Backend, Board, Medium, RawArea, Role, Size, Source, UpdateWay};
use bsp::boot::uboot::env;
use bsp::disk::{self, Kind, Layout};
use bsp::loader::Record;
use sha2::{Digest, Sha256};

use super::super::assemble::{assemble, Parts, Systems};
use super::super::sources::{DeviceTrees, Sources};
use super::super::{emmc_boot, firmware};
use super::host_mke2fs;
use crate::command::Command;
use crate::lock::LockedFile;

const KERNEL: &str = "6.1-x";
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Packages with stand-ins, and a repository with a commit that has all device trees.
struct World {
    dir: tempfile::TempDir,
    unpacked: Vec<(String, PathBuf)>,
    commit: String,
}

fn write(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A file that passes for the one that belongs in `area`.
fn stand_in(area: &RawArea) -> Vec<u8> {
    let mut content = vec![0xa5; 5000];
    if let Some(magic) = &area.magic {
        let bytes = magic.bytes().unwrap();
        let at = usize::try_from(magic.offset).unwrap();
        content[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    content
}

impl World {
    fn new(boards: &[Board]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let package_dir = |package: &str| dir.path().join("unpacked").join(package);
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut unpacked = BTreeMap::new();
        for board in boards {
            for package in board.firmware_packages() {
                unpacked.insert(package.to_string(), package_dir(package));
            }
            for file in &board.firmware {
                if let Source::Package { package, file } = file.source().unwrap() {
                    write(&package_dir(package).join(file), file.as_bytes());
                }
            }
            for area in &board.disk.raw {
                if let Source::Package { package, file } = area.source().unwrap() {
                    write(&package_dir(package).join(file), &stand_in(area));
                }
            }
            for file in board.device_trees.iter().flat_map(|trees| trees.files()) {
                let path = format!("usr/lib/modules/{KERNEL}/dtb/{file}");
                write(&tree.join(path), file.as_bytes());
            }
        }
        let repo = format!("--repo={}", dir.path().join("repo").display());
        let ostree = |args: &[&str]| Command::new("ostree", "ostree").args(args).arg(&repo);
        ostree(&["init", "--mode=archive"]).run().unwrap();
        let from = format!("--tree=dir={}", tree.display());
        let commit = ostree(&["commit", "--branch=b"]).arg(from).text().unwrap();
        Self {
            commit: commit.trim().to_string(),
            unpacked: unpacked.into_iter().collect(),
            dir,
        }
    }

    fn repo(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    /// Assembles the image of a board and has it judged.
    fn judge(&self, board: &Board) {
        let sizes = BTreeMap::from(
            [("firmware", 35), ("root", 64), ("data", 40)]
                .map(|(label, mib)| (label.to_string(), Size(mib << 20))),
        );
        let layout = disk::plan(board, &sizes).unwrap();
        let repo = self.repo();
        let sources = Sources {
            unpacked: &self.unpacked,
            dir: self.dir.path(),
            files: &[],
            device_trees: DeviceTrees::Commit {
                repo: &repo,
                checksum: &self.commit,
                kernel_version: KERNEL,
            },
        };
        let firmware = firmware::files("demo", board, &layout, &sources, ID, 1, None).unwrap();
        let mut areas = sources.raw_areas(board).unwrap();
        areas.extend(firmware::environment_copies(board, ID).unwrap());
        let raw = self.dir.path().join(format!("{}.raw", board.id));
        let parts = Parts {
            product: "demo",
            board,
            layout: &layout,
            firmware: &firmware,
            areas: &areas,
        };
        let systems = Systems {
            mke2fs: &host_mke2fs(),
            root: None,
            source_date_epoch: 1_700_000_000,
        };
        let mapped = assemble(&parts, &systems, &raw).unwrap();
        let file = File::open(&raw).unwrap();
        for (offset, content) in &areas {
            let range = *offset..*offset + content.len() as u64;
            let covered =
                |all: std::ops::Range<u64>| all.start <= range.start && range.end <= all.end;
            assert!(mapped.iter().any(covered), "{}: {range:?}", board.id);
        }
        boot_loader(board, &file);
        self.firmware_partition(board, &layout, &firmware, &file);
        // Only what is meant: areas are not filled up to their size.
        let first = layout.partitions[0].start;
        let before = mapped.iter().filter(|range| range.start < first);
        let tables = layout
            .regions
            .iter()
            .filter(|region| region.kind == Kind::Table && region.bytes.start < first);
        let expected: u64 = tables
            .map(|table| table.bytes.end - table.bytes.start)
            .chain(areas.iter().map(|(_, content)| content.len() as u64))
            .sum();
        let outside: u64 = before.map(|range| range.end.min(first) - range.start).sum();
        assert_eq!(outside, expected, "{}", board.id);
    }

    fn firmware_partition(
        &self,
        board: &Board,
        layout: &Layout,
        firmware: &[(String, Vec<u8>)],
        disk: &File,
    ) {
        let partition = layout.partition(Role::Firmware).unwrap();
        let mut bytes = vec![0; usize::try_from(partition.size).unwrap()];
        disk.read_exact_at(&mut bytes, partition.start).unwrap();
        let copy = self.dir.path().join("firmware");
        fs::write(&copy, bytes).unwrap();
        Command::new("fsck.fat", "dosfstools")
            .arg("-n")
            .arg(&copy)
            .run()
            .unwrap();
        for (path, content) in firmware {
            let out = self.dir.path().join("file");
            let _ = fs::remove_file(&out);
            Command::new("mcopy", "mtools")
                .arg("-i")
                .arg(&copy)
                .arg(format!("::{path}"))
                .arg(&out)
                .run()
                .unwrap();
            assert!(fs::read(&out).unwrap() == *content, "{}: {path}", board.id);
        }
    }
}

/// Magic and state stand where boot ROM and boot script look.
fn boot_loader(board: &Board, disk: &File) {
    for area in &board.disk.raw {
        let mut found = stand_in(area);
        found.fill(0);
        disk.read_exact_at(&mut found, area.offset.0).unwrap();
        assert!(found == stand_in(area), "{}: {}", board.id, area.name);
        if let Some(magic) = &area.magic {
            assert!(magic.is_in(&found), "{}: {}", board.id, area.name);
        }
    }
    let Some(environment) = &board.boot.environment else {
        return;
    };
    let mut flags = Vec::new();
    for offset in [environment.offset, environment.redundant_offset] {
        let mut copy = vec![0; usize::try_from(environment.size.0).unwrap()];
        disk.read_exact_at(&mut copy, offset.0).unwrap();
        let copy = env::parse_copy(&copy).unwrap();
        assert_eq!(copy.variables.get("good").map(String::as_str), Some(ID));
        flags.push(copy.flag);
    }
    assert_ne!(flags[0], flags[1]);
}

#[test]
fn every_boards_image_has_its_boot_loader_where_it_is_looked_for() {
    let boards: Vec<Board> = bsp::board::list()
        .into_iter()
        .map(|id| bsp::board::builtin(id).unwrap())
        .collect();
    let world = World::new(&boards);
    // One of each kind: most boards of a family differ in the name of a file.
    let mut seen = BTreeSet::new();
    for board in &boards {
        let layout = disk::plan(board, &BTreeMap::new()).unwrap();
        let files = board.firmware.iter().map(|file| &file.path);
        let kind = (layout.regions, files.collect::<Vec<_>>(), &board.arch);
        if seen.insert(format!("{kind:?} {:?}", board.boot)) {
            world.judge(board);
        }
        let script = board.boot.backend == Backend::Uboot;
        assert_eq!(board.boot.config == "boot.scr", script, "{}", board.id);
    }
}

#[test]
fn both_copies_of_a_boot_loader_have_their_record() {
    let board = bsp::board::builtin("beaglebone").unwrap();
    let world = World::new(std::slice::from_ref(&board));
    let sources = Sources {
        unpacked: &world.unpacked,
        dir: world.dir.path(),
        files: &[],
        device_trees: DeviceTrees::Packages(&[]),
    };
    let mlo = stand_in(&board.disk.raw[0]);
    let areas = sources.raw_areas(&board).unwrap();
    for place in [128 << 10, 256 << 10] {
        let at = |offset| &areas.iter().find(|(at, _)| *at == offset).unwrap().1;
        assert!(*at(place) == mlo);
        let record = Record::parse(at(place + (127 << 10))).unwrap();
        assert_eq!(record.edition, 1);
        assert!(record.is_for(&mlo));
    }
    // Those of U-Boot have one place and no record.
    assert_eq!(areas.len(), 5);
    assert!(emmc_boot::content(
        &board,
        &disk::plan(&board, &BTreeMap::new()).unwrap(),
        &sources
    )
    .unwrap()
    .is_none());
}

#[test]
fn an_emmc_that_starts_from_its_boot_partitions_gets_a_file_for_them() {
    let mut board = bsp::board::builtin("a64-olinuxino-emmc").unwrap();
    let area = &mut board.disk.raw[0];
    (area.place, area.offset, area.size) = (Medium::EmmcBoot, Size(0), Size(4 << 20));
    (area.edition, area.update) = (3, UpdateWay::EmmcBoot);
    let world = World::new(std::slice::from_ref(&board));
    let layout = disk::plan(&board, &BTreeMap::new()).unwrap();
    assert!(layout.regions.iter().all(|region| region.kind != Kind::Raw));
    assert_eq!(layout.emmc_boot.len(), 1);
    let sources = Sources {
        unpacked: &world.unpacked,
        dir: world.dir.path(),
        files: &[],
        device_trees: DeviceTrees::Packages(&[]),
    };
    assert!(sources.raw_areas(&board).unwrap().is_empty());
    let content = emmc_boot::content(&board, &layout, &sources)
        .unwrap()
        .unwrap();
    assert_eq!(content.len(), 4 << 20);
    let loader = stand_in(&board.disk.raw[0]);
    assert!(content.starts_with(&loader));
    let record = Record::parse(&content[(4 << 20) - 1024..]).unwrap();
    assert!(record.edition == 3 && record.is_for(&loader));
}

#[test]
fn boot_loader_files_that_cannot_be_right_are_refused() {
    let board = bsp::board::builtin("orangepi-pc").unwrap();
    let world = World::new(std::slice::from_ref(&board));
    let package = &world.unpacked[0];
    let file = package.1.join(board.disk.raw[0].file.as_ref().unwrap());
    let good = fs::read(&file).unwrap();
    let says = |unpacked: &[(String, PathBuf)]| {
        let sources = Sources {
            unpacked,
            dir: world.dir.path(),
            files: &[],
            device_trees: DeviceTrees::Packages(&[]),
        };
        format!("{:#}", sources.raw_areas(&board).unwrap_err())
    };
    let with = |content: &[u8]| {
        fs::write(&file, content).unwrap();
        says(&world.unpacked)
    };
    let large = [good.clone(), vec![0; 1 << 20]].concat();
    let said = with(&large);
    assert!(
        said.contains("raw area \"u-boot\"") && said.contains("1016KiB"),
        "{said}"
    );
    let said = with(&good[1..]);
    assert!(said.contains("65474f4e2e425430 at byte 4"), "{said}");
    let said = with(&[]);
    assert!(said.contains("is empty"), "{said}");
    fs::remove_file(&file).unwrap();
    let said = says(&world.unpacked);
    assert!(said.contains("of package u-boot-sunxi"), "{said}");
    let said = says(&[]);
    assert!(said.contains("is not locked"), "{said}");
}

#[test]
fn a_file_of_the_product_must_be_the_one_that_was_locked() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("mine/spl"), b"spl");
    let mut files = vec![LockedFile {
        path: "mine/spl".into(),
        sha256: hex::encode(Sha256::digest(b"spl")),
    }];
    let read = |files: &[LockedFile]| {
        let sources = Sources {
            unpacked: &[],
            dir: dir.path(),
            files,
            device_trees: DeviceTrees::Packages(&[]),
        };
        sources.read(Source::User("mine/spl"))
    };
    assert_eq!(read(&files).unwrap(), b"spl");
    files[0].sha256 = hex::encode(Sha256::digest(b"other"));
    let said = read(&files).unwrap_err().to_string();
    assert!(said.contains("has changed since it was locked"), "{said}");
    let said = read(&[]).unwrap_err().to_string();
    assert!(said.contains("is not locked"), "{said}");
}
