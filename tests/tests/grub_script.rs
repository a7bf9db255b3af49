//! A real GRUB runs the static configuration: it must choose what `decide` says and leave the boot state
//! that `decide` says, for every kind of state; and whatever it meets, it must not stop.
//!
//! Needs qemu-system-x86, grub-pc-bin, grub-common, e2fsprogs and mtools. `TREELINE_GRUB_PC=<directory of
//! i386-pc modules>` takes another GRUB than the host's (with its `grub-mkimage` first in `PATH`).
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot be set up has failed"
)]

#[path = "grub_script/machine.rs"]
mod machine;

use bsp::boot::grubenv::{from_good, from_state, to_good, to_state, BLOCK_SIZE};
use bsp::boot::state::{decide, BootState, Decision};
use machine::{Disk, Machine};

/// A state and the deployments it meets.
struct Case {
    name: &'static str,
    state: Vec<u8>,
    good: Vec<u8>,
    entries: &'static [&'static str],
    read_only: bool,
}

fn blank() -> Vec<u8> {
    vec![0; BLOCK_SIZE]
}

fn good(id: &str) -> Vec<u8> {
    from_good(id).unwrap().to_vec()
}

fn confirmed(id: &str) -> Vec<u8> {
    from_state(&BootState::confirmed(id)).unwrap().to_vec()
}

fn trial(good: &str, trial: &str, tries: u8) -> Vec<u8> {
    let state = BootState {
        good: good.into(),
        trial: Some(trial.into()),
        tries,
    };
    from_state(&state).unwrap().to_vec()
}

/// A trial of `b` with one piece of the block's text replaced.
fn changed(from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(trial("a", "b", 3)).unwrap();
    let mut block = text.replacen(from, to, 1).into_bytes();
    assert_ne!(block, text.as_bytes());
    block.resize(BLOCK_SIZE, b'#');
    block
}

fn cases() -> Vec<Case> {
    // Identities that begin with a digit: GRUB takes such words for numbers where it can.
    const ONE: &[&str] = &["1b"];
    const BA: &[&str] = &["b", "a"];
    const CBA: &[&str] = &["c", "b", "a"];
    let case = |name, state, good, entries| Case {
        name,
        state,
        good,
        entries,
        read_only: false,
    };
    let mut cases = vec![
        case("confirmed", confirmed("b"), good("b"), BA),
        case("confirmed, one entry", confirmed("1b"), good("1b"), ONE),
        case(
            "confirmed, the others begin with digits",
            confirmed("1b"),
            good("1b"),
            &["1b", "0a"],
        ),
        case(
            "good stands second",
            confirmed("0a"),
            good("0a"),
            &["1b", "0a"],
        ),
        case("good stands third", confirmed("a"), good("a"), CBA),
        case(
            "armed, not switched",
            trial("a", "b", 3),
            good("a"),
            &["a", "z"],
        ),
        case("another trial", trial("a", "x", 3), good("a"), BA),
        case("nothing is good", confirmed("x"), good("a"), BA),
        case(
            "nothing is good, one entry",
            confirmed("x"),
            good("1b"),
            ONE,
        ),
        case(
            "trial of the only entry",
            trial("a", "1b", 2),
            good("a"),
            ONE,
        ),
        case(
            "no tries left, nothing is good",
            trial("x", "b", 0),
            good("b"),
            BA,
        ),
        case("lost, spare record", blank(), good("b"), BA),
        case("lost, spare record second", blank(), good("a"), BA),
        case("lost, spare record unknown", blank(), good("x"), BA),
        case("all lost", blank(), blank(), BA),
        case("all lost, one entry", blank(), blank(), ONE),
        case("empty files", Vec::new(), Vec::new(), BA),
        case(
            "foreign format",
            changed("treeline=1", "treeline=2"),
            good("b"),
            BA,
        ),
        case(
            "foreign spare record",
            blank(),
            changed("treeline=1", "treeline=7"),
            BA,
        ),
        case("ten tries", changed("tries=3", "tries=10"), good("b"), BA),
        case("no tries", changed("tries=3\n", ""), good("b"), BA),
        case(
            "good is an option",
            changed("good=a", "good=-z"),
            good("b"),
            BA,
        ),
        case(
            "good holds a blank",
            changed("good=a", "good=a a"),
            good("b"),
            BA,
        ),
        case(
            "trial holds a quote",
            changed("trial=b", "trial='b"),
            good("b"),
            BA,
        ),
        case("trial is missing", changed("trial=b\n", ""), good("a"), BA),
        case("cut off", changed("tries=3\n", "tries=3"), good("b"), BA),
        case("signature gone", changed("# GRUB", "# BURG"), good("b"), BA),
        Case {
            read_only: true,
            ..case(
                "trial on a disk that cannot be written",
                trial("a", "b", 3),
                good("a"),
                BA,
            )
        },
        Case {
            read_only: true,
            ..case(
                "confirmed on a disk that cannot be written",
                confirmed("b"),
                good("b"),
                BA,
            )
        },
    ];
    for tries in [0, 1, 2, 3, 9] {
        cases.push(case("trial", trial("a", "b", tries), good("a"), BA));
    }
    cases
}

