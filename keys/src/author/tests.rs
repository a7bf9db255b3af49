//! Publishing: into nothing, over something, over something that was tampered with, and cut off.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;

use super::write::cut;
use super::*;
use crate::keyfile::PrivateKey;

struct World {
    dir: TempDir,
    keyring: Keyring,
    root: Vec<u8>,
    expiry: Expiry,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keyring = Keyring::in_dir(dir.path());
        for file in [
            &keyring.root,
            &keyring.targets,
            &keyring.snapshot,
            &keyring.timestamp,
        ] {
            PrivateKey::generate().unwrap().save_new(file).unwrap();
        }
        // Long past: what the author does must not depend on the time of day.
        let expiry = Expiry::from(UNIX_EPOCH + Duration::from_secs(1_000_000_000));
        let root = create_root(&keyring, &expiry).unwrap();
        Self {
            dir,
            keyring,
            root,
            expiry,
        }
    }

    fn server(&self) -> PathBuf {
        self.dir.path().join("server/tuf")
    }

    fn publish(&self, add: &[(&str, &str)]) -> Result<Published, AuthorError> {
        self.publish_in(&self.server(), add)
    }

    fn publish_in(&self, dir: &Path, add: &[(&str, &str)]) -> Result<Published, AuthorError> {
        let add = add
            .iter()
            .map(|(name, content)| ((*name).to_owned(), content.as_bytes().to_vec()))
            .collect();
        publish(&self.root, &self.keyring, dir, add, &self.expiry)
    }

    fn target(&self, name: &str) -> Option<String> {
        let bytes = target(&self.root, &self.server(), name).unwrap()?;
        Some(String::from_utf8(bytes).unwrap())
    }

    fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.server().join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{file} has no {from}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }
}

/// What somebody with a stolen timestamp key could do: in `server_dir`, a timestamp of the given
/// version that names the snapshot published in `older`.
pub(crate) fn sign_older_snapshot(
    root: &[u8],
    keyring: &Keyring,
    older: &Path,
    server_dir: &Path,
    version: u64,
) {
    let root = existing::parse_root(root).unwrap();
    let mut timestamp = existing::read(older, &root).unwrap().unwrap().timestamp;
    timestamp.version = NonZeroU64::new(version).unwrap();
    role(&root, timestamp, &keyring.timestamp, server_dir).unwrap();
}

#[test]
fn targets_are_added_replaced_and_kept() {
    let world = World::new();
    assert_eq!(world.target("a"), None);
    let first = world.publish(&[("a", "1"), ("b", "1")]).unwrap();
    assert_eq!(
        first,
        Published {
            timestamp_version: 1,
            targets: 2
        }
    );
    let second = world.publish(&[("b", "2"), ("c", "1")]).unwrap();
    assert_eq!(
        second,
        Published {
            timestamp_version: 2,
            targets: 3
        }
    );
    let third = world.publish(&[]).unwrap();
    assert_eq!(
        third,
        Published {
            timestamp_version: 3,
            targets: 3
        }
    );
    for (name, content) in [
        ("a", Some("1")),
        ("b", Some("2")),
        ("c", Some("1")),
        ("d", None),
    ] {
        assert_eq!(world.target(name).as_deref(), content, "{name}");
    }
    assert_eq!(
        target_names(&world.root, &world.server()).unwrap(),
        ["a", "b", "c"]
    );
    // A client in the middle of the first state still finds all of it.
    for file in [
        "1.root.json",
        "1.targets.json",
        "1.snapshot.json",
        "3.targets.json",
        "timestamp.json",
    ] {
        let mode = fs::metadata(world.server().join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o644, "{file}");
    }
}

#[test]
fn the_same_publication_is_the_same_bytes() {
    let world = World::new();
    let dirs = [world.dir.path().join("one"), world.dir.path().join("two")];
    for dir in &dirs {
        world
            .publish_in(dir, &[("a", "1"), ("b", "2"), ("c", "3")])
            .unwrap();
        world.publish_in(dir, &[("d", "4")]).unwrap();
    }
    for file in ["2.targets.json", "2.snapshot.json", "timestamp.json"] {
        let [one, two] = [0, 1].map(|i| fs::read(dirs[i].join(file)).unwrap());
        assert_eq!(one, two, "{file}");
    }
}

