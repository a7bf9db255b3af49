//! The agent against a real libostree: install, confirm, go back, refuse, fall back. Judged by libostree's
//! own tool and by the boot loader's rule.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[path = "device/attacks.rs"]
mod attacks;
#[path = "device/world.rs"]
mod world;

use std::process::Command;

use bsp::board::Backend;
use bsp::boot::state::BootState;
use device_agent::check::Offer;
use device_agent::device::Situation;
use device_agent::failed::Memory;
use device_agent::install;
use device_agent::judge::Conclusion;
use device_agent::problem::{kind_of, Kind};
use device_agent::report::{Event, Report};
use device_agent::{evidence, status};
use keys::keyfile::PrivateKey;
use world::{Commit, World, BOARD};

/// Starts this test once more with what libostree reads from the environment, as root (of a user namespace
/// if need be). Returns whether this is that second start.
fn inside(name: &str) -> bool {
    if std::env::var_os("TREELINE_TEST_INSIDE").is_some() {
        return true;
    }
    let tools = tempfile::tempdir().unwrap();
    let hook = tools.path().join(device_agent::grub_menu::NAME);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_device-agent"), &hook).unwrap();
    let own = std::env::current_exe().unwrap();
    let mut command = if run_id() == "0" {
        Command::new(&own)
    } else {
        let mut command = Command::new("unshare");
        command.arg("--map-root-user").arg(&own);
        command
    };
    let output = command
        .args(["--exact", name, "--nocapture"])
        .env("TREELINE_TEST_INSIDE", "1")
        .env("OSTREE_GRUB2_EXEC", &hook)
        .env("GIO_USE_VFS", "local")
        // The immutable flag would outlive the test's directory.
        .env("OSTREE_SYSROOT_DEBUG", "mutable-deployments")
        .output()
        .expect("unshare (Debian package util-linux)");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    false
}

fn run_id() -> String {
    world::run("id", &["-u"])
}

fn good<'a>(world: &'a World, version: &'a str) -> Commit<'a> {
    Commit {
        version,
        board: BOARD,
        key: Some(world.key()),
    }
}

fn running(world: &World) -> String {
    world.device().booted_commit().to_owned()
}

#[test]
fn an_update_is_tried_confirmed_and_left_again() {
    if inside("an_update_is_tried_confirmed_and_left_again") {
        try_confirm_leave(Backend::Grub);
    }
}

#[test]
fn an_update_is_tried_confirmed_and_left_again_with_uboot() {
    if inside("an_update_is_tried_confirmed_and_left_again_with_uboot") {
        try_confirm_leave(Backend::Uboot);
    }
}

fn try_confirm_leave(backend: Backend) {
    let world = World::with(backend, "1.0.0");
    let old = running(&world);
    // The owner has changed one file in /etc.
    std::fs::write(world.deployment(&old).join("etc/shop.conf"), "mine\n").unwrap();

    let new = world.commit(&good(&world, "1.1.0"));
    let release = world.release("1.1.0", &new, &[&old]);
    let switched = world.install(&release).unwrap();
    assert_eq!(switched.id, new);
    let store = world.store();
    assert_eq!(
        store.read_state().unwrap(),
        Some(BootState::confirmed(&old).armed(&new, 2))
    );
    assert_eq!(
        world.device().situation(&*store).unwrap(),
        Situation::Pending { id: new.clone() }
    );
    // Installing it once more changes nothing.
    assert_eq!(world.install(&release).unwrap().id, new);
    assert_eq!(
        world.device().entries().unwrap(),
        [new.clone(), old.clone()]
    );

    assert_eq!(world.reboot(), "1.1.0");
    let etc = world.deployment(&new).join("etc");
    assert_eq!(
        std::fs::read_to_string(etc.join("shop.conf")).unwrap(),
        "mine\n"
    );
    assert_eq!(
        std::fs::read_to_string(etc.join("other.conf")).unwrap(),
        "default of 1.1.0\n"
    );
    assert_eq!(
        world.device().situation(&*world.store()).unwrap(),
        Situation::OnTrial { tries_left: 1 }
    );
    assert_eq!(
        world.judge(true),
        Conclusion::Done("confirmed 1.1.0".into())
    );
    assert_eq!(
        world.store().read_state().unwrap(),
        Some(BootState::confirmed(&new))
    );
    assert_eq!(world.store().read_good().unwrap(), Some(new.clone()));
    let report = Report::last(&world.paths()).unwrap();
    assert_eq!(
        (report.event, report.version.as_str()),
        (Event::Confirmed, "1.1.0")
    );
    let shown = status::collect(&world.device()).unwrap();
    assert_eq!(
        (shown.state, shown.boot_state_healthy),
        ("confirmed", Some(true))
    );
    let versions: Vec<&str> = shown
        .deployments
        .iter()
        .map(|d| d.version.as_str())
        .collect();
    assert_eq!(versions, ["1.1.0", "1.0.0"]);
    assert!(
        shown
            .people()
            .contains("shop 1.1.0 on x86_64-uefi: confirmed"),
        "{}",
        shown.people()
    );

    // Back, by the same way; and what was left is not installed again by itself.
    let back = install::roll_back(&world.device(), &|_| {})
        .unwrap()
        .unwrap();
    assert_eq!(back.id, old);
    assert_eq!(world.reboot(), "1.0.0");
    assert_eq!(
        world.judge(true),
        Conclusion::Done("confirmed 1.0.0".into())
    );
    assert!(Memory::load(&world.paths()).commits[&new]
        .reason
        .contains("operator"));

    // Taking back a switch before its reboot; then a second deployment of the same commit.
    assert_eq!(world.install(&release).unwrap().id, format!("{new}-2"));
    assert_eq!(install::roll_back(&world.device(), &|_| {}).unwrap(), None);
    assert_eq!(world.reboot(), "1.0.0");
    assert!(matches!(world.judge(true), Conclusion::Settled(_)));
    assert_eq!(world.device().entries().unwrap(), [old]);
}

