use super::*;
use crate::flash::source::tests::{byte_at, image};
use crate::flash::target::simulated::{Fault, Memory};
use crate::flash::target::BOOT_AREA;
use std::ops::Range;
use std::sync::Mutex;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 24 * MIB;
const DISK: u64 = 64 * MIB;

type Medium = Arc<Mutex<Vec<u8>>>;

fn ranges() -> Vec<Range<u64>> {
    vec![
        0..20480,
        MIB..9 * MIB + 8192,
        20 * MIB..23 * MIB,
        SIZE - 20480..SIZE,
    ]
}

fn job(image: &Image, disk: Memory) -> Job {
    Job {
        name: "card".into(),
        target: Box::new(disk),
        kept: Vec::new(),
        boot_area: image.head.clone(),
        closed_area: Vec::new(),
        tail: None,
        minimize: false,
        resume_from: 0,
        finish: None,
    }
}

fn flash(image: &Image, jobs: Vec<Job>) -> Vec<Outcome> {
    let (events, _keep) = channel();
    run(image, jobs, &events, &AtomicBool::new(false))
}

fn sample() -> (tempfile::TempDir, Image) {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path(), SIZE, &ranges());
    (dir, image)
}

fn holds_the_image(medium: &Medium) {
    let medium = medium.lock().unwrap();
    for at in ranges().into_iter().flatten() {
        assert_eq!(medium[at as usize], byte_at(at), "byte {at}");
    }
}

fn boots(medium: &Medium) -> bool {
    let medium = medium.lock().unwrap();
    let area = &medium[..BOOT_AREA as usize];
    let zero = area.iter().all(|byte| *byte == 0);
    assert!(zero || area[..20480] == (0..20480).map(byte_at).collect::<Vec<_>>()[..]);
    !zero
}

#[test]
fn an_image_is_written_verified_and_boots() {
    let (_dir, image) = sample();
    let disk = Memory::new(DISK);
    let (medium, log) = (disk.content(), disk.log.clone());
    let outcome = flash(&image, vec![job(&image, disk)]).remove(0);
    assert_eq!(outcome.failure, None);
    let outside = image.mapped_bytes() - 20480;
    assert_eq!(outcome.stats.written_bytes, outside);
    assert_eq!(outcome.stats.verified_bytes, outside);
    assert!(outcome.stats.discarded_bytes > 40 * MIB);
    holds_the_image(&medium);
    assert!(boots(&medium));
    // The boot area: closed first, written last, nothing in between.
    let log = log.lock().unwrap();
    let boot: Vec<usize> = (0..log.len()).filter(|n| log[*n].0 < BOOT_AREA).collect();
    assert_eq!(boot, [0, log.len() - 1]);
}

#[test]
fn only_mapped_blocks_are_written() {
    let (_dir, image) = sample();
    let mut disk = Memory::new(DISK);
    disk.discards = false;
    let medium = disk.content();
    let outcome = flash(&image, vec![job(&image, disk)]).remove(0);
    assert_eq!(outcome.failure, None);
    let medium = medium.lock().unwrap();
    for gap in [9 * MIB + 8192..20 * MIB, 23 * MIB..SIZE - 20480] {
        assert!(medium[gap.start as usize..gap.end as usize]
            .iter()
            .all(|b| *b == 0xee));
    }
}

#[test]
fn whatever_is_wrong_with_a_disk_it_does_not_boot_and_is_named() {
    let (_dir, image) = sample();
    for (fault, kind) in [
        (Fault::WriteFails(5 * MIB), FailureKind::Write),
        (Fault::Full(6 * MIB), FailureKind::Write),
        (Fault::Vanishes(6 * MIB), FailureKind::Gone),
        (Fault::Flips(21 * MIB + 77), FailureKind::Verify),
        (Fault::Forgets(30 * MIB), FailureKind::Counterfeit),
        (Fault::Wraps(32 * MIB), FailureKind::Counterfeit),
        (Fault::Wraps(8 * MIB), FailureKind::Counterfeit),
        (Fault::Wraps(22 * MIB), FailureKind::Verify),
    ] {
        let disk = Memory::with(DISK, fault);
        let medium = disk.content();
        let outcome = flash(&image, vec![job(&image, disk)]).remove(0);
        let failure = outcome.failure.unwrap_or_else(|| panic!("{fault:?}"));
        assert!(failure.kind == kind, "{fault:?}: {failure:?}");
        assert!(!failure.untouched);
        assert!(failure.to_string().contains("does not boot"), "{failure}");
        if !matches!(fault, Fault::Wraps(_)) {
            assert!(!boots(&medium), "{fault:?}");
        }
    }
}

