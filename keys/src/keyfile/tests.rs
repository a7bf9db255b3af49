//! Key files, judged by OpenSSL.

use std::os::unix::fs::symlink;
use std::process::Command;

use proptest::prelude::*;

use super::*;

/// Runs `openssl`; its absence is a failure that names the package.
fn openssl(args: &[&str], dir: &Path) -> Vec<u8> {
    let output = Command::new("openssl").args(args).current_dir(dir).output();
    let output = output.expect("running openssl: install the Debian package openssl");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args:?}: {errors}");
    output.stdout
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_key_comes_back_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.pem");
    let key = PrivateKey::generate().unwrap();
    key.save_new(&path).unwrap();
    assert_eq!(mode(&path), 0o600);
    let loaded = PrivateKey::load(&path).unwrap();
    assert_eq!(loaded.public_base64(), key.public_base64());
    assert_eq!(loaded.sign(b"x"), key.sign(b"x"));
    assert_ne!(
        PrivateKey::generate().unwrap().public_bytes(),
        key.public_bytes()
    );
    let leftovers: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(leftovers.len(), 1);
}

#[test]
fn openssl_reads_our_key_and_makes_the_same_signature() {
    let dir = tempfile::tempdir().unwrap();
    let key = PrivateKey::generate().unwrap();
    key.save_new(&dir.path().join("k.pem")).unwrap();
    let public = openssl(
        &["pkey", "-in", "k.pem", "-pubout", "-outform", "DER"],
        dir.path(),
    );
    assert!(public.ends_with(&key.public_bytes()));
    fs::write(dir.path().join("m"), b"message").unwrap();
    let signature = openssl(
        &["pkeyutl", "-sign", "-inkey", "k.pem", "-rawin", "-in", "m"],
        dir.path(),
    );
    assert_eq!(signature, key.sign(b"message"));
}

#[test]
fn we_read_the_key_that_openssl_makes() {
    let dir = tempfile::tempdir().unwrap();
    openssl(
        &["genpkey", "-algorithm", "ed25519", "-out", "k.pem"],
        dir.path(),
    );
    let path = dir.path().join("k.pem");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let key = PrivateKey::load(&path).unwrap();
    let public = openssl(
        &["pkey", "-in", "k.pem", "-pubout", "-outform", "DER"],
        dir.path(),
    );
    assert!(public.ends_with(&key.public_bytes()));
    assert_eq!(key.pkcs8_pem().unwrap(), fs::read_to_string(&path).unwrap());
}

#[test]
fn a_file_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.pem");
    fs::write(&path, "precious").unwrap();
    let error = PrivateKey::generate().unwrap().save_new(&path).unwrap_err();
    assert!(matches!(error, KeyFileError::Exists { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    // Nor through a link that leads nowhere.
    let link = dir.path().join("link.pem");
    symlink(dir.path().join("nowhere"), &link).unwrap();
    let error = PrivateKey::generate().unwrap().save_new(&link).unwrap_err();
    assert!(matches!(error, KeyFileError::Exists { .. }), "{error}");
    let error = PrivateKey::generate()
        .unwrap()
        .save_new(&dir.path().join("no/k.pem"))
        .unwrap_err();
    assert!(matches!(error, KeyFileError::Io { .. }), "{error}");
}

#[test]
fn a_file_that_others_may_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("k.pem");
    PrivateKey::generate().unwrap().save_new(&path).unwrap();
    for mode in [
        0o640,
        0o620,
        0o604,
        0o602,
        0o644,
        0o660,
        0o666,
        0o700 | 0o001,
    ] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = PrivateKey::load(&path).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Exposed { .. }),
            "{mode:o}: {error}"
        );
        assert!(
            error
                .to_string()
                .contains(&format!("chmod 600 {}", path.display())),
            "{error}"
        );
    }
    for mode in [0o600, 0o400, 0o700] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        PrivateKey::load(&path).unwrap();
    }
}