#[test]
fn a_cut_leaves_the_old_state_and_the_next_publication_mends_it() {
    let add = [("a", "2"), ("new", "2")];
    for first in [false, true] {
        let mut cuts = 0;
        loop {
            let world = World::new();
            if !first {
                world.publish(&[("a", "1")]).unwrap();
            }
            let before = world.target("a");
            cut::after(Some(cuts));
            let result = world.publish(&add);
            cut::after(None);
            if result.is_ok() {
                break;
            }
            assert_eq!(world.target("a"), before, "cut at write {cuts}");
            assert_eq!(world.target("new"), None, "cut at write {cuts}");
            world.publish(&add).unwrap();
            assert_eq!(
                world.target("a").as_deref(),
                Some("2"),
                "after a cut at write {cuts}"
            );
            cuts += 1;
        }
        // Two targets, three roles, and the root the first time.
        assert_eq!(cuts, if first { 6 } else { 5 });
    }
}

#[test]
fn what_was_tampered_with_is_not_signed_again() {
    type Tampering = (&'static str, fn(&World));
    let tamperings: &[Tampering] = &[
        ("target of his own", |w| {
            w.edit(
                "2.targets.json",
                "\"targets\": {",
                "\"targets\": {\"evil\": {\"hashes\": {\"sha256\": \"00\"}, \"length\": 1},",
            )
        }),
        ("version raised", |w| {
            w.edit("timestamp.json", "\"version\": 2\n", "\"version\": 9\n")
        }),
        ("snapshot gone", |w| {
            fs::remove_file(w.server().join("2.snapshot.json")).unwrap()
        }),
        ("older targets", |w| {
            fs::copy(
                w.server().join("1.targets.json"),
                w.server().join("2.targets.json"),
            )
            .unwrap();
        }),
        ("timestamp gone", |w| {
            fs::remove_file(w.server().join("timestamp.json")).unwrap()
        }),
        ("timestamp empty", |w| {
            fs::write(w.server().join("timestamp.json"), "").unwrap()
        }),
        ("root changed", |w| {
            w.edit("1.root.json", "\"version\": 1", "\"version\":  1")
        }),
        ("by other keys", |w| {
            let other = World::new();
            fs::remove_dir_all(w.server()).unwrap();
            other.publish_in(&w.server(), &[("evil", "1")]).unwrap();
        }),
    ];
    for (name, tamper) in tamperings {
        let world = World::new();
        world.publish(&[("a", "1")]).unwrap();
        world.publish(&[("a", "2")]).unwrap();
        tamper(&world);
        let error = world.publish(&[("b", "1")]).unwrap_err();
        let expected = matches!(error, AuthorError::Existing { .. } | AuthorError::Io { .. });
        assert!(expected, "{name}: {error}");
        let server = world.server().display().to_string();
        assert!(error.to_string().contains(&server), "{name}: {error}");
    }
}

#[test]
fn a_changed_target_file_is_noticed() {
    let world = World::new();
    world.publish(&[("a", "1")]).unwrap();
    let sha256 = hex::encode(Sha256::digest("1"));
    fs::write(world.server().join(format!("targets/{sha256}.a")), "2").unwrap();
    let error = target(&world.root, &world.server(), "a").unwrap_err();
    assert!(matches!(error, AuthorError::Existing { .. }), "{error}");
}

#[test]
fn keys_that_do_not_fit_are_named() {
    let world = World::new();
    let mut swapped = world.keyring.clone();
    swapped.timestamp = swapped.snapshot.clone();
    let error = publish(
        &world.root,
        &swapped,
        &world.server(),
        vec![],
        &world.expiry,
    )
    .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, AuthorError::Key { .. }), "{text}");
    assert!(
        text.contains("timestamp") && text.contains("snapshot.pem"),
        "{text}"
    );

    fs::set_permissions(&world.keyring.targets, fs::Permissions::from_mode(0o640)).unwrap();
    let text = world.publish(&[]).unwrap_err().to_string();
    let wanted = format!("chmod 600 {}", world.keyring.targets.display());
    assert!(text.contains(&wanted), "{text}");
}

#[test]
fn names_that_clients_would_read_differently_are_refused() {
    let world = World::new();
    let long = "x".repeat(161);
    for name in [
        "", ".hidden", "a/b", "../a", "a b", "a?b", "a#b", "a%2fb", "ä", "a:b", &long,
    ] {
        let error = world.publish(&[(name, "1")]).unwrap_err();
        assert!(matches!(error, AuthorError::Name { .. }), "{name}: {error}");
    }
    world.publish(&[("1.2+b~rc_1-x", "1")]).unwrap();
}

