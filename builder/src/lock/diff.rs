//! What changed between two locks of a board.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::{BoardLock, LockedPackage};

/// Packages that were added, removed, or are there in another version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LockDiff {
    /// Added.
    pub added: Vec<Change>,
    /// Removed.
    pub removed: Vec<Change>,
    /// There in another version (or the same version with another content).
    pub upgraded: Vec<Change>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Package name.
    pub name: String,
    /// Which part of the lock: `packages`, `firmware`, `tools` or `helpers`.
    pub part: &'static str,
    /// Version before.
    pub from: Option<String>,
    /// Version after.
    pub to: Option<String>,
}

impl LockDiff {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.upgraded.is_empty()
    }
}

/// What changed from `old` to `new`.
pub fn diff(old: &BoardLock, new: &BoardLock) -> LockDiff {
    let mut diff = LockDiff::default();
    compare("packages", &old.packages, &new.packages, &mut diff);
    compare("firmware", &old.firmware, &new.firmware, &mut diff);
    compare("tools", &old.tools, &new.tools, &mut diff);
    compare("helpers", &old.helpers, &new.helpers, &mut diff);
    diff
}

fn compare(part: &'static str, old: &[LockedPackage], new: &[LockedPackage], diff: &mut LockDiff) {
    let index = |packages: &[LockedPackage]| -> BTreeMap<String, LockedPackage> {
        packages
            .iter()
            .map(|package| (package.name.clone(), package.clone()))
            .collect()
    };
    let (old, new) = (index(old), index(new));
    let change = |name: &str, from: Option<&LockedPackage>, to: Option<&LockedPackage>| Change {
        name: name.to_string(),
        part,
        from: from.map(|package| package.version.clone()),
        to: to.map(|package| package.version.clone()),
    };
    for (name, package) in &new {
        match old.get(name) {
            None => diff.added.push(change(name, None, Some(package))),
            Some(before) if before.sha256 != package.sha256 => {
                diff.upgraded
                    .push(change(name, Some(before), Some(package)));
            }
            Some(_) => {}
        }
    }
    for (name, package) in &old {
        if !new.contains_key(name) {
            diff.removed.push(change(name, Some(package), None));
        }
    }
}

impl fmt::Display for LockDiff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return writeln!(f, "no package changed");
        }
        for (sign, changes) in [
            ("+", &self.added),
            ("-", &self.removed),
            ("~", &self.upgraded),
        ] {
            for change in changes {
                write!(f, "{sign} {} ", change.name)?;
                match (&change.from, &change.to) {
                    (Some(from), Some(to)) => write!(f, "{from} -> {to}")?,
                    (Some(version), None) | (None, Some(version)) => write!(f, "{version}")?,
                    (None, None) => {}
                }
                match change.part {
                    "packages" => writeln!(f)?,
                    part => writeln!(f, " ({part})")?,
                }
            }
        }
        writeln!(
            f,
            "{} added, {} removed, {} upgraded",
            self.added.len(),
            self.removed.len(),
            self.upgraded.len()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> LockedPackage {
        LockedPackage {
            name: name.into(),
            version: version.into(),
            arch: "amd64".into(),
            size: 1,
            sha256: format!("{name} {version}"),
            archive: "main".into(),
            filename: String::new(),
        }
    }

    #[test]
    fn every_kind_of_change_is_told() {
        let old = BoardLock {
            packages: vec![package("a", "1"), package("b", "1"), package("c", "1")],
            ..BoardLock::default()
        };
        let new = BoardLock {
            packages: vec![package("a", "1"), package("b", "2"), package("d", "1")],
            tools: vec![package("t", "3")],
            ..BoardLock::default()
        };
        let text = diff(&old, &new).to_string();
        assert_eq!(
            text,
            "+ d 1\n+ t 3 (tools)\n- c 1\n~ b 1 -> 2\n2 added, 1 removed, 1 upgraded\n"
        );
        assert!(diff(&new, &new).is_empty());
    }
}
