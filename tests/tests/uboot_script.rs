//! A real U-Boot, as Debian builds it, runs the boot script: it must choose what `decide` says and leave the
//! boot state that `decide` says, for every kind of state; and whatever it meets, it must not stop.
//!
//! Needs qemu-system-arm, u-boot-qemu, e2fsprogs, fdisk, dosfstools, mtools and device-tree-compiler. `TREELINE_UBOOT=<directory
//! with an unpacked u-boot-qemu>` takes another U-Boot than the host's.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

#[path = "uboot_script/cases.rs"]
mod cases;
#[path = "uboot_script/machine.rs"]
mod machine;
#[path = "uboot_script/signed.rs"]
mod signed;

use bsp::board::ScriptImage;
use bsp::boot::state::{decide, BootState, Decision};
use bsp::boot::store::BootStore;
use bsp::boot::uboot::env::parse_copy;
use bsp::boot::uboot::{DeviceTree, UbootStore};
use bsp::boot::variables::{self, Variables};
use cases::{confirmed, trial, Case};
use machine::{boot, boot_image, Arch, Disk, Outcome, ENVIRONMENT};
use std::path::Path;

/// The state as the agent reads it.
fn state(image: &Path) -> Option<BootState> {
    let store = UbootStore::open(image, &ENVIRONMENT).unwrap();
    store.read_state().unwrap()
}

/// The rule, with what the loader does if it cannot save.
fn expected(case: &Case, image: &Path) -> (usize, Option<BootState>) {
    let ids: Vec<String> = case.entries.iter().map(|id| (*id).into()).collect();
    let store = UbootStore::open(image, &ENVIRONMENT).unwrap();
    let spare = store.read_good().unwrap();
    let mut state = store.read_state().unwrap();
    loop {
        match decide(state.as_ref(), spare.as_deref(), &ids).unwrap() {
            Decision::Boot(index) => return (index, None),
            Decision::CountThenBoot(index, next) if !case.read_only => return (index, Some(next)),
            Decision::CountThenBoot(..) => state.as_mut().unwrap().tries = 0,
        }
    }
}

fn check(arch: Arch, case: &Case) {
    let name = case.name;
    let dir = tempfile::tempdir().unwrap();
    let image = Disk::new(arch, case.entries, case.copies.clone()).write(dir.path());
    let (index, counted) = expected(case, &image);
    let options = if case.read_only { ",readonly=on" } else { "" };
    let outcome = boot_image(arch, &image, dir.path(), options);
    let serial = &outcome.serial;
    assert_eq!(
        outcome.booted(),
        Some(case.entries[index]),
        "{name}: {serial}"
    );
    let Some(next) = counted else {
        assert!(outcome.copies == case.copies, "{name}: {serial}");
        return;
    };
    assert_eq!(state(&image), Some(next), "{name}: {serial}");
    one_copy_was_counted(case, &outcome);
}

/// One copy is as it was; the other one holds all that it held, with one try fewer and the next flag.
fn one_copy_was_counted(case: &Case, outcome: &Outcome) {
    let name = case.name;
    let kept = usize::from(outcome.copies[0] != case.copies[0]);
    assert!(outcome.copies[1 - kept] != case.copies[1 - kept], "{name}");
    assert!(outcome.copies[kept] == case.copies[kept], "{name}");
    let before = parse_copy(&case.copies[kept]).unwrap();
    let after = parse_copy(&outcome.copies[1 - kept]).unwrap();
    assert_eq!(after.flag, before.flag.wrapping_add(1), "{name}");
    let foreign = |mut variables: Variables| {
        variables.remove(variables::TRIES);
        variables
    };
    assert_eq!(
        foreign(after.variables),
        foreign(before.variables),
        "{name}"
    );
}

/// Two machines at a time.
fn check_all(arch: Arch, cases: &[Case]) {
    let (first, second) = cases.split_at(cases.len() / 2);
    std::thread::scope(|scope| {
        for half in [first, second] {
            scope.spawn(move || half.iter().for_each(|case| check(arch, case)));
        }
    });
}