#[test]
fn a_spare_partition_table_that_reads_back_wrong_is_noticed() {
    let (_dir, image) = sample();
    let place = DISK - 33 * 512;
    for (fault, good) in [(Fault::None, true), (Fault::Flips(place + 600), false)] {
        let disk = Memory::with(DISK, fault);
        let medium = disk.content();
        let job = Job {
            tail: Some((place, vec![7; 33 * 512])),
            ..job(&image, disk)
        };
        let failure = flash(&image, vec![job]).remove(0).failure;
        assert_eq!(failure.is_none(), good, "{failure:?}");
        assert_eq!(boots(&medium), good);
        let told = failure.map(|failure| (failure.kind, failure.to_string()));
        assert!(told.is_none_or(|(kind, text)| {
            kind == FailureKind::Verify && text.contains("spare partition table")
        }));
    }
}

#[test]
fn a_boot_area_that_reads_back_wrong_is_closed_again() {
    let (_dir, image) = sample();
    let disk = Memory::with(DISK, Fault::Flips(100));
    let medium = disk.content();
    let outcome = flash(&image, vec![job(&image, disk)]).remove(0);
    assert_eq!(outcome.failure.unwrap().kind, FailureKind::Verify);
    assert!(!boots(&medium));
}

#[test]
fn targets_fail_for_themselves() {
    let (_dir, image) = sample();
    let faults = [
        Fault::None,
        Fault::WriteFails(3 * MIB),
        Fault::None,
        Fault::Vanishes(2 * MIB),
        Fault::Flips(2 * MIB),
        Fault::None,
        Fault::Full(4 * MIB),
        Fault::None,
    ];
    let disks: Vec<Memory> = faults
        .iter()
        .map(|fault| Memory::with(DISK, *fault))
        .collect();
    let media: Vec<Medium> = disks.iter().map(Memory::content).collect();
    let jobs = disks.into_iter().map(|disk| job(&image, disk)).collect();
    let outcomes = flash(&image, jobs);
    for ((fault, outcome), medium) in faults.iter().zip(&outcomes).zip(&media) {
        assert_eq!(
            outcome.failure.is_none(),
            *fault == Fault::None,
            "{fault:?}"
        );
        if *fault == Fault::None {
            holds_the_image(medium);
        }
        assert_eq!(boots(medium), *fault == Fault::None);
    }
}

#[test]
fn a_disk_that_is_too_small_stays_as_it_was() {
    let (_dir, image) = sample();
    let disk = Memory::new(SIZE - MIB);
    let medium = disk.content();
    let outcome = flash(&image, vec![job(&image, disk)]).remove(0);
    let failure = outcome.failure.unwrap();
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.untouched && !failure.to_string().contains("does not boot"));
    assert!(medium.lock().unwrap().iter().all(|byte| *byte == 0xee));
}

#[test]
fn an_image_that_changes_meanwhile_never_boots() {
    use std::os::unix::fs::FileExt;
    let (dir, image) = sample();
    let file = std::fs::File::options()
        .write(true)
        .open(dir.path().join("demo-1.0-rpi4.raw"))
        .unwrap();
    file.write_all_at(b"evil", 22 * MIB).unwrap();
    let disk = Memory::new(DISK);
    let medium = disk.content();
    let outcome = flash(&image, vec![job(&image, disk)]).remove(0);
    let failure = outcome.failure.unwrap();
    assert_eq!(failure.kind, FailureKind::Image);
    assert!(failure.text.contains("altered"), "{failure}");
    assert!(!boots(&medium));
}