/// The rule, with what the loader does if it cannot save.
fn expected(case: &Case) -> (usize, Option<BootState>) {
    let ids: Vec<String> = case.entries.iter().map(|id| (*id).into()).collect();
    let spare = to_good(&case.good);
    let mut state = to_state(&case.state);
    loop {
        match decide(state.as_ref(), spare.as_deref(), &ids).unwrap() {
            Decision::Boot(index) => return (index, None),
            Decision::CountThenBoot(index, next) if !case.read_only => return (index, Some(next)),
            Decision::CountThenBoot(..) => state.as_mut().unwrap().tries = 0,
        }
    }
}

#[test]
fn grub_decides_as_the_rule_says() {
    let machine = Machine::new();
    for case in cases() {
        let name = case.name;
        let (index, counted) = expected(&case);
        let disk = Disk::new(case.entries, case.state.clone(), case.good.clone());
        let options = if case.read_only { ",readonly=on" } else { "" };
        let outcome = machine.boot_with(&disk, &[], options);
        let serial = &outcome.serial;
        assert_eq!(
            outcome.booted(),
            Some(case.entries[index]),
            "{name}: {serial}"
        );
        match counted {
            Some(next) => assert_eq!(to_state(&outcome.state), Some(next), "{name}: {serial}"),
            None => assert_eq!(outcome.state, case.state, "{name}: {serial}"),
        }
        assert_eq!(outcome.good, case.good, "{name}: {serial}");
    }
}

/// The rule in the words that petitboot has. Its parser is in no package; GRUB reads the same script. Without
/// `regexp` a value that is no identity is told from one only by being no entry's, so what is malformed and still can
/// be read is left out.
#[test]
fn the_rule_for_petitboot_decides_the_same() {
    const MALFORMED: &[&str] = &[
        "good is an option",
        "good holds a blank",
        "trial holds a quote",
    ];
    let machine = Machine::new();
    for case in cases() {
        let name = case.name;
        if MALFORMED.contains(&name) {
            continue;
        }
        let (index, counted) = expected(&case);
        let disk = Disk::new(case.entries, case.state.clone(), case.good.clone()).for_petitboot();
        let options = if case.read_only { ",readonly=on" } else { "" };
        let outcome = machine.boot_with(&disk, &[], options);
        let serial = &outcome.serial;
        assert_eq!(
            outcome.booted(),
            Some(case.entries[index]),
            "{name}: {serial}"
        );
        match counted {
            Some(next) => assert_eq!(to_state(&outcome.state), Some(next), "{name}: {serial}"),
            None => assert_eq!(outcome.state, case.state, "{name}: {serial}"),
        }
        assert_eq!(outcome.good, case.good, "{name}: {serial}");
    }
}

