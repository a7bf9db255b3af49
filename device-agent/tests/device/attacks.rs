//! What stands between a server and a device, on a whole device: the rows of the table in docs/src/trust.md that
//! need one, and the rules of epoch, downgrade and expiry.

use std::path::Path;
use std::time::{Duration, SystemTime};

use device_agent::check::{self, Offer};
use device_agent::install;
use device_agent::judge::Conclusion;
use device_agent::problem::{kind_of, Kind};
use device_agent::verify;
use keys::author::{self, Expiry, Keyring};
use keys::keyfile::PrivateKey;
use keys::release::Release;

use super::world::{self, Commit, World, BOARD};
use super::{good, inside, running};

const ROLES: [&str; 4] = ["root", "targets", "snapshot", "timestamp"];

/// The keys of a thief in `dir`: those he has stolen, and his own for the other roles.
fn thief(world: &World, dir: &Path, stolen: &[&str]) -> Keyring {
    for role in ROLES {
        let name = format!("{role}.pem");
        if stolen.contains(&role) {
            std::fs::copy(world.keys().join(&name), dir.join(&name)).unwrap();
        } else {
            let own = PrivateKey::generate().unwrap();
            own.save_new(&dir.join(&name)).unwrap();
        }
    }
    Keyring::in_dir(dir)
}

/// The server in the hands of a thief: releases under a root of his own, which the device never sees, in a version
/// above the one seen; returns it.
fn taken_over(world: &World, seen: u64, stolen: &[&str], releases: &[&Release]) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let keyring = thief(world, dir.path(), stolen);
    let expiry = Expiry::from(SystemTime::now());
    let root = author::create_root(&keyring, &expiry).unwrap();
    let tuf = world.server().join("tuf");
    std::fs::remove_dir_all(&tuf).unwrap();
    loop {
        let version = world.publish_as(&root, &keyring, releases, &expiry);
        if version > seen {
            // The device's own root is the first; there is no other.
            std::fs::remove_file(tuf.join("1.root.json")).unwrap();
            return version;
        }
    }
}

#[test]
fn a_thief_of_the_online_keys_installs_nothing() {
    if !inside("attacks::a_thief_of_the_online_keys_installs_nothing") {
        return;
    }
    let world = World::new("1.0.0");
    let old = running(&world);
    let new = world.commit(&good(&world, "1.1.0"));
    let known = world.release("1.1.0", &new, &[&old]);
    let stranger = PrivateKey::generate().unwrap();
    let evil = world.commit(&Commit {
        version: "6.6.6",
        board: BOARD,
        key: Some(&stranger),
    });
    let evil = world.release("6.6.6", &evil, &[&old]);
    let online: [&[&str]; 4] = [
        &[],
        &["timestamp"],
        &["snapshot"],
        &["snapshot", "timestamp"],
    ];
    for stolen in online {
        let seen = world.publish(&[&known]);
        assert!(matches!(world.look().unwrap(), Offer::Newer(_)));
        let before = world.server().with_file_name("before");
        world::run(
            "cp",
            &[
                "-a",
                world.server().join("tuf").to_str().unwrap(),
                before.to_str().unwrap(),
            ],
        );
        let his = taken_over(&world, seen, stolen, &[&evil]);
        let error = world.look().unwrap_err();
        assert_eq!(kind_of(&error), Kind::Trust, "{stolen:?}: {error:#}");
        // The server is back, with higher versions than the thief's: the device goes on.
        std::fs::remove_dir_all(world.server().join("tuf")).unwrap();
        std::fs::rename(&before, world.server().join("tuf")).unwrap();
        while world.publish(&[&known]) <= his {}
        assert_eq!(world.look().unwrap(), Offer::Newer(Box::new(known.clone())));
    }
    // With the targets key as well he can offer; the commit's signature is another matter.
    let seen = world.publish(&[&known]);
    taken_over(
        &world,
        seen,
        &["targets", "snapshot", "timestamp"],
        &[&evil],
    );
    let Offer::Newer(offered) = world.look().unwrap() else {
        panic!("the thief's release is not even offered: what was tested above?")
    };
    assert_eq!(offered.version, "6.6.6");
    let error = world.install(&offered).unwrap_err();
    assert_eq!(kind_of(&error), Kind::Trust, "{error:#}");
    assert_eq!(world.device().entries().unwrap(), [old]);
}