#[test]
fn a_disk_does_not_boot_wherever_it_was_interrupted() {
    let (_dir, image) = sample();
    // Closing the boot area, the marks, the image, and just before the last write.
    for writes in [1, 3, 8, 9, 10] {
        let stop = Arc::new(AtomicBool::new(false));
        let mut disk = Memory::new(DISK);
        let medium = disk.content();
        let (raise, mut left) = (stop.clone(), writes);
        disk.on_write = Some(Box::new(move || {
            left -= 1;
            raise.fetch_or(left == 0, Ordering::Relaxed);
        }));
        let (events, _keep) = channel();
        let outcome = run(&image, vec![job(&image, disk)], &events, &stop).remove(0);
        let failure = outcome.failure.unwrap_or_else(|| panic!("{writes}"));
        assert_eq!(failure.kind, FailureKind::Interrupted, "{writes}");
        assert!(!boots(&medium), "{writes}");
    }
}

#[test]
fn what_is_kept_stays_and_the_rest_is_written_around_it() {
    let (_dir, image) = sample();
    let disk = Memory::new(DISK);
    let medium = disk.content();
    let mut job = job(&image, disk);
    let kept = 20 * MIB..DISK - MIB;
    job.kept = vec![kept.clone()];
    let outcome = flash(&image, vec![job]).remove(0);
    assert_eq!(outcome.failure, None);
    assert_eq!(outcome.stats.written_bytes, 8 * MIB + 8192);
    let medium = medium.lock().unwrap();
    assert!(medium[kept.start as usize..kept.end as usize]
        .iter()
        .all(|b| *b == 0xee));
}

#[test]
fn what_is_right_already_is_not_written_again() {
    let (_dir, image) = sample();
    let disk = Memory::new(DISK);
    let medium = disk.content();
    assert_eq!(
        flash(&image, vec![job(&image, disk)]).remove(0).failure,
        None
    );
    medium.lock().unwrap()[5 << 20] ^= 1;
    let mut again = job(&image, Memory::again(&medium));
    again.minimize = true;
    let outcome = flash(&image, vec![again]).remove(0);
    assert_eq!(outcome.failure, None);
    assert_eq!(outcome.stats.written_bytes, 64 << 10);
    holds_the_image(&medium);
    assert!(boots(&medium));
}

#[test]
fn a_disk_that_vanished_goes_on_where_it_stopped() {
    let (_dir, image) = sample();
    let disk = Memory::with(DISK, Fault::Vanishes(8 * MIB));
    let medium = disk.content();
    let first = flash(&image, vec![job(&image, disk)]).remove(0);
    assert_eq!(first.failure.unwrap().kind, FailureKind::Gone);
    let mut again = job(&image, Memory::again(&medium));
    again.resume_from = 5 * MIB;
    let outcome = flash(&image, vec![again]).remove(0);
    assert_eq!(outcome.failure, None);
    assert_eq!(outcome.stats.skipped_bytes, 4 * MIB);
    holds_the_image(&medium);
    // Whoever claims more than is there is found out by the comparison.
    let blank = Memory::new(DISK);
    let mut liar = job(&image, blank);
    liar.resume_from = 9 * MIB;
    let failure = flash(&image, vec![liar]).remove(0).failure.unwrap();
    assert_eq!(failure.kind, FailureKind::Verify);
}

#[test]
fn settings_that_fail_leave_no_disk_that_boots() {
    let (_dir, image) = sample();
    let disk = Memory::new(DISK);
    let medium = disk.content();
    let mut job = job(&image, disk);
    job.finish = Some(Box::new(|_| anyhow::bail!("no room")));
    let failure = flash(&image, vec![job]).remove(0).failure.unwrap();
    assert!(failure.text.contains("no room"));
    assert!(!boots(&medium));
}
