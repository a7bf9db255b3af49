//! The same product and lock give the same commit and the same image, byte by byte: in another directory,
//! with an empty cache, as an ordinary user as well as as root.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use treeline_tests::{agent, build, builder, example, run};

/// An ordinary user that the test makes when root runs it.
const USER: &str = "treeline-test";

#[test]
fn another_directory_another_user_an_empty_cache() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let first = example(dir.path()).unwrap();
    run_builder(&first, &["keys", "init"]);
    let first_built = run_builder(&first, &BUILD);

    // The same product elsewhere, with its lock and keys, but no results and no cache.
    let home = dir.path().join("elsewhere/deeper");
    fs::create_dir_all(&home).unwrap();
    let second = example(&home).unwrap();
    for part in ["keys", "product.lock"] {
        run(Command::new("cp")
            .arg("-a")
            .arg(first.join(part))
            .arg(&second))
        .unwrap();
    }
    let second_built = as_other(&home, &second);

    assert_eq!(
        commit(&first_built),
        commit(&second_built),
        "the commits differ"
    );
    let (a, b) = (image(&first_built, &first), image(&second_built, &second));
    let same = Command::new("cmp").arg(&a).arg(&b).output().unwrap();
    assert!(
        same.status.success(),
        "the images differ: {}{}",
        String::from_utf8_lossy(&same.stdout),
        String::from_utf8_lossy(&same.stderr)
    );
}

const BUILD: [&str; 6] = [
    "-q",
    "build",
    "--board",
    "x86_64-uefi",
    "--json",
    "--format=raw",
];

fn run_builder(product: &Path, args: &[&str]) -> String {
    let output = build(product, args).unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Builds in `home`, which holds everything that the build may write to. Root hands it to an ordinary user.
fn as_other(home: &Path, product: &Path) -> String {
    let programs = home.join("programs");
    fs::create_dir(&programs).unwrap();
    for program in [builder().unwrap(), agent().unwrap()] {
        fs::copy(&program, programs.join(program.file_name().unwrap())).unwrap();
    }
    let is_root = run(Command::new("id").arg("-u")).unwrap().trim() == "0";
    let mut command = if is_root {
        make_user();
        run(Command::new("chown").args(["-R", USER]).arg(home)).unwrap();
        let mut command = Command::new("setpriv");
        let id = |flag: &str| {
            run(Command::new("id").arg(flag).arg(USER))
                .unwrap()
                .trim()
                .to_string()
        };
        command
            .args(["--reuid", &id("-u"), "--regid", &id("-g"), "--clear-groups"])
            .arg(programs.join("builder"));
        command
    } else {
        Command::new(programs.join("builder"))
    };
    command
        .arg("-C")
        .arg(product)
        .args(BUILD)
        .current_dir(home)
        .env("HOME", home)
        .env("TREELINE_CACHE", home.join("cache"))
        .env("TREELINE_AGENT", programs.join("device-agent"));
    run(&mut command).unwrap()
}

/// The ordinary user, with subordinate ids for the user namespace that packages are unpacked in.
fn make_user() {
    let known = Command::new("id")
        .arg(USER)
        .output()
        .unwrap()
        .status
        .success();
    if !known {
        run(Command::new("useradd").args(["--create-home", USER])).unwrap();
    }
    if !fs::read_to_string("/etc/subuid")
        .unwrap_or_default()
        .contains(USER)
    {
        run(Command::new("usermod").args([
            "--add-subuids",
            "1000000-1065535",
            "--add-subgids",
            "1000000-1065535",
            USER,
        ]))
        .unwrap();
    }
}

fn value(built: &str) -> serde_json::Value {
    serde_json::from_str(built).unwrap()
}

fn commit(built: &str) -> String {
    value(built)["checksum"].as_str().unwrap().to_string()
}

fn image(built: &str, product: &Path) -> PathBuf {
    let value = value(built);
    let path = value.pointer("/image/images/0/path").unwrap();
    product.join(path.as_str().unwrap())
}
