//! A world with a product, its update directory and a device, and what an attacker or an accident
//! does to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::TempDir;
use url::Url;

use super::*;
use crate::author::{self, Expiry, Keyring};
use crate::keyfile::PrivateKey;
use crate::release::{Artifact, FORMAT};

const BOARD: &str = "generic-x86_64";

struct World {
    dir: TempDir,
    keyring: Keyring,
    root: Vec<u8>,
}

impl World {
    /// A product that has published version 1.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let keyring = new_keys(&dir.path().join("keys"));
        let root = author::create_root(&keyring, &Expiry::from(SystemTime::now())).unwrap();
        let world = Self { dir, keyring, root };
        world.release("1");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The metadata directory on the server.
    fn tuf(&self) -> PathBuf {
        self.path("server/tuf")
    }

    fn release(&self, version: &str) {
        self.release_until(version, Expiry::from(SystemTime::now()));
    }

    fn release_until(&self, version: &str, expiry: Expiry) {
        let add = targets(version);
        author::publish(&self.root, &self.keyring, &self.tuf(), add, &expiry).unwrap();
    }

    async fn open(&self) -> Result<Client, ClientError> {
        self.open_with(FilesystemTransport).await
    }

    async fn open_with<T>(&self, transport: T) -> Result<Client, ClientError>
    where
        T: Transport + Clone + Send + Sync + 'static,
    {
        let base = Url::from_directory_path(self.path("server")).unwrap();
        Client::open(&self.root, &self.path("datastore"), &base, transport).await
    }

    /// Everything a device does: the newest version of the channel, and its release.
    async fn update(&self) -> Result<Release, ClientError> {
        let client = self.open().await?;
        let channel = client.channel(BOARD, "stable").await?;
        client.release(BOARD, &channel.versions[0]).await
    }

