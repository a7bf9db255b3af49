//! Keys replaced with all root keys at hand, with root keys on other machines, and what published metadata and
//! devices' chain of roots make of it.

use super::super::commit_key;
use super::*;
use keys::author::{self, Keyring};
use keys::keyfile::{self, passphrase, PrivateKey};

const PLAIN: Incoming<'_> = Incoming::Made { encrypt: false };

fn keys() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    secrets::init(dir.path()).unwrap();
    dir
}

fn public_of(dir: &Path, key: &str) -> String {
    Signer::open(&dir.join(format!("{key}.pem")))
        .unwrap()
        .public_base64()
}

fn publish(dir: &Path, tuf: &Path) -> Result<()> {
    publish_roots(dir, tuf)?;
    let root = read(&dir.join("root.json"))?;
    let expiry = Expiry::from(SystemTime::now());
    author::publish(&root, &Keyring::in_dir(dir), tuf, vec![], &expiry)?;
    Ok(())
}

#[test]
fn with_the_root_keys_at_hand_a_key_is_replaced_at_once() {
    let dir = keys();
    let (dir, tuf) = (dir.path(), dir.path().join("tuf"));
    publish(dir, &tuf).unwrap();
    for (n, key) in ["targets", "snapshot", "timestamp", "root-2"]
        .into_iter()
        .enumerate()
    {
        let before = public_of(dir, key);
        let outcome = replace(dir, key, None, &PLAIN, Fate::Retired).unwrap();
        let Outcome::Done { version } = outcome else {
            panic!("{outcome:?}");
        };
        assert_eq!(version, n as u64 + 2);
        assert_ne!(public_of(dir, key), before);
        let retired = dir.join(format!("retired/until-{version}.{key}.pem"));
        assert!(retired.exists(), "{}", retired.display());
        assert!(progress(dir).unwrap().is_none());
        publish(dir, &tuf).unwrap();
    }
    assert!((1..=5).all(|n| tuf.join(format!("{n}.root.json")).exists()));
    // A stolen key leaves nothing behind.
    replace(dir, "timestamp", None, &PLAIN, Fate::Destroyed).unwrap();
    assert!(!dir.join("retired/until-6.timestamp.pem").exists());
    publish(dir, &tuf).unwrap();
}

#[test]
fn root_keys_on_other_machines_sign_a_file() {
    let dir = keys();
    let away = tempfile::tempdir().unwrap();
    let (dir, away) = (dir.path(), away.path());
    for key in ["root-1", "root-2", "root-3"] {
        let name = format!("{key}.pem");
        fs::rename(dir.join(&name), away.join(&name)).unwrap();
    }
    let before = public_of(dir, "targets");
    let outcome = replace(dir, "targets", None, &PLAIN, Fate::Retired).unwrap();
    assert!(matches!(outcome, Outcome::Waiting(_)), "{outcome:?}");
    assert_eq!(public_of(dir, "targets"), before, "not before it is signed");
    let error = replace(dir, "snapshot", None, &PLAIN, Fate::Retired).unwrap_err();
    assert!(error.to_string().contains("under way"), "{error}");

    // Carried to two people, who sign copies of their own.
    for (key, done) in [("root-1", false), ("root-3", true)] {
        let copy = away.join("root.draft.json");
        fs::copy(draft_path(dir), &copy).unwrap();
        sign(&copy, &away.join(format!("{key}.pem"))).unwrap();
        let outcome = take(dir, &copy).unwrap();
        assert_eq!(matches!(outcome, Outcome::Done { version: 2 }), done);
    }
    assert_ne!(public_of(dir, "targets"), before);
    publish(dir, &dir.join("tuf")).unwrap();

    // A root key whose file is elsewhere, named by its public half; then one key less.
    let old = public_of(away, "root-2");
    let other = tempfile::tempdir().unwrap();
    let fresh = PrivateKey::generate().unwrap();
    fresh.save_new(&other.path().join("fresh.pem")).unwrap();
    replace(
        dir,
        "root-2",
        Some(&old),
        &Incoming::Named(&fresh.public_base64()),
        Fate::Retired,
    )
    .unwrap();
    for key in [away.join("root-1.pem"), other.path().join("fresh.pem")] {
        sign(&draft_path(dir), &key).unwrap();
    }
    let outcome = take(dir, &draft_path(dir)).unwrap();
    assert!(
        matches!(outcome, Outcome::Waiting(_)),
        "one of the former keys only"
    );
    sign(&draft_path(dir), &away.join("root-3.pem")).unwrap();
    let outcome = take(dir, &draft_path(dir)).unwrap();
    assert!(
        matches!(outcome, Outcome::Done { version: 3 }),
        "{outcome:?}"
    );
    drop_root_key(dir, "root-2", Some(&fresh.public_base64()), Fate::Destroyed).unwrap();
    let waiting = progress(dir).unwrap().unwrap();
    assert_eq!((waiting.keys.len(), waiting.before.len()), (2, 3));
    discard(dir, false).unwrap();
    assert!(progress(dir).unwrap().is_none());
}