#[test]
fn after_a_new_root_the_old_state_is_carried_on() {
    let mut world = World::new();
    world.publish(&[("a", "1")]).unwrap();
    let previous = world.root.clone();
    fs::remove_file(&world.keyring.targets).unwrap();
    PrivateKey::generate()
        .unwrap()
        .save_new(&world.keyring.targets)
        .unwrap();
    world.root = next_root(
        &previous,
        &world.keyring.root,
        &world.keyring,
        &world.expiry,
    )
    .unwrap();
    world.publish(&[("b", "1")]).unwrap();
    assert_eq!(world.target("a").as_deref(), Some("1"));

    // A root key replaced as well: signed by the old one and the new one.
    let old = world.dir.path().join("old.pem");
    fs::rename(&world.keyring.root, &old).unwrap();
    PrivateKey::generate()
        .unwrap()
        .save_new(&world.keyring.root)
        .unwrap();
    let third = next_root(&world.root, &old, &world.keyring, &world.expiry).unwrap();
    let second: Signed<Root> = serde_json::from_slice(&world.root).unwrap();
    let third: Signed<Root> = serde_json::from_slice(&third).unwrap();
    second.signed.verify_role(&third).unwrap();
    third.signed.verify_role(&third).unwrap();
    assert_eq!(third.signed.version.get(), 3);
    let error = next_root(
        &world.root,
        &world.keyring.root,
        &world.keyring,
        &world.expiry,
    )
    .unwrap_err();
    assert!(matches!(error, AuthorError::Key { .. }), "{error}");
}

#[test]
fn the_chain_of_roots_has_no_gap() {
    let mut world = World::new();
    let next =
        |root: &[u8]| next_root(root, &world.keyring.root, &world.keyring, &world.expiry).unwrap();
    let first = world.root.clone();
    let second = next(&first);
    let third = next(&second);
    world.publish(&[("a", "1")]).unwrap();

    world.root = third;
    let text = world.publish(&[]).unwrap_err().to_string();
    assert!(
        text.contains("2.root.json") && text.contains("missing"),
        "{text}"
    );
    world.root = second;
    world.publish(&[]).unwrap();
    world.root = first;
    let text = world.publish(&[]).unwrap_err().to_string();
    assert!(
        text.contains("2.root.json") && text.contains("newer"),
        "{text}"
    );
}

fn new_key(world: &World, name: &str) {
    let file = world.keyring.delegated.join(name);
    PrivateKey::generate().unwrap().save_new(&file).unwrap();
}

#[test]
fn what_is_left_to_a_role_is_signed_by_its_key_alone() {
    let world = World::new();
    world
        .publish(&[("release.pc.1", "1"), ("release.pi.1", "1")])
        .unwrap();
    new_key(&world, "targets-pi.pem");
    let delegation = Delegation {
        name: "pi".to_owned(),
        patterns: vec!["release.pi.*".to_owned()],
    };
    let (server, expiry) = (world.server(), &world.expiry);
    delegate(&world.root, &world.keyring, &server, &delegation, expiry).unwrap();
    assert_eq!(world.target("release.pi.1").as_deref(), Some("1"));
    assert!(server.join("2.pi.json").exists());

    // Who has the key of the board only can release for it, and for nothing else.
    let aside = world.dir.path().join("offline.pem");
    fs::rename(&world.keyring.targets, &aside).unwrap();
    world.publish(&[("release.pi.2", "2")]).unwrap();
    assert_eq!(world.target("release.pi.2").as_deref(), Some("2"));
    world.publish(&[("release.pc.2", "2")]).unwrap_err();
    refresh(&world.root, &world.keyring, &server, expiry).unwrap();
    fs::rename(&aside, &world.keyring.targets).unwrap();

    // And the other way round.
    let of_pi = world.keyring.of("pi");
    fs::rename(&of_pi, &aside).unwrap();
    world.publish(&[("release.pc.2", "2")]).unwrap();
    world.publish(&[("release.pi.3", "3")]).unwrap_err();
    let published = world.publish(&[]).unwrap();
    assert_eq!(published.targets, 4);

    // The role's key replaced: what was there stays.
    new_key(&world, "targets-pi.pem");
    delegate(&world.root, &world.keyring, &server, &delegation, expiry).unwrap();
    world.publish(&[("release.pi.3", "3")]).unwrap();
    let names = target_names(&world.root, &server).unwrap();
    let wanted = [
        "release.pc.1",
        "release.pc.2",
        "release.pi.1",
        "release.pi.2",
        "release.pi.3",
    ];
    assert_eq!(names, wanted);
}

#[test]
fn names_that_cannot_be_delegated_to() {
    let world = World::new();
    for name in ["root", "targets", "a/b", "", ".x"] {
        let delegation = Delegation {
            name: name.to_owned(),
            patterns: vec!["*".to_owned()],
        };
        let error = delegate(
            &world.root,
            &world.keyring,
            &world.server(),
            &delegation,
            &world.expiry,
        );
        assert!(
            matches!(error, Err(AuthorError::Delegation { .. })),
            "{name}"
        );
    }
}