#[test]
fn a_server_that_was_put_back_is_noticed() {
    if !inside("attacks::a_server_that_was_put_back_is_noticed") {
        return;
    }
    let world = World::new("1.0.0");
    let old = running(&world);
    let first = world.commit(&good(&world, "1.1.0"));
    let first = world.release("1.1.0", &first, &[&old]);
    world.publish(&[&first]);
    let (tuf, before) = (world.server().join("tuf"), world.server().join("before"));
    world::run(
        "cp",
        &["-a", tuf.to_str().unwrap(), before.to_str().unwrap()],
    );
    let second = world.commit(&good(&world, "1.1.1"));
    let second = world.release("1.1.1", &second, &[&old]);
    world.publish(&[&second, &first]);
    assert_eq!(
        world.look().unwrap(),
        Offer::Newer(Box::new(second.clone()))
    );
    // Replay: everything as it was. Mix and match: only what the timestamp names is old.
    let newer = world.server().join("newer");
    std::fs::rename(&tuf, &newer).unwrap();
    world::run(
        "cp",
        &["-a", before.to_str().unwrap(), tuf.to_str().unwrap()],
    );
    let error = world.look().unwrap_err();
    assert_eq!(kind_of(&error), Kind::Trust, "{error:#}");
    assert!(format!("{error:#}").contains("older state"), "{error:#}");
    std::fs::remove_dir_all(&tuf).unwrap();
    std::fs::rename(&newer, &tuf).unwrap();
    std::fs::copy(before.join("1.targets.json"), tuf.join("2.targets.json")).unwrap();
    // What the device has it does not fetch again; a new state with old content it does.
    std::fs::remove_dir_all(world.paths().state().join("tuf")).unwrap();
    let error = world.look().unwrap_err();
    assert_eq!(kind_of(&error), Kind::Trust, "{error:#}");
}

#[test]
fn expiry_stops_new_releases_only() {
    if !inside("attacks::expiry_stops_new_releases_only") {
        return;
    }
    let world = World::new("1.0.0");
    let old = running(&world);
    let new = world.commit(&good(&world, "1.1.0"));
    let release = world.release("1.1.0", &new, &[&old]);
    world.publish(&[&release]);
    let Offer::Newer(offered) = world.look().unwrap() else {
        panic!("nothing offered")
    };
    for role in ["timestamp", "snapshot", "targets"] {
        let past = SystemTime::now() - Duration::from_secs(5);
        let mut expiry = Expiry::from(SystemTime::now());
        match role {
            "timestamp" => expiry.timestamp = past,
            "snapshot" => expiry.snapshot = past,
            _ => expiry.targets = past,
        }
        world.publish_until(&[&release], &expiry);
        let error = world.look().unwrap_err();
        assert_eq!(kind_of(&error), Kind::Trust, "{error:#}");
        assert!(
            format!("{error:#}").contains("expired"),
            "{role}: {error:#}"
        );
    }
    // What was found good before goes its way: to the end of the update, through the trial, and back.
    world.install(&offered).unwrap();
    assert_eq!(world.reboot(), "1.1.0");
    assert!(matches!(world.judge(true), Conclusion::Done(_)));
    install::roll_back(&world.device(), &|_| {})
        .unwrap()
        .unwrap();
    assert_eq!(world.reboot(), "1.0.0");
    assert_eq!(
        world.judge(true),
        Conclusion::Done("confirmed 1.0.0".into())
    );
    // Published again, the device goes on.
    let next = world.commit(&good(&world, "1.2.0"));
    let next = world.release("1.2.0", &next, &[&old]);
    world.publish(&[&next]);
    assert!(matches!(world.look().unwrap(), Offer::Newer(_)));
}

