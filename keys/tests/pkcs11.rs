//! Keys on a token: SoftHSM2 is the token, OpenSSL and python-tuf are the judges of what it signs.
#![expect(clippy::unwrap_used, reason = "a test: a failure is its verdict")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use keys::author::{self, Expiry, Keyring};
use keys::keyfile::PrivateKey;
use keys::signer::{self, Signer, PIN_VARIABLE};

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
/// Who is on the token `release`: label and id.
const ON_TOKEN: [(&str, &str); 6] = [
    ("root", "01"),
    ("targets", "02"),
    ("snapshot", "03"),
    ("timestamp", "04"),
    ("twice", "05"),
    ("twice", "06"),
];

/// The token. A process is logged in to it as a whole, so the tests take turns.
fn token() -> (MutexGuard<'static, ()>, &'static Path) {
    static TURN: Mutex<()> = Mutex::new(());
    static DIR: OnceLock<tempfile::TempDir> = OnceLock::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    (turn, DIR.get_or_init(set_up).path())
}

fn set_up() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("tokens")).unwrap();
    let config = format!(
        "directories.tokendir = {}\nlog.level = ERROR\n",
        at("tokens").display()
    );
    fs::write(at("softhsm2.conf"), config).unwrap();
    // Before the module is loaded: it reads it once.
    std::env::set_var("SOFTHSM2_CONF", at("softhsm2.conf"));
    for (name, pin) in [("pin", "1234"), ("wrong", "4321")] {
        fs::write(at(name), format!("{pin}\n")).unwrap();
        fs::set_permissions(at(name), Permissions::from_mode(0o600)).unwrap();
    }
    std::env::set_var(PIN_VARIABLE, at("pin"));
    for label in ["release", "other"] {
        softhsm(&[
            "--init-token",
            "--free",
            "--label",
            label,
            "--so-pin",
            "5678",
            "--pin",
            "1234",
        ]);
    }
    for (label, id) in ON_TOKEN {
        let file = at(&format!("{id}.pem"));
        PrivateKey::generate().unwrap().save_new(&file).unwrap();
        let file = file.to_str().unwrap();
        softhsm(&[
            "--import", file, "--token", "release", "--label", label, "--id", id, "--pin", "1234",
        ]);
    }
    dir
}

fn softhsm(args: &[&str]) {
    run(
        Command::new("softhsm2-util").args(args),
        "install the Debian package softhsm2",
    );
}

fn run(command: &mut Command, try_this: &str) -> String {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("running {command:?}: {e}; {try_this}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "running {command:?} failed; {try_this}\n{errors}"
    );
    String::from_utf8(output.stdout).unwrap()
}

fn uri(label: &str) -> String {
    format!("pkcs11:token=release;object={label}?module-path={MODULE}")
}

#[test]
fn a_token_signs_as_the_same_key_in_a_file_does() {
    let (_turn, dir) = token();
    let file = PrivateKey::load(&dir.join("02.pem")).unwrap();
    let by_id = format!("pkcs11:token=release;id=%02;type=private?module-path={MODULE}");
    let with_pin = format!(
        "{}&pin-source=file:{}",
        uri("targets"),
        dir.join("pin").display()
    );
    for uri in [uri("targets"), by_id, with_pin] {
        let signer = Signer::on_token(&uri).unwrap();
        assert_eq!(signer.public_bytes(), file.public_bytes());
        for message in [&b""[..], b"message", &[7; 100_000]] {
            assert_eq!(signer.sign(message).unwrap(), file.sign(message));
        }
    }
    let signature = Signer::on_token(&uri("targets"))
        .unwrap()
        .sign(b"message")
        .unwrap();
    fs::write(dir.join("signature"), signature).unwrap();
    fs::write(dir.join("message"), "message").unwrap();
    let line = "pkeyutl -verify -rawin -inkey 02.pem -in message -sigfile signature";
    let mut openssl = Command::new("openssl");
    let said = run(
        openssl.args(line.split(' ')).current_dir(dir),
        "Debian package openssl",
    );
    assert!(said.contains("Verified Successfully"), "{said}");
}

#[test]
fn what_stands_in_the_way_is_named() {
    let (_turn, dir) = token();
    let wrong = format!(
        "{}&pin-source={}",
        uri("targets"),
        dir.join("wrong").display()
    );
    let open = dir.join("open");
    fs::write(&open, "1234").unwrap();
    let exposed = format!("{}&pin-source={}", uri("targets"), open.display());
    for (uri, says) in [
        (wrong, "the PIN is wrong"),
        (exposed, "chmod 600"),
        (uri("nobody"), "no such Ed25519 key"),
        (uri("twice"), "several keys fit"),
        (
            uri("targets").replace("token=release;", ""),
            "several tokens fit",
        ),
        (
            uri("targets").replace("=release", "=elsewhere"),
            "there are: ",
        ),
        (
            format!("pkcs11:object=targets;id=%02;token=other?module-path={MODULE}"),
            "no such Ed25519 key",
        ),
        (
            "pkcs11:object=targets?module-path=/no/such.so".to_owned(),
            "/no/such.so",
        ),
        ("pkcs11:object=targets".to_owned(), "module-path"),
        (
            "pkcs11:object=targets?pin-value=1234".to_owned(),
            "pin-source",
        ),
    ] {
        let error = Signer::on_token(&uri).unwrap_err().to_string();
        assert!(error.contains(says), "{uri}: {error}");
        assert!(!error.contains("1234"), "{error}");
    }
    // Another key under the name than the one that is known.
    let other = PrivateKey::load(&dir.join("03.pem"))
        .unwrap()
        .public_base64();
    let file = dir.join("changed.pem");
    fs::write(
        file.with_extension("toml"),
        signer::description(&uri("targets"), &other),
    )
    .unwrap();
    let error = Signer::open(&file)
        .unwrap()
        .sign(b"m")
        .unwrap_err()
        .to_string();
    assert!(error.contains("does not fit"), "{error}");
}

#[test]
fn python_tuf_reads_what_a_token_has_signed() {
    let (_turn, dir) = token();
    let keyring = Keyring::in_dir(&dir.join("keys"));
    fs::create_dir(dir.join("keys")).unwrap();
    for role in ["root", "targets", "snapshot", "timestamp"] {
        let public = Signer::on_token(&uri(role)).unwrap().public_base64();
        let text = signer::description(&uri(role), &public);
        fs::write(dir.join(format!("keys/{role}.toml")), text).unwrap();
    }
    let expiry = Expiry::from(SystemTime::now());
    let root = author::create_root(&keyring, &expiry).unwrap();
    fs::write(dir.join("root.json"), &root).unwrap();
    let add = vec![("a".to_owned(), b"one".to_vec())];
    author::publish(&root, &keyring, &dir.join("server/tuf"), add, &expiry).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = run(
        &mut Command::new(source.join("../scripts/python-tuf")),
        "see its message",
    );
    let mut judge = Command::new(PathBuf::from(python.trim()));
    judge
        .arg(source.join("tests/python_tuf.py"))
        .args(["server", "root.json", "client"].map(|name| dir.join(name)))
        .arg("a");
    let verdict = run(&mut judge, "see its message");
    assert_eq!(verdict.trim(), r#"{"targets": {"a": "one"}}"#);
}
