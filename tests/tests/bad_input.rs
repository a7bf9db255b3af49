//! What a user gets wrong is told with its place and with what to try, and loses nothing.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use treeline_tests::{build, example};

/// Changes the product, runs the builder, and expects a failure that says all of `words`.
fn refuses(change: impl FnOnce(&Path), args: &[&str], code: i32, words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let product = example(dir.path()).unwrap();
    change(&product);
    let before = listing(&product);
    let output = build(&product, args).unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{text}");
    for word in words {
        assert!(text.contains(word), "it should say {word:?}:\n{text}");
    }
    assert_eq!(
        listing(&product),
        before,
        "nothing may be lost or left half done"
    );
}

/// Every file of the product with its content, but results.
fn listing(product: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut dirs = vec![product.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("out") {
                    dirs.push(path);
                }
            } else {
                let content = fs::read(&path).unwrap();
                all.push((path.display().to_string(), content));
            }
        }
    }
    all.sort();
    all
}

fn append(product: &Path, text: &str) {
    let path = product.join("product.toml");
    let old = fs::read_to_string(&path).unwrap();
    fs::write(&path, old + text).unwrap();
}

fn keys(product: &Path) {
    let output = build(product, &["keys", "init"]).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

const BUILD: &[&str] = &[
    "-q",
    "build",
    "--board",
    "x86_64-uefi",
    "--until",
    "resolve",
];

#[test]
fn an_unknown_key() {
    refuses(
        |p| append(p, "\n[packges]\nadd = []\n"),
        BUILD,
        3,
        &["product.toml", "packges", "packages"],
    );
}

#[test]
fn an_unknown_board() {
    refuses(
        |_| {},
        &[
            "-q",
            "build",
            "--board",
            "x86_64-uefy",
            "--until",
            "resolve",
        ],
        1,
        &["x86_64-uefy", "x86_64-uefi"],
    );
}

#[test]
fn a_missing_overlay() {
    refuses(
        |p| fs::remove_dir_all(p.join("overlay")).unwrap(),
        BUILD,
        3,
        &["overlay"],
    );
}

#[test]
fn an_unknown_package() {
    refuses(
        |p| append(p, "\n[packages]\nadd = [\"iprouet2\"]\n"),
        BUILD,
        1,
        &["iprouet2", "iproute2"],
    );
}

#[test]
fn a_package_conflict() {
    refuses(
        |p| {
            append(
                p,
                "\n[packages]\nadd = [\"exim4-daemon-light\", \"postfix\"]\n",
            )
        },
        BUILD,
        1,
        &["postfix"],
    );
}

#[test]
fn a_key_that_others_can_read() {
    refuses(
        |p| {
            keys(p);
            let key = p.join("keys/commit.pem");
            fs::set_permissions(key, fs::Permissions::from_mode(0o644)).unwrap();
        },
        &["-q", "build", "--board", "x86_64-uefi"],
        1,
        &["commit.pem", "chmod 600"],
    );
}

#[test]
fn no_keys_at_all() {
    refuses(
        |_| {},
        &["-q", "build", "--board", "x86_64-uefi"],
        1,
        &["commit.pem", "keys init"],
    );
}