#[test]
fn u_boot_decides_as_the_rule_says() {
    check_all(Arch::Arm64, &cases::all());
}

#[test]
fn so_it_does_on_32_bit() {
    check_all(Arch::Armhf, &cases::few());
}

/// As a U-Boot needs it that knows no legacy images; the ones here know both.
#[test]
fn a_script_in_an_image_tree_decides_and_counts_too() {
    for arch in [Arch::Arm64, Arch::Armhf] {
        let mut disk = Disk::new(arch, &["b", "a"], trial("a", "b", 1));
        disk.format = ScriptImage::Fit;
        let first = boot(&disk);
        assert_eq!(first.booted(), Some("b"), "{}", first.serial);
        disk.copies = first.copies;
        let second = boot(&disk);
        assert_eq!(second.booted(), Some("a"), "{}", second.serial);
    }
}

#[test]
fn a_failing_trial_returns_by_itself() {
    for arch in [Arch::Arm64, Arch::Armhf] {
        let mut copies = trial("a", "b", 3);
        let mut booted = Vec::new();
        for _ in 0..5 {
            let outcome = boot(&Disk::new(arch, &["b", "a"], copies));
            booted.push(outcome.booted().unwrap().to_owned());
            copies = outcome.copies;
        }
        assert_eq!(booted, ["b", "b", "b", "a", "a"]);
    }
}

#[test]
fn odd_values_set_by_hand_do_not_stop_it() {
    for (good, trial, want) in [
        ("a a", "b", "b"),
        ("'\"; reset #", "x", "a"),
        ("$good", "-o", "a"),
        ("(", ")", "a"),
    ] {
        let copy = cases::raw(1, &[("good", good), ("trial", trial), ("tries", "2")]);
        let outcome = boot(&Disk::new(Arch::Arm64, &["b", "a"], [copy, cases::blank()]));
        assert_eq!(outcome.booted(), Some(want), "{good}: {}", outcome.serial);
    }
}

#[test]
fn kernel_arguments_arrive() {
    let long: String = (0..150).map(|n| format!(" module{n}.option=1")).collect();
    for (ids, number) in [(["b", "a"], ""), (["a", "b"], "2")] {
        let line = format!("treeline.id=b dyndbg=\"file a.c +p; x\" a='b' c=$d e=${{f}}{long}");
        let mut disk = Disk::new(Arch::Arm64, &ids, confirmed("b"));
        disk.edit_menu(|text| {
            let own = format!("bootargs{number}=quiet root=test ");
            text.replace(&format!("{own}treeline.id=b"), &format!("{own}{line}"))
        });
        let outcome = boot(&disk);
        let want = format!("root=test {line}");
        assert_eq!(outcome.command_line, Some(want), "{}", outcome.serial);
    }
}

/// The machine restarts, and the boot was counted.
fn restarts_and_counts(disk: &Disk) {
    let outcome = boot(disk);
    assert_eq!(outcome.command_line, None, "{}", outcome.serial);
    let [_, second] = outcome.copies.map(|copy| parse_copy(&copy).unwrap());
    assert_eq!(
        variables::to_state(&second.variables),
        Some(BootState::confirmed("a").armed("b", 2)),
        "{}",
        outcome.serial
    );
}

#[test]
fn a_trial_that_cannot_be_loaded_restarts_and_counts() {
    for file in ["vmlinuz", "initramfs"] {
        let disk = Disk::new(Arch::Arm64, &["b", "a"], trial("a", "b", 3));
        restarts_and_counts(&disk.without("b", file));
    }
    let disk = Disk::new(Arch::Arm64, &["b", "a"], trial("a", "b", 3));
    let disk = disk.without("b", "vmlinuz");
    restarts_and_counts(&disk.with("b", "vmlinuz", vec![0; 4096]));
}

