//! `builder flash` on files and loop devices, with bmaptool, sgdisk, e2fsck and mtools as judges. Loop
//! devices and mounts need root, or a sudo that does not ask.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot be set up has failed"
)]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use treeline_tests::{builder, run};

const MIB: u64 = 1 << 20;
const IMAGE: u64 = 192 * MIB;
const DISK: u64 = 320 * MIB;

/// A command as root.
fn root(program: &str) -> Command {
    if nix_is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("-n").arg(program);
    command
}

fn nix_is_root() -> bool {
    fs::read_to_string("/proc/self/status")
        .unwrap()
        .lines()
        .any(|line| line.starts_with("Uid:\t0"))
}

/// An image with firmware, root and data, and its block map by bmaptool.
fn image(dir: &Path) -> PathBuf {
    let path = dir.join("demo.raw");
    table(&path, IMAGE, "23MiB");
    let file = File::options().write(true).open(&path).unwrap();
    let fat = dir.join("fat");
    run(Command::new("mkfs.fat").args(["-C", fat.to_str().unwrap(), "32768"])).unwrap();
    file.write_all_at(&fs::read(&fat).unwrap(), MIB).unwrap();
    let noise: Vec<u8> = (0..90 * MIB / 8)
        .scan(1u64, |state, _| {
            *state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            Some(state.to_be_bytes())
        })
        .flatten()
        .collect();
    file.write_all_at(&noise, 40 * MIB).unwrap();
    run(Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-E", "offset=167772160"])
        .args([path.to_str().unwrap(), "23552k"]))
    .unwrap();
    file.sync_all().unwrap();
    let map = dir.join("demo.raw.bmap");
    run(Command::new("bmaptool")
        .arg("create")
        .arg(&path)
        .arg("-o")
        .arg(&map))
    .unwrap();
    path
}

/// A disk with the image's partitions, `data` with this size.
fn table(path: &Path, size: u64, data: &str) {
    File::create(path).unwrap().set_len(size).unwrap();
    let data = if data.is_empty() {
        String::new()
    } else {
        format!("size={data}, ")
    };
    let script = format!(
        "label: gpt\nstart=1MiB, size=32MiB, type=U, name=firmware\n\
         start=40MiB, size=100MiB, name=root\nstart=160MiB, {data}name=data\n"
    );
    let mut child = Command::new("sfdisk")
        .arg("-q")
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .expect("sfdisk: install fdisk");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(script.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
}

/// A loop device that goes away with its value.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Self {
        let said = run(root("losetup").args(["--find", "--show"]).arg(file));
        Self(said.unwrap().trim().to_string())
    }

    fn path(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = run(root("losetup").arg("--detach").arg(&self.0));
    }
}

fn blank(path: &Path, size: u64) -> PathBuf {
    File::create(path).unwrap().set_len(size).unwrap();
    path.to_path_buf()
}

fn command(dir: &Path, image: &Path) -> Command {
    let mut command = root("env");
    command
        .arg(format!("TREELINE_CACHE={}", dir.join("cache").display()))
        .arg(builder().unwrap())
        .args(["flash", "--yes", "--image"])
        .arg(image);
    command
}

fn flash(dir: &Path, image: &Path, args: &[&str], targets: &[&Path]) -> Output {
    command(dir, image)
        .args(args)
        .args(targets)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// First and last byte but one of every mapped range.
fn mapped(image: &Path) -> Vec<(u64, u64)> {
    let map = fs::read_to_string(format!("{}.bmap", image.display())).unwrap();
    let ranges = map.lines().filter(|line| line.contains("<Range"));
    ranges
        .map(|line| {
            let text = line.split(['>', '<']).nth(2).unwrap().trim();
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            let number = |text: &str| text.trim().parse::<u64>().unwrap();
            (number(first) * 4096, (number(last) + 1) * 4096)
        })
        .collect()
}

fn content(path: &Path, start: u64, end: u64) -> Vec<u8> {
    let mut bytes = vec![0; (end - start) as usize];
    File::open(path)
        .unwrap()
        .read_exact_at(&mut bytes, start)
        .unwrap();
    bytes
}

fn same_where_mapped(image: &Path, a: &Path, b: &Path) {
    for (start, end) in mapped(image) {
        assert!(
            content(a, start, end) == content(b, start, end),
            "{start}–{end}"
        );
    }
}

#[test]
fn a_loop_device_gets_what_bmaptool_would_write() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let ours = blank(&dir.path().join("ours"), DISK);
    let theirs = blank(&dir.path().join("theirs"), DISK);
    let device = Loop::new(&ours);
    let output = flash(dir.path(), &image, &["--json"], &[device.path()]);
    assert!(output.status.success(), "{}", said(&output));
    run(Command::new("bmaptool")
        .args(["-q", "copy"])
        .arg(&image)
        .arg(&theirs))
    .unwrap();
    // Through the page cache of the file, which direct I/O of the loop device may have passed by.
    run(root("sync").arg(device.path())).unwrap();
    same_where_mapped(&image, &ours, &theirs);
    let lines = String::from_utf8(output.stdout).unwrap();
    let last: serde_json::Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&last["event"], &last["ok"]),
        (&"result".into(), &true.into())
    );
    assert_eq!(last["protocol"], 1);
    let bytes: u64 = mapped(&image).iter().map(|(start, end)| end - start).sum();
    let boot: u64 = mapped(&image)
        .iter()
        .map(|(s, e)| e.min(&MIB).saturating_sub(*s))
        .sum();
    assert_eq!(last["stats"]["verified_bytes"], bytes - boot);
}