#[test]
fn without_a_fitting_delta_only_missing_objects_come() {
    if !inside("without_a_fitting_delta_only_missing_objects_come") {
        return;
    }
    let world = World::new("1.0.0");
    let new = world.commit(&good(&world, "1.1.0"));
    let release = world.release("1.1.0", &new, &[]);
    let whole = world.server().join(&release.full.path);
    let kept = std::fs::read(&whole).unwrap();
    std::fs::remove_file(&whole).unwrap();

    // Neither objects nor the whole: nothing happens.
    let error = world.install(&release).unwrap_err();
    assert_eq!(kind_of(&error), Kind::Network, "{error:#}");

    // A damaged object is not taken; the others stay for the next attempt.
    let repo = world.publish_repository();
    let object = lacking_object(&world, &repo);
    let sound = std::fs::read(&object).unwrap();
    std::fs::write(&object, b"damaged").unwrap();
    let error = world.install(&release).unwrap_err();
    assert_eq!(kind_of(&error), Kind::Network, "{error:#}");
    assert!(!world.has_commit(&new));

    std::fs::write(&object, &sound).unwrap();
    let switched = world.install(&release).unwrap();
    assert_eq!(switched.id, new);
    assert!(switched.downloaded > 0);
    assert!(!world.paths().state().join("download").exists());
    world.fsck();
    assert_eq!(world.reboot(), "1.1.0");
    assert_eq!(
        world.judge(true),
        Conclusion::Done("confirmed 1.1.0".into())
    );

    // With damaged objects and a sound file, the file serves.
    let next = world.commit(&good(&world, "1.2.0"));
    let release = world.release("1.2.0", &next, &[]);
    std::fs::write(&whole, kept).unwrap();
    let repo = world.publish_repository();
    std::fs::write(lacking_object(&world, &repo), b"damaged").unwrap();
    assert_eq!(
        world.install(&release).unwrap().downloaded,
        release.full.length
    );
    world.fsck();
}

/// A file object on the server that the device lacks.
fn lacking_object(world: &World, repo: &std::path::Path) -> std::path::PathBuf {
    let device = world.root().join("ostree/repo");
    std::fs::read_dir(repo.join("objects"))
        .unwrap()
        .flatten()
        .flat_map(|dir| std::fs::read_dir(dir.path()).unwrap().flatten())
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "filez"))
        .find(|path| {
            let object = path.strip_prefix(repo).unwrap().with_extension("file");
            !device.join(object).exists()
        })
        .unwrap()
}

#[test]
fn an_unsigned_commit_is_refused_before_its_objects_come() {
    if !inside("an_unsigned_commit_is_refused_before_its_objects_come") {
        return;
    }
    let world = World::new("1.0.0");
    let stranger = PrivateKey::generate().unwrap();
    let commit = world.commit(&Commit {
        version: "1.1.0",
        board: BOARD,
        key: Some(&stranger),
    });
    let release = world.release("1.1.0", &commit, &[]);
    let repo = world.publish_repository();
    // Were they asked for, it would be another error.
    std::fs::remove_file(lacking_object(&world, &repo)).unwrap();
    let error = world.install(&release).unwrap_err();
    assert_eq!(kind_of(&error), Kind::Trust, "{error:#}");
    assert!(!world.has_commit(&commit));
}