#[test]
fn what_cannot_be_replaced_leaves_no_draft() {
    let dir = keys();
    let dir = dir.path();
    for (key, old, new, says) in [
        ("nobody", None, PLAIN, "no role"),
        ("root-9", None, PLAIN, "--old"),
        ("targets", None, Incoming::Named("short"), "neither a file"),
        ("targets", Some("AAAA"), PLAIN, "base64"),
    ] {
        let error = replace(dir, key, old, &new, Fate::Retired).unwrap_err();
        assert!(format!("{error:#}").contains(says), "{error:#}");
        assert!(progress(dir).unwrap().is_none());
        assert!(!dir.join("new").exists(), "{key}");
    }
    let foreign = PrivateKey::generate().unwrap().public_base64();
    replace(dir, "root-1", Some(&foreign), &PLAIN, Fate::Retired).unwrap_err();
    assert!(!dir.join("new").exists());
    // Two of three must sign: a second key less would leave too few.
    drop_root_key(dir, "root-1", None, Fate::Destroyed).unwrap();
    drop_root_key(dir, "root-2", None, Fate::Destroyed).unwrap_err();
    assert_eq!(secrets::root_keys(dir).len(), 2);
}

#[test]
fn the_commit_key_is_replaced_in_two_steps() {
    let dir = keys();
    let dir = dir.path();
    let before = public_of(dir, "commit");
    commit_key::rotate(dir, &PLAIN).unwrap();
    assert_eq!(public_of(dir, "commit-old"), before);
    assert_ne!(public_of(dir, "commit"), before);
    commit_key::rotate(dir, &PLAIN).unwrap_err();
    commit_key::drop_former(dir).unwrap();
    commit_key::drop_former(dir).unwrap_err();
}

#[test]
fn a_commit_key_is_never_lost() {
    let dir = keys();
    let dir = dir.path();
    let before = public_of(dir, "commit");
    // Cut off between the two renames.
    fs::rename(dir.join("commit.pem"), dir.join("commit-old.pem")).unwrap();
    commit_key::drop_former(dir).unwrap_err();
    commit_key::rotate(dir, &PLAIN).unwrap();
    assert_eq!(public_of(dir, "commit-old"), before);
    assert_ne!(public_of(dir, "commit"), before);
    assert!(!dir.join("commit-new.pem").exists());
}

#[test]
fn the_file_of_another_key_stays() {
    let dir = keys();
    let dir = dir.path();
    let second = public_of(dir, "root-2");
    for error in [
        drop_root_key(dir, "root-1", Some(&second), Fate::Destroyed).unwrap_err(),
        replace(dir, "root-1", Some(&second), &PLAIN, Fate::Destroyed).unwrap_err(),
    ] {
        assert!(error.to_string().contains("--old"), "{error}");
    }
    assert_eq!(secrets::root_keys(dir).len(), 3);
    assert!(!dir.join("new").exists());
}

#[test]
fn a_key_is_taken_from_the_file_that_is_named() {
    let dir = keys();
    let other = tempfile::tempdir().unwrap();
    let (dir, other) = (dir.path(), other.path());
    let fresh = PrivateKey::generate().unwrap();
    fresh.save_new(&other.join("x.pem")).unwrap();
    fs::copy(other.join("x.pem"), other.join("x.key")).unwrap();
    let from = |name: &str| other.join(name).to_string_lossy().into_owned();
    let error = replace(
        dir,
        "targets",
        None,
        &Incoming::Named(&from("x.key")),
        Fate::Retired,
    )
    .unwrap_err();
    assert!(error.to_string().contains(".pem"), "{error}");
    assert!(!dir.join("new").exists());
    replace(
        dir,
        "targets",
        None,
        &Incoming::Named(&from("x.pem")),
        Fate::Retired,
    )
    .unwrap();
    assert_eq!(public_of(dir, "targets"), fresh.public_base64());
}