#[test]
fn refreshing_needs_the_online_keys_only() {
    let mut world = World::new();
    let error = refresh(&world.root, &world.keyring, &world.server(), &world.expiry);
    assert!(matches!(error, Err(AuthorError::Existing { .. })));
    world.publish(&[("a", "1")]).unwrap();
    let aside = world.dir.path().join("offline.pem");
    fs::rename(&world.keyring.targets, &aside).unwrap();
    let done = refresh(&world.root, &world.keyring, &world.server(), &world.expiry).unwrap();
    assert_eq!(
        done,
        Published {
            timestamp_version: 2,
            targets: 1
        }
    );
    assert!(!world.server().join("2.targets.json").exists());

    // After the targets key was replaced, what the old one signed is not passed on.
    new_key(&world, "targets.pem");
    world.root = next_root(
        &world.root,
        &world.keyring.root,
        &world.keyring,
        &world.expiry,
    )
    .unwrap();
    let error = refresh(&world.root, &world.keyring, &world.server(), &world.expiry).unwrap_err();
    assert!(error.to_string().contains("targets key first"), "{error}");
    world.publish(&[]).unwrap();
    refresh(&world.root, &world.keyring, &world.server(), &world.expiry).unwrap();
}

#[test]
fn root_metadata_is_signed_by_two_of_three() {
    let dir = tempfile::tempdir().unwrap();
    let signers: Vec<Signer> = (0..5)
        .map(|i| {
            let file = dir.path().join(format!("root-{i}.pem"));
            PrivateKey::generate().unwrap().save_new(&file).unwrap();
            Signer::open(&file).unwrap()
        })
        .collect();
    let public = |i: usize| signers[i].public_bytes();
    let world = World::new();
    let of = |file: &Path| Signer::open(file).unwrap().public_bytes();
    let set = root::RoleSet {
        root: vec![public(0), public(1), public(2)],
        threshold: NonZeroU64::new(2).unwrap(),
        targets: of(&world.keyring.targets),
        snapshot: of(&world.keyring.snapshot),
        timestamp: of(&world.keyring.timestamp),
    };
    let draft = root::first(&set, &world.expiry).unwrap();
    let one = root::sign(&draft, &signers[2]).unwrap();
    let again = root::sign(&one, &signers[2]).unwrap();
    assert_eq!(one, again);
    let stranger = root::sign(&one, &signers[4]).unwrap();
    for draft in [&draft, &one, &stranger] {
        assert!(!root::progress(None, draft).unwrap().complete());
        existing::parse_root(draft).unwrap_err();
    }
    let first = root::sign(&one, &signers[0]).unwrap();
    let progress = root::progress(None, &first).unwrap();
    assert!(progress.complete());
    let signed: Vec<bool> = progress.keys.iter().map(|(_, signed)| *signed).collect();
    assert_eq!(signed, [true, false, true]);
    existing::parse_root(&first).unwrap();

    // One of the three replaced: two of the old and two of the new must sign, and one may be both.
    let change = root::Change::Replace {
        role: root::TopRole::Root,
        old: Some(public(1)),
        new: Some(public(3)),
    };
    let draft = root::following(&first, &change, &world.expiry).unwrap();
    for (by, complete) in [
        (&[1, 3][..], false),
        (&[0, 3], false),
        (&[0, 1], false),
        (&[0, 2], true),
        (&[0, 1, 3], true),
    ] {
        let mut signed = draft.clone();
        for i in by {
            signed = root::sign(&signed, &signers[*i]).unwrap();
        }
        let progress = root::progress(Some(&first), &signed).unwrap();
        assert_eq!(progress.complete(), complete, "{by:?}");
        assert_eq!(progress.version, 2);
        root::progress(None, &signed).unwrap();
    }

    for (change, says) in [
        (
            root::Change::Threshold(NonZeroU64::new(4).unwrap()),
            "3 key(s), and 4",
        ),
        (
            root::Change::Replace {
                role: root::TopRole::Root,
                old: None,
                new: None,
            },
            "3 keys",
        ),
        (
            root::Change::Replace {
                role: root::TopRole::Targets,
                old: None,
                new: None,
            },
            "0 key(s)",
        ),
        (
            root::Change::Replace {
                role: root::TopRole::Targets,
                old: None,
                new: Some(public(0)),
            },
            "in use",
        ),
        (
            root::Change::Replace {
                role: root::TopRole::Targets,
                old: Some(public(4)),
                new: None,
            },
            "none of",
        ),
    ] {
        let error = root::following(&first, &change, &world.expiry).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}