#[test]
fn a_failing_trial_returns_by_itself() {
    let machine = Machine::new();
    let mut state = trial("a", "b", 3);
    let mut booted = Vec::new();
    for _ in 0..5 {
        let outcome = machine.boot(&Disk::new(&["b", "a"], state, good("a")));
        booted.push(outcome.booted().unwrap().to_owned());
        state = outcome.state;
    }
    assert_eq!(booted, ["b", "b", "b", "a", "a"]);
}

#[test]
fn kernel_arguments_arrive() {
    let outcome = Machine::new().boot(&Disk::new(&["b", "a"], confirmed("b"), good("b")));
    let line = outcome.command_line.unwrap();
    assert_eq!(
        line,
        "BOOT_IMAGE=/boot/ostree/shop-b/vmlinuz quiet treeline.id=b"
    );
}

#[test]
fn a_trial_whose_kernel_is_missing_restarts_and_counts() {
    let disk = Disk::new(&["b", "a"], trial("a", "b", 3), good("a")).without_kernel("b");
    let outcome = Machine::new().boot(&disk);
    assert_eq!(outcome.command_line, None, "{}", outcome.serial);
    assert_eq!(outcome.state, trial("a", "b", 2));
}

#[test]
fn a_good_entry_whose_kernel_is_missing_gives_way_to_the_others() {
    let disk = Disk::new(&["b", "a"], confirmed("b"), good("b")).without_kernel("b");
    let outcome = Machine::new().boot(&disk);
    assert_eq!(outcome.booted(), Some("a"), "{}", outcome.serial);
    assert_eq!(outcome.state, confirmed("b"));
}

#[test]
fn without_any_kernel_it_restarts() {
    let disk = Disk::new(&["b", "a"], confirmed("b"), good("b"))
        .without_kernel("a")
        .without_kernel("b");
    let outcome = Machine::new().boot(&disk);
    assert_eq!(outcome.command_line, None, "{}", outcome.serial);
}

#[test]
fn without_a_menu_it_restarts() {
    let mut disk = Disk::new(&["b", "a"], confirmed("b"), good("b"));
    disk.boot.retain(|(name, _)| !name.ends_with("grub.cfg"));
    let outcome = Machine::new().boot(&disk);
    assert_eq!(outcome.command_line, None, "{}", outcome.serial);
    assert!(
        outcome.serial.contains("there is no boot menu"),
        "{}",
        outcome.serial
    );
}

#[test]
fn without_a_root_partition_it_restarts() {
    let mut disk = Disk::new(&["b", "a"], confirmed("b"), good("b"));
    disk.root_uuid = "11111111-2222-3333-4444-555555555555".into();
    let outcome = Machine::new().boot(&disk);
    assert_eq!(outcome.command_line, None, "{}", outcome.serial);
    assert!(
        outcome.serial.contains("root partition is missing"),
        "{}",
        outcome.serial
    );
}

#[test]
fn a_lost_loader_link_is_no_end() {
    let mut disk = Disk::new(&["b", "a"], confirmed("b"), good("b"));
    disk.loader = Some("loader.0".into());
    let outcome = Machine::new().boot(&disk);
    assert_eq!(outcome.booted(), Some("b"), "{}", outcome.serial);
}

/// A stick with the same product, left in the port, must not be taken for the device's own disk.
#[test]
fn the_own_disk_comes_before_its_copies() {
    let own = Disk::new(&["b", "a"], confirmed("b"), good("b"));
    let copy = Disk::new(&["y", "z"], confirmed("y"), good("y"));
    let outcome = Machine::new().boot_with(&own, &[&copy], "");
    assert_eq!(outcome.booted(), Some("b"), "{}", outcome.serial);
}
