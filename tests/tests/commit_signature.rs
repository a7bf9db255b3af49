//! Our commit signatures before the judge: a libostree that has ed25519 (`scripts/judge-libostree`).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::{Command, Output};

use keys::keyfile::PrivateKey;

/// The judge's `ostree`, as `make` names it.
fn judge() -> String {
    std::env::var("JUDGE_OSTREE").expect(
        "JUDGE_OSTREE names no libostree with ed25519; `scripts/judge-libostree` builds one and prints its path",
    )
}

fn ostree(repo: &Path, args: &[&str]) -> Output {
    Command::new(judge())
        .arg(format!("--repo={}", repo.display()))
        .args(args)
        .output()
        .expect("running the judge")
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn libostree_takes_our_signature_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (repo, tree) = (dir.path().join("repo"), dir.path().join("tree"));
    std::fs::create_dir(&tree).unwrap();
    std::fs::write(tree.join("file"), "content").unwrap();
    assert!(ostree(&repo, &["init", "--mode=archive"]).status.success());
    let commit = ostree(&repo, &["commit", "--orphan", tree.to_str().unwrap()]);
    assert!(commit.status.success(), "{}", said(&commit));
    let commit = String::from_utf8(commit.stdout).unwrap().trim().to_owned();

    let key = PrivateKey::generate().unwrap();
    let verify = |public: &str| {
        ostree(
            &repo,
            &["sign", "--verify", "-s", "ed25519", &commit, public],
        )
    };
    let unsigned = verify(&key.public_base64());
    assert!(!unsigned.status.success(), "{}", said(&unsigned));

    builder::commit::sign(&repo, &commit, &key).unwrap();
    let ours = verify(&key.public_base64());
    assert!(ours.status.success(), "{}", said(&ours));
    assert!(
        said(&ours).contains("verified successfully"),
        "{}",
        said(&ours)
    );
    let strangers = verify(&PrivateKey::generate().unwrap().public_base64());
    assert!(!strangers.status.success(), "{}", said(&strangers));
}
