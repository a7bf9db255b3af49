//! The judge of our update directories: python-tuf, the reference client of The Update Framework.
#![expect(clippy::unwrap_used, reason = "a test: a failure is its verdict")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use keys::author::{self, Expiry, Keyring};
use keys::keyfile::PrivateKey;
use keys::release::{channel_target, release_target};
use serde::Deserialize;
use tempfile::TempDir;

/// What the script prints.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Targets(BTreeMap<String, Option<String>>),
    Refused(String),
}

/// A Python with python-tuf: a virtual environment in the cache, made if it is missing.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/python-tuf");
        let printed = run(&mut Command::new(script), "see the script's own message");
        PathBuf::from(String::from_utf8(printed).unwrap().trim())
    })
}

fn run(command: &mut Command, try_this: &str) -> Vec<u8> {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("running {command:?}: {e}; {try_this}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "running {command:?} failed; {try_this}\n{errors}"
    );
    output.stdout
}

struct World {
    dir: TempDir,
    python: &'static Path,
    keyring: Keyring,
    root: Vec<u8>,
}

impl World {
    fn new() -> Self {
        let python = python();
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
        let root = author::create_root(&keyring, &Expiry::from(SystemTime::now())).unwrap();
        fs::write(dir.path().join("root.json"), &root).unwrap();
        Self {
            dir,
            python,
            keyring,
            root,
        }
    }

    fn tuf(&self) -> PathBuf {
        self.dir.path().join("server/tuf")
    }

    fn publish(&self, add: &[(&str, &str)], expiry: &Expiry) {
        let add = add
            .iter()
            .map(|(name, content)| ((*name).to_owned(), content.as_bytes().to_vec()))
            .collect();
        author::publish(&self.root, &self.keyring, &self.tuf(), add, expiry).unwrap();
    }

    fn judge(&self, client: &str, names: &[&str]) -> Verdict {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python_tuf.py");
        let mut command = Command::new(self.python);
        command
            .arg(script)
            .arg(self.dir.path().join("server"))
            .arg(self.dir.path().join("root.json"))
            .arg(self.dir.path().join(client))
            .args(names);
        let printed = run(&mut command, "see the script's own message");
        serde_json::from_slice(&printed).unwrap()
    }
}

fn targets(expected: &[(&str, Option<&str>)]) -> Verdict {
    let own =
        |(name, content): &(&str, Option<&str>)| ((*name).to_owned(), content.map(str::to_owned));
    Verdict::Targets(expected.iter().map(own).collect())
}

#[test]
fn python_tuf_reads_what_we_publish() {
    let mut world = World::new();
    let now = Expiry::from(SystemTime::now());
    let channel = channel_target("generic-x86_64", "stable");
    let release = release_target("generic-x86_64", "1.0~rc1+b2");
    world.publish(&[(&channel, "{\"a\": 1}"), (&release, "one")], &now);
    let first = targets(&[
        (&channel, Some("{\"a\": 1}")),
        (&release, Some("one")),
        ("missing", None),
    ]);
    assert_eq!(
        world.judge("client", &[&channel, &release, "missing"]),
        first
    );

    // The same client, after a further publication.
    world.publish(&[(&channel, "{\"a\": 2}")], &now);
    let second = targets(&[(&channel, Some("{\"a\": 2}")), (&release, Some("one"))]);
    assert_eq!(world.judge("client", &[&channel, &release]), second);

    // And after every key was replaced.
    let old = world.dir.path().join("old.pem");
    fs::rename(&world.keyring.root, &old).unwrap();
    PrivateKey::generate()
        .unwrap()
        .save_new(&world.keyring.root)
        .unwrap();
    for file in [
        &world.keyring.targets,
        &world.keyring.snapshot,
        &world.keyring.timestamp,
    ] {
        fs::remove_file(file).unwrap();
        PrivateKey::generate().unwrap().save_new(file).unwrap();
    }
    let previous = world.root.clone();
    world.root = author::next_root(&previous, &old, &world.keyring, &now).unwrap();
    // The new root key does not vouch for the old state, so the old directory is not carried on.
    fs::remove_dir_all(world.tuf()).unwrap();
    world.publish(&[(&channel, "{\"a\": 3}")], &now);
    let third = targets(&[(&channel, Some("{\"a\": 3}")), (&release, None)]);
    assert_eq!(world.judge("client", &[&channel, &release]), third);
}

#[test]
fn python_tuf_refuses_what_must_be_refused() {
    let world = World::new();
    let now = Expiry::from(SystemTime::now());
    world.publish(&[("a", "one")], &now);
    let timestamp = world.tuf().join("timestamp.json");
    let first = fs::read(&timestamp).unwrap();
    world.publish(&[("a", "two")], &now);
    assert_eq!(
        world.judge("client", &["a"]),
        targets(&[("a", Some("two"))])
    );

    let second = fs::read(&timestamp).unwrap();
    fs::write(&timestamp, &first).unwrap();
    assert_eq!(
        world.judge("client", &["a"]),
        Verdict::Refused("BadVersionNumberError".into())
    );

    let text = String::from_utf8(second).unwrap();
    let changed = text.replacen("\"version\": 2\n  }", "\"version\": 5\n  }", 1);
    assert_ne!(text, changed);
    fs::write(&timestamp, changed).unwrap();
    assert_eq!(
        world.judge("client", &["a"]),
        Verdict::Refused("UnsignedMetadataError".into())
    );

    fs::write(&timestamp, text).unwrap();
    let past = SystemTime::now() - Duration::from_secs(60);
    world.publish(
        &[],
        &Expiry {
            timestamp: past,
            ..now
        },
    );
    assert_eq!(
        world.judge("client", &["a"]),
        Verdict::Refused("ExpiredMetadataError".into())
    );
}