#[test]
fn other_formats_are_named() {
    let dir = tempfile::tempdir().unwrap();
    openssl(
        &[
            "genpkey",
            "-algorithm",
            "EC",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-out",
            "ec",
        ],
        dir.path(),
    );
    openssl(
        &["genpkey", "-algorithm", "x25519", "-out", "x25519"],
        dir.path(),
    );
    openssl(
        &[
            "genpkey",
            "-algorithm",
            "ed25519",
            "-outform",
            "DER",
            "-out",
            "der",
        ],
        dir.path(),
    );
    let good = PrivateKey::generate().unwrap().pkcs8_pem().unwrap();
    let files: &[(&str, &[u8])] = &[
        ("empty", b""),
        ("text", b"hello\n"),
        ("binary", &[0xff; 100]),
        (
            "public",
            b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n-----END PUBLIC KEY-----\n",
        ),
        ("cut", &good.as_bytes()[..good.len() / 2]),
        ("large", &vec![b'a'; 70_000]),
    ];
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    for name in [
        "ec", "x25519", "der", "empty", "text", "binary", "public", "cut", "large",
    ] {
        let path = dir.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = PrivateKey::load(&path).unwrap_err();
        assert!(
            matches!(error, KeyFileError::Format { .. }),
            "{name}: {error}"
        );
        assert!(
            error.to_string().contains(&path.display().to_string()),
            "{name}: {error}"
        );
    }
    let error = PrivateKey::load(dir.path()).unwrap_err();
    assert!(matches!(error, KeyFileError::NotAFile { .. }), "{error}");
    let error = PrivateKey::load(&dir.path().join("missing")).unwrap_err();
    assert!(matches!(error, KeyFileError::Io { .. }), "{error}");
}

#[test]
fn debug_does_not_show_the_secret() {
    let key = PrivateKey::generate().unwrap();
    let shown = format!("{key:?} {key:#?}");
    assert!(shown.contains(&key.public_base64()));
    let secret = key.0.to_bytes();
    for form in [
        STANDARD.encode(secret),
        hex::encode(secret),
        format!("{secret:?}"),
        key.pkcs8_pem().unwrap(),
    ] {
        assert!(!shown.contains(&form));
    }
    assert!(shown.len() < 200);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*", begin in any::<bool>()) {
        let text = if begin { format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n") } else { text };
        prop_assert!(PrivateKey::parse(&text).is_err());
    }
}

#[test]
fn encrypted_keys_go_to_openssl_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let (ours, plain) = (dir.path().join("ours.pem"), dir.path().join("plain.pem"));
    let key = PrivateKey::generate().unwrap();
    key.save_new_encrypted(&ours, "secret words").unwrap();
    assert!(matches!(
        key.save_new_encrypted(&ours, "x"),
        Err(KeyFileError::Exists { .. })
    ));
    let text = read_private(&ours).unwrap();
    assert!(text.starts_with(ENCRYPTED), "{text}");
    let back = PrivateKey::decrypt(&ours, &text, "secret words").unwrap();
    assert_eq!(back.public_bytes(), key.public_bytes());
    for wrong in ["", "secret word", "Secret words"] {
        let error = PrivateKey::decrypt(&ours, &text, wrong).unwrap_err();
        assert!(matches!(error, KeyFileError::Passphrase { .. }), "{error}");
    }
    let args = "pkey -in ours.pem -passin";
    let mut args: Vec<&str> = args.split(' ').collect();
    args.extend(["pass:secret words", "-out", "plain.pem"]);
    openssl(&args, dir.path());
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o600)).unwrap();
    let back = PrivateKey::load(&plain).unwrap();
    assert_eq!(back.public_bytes(), key.public_bytes());

    let args = "genpkey -algorithm ed25519 -aes256 -pass pass:x -out theirs";
    let args: Vec<&str> = args.split(' ').collect();
    openssl(&args, dir.path());
    let text = fs::read_to_string(dir.path().join("theirs")).unwrap();
    PrivateKey::decrypt(&ours, &text, "x").unwrap();
}
