//! Publishing: into nothing, over something, over something that was tampered with, and cut off.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, UNIX_EPOCH};

use tempfile::TempDir;

use super::write::cut;
use super::*;

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