#[test]
fn the_epoch_rises_with_a_confirmed_boot_only() {
    if !inside("attacks::the_epoch_rises_with_a_confirmed_boot_only") {
        return;
    }
    let world = World::new("1.0.0");
    let old = running(&world);
    let floor = |world: &World| check::epoch_floor(&world.paths(), None);
    let epoch = |version: &str, commit: &str, epoch: u64| Release {
        epoch,
        ..world.release(version, commit, &[&old])
    };
    let new = world.commit(&good(&world, "2.0.0"));
    let new = epoch("2.0.0", &new, 5);
    world.publish(&[&new]);
    world.install(&new).unwrap();
    assert_eq!(floor(&world), 0);
    assert_eq!(world.reboot(), "2.0.0");
    assert_eq!(floor(&world), 0, "on trial");
    world.judge(false);
    assert_eq!(world.reboot(), "1.0.0", "falling back needs no epoch");
    assert!(matches!(world.judge(true), Conclusion::Done(_)));
    assert_eq!(floor(&world), 0, "fallen back");
    // So the version before can be mended with its own epoch.
    let mended = world.commit(&good(&world, "2.0.1"));
    let mended = epoch("2.0.1", &mended, 4);
    world.publish(&[&mended, &new]);
    assert_eq!(
        world.look().unwrap(),
        Offer::Newer(Box::new(mended.clone()))
    );
    world.install(&mended).unwrap();
    assert_eq!(world.reboot(), "2.0.1");
    assert!(matches!(world.judge(true), Conclusion::Done(_)));
    assert_eq!(floor(&world), 4, "confirmed");
    let low = world.commit(&good(&world, "2.0.2"));
    let low = epoch("2.0.2", &low, 3);
    world.publish(&[&low, &mended, &new]);
    let offer = world.look().unwrap();
    assert!(
        matches!(&offer, Offer::Withheld { reason, .. } if reason.contains("epoch 3 is below 4")),
        "{offer:?}"
    );
    // What lies in /var may be lost; the deployment remembers.
    std::fs::remove_dir_all(world.paths().state()).unwrap();
    assert_eq!(floor(&world), 0);
    assert_eq!(world.epoch_of_what_runs(), Some(4));
}

#[test]
fn a_downgrade_on_purpose_is_a_signed_release() {
    if !inside("attacks::a_downgrade_on_purpose_is_a_signed_release") {
        return;
    }
    let world = World::new("1.0.0");
    let old = running(&world);
    let new = world.commit(&good(&world, "1.1.0"));
    let newer = world.release("1.1.0", &new, &[&old]);
    let older = world.release("1.0.0", &old, &[]);
    world.publish(&[&newer, &older]);
    world.install(&newer).unwrap();
    assert_eq!(world.reboot(), "1.1.0");
    world.judge(true);
    // The older one is not taken for being there, only for standing on top.
    assert_eq!(world.look().unwrap(), Offer::UpToDate);
    world.publish(&[&older, &newer]);
    assert_eq!(world.look().unwrap(), Offer::Newer(Box::new(older.clone())));
    world.install(&older).unwrap();
    assert_eq!(world.reboot(), "1.0.0");
    assert!(matches!(world.judge(true), Conclusion::Done(_)));
    assert_eq!(world.look().unwrap(), Offer::UpToDate);
    // Not below the epoch that was confirmed.
    let floor = check::epoch_floor(&world.paths(), None);
    let below = Release {
        epoch: floor - 1,
        ..newer
    };
    world.publish(&[&below, &older]);
    assert!(matches!(world.look().unwrap(), Offer::Withheld { .. }));
}

#[test]
fn an_altered_file_is_found() {
    if !inside("attacks::an_altered_file_is_found") {
        return;
    }
    let world = World::new("1.0.0");
    let old = running(&world);
    let objects = verify::running(&world.device()).unwrap();
    assert!(objects > 5, "{objects}");
    // As somebody would who has the disk: in place, with the same length and the same time.
    let file = world.deployment(&old).join("usr/etc/other.conf");
    let mut content = std::fs::read(&file).unwrap();
    let time = std::fs::metadata(&file).unwrap().modified().unwrap();
    content[0] ^= 1;
    let open = std::fs::File::options().write(true).open(&file).unwrap();
    std::io::Write::write_all(&mut &open, &content).unwrap();
    open.set_modified(time).unwrap();
    let error = verify::running(&world.device()).unwrap_err();
    assert_eq!(kind_of(&error), Kind::Trust, "{error:#}");
    assert!(format!("{error:#}").contains("1 of"), "{error:#}");
    content[0] ^= 1;
    std::io::Write::write_all(
        &mut std::fs::File::options().write(true).open(&file).unwrap(),
        &content,
    )
    .unwrap();
    assert_eq!(verify::running(&world.device()).unwrap(), objects);
}