    /// The one file below the server whose name ends so.
    fn target_file(&self, ends: &str) -> PathBuf {
        let mut found = fs::read_dir(self.tuf().join("targets"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().ends_with(ends));
        found.next().unwrap()
    }

    fn datastore_dir(&self) -> PathBuf {
        let mut entries = fs::read_dir(self.path("datastore")).unwrap();
        entries.next().unwrap().unwrap().path()
    }
}

fn new_keys(dir: &Path) -> Keyring {
    fs::create_dir_all(dir).unwrap();
    let keyring = Keyring::in_dir(dir);
    for file in [
        &keyring.root,
        &keyring.targets,
        &keyring.snapshot,
        &keyring.timestamp,
    ] {
        PrivateKey::generate().unwrap().save_new(file).unwrap();
    }
    keyring
}

fn targets(version: &str) -> Vec<(String, Vec<u8>)> {
    let artifact = Artifact {
        path: format!("deltas/{version}-full"),
        length: 1000,
        sha256: "b".repeat(64),
    };
    let release = Release {
        format: FORMAT,
        product: "demo".into(),
        version: version.into(),
        boards: vec![BOARD.into()],
        arch: "amd64".into(),
        commit: "a".repeat(64),
        epoch: 1,
        created: 1_700_000_000,
        full: artifact,
        deltas: vec![],
        installed_bytes: 5000,
        notes: String::new(),
    };
    let channel = Channel {
        format: FORMAT,
        product: "demo".into(),
        channel: "stable".into(),
        board: BOARD.into(),
        versions: vec![version.into()],
    };
    vec![
        (release_target(BOARD, version), release.to_json().unwrap()),
        (channel_target(BOARD, "stable"), channel.to_json().unwrap()),
    ]
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn change(path: &Path, change: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, change(bytes)).unwrap();
}

fn half(bytes: Vec<u8>) -> Vec<u8> {
    bytes[..bytes.len() / 2].to_vec()
}

#[tokio::test]
async fn a_release_comes_through() {
    let world = World::new();
    assert_eq!(world.update().await.unwrap().version, "1");
    world.release("2");
    assert_eq!(world.update().await.unwrap().version, "2");
    let client = world.open().await.unwrap();
    assert_eq!(client.release(BOARD, "1").await.unwrap().version, "1");
    let missing = client.release(BOARD, "3").await.unwrap_err();
    assert!(
        matches!(missing, ClientError::MissingTarget { .. }),
        "{missing}"
    );
    assert_eq!(client.target("../../etc/passwd").await.unwrap(), None);
    let month = SystemTime::now() + Duration::from_secs(29 * 86400);
    let month = month
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    assert!(client.expires() > i64::try_from(month).unwrap());
}

/// What is done to the server, and the kind of error that the device reports.
struct Attack {
    name: &'static str,
    on: fn(&World),
    expected: &'static str,
}

const ATTACKS: &[Attack] = &[
    Attack {
        name: "release changed, same length",
        on: |w| {
            change(
                &w.target_file("release.generic-x86_64.2.json"),
                |mut bytes| {
                    bytes[40] ^= 1;
                    bytes
                },
            );
        },
        expected: "Tampered",
    },
    Attack {
        name: "release made longer",
        on: |w| {
            change(
                &w.target_file("release.generic-x86_64.2.json"),
                |mut bytes| {
                    bytes.push(b' ');
                    bytes
                },
            );
        },
        expected: "TooLarge",
    },
    Attack {
        name: "release truncated",
        on: |w| change(&w.target_file("release.generic-x86_64.2.json"), half),
        expected: "Tampered",
    },
    Attack {
        name: "release removed",
        on: |w| fs::remove_file(w.target_file("release.generic-x86_64.2.json")).unwrap(),
        expected: "NotOnServer",
    },
    Attack {
        name: "older release under the newer one's name",
        on: |w| {
            let newer = w.target_file("release.generic-x86_64.2.json");
            fs::copy(w.target_file("release.generic-x86_64.1.json"), newer).unwrap();
        },
        expected: "Tampered",
    },
    Attack {
        name: "everything published again with other keys",
        on: |w| {
            let keyring = new_keys(&w.path("other"));
            let expiry = Expiry::from(SystemTime::now());
            let root = author::create_root(&keyring, &expiry).unwrap();
            fs::remove_dir_all(w.tuf()).unwrap();
            author::publish(&root, &keyring, &w.tuf(), targets("9"), &expiry).unwrap();
        },
        expected: "Signature",
    },
    Attack {
        name: "next root signed with other keys",
        on: |w| {
            let keyring = new_keys(&w.path("other"));
            let expiry = Expiry::from(SystemTime::now());
            let first = author::create_root(&keyring, &expiry).unwrap();
            let second = author::next_root(&first, &keyring.root, &keyring, &expiry).unwrap();
            fs::write(w.tuf().join("2.root.json"), second).unwrap();
        },
        expected: "Signature",
    },
    Attack {
        name: "version in the timestamp raised by hand",
        on: |w| {
            change(&w.tuf().join("timestamp.json"), |bytes| {
                let text = String::from_utf8(bytes).unwrap();
                text.replace("\"version\": 2\n  }", "\"version\": 7\n  }")
                    .into_bytes()
            });
        },
        expected: "Signature",
    },
    Attack {
        name: "the whole server put back",
        on: |w| {
            fs::remove_dir_all(w.tuf()).unwrap();
            copy_tree(&w.path("before"), &w.tuf());
        },
        expected: "Rollback",
    },
    Attack {
        name: "only the timestamp put back",
        on: |w| {
            fs::copy(
                w.path("before/timestamp.json"),
                w.tuf().join("timestamp.json"),
            )
            .unwrap();
        },
        expected: "Rollback",
    },
    Attack {
        name: "an older snapshot under a newer timestamp (stolen timestamp key)",
        on: |w| {
            let first = w.path("before");
            author::tests::sign_older_snapshot(&w.root, &w.keyring, &first, &w.tuf(), 9);
        },
        expected: "Rollback",
    },
    Attack {
        name: "timestamp truncated",
        on: |w| change(&w.tuf().join("timestamp.json"), half),
        expected: "Malformed",
    },
    Attack {
        name: "timestamp empty",
        on: |w| change(&w.tuf().join("timestamp.json"), |_| vec![]),
        expected: "Malformed",
    },
    Attack {
        name: "timestamp without end",
        on: |w| change(&w.tuf().join("timestamp.json"), |_| vec![b' '; 1 << 20]),
        expected: "TooLarge",
    },
    Attack {
        name: "timestamp removed",
        on: |w| fs::remove_file(w.tuf().join("timestamp.json")).unwrap(),
        expected: "NotOnServer",
    },
    Attack {
        name: "snapshot truncated",
        on: |w| {
            // One that the device has not seen: what it has, it does not fetch again.
            w.release("3");
            change(&w.tuf().join("3.snapshot.json"), half);
        },
        expected: "Tampered",
    },
    Attack {
        name: "targets truncated",
        on: |w| {
            w.release("3");
            change(&w.tuf().join("3.targets.json"), half);
        },
        expected: "Tampered",
    },
    Attack {
        name: "older targets under the newer one's name",
        on: |w| {
            w.release("3");
            fs::copy(
                w.tuf().join("1.targets.json"),
                w.tuf().join("3.targets.json"),
            )
            .unwrap();
        },
        expected: "Tampered",
    },
    Attack {
        name: "next root is no JSON",
        on: |w| fs::write(w.tuf().join("2.root.json"), "<html>").unwrap(),
        expected: "Malformed",
    },
    Attack {
        name: "timestamp expired",
        on: |w| {
            let past = SystemTime::now() - Duration::from_secs(5);
            w.release_until(
                "3",
                Expiry {
                    timestamp: past,
                    ..Expiry::from(SystemTime::now())
                },
            );
        },
        expected: "Expired",
    },
    Attack {
        name: "snapshot expired",
        on: |w| {
            let past = SystemTime::now() - Duration::from_secs(5);
            w.release_until(
                "3",
                Expiry {
                    snapshot: past,
                    ..Expiry::from(SystemTime::now())
                },
            );
        },
        expected: "Expired",
    },
    Attack {
        name: "targets expired",
        on: |w| {
            let past = SystemTime::now() - Duration::from_secs(5);
            w.release_until(
                "3",
                Expiry {
                    targets: past,
                    ..Expiry::from(SystemTime::now())
                },
            );
        },
        expected: "Expired",
    },
];

#[tokio::test]
async fn every_attack_is_refused_and_told_by_its_kind() {
    for attack in ATTACKS {
        let world = World::new();
        copy_tree(&world.tuf(), &world.path("before"));
        world.release("2");
        copy_tree(&world.tuf(), &world.path("good"));
        assert_eq!(
            world.update().await.unwrap().version,
            "2",
            "{}",
            attack.name
        );

        (attack.on)(&world);
        let error = match world.update().await {
            Ok(release) => panic!("{}: accepted version {}", attack.name, release.version),
            Err(error) => error,
        };
        let kind = format!("{error:?}");
        assert!(kind.starts_with(attack.expected), "{}: {kind}", attack.name);

        // The attack over, the device goes on (at a newer state than any it may have seen).
        fs::remove_dir_all(world.tuf()).unwrap();
        copy_tree(&world.path("good"), &world.tuf());
        for _ in 0..2 {
            world.release("4");
        }
        let after = world.update().await;
        assert_eq!(
            after.map(|r| r.version),
            Ok("4".to_owned()),
            "after: {}",
            attack.name
        );
    }
}

#[tokio::test]
async fn an_attack_on_a_device_that_has_seen_nothing() {
    // A fresh device knows the root only: what is not expired and rightly signed is accepted.
    for attack in ATTACKS
        .iter()
        .filter(|attack| attack.expected != "Rollback")
    {
        let world = World::new();
        world.release("2");
        (attack.on)(&world);
        let kind = format!("{:?}", world.update().await.unwrap_err());
        assert!(kind.starts_with(attack.expected), "{}: {kind}", attack.name);
    }
}

#[tokio::test]
async fn a_damaged_datastore_is_made_anew() {
    type Damage = (&'static str, fn(&World));
    let damages: &[Damage] = &[
        ("removed", |w| {
            fs::remove_dir_all(w.path("datastore")).unwrap()
        }),
        ("a file in its place", |w| {
            fs::remove_dir_all(w.path("datastore")).unwrap();
            fs::write(w.path("datastore"), "x").unwrap();
        }),
        ("a file in the inner place", |w| {
            let dir = w.datastore_dir();
            fs::remove_dir_all(&dir).unwrap();
            fs::write(dir, "x").unwrap();
        }),
        ("every file truncated", |w| {
            for_each_file(w, |path| change(path, half))
        }),
        ("every file empty", |w| {
            for_each_file(w, |path| fs::write(path, "").unwrap())
        }),
        ("every file zeroed", |w| {
            for_each_file(w, |path| change(path, |bytes| vec![0; bytes.len()]));
        }),
        ("every file a directory", |w| {
            for_each_file(w, |path| {
                fs::remove_file(path).unwrap();
                fs::create_dir_all(path.join("inner")).unwrap();
            });
        }),
        ("clock behind", |w| {
            fs::write(
                w.datastore_dir().join("latest_known_time.json"),
                "\"2099-01-01T00:00:00Z\"",
            )
            .unwrap();
        }),
    ];
    for (name, damage) in damages {
        let world = World::new();
        world.update().await.unwrap();
        damage(&world);
        let after = world.update().await;
        assert_eq!(after.map(|r| r.version), Ok("1".to_owned()), "{name}");
    }
}

fn for_each_file(world: &World, act: impl Fn(&Path)) {
    let mut count = 0;
    for entry in fs::read_dir(world.datastore_dir()).unwrap() {
        act(&entry.unwrap().path());
        count += 1;
    }
    assert_eq!(count, 4, "the datastore holds the four roles");
}

#[tokio::test]
async fn the_clock_may_step_back_while_the_client_is_open() {
    let world = World::new();
    let client = world.open().await.unwrap();
    let known = world.datastore_dir().join("latest_known_time.json");
    fs::write(known, "\"2099-01-01T00:00:00Z\"").unwrap();
    assert_eq!(client.release(BOARD, "1").await.unwrap().version, "1");
}

#[tokio::test]
async fn rollback_is_noticed_after_the_clock_was_forgotten() {
    let world = World::new();
    copy_tree(&world.tuf(), &world.path("before"));
    world.release("2");
    world.update().await.unwrap();
    fs::write(
        world.datastore_dir().join("latest_known_time.json"),
        "\"2099-01-01T00:00:00Z\"",
    )
    .unwrap();
    fs::copy(
        world.path("before/timestamp.json"),
        world.tuf().join("timestamp.json"),
    )
    .unwrap();
    let error = world.update().await.unwrap_err();
    assert!(matches!(error, ClientError::Rollback(_)), "{error}");
}

#[tokio::test]
async fn a_replaced_key_reaches_the_device_and_cannot_be_taken_back() {
    let mut world = World::new();
    let device_root = world.root.clone();
    world.update().await.unwrap();
    copy_tree(&world.tuf(), &world.path("before"));

    // The timestamp key was stolen: another one takes its place.
    let expiry = Expiry::from(SystemTime::now());
    fs::rename(&world.keyring.timestamp, world.path("stolen.pem")).unwrap();
    PrivateKey::generate()
        .unwrap()
        .save_new(&world.keyring.timestamp)
        .unwrap();
    let next =
        author::next_root(&world.root, &world.keyring.root, &world.keyring, &expiry).unwrap();
    world.root = next;
    world.release("2");
    world.root.clone_from(&device_root);
    assert_eq!(world.update().await.unwrap().version, "2");

    // The thief hides the new root and signs a state of his own.
    fs::remove_dir_all(world.tuf()).unwrap();
    copy_tree(&world.path("before"), &world.tuf());
    let stolen = Keyring {
        timestamp: world.path("stolen.pem"),
        ..world.keyring.clone()
    };
    author::publish(&device_root, &stolen, &world.tuf(), targets("3"), &expiry).unwrap();
    author::publish(&device_root, &stolen, &world.tuf(), targets("3"), &expiry).unwrap();
    let error = world.update().await.unwrap_err();
    assert!(matches!(error, ClientError::Signature { .. }), "{error}");
}

#[tokio::test]
async fn a_useless_trusted_root_is_named() {
    let mut world = World::new();
    for root in [vec![], b"{}".to_vec(), half(world.root.clone())] {
        world.root = root;
        let error = world.update().await.unwrap_err();
        assert!(matches!(error, ClientError::TrustedRoot(_)), "{error}");
    }
}

/// A network that is down.
#[derive(Debug, Clone)]
struct Down;

#[async_trait]
impl Transport for Down {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        Err(TransportError::new_with_cause(
            TransportErrorKind::Other,
            url.as_str(),
            cause,
        ))
    }
}

#[tokio::test]
async fn a_network_that_is_down_is_told_from_a_bad_server() {
    let world = World::new();
    let error = world.open_with(Down).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ClientError::Network { .. }), "{text}");
    assert!(
        text.contains("2.root.json") && text.contains("connection refused"),
        "{text}"
    );
}