#[test]
fn what_is_not_trusted_leaves_no_trace() {
    if !inside("what_is_not_trusted_leaves_no_trace") {
        return;
    }
    let world = World::new("1.0.0");
    let old = running(&world);
    let stranger = PrivateKey::generate().unwrap();
    let cases = [
        (
            Commit {
                version: "1.1.0",
                board: BOARD,
                key: None,
            },
            Kind::Trust,
            "not signed",
        ),
        (
            Commit {
                version: "1.1.1",
                board: BOARD,
                key: Some(&stranger),
            },
            Kind::Trust,
            "none of 1",
        ),
        (
            Commit {
                version: "1.1.2",
                board: "other",
                key: Some(world.key()),
            },
            Kind::Refused,
            "\"other\"",
        ),
    ];
    for (commit, kind, want) in cases {
        let checksum = world.commit(&commit);
        let release = world.release(commit.version, &checksum, &[&old]);
        let error = world.install(&release).unwrap_err();
        assert_eq!(kind_of(&error), kind, "{error:#}");
        assert!(format!("{error:#}").contains(want), "{error:#}");
        assert!(!world.has_commit(&checksum));
    }
    // A damaged delta is not applied; the whole release is taken instead.
    let new = world.commit(&good(&world, "1.2.0"));
    let mut release = world.release("1.2.0", &new, &[&old]);
    let delta = world.server().join(&release.deltas[0].file.path);
    release.deltas[0].file.length = 1000.min(release.full.length - 1);
    std::fs::write(delta, vec![0; release.deltas[0].file.length as usize]).unwrap();
    let full = world.server().join(&release.full.path);
    let whole = std::fs::read(&full).unwrap();
    std::fs::write(&full, vec![0; whole.len()]).unwrap();
    let error = world.install(&release).unwrap_err();
    assert_eq!(kind_of(&error), Kind::Trust, "{error:#}");
    // Nothing has changed so far.
    assert_eq!(
        world.store().read_state().unwrap(),
        Some(BootState::confirmed(&old))
    );
    assert_eq!(
        world.device().entries().unwrap(),
        std::slice::from_ref(&old)
    );
    std::fs::write(&full, whole).unwrap();
    assert_eq!(
        world.install(&release).unwrap().downloaded,
        release.full.length
    );
    assert_eq!(world.reboot(), "1.2.0");
    // No room: asked before the first byte.
    world.judge(true);
    let next = world.commit(&good(&world, "1.3.0"));
    let mut release = world.release("1.3.0", &next, &[]);
    release.installed_bytes = u64::MAX / 4;
    let error = world.install(&release).unwrap_err();
    assert_eq!(kind_of(&error), Kind::Room, "{error:#}");
    assert!(!world.has_commit(&next));
}

#[test]
fn a_failed_trial_is_tidied_up_and_remembered() {
    if inside("a_failed_trial_is_tidied_up_and_remembered") {
        fail_and_tidy_up(Backend::Grub);
    }
}

#[test]
fn a_failed_trial_is_tidied_up_and_remembered_with_uboot() {
    if inside("a_failed_trial_is_tidied_up_and_remembered_with_uboot") {
        fail_and_tidy_up(Backend::Uboot);
    }
}

