//! A U-Boot with a key in its device tree: it starts what that key has signed, and nothing else.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bsp::boot::state::BootState;
use bsp::boot::uboot::env::parse_copy;
use bsp::boot::uboot::DeviceTree;
use bsp::boot::{variables, NOT_LOADED};
use builder::secure_boot::{make, Pair, DIRECTORY};

use super::cases::{confirmed, trial};
use super::machine::{boot_checked, Arch, Disk, Outcome};

const IDS: [&str; 2] = ["b", "a"];

/// A key, in a directory.
struct Key {
    dir: tempfile::TempDir,
    pair: Arc<Pair>,
}

impl Key {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), "shop").unwrap();
        let pair = Arc::new(Pair::open(&dir.path().join(DIRECTORY), "db").unwrap());
        Self { dir, pair }
    }

    fn public(&self) -> PathBuf {
        self.dir.path().join(DIRECTORY)
    }
}

fn disk(arch: Arch, copies: [Vec<u8>; 2], key: &Key) -> Disk {
    Disk::new(arch, &IDS, copies).signed(&IDS, &key.pair)
}

/// `id` was started, with the signed arguments and what the device adds.
fn starts(disk: &Disk, keys: &Path, id: &str) -> Outcome {
    let outcome = boot_checked(disk, keys);
    assert_eq!(outcome.booted(), Some(id), "{}", outcome.serial);
    let line = outcome.command_line.as_deref().unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    let place = format!("root=test/{id}/0");
    let own = format!("treeline.id={id}");
    let signed = format!("signed={id}");
    assert_eq!(words, [&place, &own, &signed, "x=\"1", "2\""], "{line}");
    assert!(line.ends_with("x=\"1  2\""), "{line}");
    outcome
}

#[test]
fn what_is_signed_starts_with_the_arguments_that_are_signed() {
    let key = Key::new();
    for arch in [Arch::Arm64, Arch::Armhf] {
        let first = starts(&disk(arch, trial("a", "b", 1), &key), &key.public(), "b");
        let second = disk(arch, first.copies, &key);
        starts(&second, &key.public(), "a");
    }
}

#[test]
fn what_was_altered_is_refused_and_the_other_deployment_starts() {
    let key = Key::new();
    let good = disk(Arch::Arm64, confirmed("b"), &key);
    let mut kernel = good.clone();
    kernel.file("b", Some("vmlinuz")).push(0);
    // U-Boot reads as many bytes as were signed: what follows means nothing.
    starts(&kernel, &key.public(), "b");
    let altered: [fn(&mut Disk); 4] = [
        |disk| disk.file("b", Some("vmlinuz"))[0x800] ^= 1,
        |disk| disk.file("b", Some("initramfs"))[0] ^= 1,
        |disk| {
            let tree = disk.file("b", None);
            let at = tree.windows(8).position(|w| w == b"signed=b").unwrap();
            tree[at] = b'S';
        },
        |disk| *disk = disk.clone().sign("b", &Key::new().pair),
    ];
    for alter in altered {
        let mut disk = good.clone();
        alter(&mut disk);
        let outcome = starts(&disk, &key.public(), "a");
        let refused = format!("{NOT_LOADED} b");
        assert!(outcome.serial.contains(&refused), "{}", outcome.serial);
    }
}

#[test]
fn what_was_altered_on_trial_restarts_and_counts() {
    let key = Key::new();
    let mut disk = disk(Arch::Arm64, trial("a", "b", 3), &key);
    disk.file("b", Some("vmlinuz"))[0x800] ^= 1;
    let outcome = boot_checked(&disk, &key.public());
    assert_eq!(outcome.command_line, None, "{}", outcome.serial);
    let [_, second] = outcome.copies.map(|copy| parse_copy(&copy).unwrap());
    let counted = BootState::confirmed("a").armed("b", 2);
    assert_eq!(variables::to_state(&second.variables), Some(counted));
}

#[test]
fn the_menu_adds_no_arguments() {
    let key = Key::new();
    let mut added = disk(Arch::Arm64, confirmed("b"), &key);
    added.edit_menu(|text| text.replace("treeline.id=b", "init=/bin/sh treeline.id=b rdinit=/x"));
    starts(&added, &key.public(), "b");
    // The kernel takes these for blanks, U-Boot does not.
    for blank in ["\u{b}", "\r", "\u{c}"] {
        let mut hidden = disk(Arch::Arm64, confirmed("b"), &key);
        let place = "root=test/b/0";
        hidden.edit_menu(|text| text.replace(place, &format!("{place}{blank}init=/x")));
        starts(&hidden, &key.public(), "a");
    }
}

#[test]
fn a_script_of_another_key_is_not_run() {
    let key = Key::new();
    let disk = disk(Arch::Arm64, confirmed("b"), &Key::new());
    let outcome = boot_checked(&disk, &key.public());
    assert_eq!(outcome.command_line, None, "{}", outcome.serial);
    assert!(!outcome.serial.contains("Treeline:"), "{}", outcome.serial);
}

#[test]
fn the_device_tree_is_judged_with_the_kernel() {
    let key = Key::new();
    let mut disk = Disk::new(Arch::Arm64, &IDS, confirmed("b"));
    disk.device_tree = DeviceTree::Deployment {
        name: Some("virt.dtb".into()),
        overlays: Vec::new(),
    };
    for id in IDS {
        disk = disk.with(id, "dtb/virt.dtb", Arch::Arm64.marked_device_tree());
    }
    let mut disk = disk.signed(&IDS, &key.pair);
    let outcome = boot_checked(&disk, &key.public());
    let shown = outcome.command_line.as_deref();
    assert_eq!(shown, Some("root=test own-dt"), "{}", outcome.serial);
    let tree = disk.file("b", Some("dtb/virt.dtb"));
    let last = tree.len() - 1;
    tree[last] ^= 1;
    let outcome = boot_checked(&disk, &key.public());
    let refused = format!("{NOT_LOADED} b");
    assert!(outcome.serial.contains(&refused), "{}", outcome.serial);
    assert!(outcome.command_line.is_some(), "{}", outcome.serial);
}