#[test]
fn a_good_entry_that_cannot_be_loaded_gives_way_to_the_others() {
    for file in ["vmlinuz", "initramfs"] {
        let disk = Disk::new(Arch::Arm64, &["b", "a"], confirmed("b")).without("b", file);
        let outcome = boot(&disk);
        assert_eq!(outcome.booted(), Some("a"), "{}", outcome.serial);
        assert!(outcome.copies == disk.copies);
    }
}

#[test]
fn with_nothing_to_boot_it_restarts() {
    let whole = Disk::new(Arch::Arm64, &["b", "a"], confirmed("b"));
    let empty = whole
        .clone()
        .without("a", "vmlinuz")
        .without("b", "vmlinuz");
    let mut no_menu = whole.clone();
    no_menu.edit_menu(|_| String::new());
    let mut no_loader = whole;
    no_loader.boot.remove(0);
    for disk in [empty, no_menu, no_loader] {
        let outcome = boot(&disk);
        assert_eq!(outcome.command_line, None, "{}", outcome.serial);
        assert!(
            outcome.serial.contains("no deployment could be started"),
            "{}",
            outcome.serial
        );
    }
}

#[test]
fn a_lost_loader_link_is_no_end() {
    let mut disk = Disk::new(Arch::Arm64, &["b", "a"], confirmed("b"));
    disk.loader = Some("loader.0".into());
    let outcome = boot(&disk);
    assert_eq!(outcome.booted(), Some("b"), "{}", outcome.serial);
}

fn with_own_device_tree(copies: [Vec<u8>; 2], overlays: &[&str]) -> Disk {
    let mut disk = Disk::new(Arch::Arm64, &["b", "a"], copies);
    disk.device_tree = DeviceTree::Deployment {
        name: Some("virt.dtb".into()),
        overlays: overlays.iter().map(|name| (*name).into()).collect(),
    };
    disk.with("b", "dtb/virt.dtb", Arch::Arm64.marked_device_tree())
}

#[test]
fn the_device_tree_belongs_to_the_deployment() {
    let outcome = boot(&with_own_device_tree(confirmed("b"), &[]));
    let shown = outcome.command_line.as_deref();
    assert_eq!(shown, Some("root=test own-dt"), "{}", outcome.serial);

    // U-Boot has recognised no model here: the first of several is taken.
    let mut disk = with_own_device_tree(confirmed("b"), &[]);
    disk.device_tree = DeviceTree::Detected {
        files: vec!["virt.dtb".into(), "other.dtb".into()],
        overlays: Vec::new(),
    };
    let outcome = boot(&disk);
    let shown = outcome.command_line.as_deref();
    assert_eq!(shown, Some("root=test own-dt"), "{}", outcome.serial);

    // Missing on trial: the attempt has failed.
    let copies = trial("a", "b", 3);
    restarts_and_counts(&with_own_device_tree(copies, &[]).without("b", "dtb/virt.dtb"));

    // A deployment without any boots with the one that U-Boot has.
    let mut disk = with_own_device_tree(confirmed("b"), &[]);
    disk.edit_menu(|text| text.replace("fdtdir=", "other="));
    let outcome = boot(&disk);
    assert_eq!(outcome.booted(), Some("b"), "{}", outcome.serial);
}

/// U-Boot for QEMU knows no overlays at all, so here every one fails.
#[test]
fn an_overlay_that_fails_ends_a_trial_and_nothing_else() {
    let overlay = |disk: Disk| disk.with("b", "dtb/x.dtbo", vec![0; 100]);
    let outcome = boot(&overlay(with_own_device_tree(confirmed("b"), &["x.dtbo"])));
    let shown = outcome.command_line.as_deref();
    assert_eq!(shown, Some("root=test own-dt"), "{}", outcome.serial);
    assert!(outcome.serial.contains("overlay could not be applied"));
    let copies = trial("a", "b", 3);
    restarts_and_counts(&overlay(with_own_device_tree(copies, &["x.dtbo"])));
}
