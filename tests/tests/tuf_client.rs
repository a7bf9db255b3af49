//! The agent's metadata client before repositories that python-tuf makes: what must be accepted, every attack of
//! the table in docs/src/trust.md, and in which order delegated roles are asked. The cases are in `tuf_client/`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use treeline_tests::{builder, run, source};

/// Fewer would mean that the table was not read.
const CASES: usize = 120;

/// The verifier behind the command line of the public conformance suite, built with the development build.
fn client() -> PathBuf {
    let builder = builder().unwrap();
    let client = builder
        .with_file_name("examples")
        .join("tuf-conformance-client");
    assert!(
        client.exists(),
        "{} is not there; run `make dev`",
        client.display()
    );
    client
}

#[test]
fn every_case_ends_as_it_must() {
    assert!(
        Command::new("faketime").arg("--version").output().is_ok(),
        "running faketime: install the Debian package faketime"
    );
    let python = run(&mut Command::new(source().join("scripts/python-tuf"))).unwrap();
    let printed = run(Command::new(python.trim())
        .arg(source().join("tests/tests/tuf_client/cases.py"))
        .arg(client())
        .env("PYTHONDONTWRITEBYTECODE", "1"))
    .unwrap();
    let results: BTreeMap<String, String> = serde_json::from_str(&printed).unwrap();
    assert!(results.len() >= CASES, "{} cases", results.len());
    let failed: Vec<String> = results
        .iter()
        .filter(|(_, what)| !what.is_empty())
        .map(|(case, what)| format!("{case}:\n{what}"))
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// The rows of the table in docs/src/trust.md name tests; each must be there.
#[test]
fn the_attack_table_names_tests_that_exist() {
    let read = |file: &str| std::fs::read_to_string(source().join(file)).unwrap();
    let tests: String = [
        "tests/tests/tuf_client/cases.py",
        "tests/tests/server_identity.rs",
        "keys/src/client/tests.rs",
        "device-agent/src/fetch/tests.rs",
        "device-agent/tests/device.rs",
        "device-agent/tests/device/attacks.rs",
    ]
    .map(read)
    .concat();
    let book = read("docs/src/trust.md");
    let (_, table) = book
        .split_once("| attack | what stops it | tests |")
        .unwrap();
    let names: Vec<&str> = table
        .lines()
        .filter_map(|row| row.rsplit('|').nth(1))
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .filter(|name| !name.contains('/'))
        .collect();
    assert!(names.len() > 30, "{names:?}");
    for name in names {
        let here = ["fn ", "def "]
            .iter()
            .any(|kind| tests.contains(&format!("{kind}{name}(")));
        assert!(here, "{name} is no test");
    }
}