#[test]
fn a_new_key_has_the_passphrase_of_the_others() {
    let dir = keys();
    let dir = dir.path();
    // As if it had been typed, so that no test waits at a terminal.
    passphrase::remember(&dir.join("any"), "secret");
    let sealed = |name: &str| keyfile::is_encrypted(&dir.join(format!("{name}.pem")));
    replace(dir, "targets", None, &PLAIN, Fate::Destroyed).unwrap();
    assert!(!sealed("targets"), "no other has one");
    // One is enough; each costs time to open.
    let file = dir.join("commit.pem");
    fs::remove_file(&file).unwrap();
    let key = PrivateKey::generate().unwrap();
    key.save_new_encrypted(&file, "secret").unwrap();
    for name in ["root-2", "targets", "timestamp"] {
        let outcome = replace(dir, name, None, &PLAIN, Fate::Destroyed).unwrap();
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
        // The machine that publishes has nobody who types.
        assert_eq!(sealed(name), name != "timestamp", "{name}");
    }
    commit_key::rotate(dir, &PLAIN).unwrap();
    assert!(sealed("commit") && sealed("commit-old"));
    PrivateKey::load(&file).unwrap();
    // A wrong passphrase is not given to a new key.
    passphrase::remember(&dir.join("any"), "wrong");
    let error = replace(dir, "targets", None, &PLAIN, Fate::Destroyed).unwrap_err();
    assert!(
        format!("{error:#}").contains("does not open it"),
        "{error:#}"
    );
    assert!(progress(dir).unwrap().is_none() && !dir.join("new").exists());
}

#[test]
fn a_draft_with_all_its_signatures_is_given_up_by_force_only() {
    let dir = keys();
    let away = tempfile::tempdir().unwrap();
    let (dir, away) = (dir.path(), away.path());
    for key in ["root-1.pem", "root-2.pem"] {
        fs::rename(dir.join(key), away.join(key)).unwrap();
    }
    let begun = |key: &str| replace(dir, key, None, &PLAIN, Fate::Retired).unwrap();
    assert!(matches!(begun("targets"), Outcome::Waiting(_)));
    sign(&draft_path(dir), &away.join("root-1.pem")).unwrap();
    assert!(progress(dir).unwrap().unwrap().complete());
    let error = discard(dir, false).unwrap_err().to_string();
    assert!(error.contains("--force"), "{error}");
    assert!(dir.join("new/targets.pem").exists());
    discard(dir, true).unwrap();
    assert!(progress(dir).unwrap().is_none() && !dir.join("new").exists());
    // Cut off when it was in force and nothing but the draft was left.
    begun("targets");
    sign(&draft_path(dir), &away.join("root-1.pem")).unwrap();
    let draft = read(&draft_path(dir)).unwrap();
    assert!(matches!(finish(dir).unwrap(), Outcome::Done { version: 2 }));
    write(&draft_path(dir), &draft).unwrap();
    assert!(progress(dir).unwrap().is_none());
    assert!(!draft_path(dir).exists());
    // What cannot be judged is given up without more ado.
    begun("snapshot");
    fs::write(draft_path(dir), "{").unwrap();
    discard(dir, false).unwrap();
}

#[test]
fn another_number_of_root_keys_must_sign() {
    let dir = keys();
    let dir = dir.path();
    let number = |n| NonZeroU64::new(n).unwrap();
    let error = threshold(dir, number(4)).unwrap_err();
    assert!(format!("{error:#}").contains("4 must sign"), "{error:#}");
    assert!(progress(dir).unwrap().is_none());
    threshold(dir, number(3)).unwrap();
    fs::remove_file(dir.join("root-3.pem")).unwrap();
    let outcome = renew(dir).unwrap();
    assert!(
        matches!(&outcome, Outcome::Waiting(p) if p.threshold == 3),
        "{outcome:?}"
    );
}
