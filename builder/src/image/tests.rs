//! Judges: `sgdisk`, `e2fsck`, `dumpe2fs`, `fsck.fat`, `bmaptool`, `qemu-img`. The file systems are
//! made by the host's own `mke2fs` (which may be too old for tar streams); whole images with a deployed
//! commit are judged by the whole-system tests.

mod boards;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bsp::board::{stable_uuid, Board, Purpose, Role, Size};
use bsp::disk::Layout;

use super::assemble::{assemble, Parts, Systems};
use super::format::Format;
use super::mke2fs::{Ext4, Mke2fs};
use super::programs::Programs;
use super::ranges::Ranges;
use super::{bmap, ext4_map, publish};
use crate::command::Command;

/// This machine's own, taken for locked ones.
fn host_programs() -> Programs {
    Programs::from_unpacked(&[PathBuf::from("/")]).unwrap()
}

fn host_mke2fs() -> Mke2fs {
    Mke2fs::new(&host_programs()).unwrap()
}

fn ext4(size: u64, label: &str) -> Ext4<'_> {
    Ext4 {
        start: 0,
        size,
        label,
        uuid: "11111111-2222-8333-8444-555555555555",
        hash_seed: "11111111-2222-8333-8444-666666666666",
        grows: true,
        source_date_epoch: 1_700_000_000,
    }
}

/// A file system with files in it, made from a directory.
fn filled(size: u64, out: &Path) {
    let dir = tempfile::tempdir().unwrap();
    for index in 0..100usize {
        let content = vec![u8::try_from(index % 251).unwrap(); index * 997];
        fs::write(dir.path().join(format!("file-{index}")), content).unwrap();
    }
    Command::new("mke2fs", "e2fsprogs")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-d"])
        .arg(dir.path())
        .arg(out)
        .arg(format!("{}k", size >> 10))
        .run()
        .unwrap();
}

/// The bytes that `dumpe2fs` does not list as free.
fn used_by_dumpe2fs(image: &Path, size: u64) -> Ranges {
    let text = Command::new("dumpe2fs", "e2fsprogs")
        .arg(image)
        .text()
        .unwrap();
    let mut free = vec![false; usize::try_from(size / 4096).unwrap()];
    for line in text.lines() {
        let Some(list) = line.strip_prefix("  Free blocks: ") else {
            continue;
        };
        for range in list.split(", ").filter(|range| !range.is_empty()) {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
            free[first..=last].fill(true);
        }
    }
    let used = (0u64..).zip(free).filter(|(_, free)| !free);
    Ranges::of(
        used.map(|(block, _)| block * 4096..(block + 1) * 4096)
            .collect(),
    )
}

#[test]
fn the_map_of_an_ext4_file_system_is_what_dumpe2fs_says() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("fs");
    // Sizes with one group, with a short last group, with groups that were never written.
    for size in [48 << 20, 300 << 20, (1 << 30) + (20 << 20)] {
        for full in [false, true] {
            let _ = fs::remove_file(&image);
            if full {
                filled(size, &image);
            } else {
                host_mke2fs()
                    .make(&ext4(size, "data"), None, &image)
                    .unwrap();
            }
            let ours = ext4_map::used(&File::open(&image).unwrap(), 0).unwrap();
            assert_eq!(ours, used_by_dumpe2fs(&image, size), "{size} {full}");
        }
    }
}

#[test]
fn what_is_no_ext4_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fs");
    fs::write(&path, vec![0; 65536]).unwrap();
    assert!(ext4_map::used(&File::open(&path).unwrap(), 0).is_err());
    // A descriptor that points beyond the end.
    host_mke2fs()
        .make(&ext4(48 << 20, "x"), None, &path)
        .unwrap();
    let file = File::options().read(true).write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 12], 4096).unwrap();
    assert!(ext4_map::used(&file, 0).is_err());
}

/// An assembled disk, small.
struct Disk {
    dir: tempfile::TempDir,
    layout: Layout,
    board: Board,
    raw: PathBuf,
    mapped: Ranges,
}

fn disk() -> Disk {
    let dir = tempfile::tempdir().unwrap();
    let board = bsp::board::builtin("x86_64-uefi").unwrap();
    let sizes = BTreeMap::from([
        ("firmware".to_string(), Size(35 << 20)),
        ("root".to_string(), Size(64 << 20)),
        ("data".to_string(), Size(40 << 20)),
    ]);
    let layout = bsp::disk::plan(&board, &sizes).unwrap();
    let raw = dir.path().join("disk.raw");
    let parts = Parts {
        product: "demo",
        board: &board,
        layout: &layout,
        firmware: &[
            ("EFI/BOOT/BOOTX64.EFI".into(), vec![7; 100_000]),
            ("treeline/state.env".into(), vec![b'#'; 1024]),
        ],
        areas: &[],
    };
    let systems = Systems {
        mke2fs: &host_mke2fs(),
        root: None,
        source_date_epoch: 1_700_000_000,
    };
    let mapped = assemble(&parts, &systems, &raw).unwrap();
    let text = bmap::describe(&File::open(&raw).unwrap(), &mapped, None).unwrap();
    fs::write(dir.path().join("disk.raw.bmap"), text).unwrap();
    Disk {
        dir,
        layout,
        board,
        raw,
        mapped,
    }
}

impl Disk {
    /// A partition of `image` as a file of its own.
    fn partition(&self, image: &Path, role: Role) -> PathBuf {
        let partition = self.layout.partition(role).unwrap();
        let out = self.dir.path().join(format!("part-{}", partition.number));
        let mut bytes = vec![0; usize::try_from(partition.size).unwrap()];
        let file = File::open(image).unwrap();
        file.read_exact_at(&mut bytes, partition.start).unwrap();
        fs::write(&out, bytes).unwrap();
        out
    }

