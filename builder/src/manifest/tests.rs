//! What is taken, and what is said of what is not: the exact text a user sees stands in `golden/`.

use super::*;

/// A directory with what the manifests below name.
fn dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("overlay")).unwrap();
    dir
}

/// Compares with a golden file, or writes it if `TREELINE_BLESS` is set.
fn golden(name: &str, got: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/manifest/golden")
        .join(name);
    if std::env::var_os("TREELINE_BLESS").is_some() {
        std::fs::write(&path, got).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert!(
        got == expected,
        "{} differs; if the change is meant, run again with TREELINE_BLESS=1. Now it would be:\n{got}",
        path.display()
    );
}

/// The smallest product, with `extra` behind it.
fn with(extra: &str) -> String {
    format!("name = \"p\"\nversion = \"1\"\n[base]\nsuite = \"trixie\"\n{extra}")
}

#[test]
fn the_smallest_and_a_full_product_are_taken() {
    let dir = dir();
    for text in [with(""), with(FULL)] {
        if let Err(error) = parse("product.toml", &text, dir.path()) {
            panic!("{error}");
        }
    }
}

const FULL: &str = r#"components = ["main", "non-free-firmware"]
mirror = "https://deb.example.com/debian"
[packages]
add = ["curl", "libstdc++6"]
drop = ["tzdata"]
[overlay]
path = "overlay"
rules = [{ path = "/etc/secret/**", mode = "0600", user = "root", group = "1000" }]
[[users]]
name = "operator"
uid = 1000
groups = ["systemd-journal"]
ssh-keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2Zf0Qm0b0d0b7mYd9v0000000000000000000000000000 me"]
password-hash = "$6$abc$0123456789012345678901234567"
[units]
enable = ["a.service", "b@1.timer"]
mask = ["c.socket"]
[system]
hostname = "gw-????"
timezone = "Europe/Berlin"
locale = "en_GB.UTF-8"
[partitions]
root = "3GiB"
[update]
url = "https://10.0.2.2:8443/"
ca = "keys/tls/ca.pem"
tries = 9
interval = "30min"
[health]
units = ["a.service"]
deadline-seconds = 60
checks = [{ name = "answers", command = ["/usr/bin/true"] }]
[board.x86_64-uefi]
kernel-args = ["quiet"]
partitions.data = "1GiB"
packages.add = ["gdb"]
"#;

#[test]
fn what_is_refused_says_where_and_what_to_try() {
    let dir = dir();
    let text = include_str!("golden/refused.txt");
    let mut cases = text.split("==== product.toml\n");
    let mut got = cases.next().unwrap().to_string();
    for case in cases {
        let (manifest, _) = case.split_once("---- is refused\n").unwrap();
        let error = parse("product.toml", manifest, dir.path()).expect_err(manifest);
        assert!(error.is::<Rejected>(), "{error:#}");
        got += &format!("==== product.toml\n{manifest}---- is refused\n{error}\n");
    }
    golden("refused.txt", &got);
}

#[test]
fn the_schema_is_what_editors_are_given() {
    let schema = serde_json::to_string_pretty(&schema()).unwrap();
    golden("product.schema.json", &(schema + "\n"));
}

#[test]
fn whatever_the_text_reading_it_returns() {
    use proptest::prelude::*;
    proptest!(|(text in "[a-z\\[\\]{}\"=.,# \n0-9é-]{0,80}")| {
        let _ = parse("f", &text, Path::new("/nonexistent"));
        let _ = parse("f", &with(&text), Path::new("/nonexistent"));
    });
}
