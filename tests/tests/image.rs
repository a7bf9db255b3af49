//! A built image in front of its judges: partition table, file systems, boot files, block map, checksums.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use treeline_tests::{build, example, run};

/// A partition: label, first byte, bytes.
type Partition = (String, u64, u64);

#[test]
fn the_judges_accept_a_built_image() {
    let dir = tempfile::tempdir().unwrap();
    let product = example(dir.path()).unwrap();
    builder(&product, &["keys", "init"]);
    let args = [
        "-q",
        "build",
        "--board=x86_64-uefi",
        "--json",
        "--format=raw,raw.zst,qcow2",
    ];
    let built: serde_json::Value = serde_json::from_str(&builder(&product, &args)).unwrap();
    let checksum = built["checksum"].as_str().unwrap();
    let file = |ending: &str| {
        let name = format!("gateway-1.0.0-x86_64-uefi.{ending}");
        product.join("out/x86_64-uefi").join(name)
    };
    let raw = file("raw");

    run(Command::new("sha256sum")
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(raw.parent().unwrap()))
    .unwrap();
    let said = run(Command::new("sgdisk").arg("--verify").arg(&raw)).unwrap();
    assert!(said.contains("No problems found"), "{said}");
    let partitions = partitions(&raw);
    let labels: Vec<&str> = partitions
        .iter()
        .map(|(label, ..)| label.as_str())
        .collect();
    assert_eq!(labels, ["firmware", "root", "data"]);
    let parts: Vec<PathBuf> = partitions
        .iter()
        .map(|partition| cut(&raw, partition, dir.path()))
        .collect();
    run(Command::new("fsck.fat").arg("-n").arg(&parts[0])).unwrap();
    run(Command::new("e2fsck").arg("-fn").arg(&parts[1])).unwrap();
    run(Command::new("e2fsck").arg("-fn").arg(&parts[2])).unwrap();

    // GRUB reads ext4 with these features only.
    let features = run(Command::new("dumpe2fs").arg("-h").arg(&parts[1])).unwrap();
    for unreadable in [
        "orphan_file",
        "metadata_csum_seed",
        "inline_data",
        "casefold",
    ] {
        assert!(!features.contains(unreadable), "{features}");
    }
    let entry = cat(&parts[1], "/boot/loader.1/entries/ostree-1.conf");
    assert!(
        entry.contains(&format!(" treeline.id={checksum} ")),
        "{entry}"
    );
    let kernel = entry
        .lines()
        .find_map(|line| line.strip_prefix("linux "))
        .unwrap();
    assert!(!cat(&parts[1], kernel).is_empty(), "{kernel}");
    let menu = cat(&parts[1], "/boot/loader.1/grub.cfg");
    assert!(menu.contains(checksum), "{menu}");
    let state = run(Command::new("mtype")
        .arg("-i")
        .arg(&parts[0])
        .arg("::treeline/state.env"))
    .unwrap();
    assert!(state.contains(&format!("good={checksum}\n")), "{state}");

    // The compressed image, its map found by name, onto a disk that is not empty.
    let target = dir.path().join("target");
    fill(&target, fs::metadata(&raw).unwrap().len());
    run(Command::new("bmaptool")
        .arg("copy")
        .arg(file("raw.zst"))
        .arg(&target))
    .unwrap();
    let judges = [("fsck.fat", "-n"), ("e2fsck", "-fn"), ("e2fsck", "-fn")];
    for (partition, (judge, argument)) in partitions.iter().zip(judges) {
        let copy = cut(&target, partition, dir.path());
        run(Command::new(judge).arg(argument).arg(copy)).unwrap();
    }
    run(Command::new("qemu-img").arg("check").arg(file("qcow2"))).unwrap();
    run(Command::new("qemu-img")
        .arg("compare")
        .arg(&raw)
        .arg(file("qcow2")))
    .unwrap();
}

#[test]
fn a_root_partition_without_room_for_an_update_is_refused_with_what_would_do() {
    let dir = tempfile::tempdir().unwrap();
    let product = example(dir.path()).unwrap();
    builder(&product, &["keys", "init"]);
    let manifest = product.join("product.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(
        &manifest,
        format!("{text}\n[partitions]\nroot = \"384MiB\"\n"),
    )
    .unwrap();
    let output = build(&product, &["-q", "build", "--board=x86_64-uefi"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.contains("too small") && said.contains("root = \""),
        "{said}"
    );
    assert!(!product
        .join("out/x86_64-uefi/gateway-1.0.0-x86_64-uefi.raw")
        .exists());
}

fn builder(product: &Path, args: &[&str]) -> String {
    let output = build(product, args).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

fn partitions(image: &Path) -> Vec<Partition> {
    let text = run(Command::new("sfdisk").arg("--json").arg(image)).unwrap();
    let table: serde_json::Value = serde_json::from_str(&text).unwrap();
    let list = table.pointer("/partitiontable/partitions").unwrap();
    let number = |value: &serde_json::Value| value.as_u64().unwrap() * 512;
    let of = |p: &serde_json::Value| {
        let label = p["name"].as_str().unwrap().to_string();
        (label, number(&p["start"]), number(&p["size"]))
    };
    list.as_array().unwrap().iter().map(of).collect()
}

/// A partition as a file of its own.
fn cut(image: &Path, (label, start, size): &Partition, dir: &Path) -> PathBuf {
    let stem = image.file_name().unwrap().to_string_lossy().into_owned();
    let out = dir.join(format!("{stem}-{label}"));
    run(Command::new("dd")
        .args(["bs=1M", "conv=sparse", "status=none"])
        .arg(format!("if={}", image.display()))
        .arg(format!("of={}", out.display()))
        .arg(format!("skip={}", start >> 20))
        .arg(format!("count={}", size >> 20)))
    .unwrap();
    out
}

/// A disk that has seen something before.
fn fill(path: &Path, size: u64) {
    let mut file = fs::File::create(path).unwrap();
    let mut ones = std::io::repeat(0xff).take(size);
    std::io::copy(&mut ones, &mut file).unwrap();
}

/// A file of an ext4 file system.
fn cat(image: &Path, path: &str) -> String {
    let mut command = Command::new("debugfs");
    let output = command
        .arg("-R")
        .arg(format!("cat {path}"))
        .arg(image)
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}