    /// All judges of a raw disk image.
    fn judge(&self, image: &Path) {
        let said = Command::new("sgdisk", "gdisk")
            .arg("--verify")
            .arg(image)
            .text()
            .unwrap();
        assert!(said.contains("No problems found"), "{said}");
        for role in [Role::Root, Role::Data] {
            Command::new("e2fsck", "e2fsprogs")
                .arg("-fn")
                .arg(self.partition(image, role))
                .run()
                .unwrap();
        }
        Command::new("fsck.fat", "dosfstools")
            .arg("-n")
            .arg(self.partition(image, Role::Firmware))
            .run()
            .unwrap();
    }
}

#[test]
fn a_disk_is_what_the_judges_expect_and_the_same_every_time() {
    let disk = disk();
    disk.judge(&disk.raw);
    let label = &disk.layout.partition(Role::Root).unwrap().label;
    let guid = stable_uuid("demo", &disk.board.id, label, Purpose::Partition);
    let said = Command::new("sgdisk", "gdisk")
        .arg("--info=2")
        .arg(&disk.raw)
        .text()
        .unwrap();
    assert!(said.to_lowercase().contains(&guid), "{said}");
    // The file systems come from a tool that does not know a fixed time here.
    let again = self::disk();
    let firmware = |disk: &Disk| fs::read(disk.partition(&disk.raw, Role::Firmware)).unwrap();
    assert!(firmware(&disk) == firmware(&again));
    let table = |disk: &Disk| fs::read(&disk.raw).unwrap()[..1 << 20].to_vec();
    assert!(table(&disk) == table(&again));
}

#[test]
fn bmaptool_writes_every_format_to_a_used_disk() {
    let disk = disk();
    let size = disk.layout.disk_bytes;
    for format in [Format::Raw, Format::RawZst, Format::RawXz] {
        let image = disk.dir.path().join(format!("disk.{format}"));
        if format != Format::Raw {
            format.convert(&disk.raw, &disk.mapped, &image).unwrap();
        }
        // A disk that has seen something before.
        let target = disk.dir.path().join("target");
        fs::write(&target, vec![0xff; usize::try_from(size).unwrap()]).unwrap();
        Command::new("bmaptool", "bmap-tools")
            .arg("copy")
            .arg("--bmap")
            .arg(disk.dir.path().join("disk.raw.bmap"))
            .args([&image, &target])
            .run()
            .unwrap();
        disk.judge(&target);
        let (raw, written) = (fs::read(&disk.raw).unwrap(), fs::read(&target).unwrap());
        for range in disk.mapped.iter() {
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            assert!(
                raw[range.clone()] == written[range.clone()],
                "{format} {range:?}"
            );
        }
        // Copying only what is mapped is the point of it.
        assert!(disk.mapped.bytes() < size / 2);
    }
}

#[test]
fn formats_are_the_same_every_time_and_hold_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let file = File::create(path("raw")).unwrap();
    file.set_len(8 << 20).unwrap();
    let content: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    file.write_all_at(&content, 1 << 20).unwrap();
    let end = (1 << 20) + content.len() as u64;
    let mapped = Ranges::of(vec![1 << 20..end, 0..1]);
    for format in [Format::RawZst, Format::RawXz, Format::Qcow2] {
        let made = ["a", "b"].map(|name| path(&format!("{name}.{format}")));
        for made in &made {
            format.convert(&path("raw"), &mapped, made).unwrap();
        }
        assert!(
            fs::read(&made[0]).unwrap() == fs::read(&made[1]).unwrap(),
            "{format}"
        );
    }
    let qemu_img = |args: &[&str]| Command::new("qemu-img", "qemu-utils").args(args);
    let qcow2 = path("a.qcow2");
    qemu_img(&["check"]).arg(&qcow2).run().unwrap();
    qemu_img(&["compare", "-f", "raw", "-F", "qcow2"])
        .args([&path("raw"), &qcow2])
        .run()
        .unwrap();
}

#[test]
fn outdated_formats_go_and_current_ones_keep_their_sums() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    for name in ["p.raw", "p.qcow2", "q.raw"] {
        fs::write(file(name), name).unwrap();
    }
    fs::write(file("SHA256SUMS"), "11  p.raw\n22  p.raw.bmap\n").unwrap();
    let kept = publish::keep_or_remove(dir.path(), "p", true).unwrap();
    assert_eq!(publish::render(&kept), "11  p.raw\n");
    // Nobody vouches for this one.
    assert!(!file("p.qcow2").exists() && file("p.raw").exists());
    let kept = publish::keep_or_remove(dir.path(), "p", false).unwrap();
    assert!(kept.is_empty() && !file("p.raw").exists() && file("q.raw").exists());
}

#[test]
fn an_unfinished_result_is_never_at_its_place() {
    let dir = tempfile::tempdir().unwrap();
    {
        let scratch = publish::Scratch::open(dir.path()).unwrap();
        fs::write(scratch.path("half.raw"), "half").unwrap();
        std::mem::forget(scratch);
    }
    assert!(!dir.path().join("half.raw").exists());
    {
        let scratch = publish::Scratch::open(dir.path()).unwrap();
        assert!(!scratch.path("half.raw").exists());
        fs::write(scratch.path("whole.raw"), "whole").unwrap();
        scratch.publish("whole.raw").unwrap();
    }
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(names, ["whole.raw"]);
}