#[test]
fn eight_disks_at_once_stay_within_256_mib_of_memory() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let packed = dir.path().join("demo.raw.zst");
    run(Command::new("zstd")
        .args(["-q", "-9"])
        .arg(&image)
        .arg("-o")
        .arg(&packed))
    .unwrap();
    let targets: Vec<PathBuf> = (0..8)
        .map(|n| blank(&dir.path().join(format!("disk{n}")), DISK))
        .collect();
    let mut child = Command::new(builder().unwrap())
        .env("TREELINE_CACHE", dir.path().join("cache"))
        .args(["-q", "flash", "--yes", "--image"])
        .arg(&packed)
        .args(&targets)
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        peak = peak.max(high_water(&status));
        std::thread::sleep(std::time::Duration::from_millis(5));
    };
    assert!(ended.success());
    assert!((1..=256 * 1024).contains(&peak), "{peak} KiB");
    for target in &targets {
        same_where_mapped(&image, &image, target);
    }
}

/// Largest memory so far, KiB.
fn high_water(status: &str) -> u64 {
    let text = fs::read_to_string(status).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

#[test]
fn a_mounted_disk_is_refused_and_nothing_else_written_either() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let file = dir.path().join("disk");
    blank(&file, DISK);
    let device = Loop::new(&file);
    run(root("mke2fs").args(["-q", "-F", "-t", "ext4", &device.0])).unwrap();
    let at = dir.path().join("mnt");
    fs::create_dir(&at).unwrap();
    run(root("mount").arg(&device.0).arg(&at)).unwrap();
    run(&mut root("sync")).unwrap();
    let before = content(&file, 2 * MIB, 4 * MIB);
    let refused = |targets: &[&Path], args: &[&str], says: &str| {
        let output = flash(dir.path(), &image, args, targets);
        assert_eq!(output.status.code(), Some(4), "{}", said(&output));
        assert!(said(&output).contains(says), "{}", said(&output));
    };
    refused(&[device.path()], &[], "mounted at");
    let free = blank(&dir.path().join("free"), DISK);
    refused(&[&free, device.path()], &[], "mounted at");
    assert!(content(&free, 0, MIB).iter().all(|byte| *byte == 0));
    assert!(content(&file, 2 * MIB, 4 * MIB) == before);
    // Forced: unmounted, then written.
    let output = flash(dir.path(), &image, &["--force"], &[device.path()]);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    if mounts.contains(at.to_str().unwrap()) {
        run(root("umount").arg(&at)).unwrap();
    }
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("FORCED although"),
        "{}",
        said(&output)
    );
}