/// A server that never ends and never hurries.
#[derive(Debug, Clone)]
struct Dripping;

#[async_trait]
impl Transport for Dripping {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        if url.path().ends_with("root.json") {
            let kind = TransportErrorKind::FileNotFound;
            return Err(TransportError::new_with_cause(kind, url.as_str(), "404"));
        }
        let drops = std::iter::repeat_with(|| {
            std::thread::sleep(Duration::from_millis(5));
            Ok(Bytes::from_static(b" "))
        });
        Ok(Box::pin(futures_util::stream::iter(drops)))
    }
}

#[tokio::test]
async fn data_that_drips_is_given_up() {
    let world = World::new();
    let begun = std::time::Instant::now();
    let error = world.open_with(Dripping).await.unwrap_err();
    assert!(matches!(error, ClientError::Network { .. }), "{error}");
    assert!(error.to_string().contains("only"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn a_system_that_brings_the_root_already_followed_keeps_the_memory() {
    let mut world = World::new();
    copy_tree(&world.tuf(), &world.path("before"));
    let expiry = Expiry::from(SystemTime::now());
    let next = author::next_root(&world.root, &world.keyring.root, &world.keyring, &expiry);
    let old = std::mem::replace(&mut world.root, next.unwrap());
    world.release("2");
    let new = std::mem::replace(&mut world.root, old);
    assert_eq!(world.update().await.unwrap().version, "2");

    // The update installed brings root version 2; the server shows what was before it.
    world.root = new;
    let second = fs::read(world.tuf().join("2.root.json")).unwrap();
    fs::remove_dir_all(world.tuf()).unwrap();
    copy_tree(&world.path("before"), &world.tuf());
    fs::write(world.tuf().join("2.root.json"), second).unwrap();
    let error = world.update().await.unwrap_err();
    assert!(matches!(error, ClientError::Rollback(_)), "{error}");
}

#[tokio::test]
async fn content_must_be_about_what_was_asked_for() {
    let world = World::new();
    let expiry = Expiry::from(SystemTime::now());
    let content = targets("1").remove(0).1;
    let add = vec![
        (release_target(BOARD, "5"), content.clone()),
        (release_target("other", "1"), content),
        (release_target(BOARD, "6"), br#"{"format": 2}"#.to_vec()),
    ];
    author::publish(&world.root, &world.keyring, &world.tuf(), add, &expiry).unwrap();
    let client = world.open().await.unwrap();
    for (board, version, says) in [
        (BOARD, "5", "version"),
        ("other", "1", "boards"),
        (BOARD, "6", "update the program"),
    ] {
        let error = client.release(board, version).await.unwrap_err();
        assert!(matches!(error, ClientError::Malformed { .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// The device has been in a drawer for years: every key was replaced meanwhile, root keys one by one
/// and two of three signing each time, and each version published.
#[tokio::test]
async fn a_device_many_roots_behind_gets_through() {
    use crate::author::root::{self, Change, RoleSet, TopRole};
    use crate::signer::Signer;

    let mut world = World::new();
    let dir = world.path("keys");
    let expiry = Expiry::from(SystemTime::now());
    let new = |name: &str| {
        let file = dir.join(name);
        let _ = fs::remove_file(&file);
        PrivateKey::generate().unwrap().save_new(&file).unwrap();
        Signer::open(&file).unwrap()
    };
    let mut roots: Vec<Signer> = (0..3).map(|i| new(&format!("root-{i}.pem"))).collect();
    let of = |role: &Path| Signer::open(role).unwrap().public_bytes();
    let set = RoleSet {
        root: roots.iter().map(Signer::public_bytes).collect(),
        threshold: std::num::NonZeroU64::new(2).unwrap(),
        targets: of(&world.keyring.targets),
        snapshot: of(&world.keyring.snapshot),
        timestamp: of(&world.keyring.timestamp),
    };
    let draft = root::first(&set, &expiry).unwrap();
    let half = root::sign(&draft, &roots[0]).unwrap();
    let device_root = root::sign(&half, &roots[1]).unwrap();
    fs::remove_dir_all(world.tuf()).unwrap();
    world.root.clone_from(&device_root);
    world.release("1");
    assert_eq!(world.update().await.unwrap().version, "1");

    for round in 0..12 {
        let role = [
            TopRole::Root,
            TopRole::Targets,
            TopRole::Snapshot,
            TopRole::Timestamp,
        ][round % 4];
        let gone = round / 4 % 3;
        let (old, key) = match role {
            TopRole::Root => (
                Some(roots[gone].public_bytes()),
                new(&format!("root-new-{round}.pem")),
            ),
            TopRole::Targets => (None, new("targets.pem")),
            TopRole::Snapshot => (None, new("snapshot.pem")),
            TopRole::Timestamp => (None, new("timestamp.pem")),
        };
        let change = Change::Replace {
            role,
            old,
            new: Some(key.public_bytes()),
        };
        let mut draft = root::following(&world.root, &change, &expiry).unwrap();
        // The two that stay sign for the old set and for the new one.
        for (i, signer) in roots.iter().enumerate() {
            if i != gone {
                draft = root::sign(&draft, signer).unwrap();
            }
        }
        assert!(root::progress(Some(&world.root), &draft)
            .unwrap()
            .complete());
        if role == TopRole::Root {
            roots[gone] = key;
        }
        world.root = draft;
        world.release(&format!("{}", round + 2));
    }
    assert!(world.tuf().join("13.root.json").exists());

    // The one that has seen version 1, and one that has seen nothing.
    world.root = device_root;
    assert_eq!(world.update().await.unwrap().version, "13");
    fs::remove_dir_all(world.path("datastore")).unwrap();
    assert_eq!(world.update().await.unwrap().version, "13");

    // One version missing: nobody gets past it, and nothing unsigned is believed.
    fs::remove_file(world.tuf().join("7.root.json")).unwrap();
    fs::remove_dir_all(world.path("datastore")).unwrap();
    let error = world.update().await.unwrap_err();
    assert!(matches!(error, ClientError::Signature { .. }), "{error}");
}

#[tokio::test]
async fn what_a_delegated_role_offers_is_found() {
    let world = World::new();
    let key = world.keyring.of("pc");
    PrivateKey::generate().unwrap().save_new(&key).unwrap();
    let delegation = author::Delegation {
        name: "pc".to_owned(),
        patterns: vec![format!("*.{BOARD}.*")],
    };
    let expiry = Expiry::from(SystemTime::now());
    author::delegate(
        &world.root,
        &world.keyring,
        &world.tuf(),
        &delegation,
        &expiry,
    )
    .unwrap();
    assert_eq!(world.update().await.unwrap().version, "1");
    fs::remove_file(&world.keyring.targets).unwrap();
    world.release("2");
    assert_eq!(world.update().await.unwrap().version, "2");
}
