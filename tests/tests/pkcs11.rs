//! A product whose keys move to a token: SoftHSM2 is the token, python-tuf judges the metadata that it signs and a
//! libostree with ed25519 the commit.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use keys::author::{self, Expiry, Keyring};
use keys::keyfile::PrivateKey;
use keys::signer::{Signer, PIN_VARIABLE};
use treeline_tests::{builder, example, run, source};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const ON_TOKEN: [&str; 5] = ["root-1", "targets", "snapshot", "timestamp", "commit"];

/// Makes a token with keys in `dir`, and has this process and its children find it.
fn token(dir: &Path) {
    fs::create_dir(dir.join("tokens")).unwrap();
    let config = format!(
        "directories.tokendir = {}\nlog.level = ERROR\n",
        dir.join("tokens").display()
    );
    fs::write(dir.join("softhsm2.conf"), config).unwrap();
    fs::write(dir.join("pin"), "1234\n").unwrap();
    fs::set_permissions(dir.join("pin"), Permissions::from_mode(0o600)).unwrap();
    std::env::set_var("SOFTHSM2_CONF", dir.join("softhsm2.conf"));
    std::env::set_var(PIN_VARIABLE, dir.join("pin"));
    let softhsm = |args: &[&str]| {
        run(Command::new("softhsm2-util").args(args))
            .expect("softhsm2-util (Debian package softhsm2)")
    };
    softhsm(&[
        "--init-token",
        "--free",
        "--label",
        "My Release",
        "--so-pin",
        "5678",
        "--pin",
        "1234",
    ]);
    for (n, label) in ON_TOKEN.iter().enumerate() {
        let file = dir.join(format!("{label}.pem"));
        PrivateKey::generate().unwrap().save_new(&file).unwrap();
        let (file, id) = (file.to_str().unwrap(), format!("0{n}"));
        softhsm(&[
            "--import",
            file,
            "--token",
            "My Release",
            "--label",
            label,
            "--id",
            &id,
            "--pin",
            "1234",
        ]);
    }
}

fn uri(label: &str) -> String {
    format!("pkcs11:token=My%20Release;object={label}?module-path={MODULE}")
}

/// `builder keys …` in the product.
fn keys_command(product: &Path, args: &[&str]) -> String {
    let mut command = Command::new(builder().unwrap());
    command.arg("-C").arg(product).arg("keys").args(args);
    run(&mut command).unwrap()
}

#[test]
fn the_keys_of_a_product_move_to_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    token(dir);
    let product = example(dir).unwrap();
    let keys = product.join("keys");
    keys_command(&product, &["init"]);
    for label in ON_TOKEN {
        keys_command(&product, &["rotate", label, "--new", &uri(label)]);
        assert!(!keys.join(format!("{label}.pem")).exists());
    }
    let shown = keys_command(&product, &["show"]);
    for label in ON_TOKEN {
        let public = PrivateKey::load(&dir.join(format!("{label}.pem")))
            .unwrap()
            .public_base64();
        assert!(shown.contains(&public), "{label}: {shown}");
    }
    // A draft that waits for the one on the token.
    fs::rename(keys.join("root-1.toml"), dir.join("root-1.toml")).unwrap();
    fs::remove_file(keys.join("root-2.pem")).unwrap();
    let said = keys_command(&product, &["rotate", "root"]);
    assert!(said.contains("waits for signatures"), "{said}");
    let draft = keys.join("root.draft.json");
    let draft = draft.to_str().unwrap();
    keys_command(&product, &["sign", draft, "--key", &uri("root-1")]);
    let said = keys_command(&product, &["accept", draft]);
    assert!(said.contains("is in force"), "{said}");
    metadata(dir, &product);
    commit(dir, &Signer::open(&keys.join("commit.pem")).unwrap());
}

/// Published by the library, renewed by the program; read by python-tuf.
fn metadata(dir: &Path, product: &Path) {
    let (keys, updates) = (product.join("keys"), product.join("out/updates"));
    let root = fs::read(keys.join("root.json")).unwrap();
    let add = vec![("a".to_owned(), b"one".to_vec())];
    let expiry = Expiry::from(SystemTime::now());
    author::publish(
        &root,
        &Keyring::in_dir(&keys),
        &updates.join("tuf"),
        add,
        &expiry,
    )
    .unwrap();
    keys_command(product, &["refresh"]);
    let python = run(&mut Command::new(source().join("scripts/python-tuf"))).unwrap();
    let verdict = run(Command::new(PathBuf::from(python.trim()))
        .arg(source().join("keys/tests/python_tuf.py"))
        .arg(&updates)
        .arg(keys.join("root.json"))
        .arg(dir.join("client"))
        .arg("a"))
    .unwrap();
    assert_eq!(verdict.trim(), r#"{"targets": {"a": "one"}}"#);
}

fn commit(dir: &Path, signer: &Signer) {
    assert!(matches!(signer, Signer::Token(_)));
    let judge = std::env::var("JUDGE_OSTREE").expect(
        "JUDGE_OSTREE names no libostree with ed25519; `scripts/judge-libostree` builds one and prints its path",
    );
    let (repo, tree) = (dir.join("repo"), dir.join("tree"));
    fs::create_dir(&tree).unwrap();
    fs::write(tree.join("file"), "content").unwrap();
    let at = format!("--repo={}", repo.display());
    let ostree = |args: &[&str]| run(Command::new(&judge).arg(&at).args(args));
    ostree(&["init", "--mode=archive"]).unwrap();
    let commit = ostree(&["commit", "--orphan", tree.to_str().unwrap()]).unwrap();
    builder::commit::sign(&repo, commit.trim(), signer).unwrap();
    let verify =
        |public: &str| ostree(&["sign", "--verify", "-s", "ed25519", commit.trim(), public]);
    verify(&signer.public_base64()).unwrap();
    verify(&PrivateKey::generate().unwrap().public_base64()).unwrap_err();
}