/// Nothing that the rules know of speaks against the disk; another program has it for itself.
#[test]
fn a_disk_that_another_program_holds_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let file = blank(&dir.path().join("disk"), DISK);
    let device = Loop::new(&file);
    let mut holder = root("python3")
        .arg("-c")
        .arg("import os,sys; os.open(sys.argv[1], os.O_RDWR | os.O_EXCL); print('held', flush=True); input()")
        .arg(&device.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let said_by_holder = holder.stdout.take().unwrap();
    BufReader::new(said_by_holder).read_line(&mut line).unwrap();
    assert_eq!(line, "held\n");
    let output = flash(dir.path(), &image, &[], &[device.path()]);
    drop(holder.stdin.take());
    holder.wait().unwrap();
    assert!(!output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("in use"), "{}", said(&output));
    assert!(content(&file, 0, MIB).iter().all(|byte| *byte == 0));
    let output = flash(dir.path(), &image, &[], &[device.path()]);
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn a_kept_partition_survives_with_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let file = dir.path().join("disk");
    table(&file, DISK, "");
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("precious"), "do not lose").unwrap();
    let kib = ((DISK - 160 * MIB) / 1024 - 1024).to_string() + "k";
    run(Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-E", "offset=167772160", "-d"])
        .args([&data, &file])
        .arg(kib))
    .unwrap();
    let before = content(&file, 160 * MIB, DISK - MIB);
    let output = flash(dir.path(), &image, &["--save-partlabel=data"], &[&file]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(content(&file, 160 * MIB, DISK - MIB) == before);
    let verdict = run(Command::new("sgdisk").arg("--verify").arg(&file)).unwrap();
    assert!(verdict.contains("No problems found"), "{verdict}");
    let cut = dir.path().join("cut");
    fs::write(&cut, content(&file, 160 * MIB, DISK - MIB)).unwrap();
    let read = run(Command::new("debugfs")
        .args(["-R", "cat precious"])
        .arg(&cut))
    .unwrap();
    assert_eq!(read, "do not lose");
    for (start, end) in mapped(&image) {
        if start >= MIB && end <= 160 * MIB {
            assert!(content(&image, start, end) == content(&file, start, end));
        }
    }
    // What does not fit is refused while everything is still there.
    table(&file, DISK, "10MiB");
    let before = content(&file, 0, DISK);
    let output = flash(dir.path(), &image, &["--save-partlabel=data"], &[&file]);
    assert_eq!(output.status.code(), Some(4), "{}", said(&output));
    assert!(content(&file, 0, DISK) == before);
}

#[test]
fn an_interrupted_disk_does_not_boot_and_can_be_finished() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let file = dir.path().join("disk");
    table(&file, DISK, "");
    let mut child = Command::new(builder().unwrap())
        .env("TREELINE_CACHE", dir.path().join("cache"))
        .args(["flash", "--yes", "--json", "--image"])
        .args([&image, &file])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_for(&mut child, "\"write\"");
    run(Command::new("kill").args(["-INT", &child.id().to_string()])).unwrap();
    let ended = child.wait().unwrap();
    let mut text = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(ended.code(), Some(130), "{text}");
    assert!(text.contains("does not boot"), "{text}");
    assert!(content(&file, 0, MIB).iter().all(|byte| *byte == 0));
    let output = flash(
        dir.path(),
        &image,
        &["--resume", "--minimize-writes"],
        &[&file],
    );
    assert!(output.status.success(), "{}", said(&output));
    same_where_mapped(&image, &image, &file);
}

fn wait_for(child: &mut Child, word: &str) {
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let found = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(word)));
    assert!(found.is_some(), "it ended too early");
    // Keeps reading, so that the program is not held up by a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
}

#[test]
fn a_file_on_a_full_disk_fails_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let at = dir.path().join("small");
    fs::create_dir(&at).unwrap();
    run(root("mount")
        .args(["-t", "tmpfs", "-o", "size=64m,mode=777", "none"])
        .arg(&at))
    .unwrap();
    let file = blank(&at.join("disk"), DISK);
    let output = flash(dir.path(), &image, &[], &[&file]);
    let head = content(&file, 0, MIB);
    run(root("umount").arg(&at)).unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert!(said(&output).contains("No space left"), "{}", said(&output));
    assert!(head.iter().all(|byte| *byte == 0));
}

#[test]
fn settings_are_on_the_firmware_partition_of_the_disk_and_not_of_the_image() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let files = ["a", "b"].map(|name| blank(&dir.path().join(name), DISK));
    let args = ["--hostname=gw", "--serial=SN-1", "--serial=SN-2"];
    let output = flash(dir.path(), &image, &args, &[&files[0], &files[1]]);
    assert!(output.status.success(), "{}", said(&output));
    for (file, serial) in files.iter().zip(["SN-1", "SN-2"]) {
        let fat = dir.path().join("fat-of-disk");
        fs::write(&fat, content(file, MIB, 33 * MIB)).unwrap();
        run(Command::new("fsck.fat").arg("-n").arg(&fat)).unwrap();
        let text = run(Command::new("mtype")
            .arg("-i")
            .arg(&fat)
            .arg("::treeline/first-boot.toml"));
        let text = text.unwrap();
        assert!(
            text.contains("hostname = \"gw\"") && text.contains(serial),
            "{text}"
        );
    }
    let bare = content(&image, 0, IMAGE);
    assert!(!bare.windows(10).any(|window| window == b"first-boot"));
}