fn fail_and_tidy_up(backend: Backend) {
    let world = World::with(backend, "1.0.0");
    let old = running(&world);
    // Found bad by the health checks.
    let bad = world.commit(&good(&world, "1.1.0"));
    world
        .install(&world.release("1.1.0", &bad, &[&old]))
        .unwrap();
    assert_eq!(world.reboot(), "1.1.0");
    assert!(matches!(world.judge(false), Conclusion::Reboot(why) if why.contains("app.service")));
    // Until the reboot nobody takes that for a lost state.
    assert!(matches!(world.judge(true), Conclusion::Reboot(_)));
    assert_eq!(world.reboot(), "1.0.0");
    assert!(
        matches!(world.judge(true), Conclusion::Done(text) if text.starts_with("fell back to 1.0.0; 1.1.0 failed: app.service"))
    );
    assert!(Memory::load(&world.paths()).commits[&bad]
        .reason
        .contains("app.service"));
    let report = Report::last(&world.paths()).unwrap();
    assert_eq!(
        (report.event, report.version.as_str()),
        (Event::FellBack, "1.1.0")
    );
    assert_eq!((report.tries, report.boots_in_user_space), (2, 1));
    assert_eq!(evidence::events(&world.paths()).len(), 1);
    assert_eq!(
        world.device().entries().unwrap(),
        std::slice::from_ref(&old)
    );
    assert!(!world.has_commit(&bad));

    // Never reaches user space, because the deployment is damaged: its boot link leads nowhere.
    for (version, gone) in [("1.2.0", "deployment"), ("1.3.0", "link")] {
        let dead = world.commit(&good(&world, version));
        world
            .install(&world.release(version, &dead, &[&old]))
            .unwrap();
        if gone == "deployment" {
            std::fs::remove_dir_all(world.deployment(&dead)).unwrap();
        } else {
            let links = world::run(
                "find",
                &[
                    world.root().join("ostree").to_str().unwrap(),
                    "-lname",
                    &format!("*{dead}.*"),
                ],
            );
            assert_eq!(links.lines().count(), 1);
            std::fs::remove_file(links).unwrap();
        }
        assert_eq!(world.reboot(), version);
        assert_eq!(world.reboot(), version);
        assert_eq!(world.reboot(), "1.0.0");
        // Even the notes may be lost.
        if gone == "link" {
            std::fs::remove_dir_all(world.root().join("var/lib/device-agent")).unwrap();
        }
        assert!(matches!(world.judge(true), Conclusion::Done(_)));
        assert_eq!(
            world.device().entries().unwrap(),
            std::slice::from_ref(&old)
        );
        assert!(Memory::load(&world.paths()).commits[&dead]
            .reason
            .contains("never reached"));
        // libostree itself is content again.
        let sysroot = format!("--sysroot={}", world.root().to_str().unwrap());
        world::run("ostree", &["admin", "status", &sysroot]);
    }
    world::run(
        "ostree",
        &[
            "fsck",
            "--repo",
            world.root().join("ostree/repo").to_str().unwrap(),
        ],
    );
    assert!(matches!(world.judge(true), Conclusion::Settled(_)));

    // A lost boot state is written anew from what runs.
    let mut store = world.store();
    store
        .write_state(&BootState::confirmed("somebody-else"))
        .unwrap();
    store.write_good("somebody-else").unwrap();
    assert_eq!(world.reboot(), "1.0.0");
    assert!(matches!(world.judge(true), Conclusion::Done(_)));
    assert_eq!(
        world.store().read_state().unwrap(),
        Some(BootState::confirmed(&old))
    );
    assert_eq!(world.store().read_good().unwrap(), Some(old));
}

#[test]
fn the_channel_leads_to_the_release_and_no_further() {
    if !inside("the_channel_leads_to_the_release_and_no_further") {
        return;
    }
    let world = World::new("1.0.0");
    let old = running(&world);
    let error = {
        std::fs::write(world.root().join(bsp::device::ROOT_JSON_PATH), "{}").unwrap();
        world.look().unwrap_err()
    };
    assert_eq!(kind_of(&error), Kind::Trust, "{error:#}");
    std::fs::remove_file(world.root().join(bsp::device::ROOT_JSON_PATH)).unwrap();

    let new = world.commit(&good(&world, "1.1.0"));
    let release = world.release("1.1.0", &new, &[&old]);
    world.publish(&[&release]);
    let Offer::Newer(offered) = world.look().unwrap() else {
        panic!("nothing offered")
    };
    assert_eq!(*offered, release);
    world.install(&offered).unwrap();
    assert_eq!(world.reboot(), "1.1.0");
    world.judge(true);
    assert_eq!(world.look().unwrap(), Offer::UpToDate);
    // The epoch of what was confirmed is the floor from now on, even if /var is lost.
    assert_eq!(device_agent::check::epoch_floor(&world.paths(), None), 1);

    // A release that failed here is named, but not offered.
    let bad = world.commit(&good(&world, "1.2.0"));
    let second = world.release("1.2.0", &bad, &[&new]);
    world.publish(&[&second, &release]);
    world.install(&second).unwrap();
    assert_eq!(world.reboot(), "1.2.0");
    world.judge(false);
    assert_eq!(world.reboot(), "1.1.0");
    world.judge(true);
    match world.look().unwrap() {
        Offer::Withheld { version, reason } => {
            assert_eq!(version, "1.2.0");
            assert!(reason.contains("app.service"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    // A newer one is.
    let third = world.commit(&good(&world, "1.2.1"));
    let third = world.release("1.2.1", &third, &[&new]);
    world.publish(&[&third, &second, &release]);
    assert_eq!(world.look().unwrap(), Offer::Newer(Box::new(third)));
    // A lost /var costs memory, nothing else.
    std::fs::remove_dir_all(world.root().join("var/lib/device-agent")).unwrap();
    assert!(matches!(world.look().unwrap(), Offer::Newer(_)));

    // No server.
    std::fs::remove_dir_all(world.server()).unwrap();
    let error = world.look().unwrap_err();
    assert_eq!(kind_of(&error), Kind::Network, "{error:#}");
}
