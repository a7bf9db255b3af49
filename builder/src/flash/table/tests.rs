use super::*;
use crate::command::Command;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;

const MIB: u64 = 1 << 20;

fn sfdisk(path: &Path, size: u64, script: &str) -> Vec<u8> {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    let mut command = Command::new("sfdisk", "fdisk")
        .args(["-q"])
        .arg(path)
        .into_std();
    let mut child = command
        .stdin(Stdio::piped())
        .spawn()
        .expect("sfdisk: install fdisk");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(script.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    head(path)
}

fn head(path: &Path) -> Vec<u8> {
    let mut head = vec![0; 1 << 20];
    File::open(path)
        .unwrap()
        .read_exact_at(&mut head, 0)
        .unwrap();
    head
}

const GPT: &str = "label: gpt
start=2048, size=2048, name=firmware, type=U
start=4096, size=8192, name=root, type=B921B045-1DF0-41C3-AF44-4C6F280D3FAE
start=12288, size=2048, name=data
";

fn gpt(data_sectors: u64) -> String {
    GPT.replace(
        "size=2048, name=data",
        &format!("size={data_sectors}, name=data"),
    )
}

#[test]
fn tables_of_sfdisk_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let table = read(&sfdisk(&dir.path().join("g"), 32 * MIB, GPT)).unwrap();
    assert_eq!(table.kind, Kind::Gpt);
    let labels: Vec<&str> = table.entries.iter().map(|e| e.label.as_str()).collect();
    assert_eq!(labels, ["firmware", "root", "data"]);
    assert_eq!(
        (table.entries[1].start, table.entries[1].size),
        (2 * MIB, 4 * MIB)
    );
    assert_eq!(
        (table.arch(), table.firmware().unwrap().number),
        (Some("arm64"), 1)
    );
    let mbr = "label: dos\nlabel-id: 0x1234abcd\nstart=2048, size=2048, type=c\nstart=4096, size=2048, type=83\n";
    let table = read(&sfdisk(&dir.path().join("m"), 32 * MIB, mbr)).unwrap();
    assert_eq!((table.kind, table.id.as_str()), (Kind::Mbr, "1234abcd"));
    assert_eq!(table.firmware().unwrap().start, MIB);
    assert_eq!(read(&vec![0; 1 << 20]), None);
    assert_eq!(read(&[0x55; 100]), None);
}

#[test]
fn a_kept_partition_keeps_place_and_size_and_the_judges_are_content() {
    let dir = tempfile::tempdir().unwrap();
    let size = 64 * MIB;
    let disk = dir.path().join("disk");
    let now = sfdisk(&disk, size, &gpt(2048 * 50));
    let new = sfdisk(&dir.path().join("image"), 8 * MIB, GPT);
    let kept = keep(&now, &new, &["data".into()], size).unwrap();
    assert_eq!(kept.ranges, vec![6 * MIB..56 * MIB]);
    let write = |area: &[u8]| {
        let file = File::options().write(true).open(&disk).unwrap();
        file.write_all_at(area, 0).unwrap();
        let (at, tail) = kept.tail.as_ref().unwrap();
        assert!(*at >= 56 * MIB);
        file.write_all_at(tail, *at).unwrap();
    };
    let judge = || {
        let said = Command::new("sgdisk", "gdisk")
            .arg("--verify")
            .arg(&disk)
            .text()
            .unwrap();
        assert!(said.contains("No problems found"), "{said}");
        read(&head(&disk)).unwrap()
    };
    write(&kept.boot_area);
    let table = judge();
    assert_eq!(table.entries.len(), 3);
    assert_eq!(table.entries[2].bytes(), 6 * MIB..56 * MIB);
    // The disk while it is written: only what is kept, and nothing to boot from.
    assert!(kept.closed_area[..446].iter().all(|byte| *byte == 0));
    assert!(kept.closed_area[462..510].iter().all(|byte| *byte == 0));
    assert_eq!(kept.closed_area[450], 0xee);
    let closed = read(&kept.closed_area).unwrap();
    assert_eq!(closed.entries.len(), 1);
    assert_eq!(closed.entries[0].bytes(), 6 * MIB..56 * MIB);
    // From which it can be kept once more.
    let again = keep(&kept.closed_area, &new, &["data".into()], size).unwrap();
    assert_eq!(again.boot_area, kept.boot_area);
}

/// The boot ROM of a Raspberry Pi reads the MBR of an image with both tables.
#[test]
fn a_disk_that_is_being_written_shows_no_boot_rom_anything() {
    let dir = tempfile::tempdir().unwrap();
    let now = sfdisk(&dir.path().join("disk"), 64 * MIB, &gpt(2048 * 50));
    let mut new = sfdisk(&dir.path().join("image"), 8 * MIB, GPT);
    let shown = [0x80, 0, 0, 0, 0x0c, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0];
    new.copy_within(446..462, 462);
    new[446..462].copy_from_slice(&shown);
    let kept = keep(&now, &new, &["data".into()], 64 * MIB).unwrap();
    assert_eq!(kept.boot_area[446..510], new[446..510]);
    assert!(!kept.closed_area[446..510].contains(&0x0c));
}

#[test]
fn what_cannot_be_kept_is_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let image = sfdisk(&dir.path().join("image"), 8 * MIB, GPT);
    for (script, says) in [
        (gpt(1024), "needs"),
        (GPT.replace("start=12288", "start=14336"), "begins at byte"),
        (GPT.replace("name=data", "name=other"), "missing"),
        (GPT.replace("name=root", "name=data"), "more than once"),
        ("label: dos\nstart=2048, size=2048\n".into(), "GUID"),
    ] {
        let now = sfdisk(&dir.path().join("disk"), 64 * MIB, &script);
        let error = keep(&now, &image, &["data".into()], 64 * MIB).unwrap_err();
        assert!(error.contains(says), "{says}: {error}");
    }
    let grown = GPT
        .replace("start=4096, size=8192", "start=4096, size=4096")
        .replace("start=12288, size=2048", "start=12288, size=4096")
        + "start=10240, size=1024, name=extra\n";
    let now = sfdisk(&dir.path().join("disk"), 64 * MIB, &grown);
    let into_root = keep(&now, &image, &["extra".into()], 64 * MIB).unwrap_err();
    assert!(into_root.contains("missing"), "{into_root}");
    let nothing = keep(&vec![0; 1 << 20], &image, &["data".into()], 64 * MIB).unwrap_err();
    assert!(nothing.contains("no partition table"), "{nothing}");
    drop(fs::remove_file(dir.path().join("disk")));
}
