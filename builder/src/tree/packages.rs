//! The package database of the tree against the lock: what was installed is what was locked.

use std::collections::BTreeMap;

use anyhow::{bail, Result};

use super::Tree;
use crate::lock::BoardLock;

const STATUS: &str = "var/lib/dpkg/status";

/// Fails unless every locked package is installed in exactly the locked version. A base that is no
/// suite has no locked packages, and nothing to compare.
pub fn check(tree: &Tree, lock: &BoardLock) -> Result<()> {
    if lock.packages.is_empty() {
        return Ok(());
    }
    let status = tree.read_text(STATUS)?;
    let installed = installed(&status);
    let mut wrong = Vec::new();
    for package in &lock.packages {
        match installed.get(package.name.as_str()) {
            Some((version, true)) if *version == package.version => {}
            Some((version, true)) => wrong.push(format!(
                "{} is {version}, not {}",
                package.name, package.version
            )),
            Some((_, false)) => wrong.push(format!("{} is not fully installed", package.name)),
            None => wrong.push(format!("{} is not installed", package.name)),
        }
    }
    if !wrong.is_empty() {
        bail!(
            "comparing /{STATUS} with product.lock: {}; empty the cache's `base` directory and build again",
            wrong.join("; ")
        );
    }
    Ok(())
}

/// Version, and whether it is wholly installed, by name (format: deb-control(5)).
fn installed(status: &str) -> BTreeMap<&str, (&str, bool)> {
    let mut found = BTreeMap::new();
    for paragraph in status.split("\n\n") {
        let field = |key: &str| {
            paragraph
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
        };
        if let (Some(name), Some(version)) = (field("Package"), field("Version")) {
            let whole = field("Status").is_some_and(|status| status.ends_with(" ok installed"));
            found.insert(name, (version, whole));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Node;
    use super::*;
    use crate::lock::LockedPackage;

    #[test]
    fn another_version_and_a_half_installed_package_are_found() {
        let status = "Package: a\nStatus: install ok installed\nVersion: 1\n\n\
                      Package: b\nStatus: install ok unpacked\nVersion: 2\n";
        let mut tree = Tree::new();
        tree.insert(STATUS, Node::file(status, 0o644)).unwrap();
        let locked = |name: &str, version: &str| LockedPackage {
            name: name.into(),
            version: version.into(),
            arch: "amd64".into(),
            size: 0,
            sha256: String::new(),
            archive: String::new(),
            filename: String::new(),
        };
        let mut lock = BoardLock {
            packages: vec![locked("a", "1")],
            ..BoardLock::default()
        };
        check(&tree, &lock).unwrap();
        lock.packages = vec![locked("a", "2"), locked("b", "2"), locked("c", "1")];
        let error = check(&tree, &lock).unwrap_err().to_string();
        for says in ["a is 1, not 2", "b is not fully", "c is not installed"] {
            assert!(error.contains(says), "{error}");
        }
    }
}
