//! What changed between two commits: packages, from the commits' metadata, and files.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use ostree::Repo;
use serde::Serialize;

use super::contents::{self, entry, Commit};
use super::published::Site;
use super::{delta, table};
use crate::project::Project;

/// Commit metadata that lists packages: lines "name version architecture".
const PACKAGES: &str = "treeline.packages";
/// Files that the table shows of each kind unless all are asked for.
const SHOWN: usize = 20;

/// A commit and the repository that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Side {
    /// Repository.
    #[serde(skip)]
    pub repo: PathBuf,
    /// Commit checksum.
    pub commit: String,
    /// Its `version`.
    pub version: String,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// The commit compared from.
    pub from: Side,
    /// The commit compared to.
    pub to: Side,
    /// Packages, by name.
    pub packages: Changes<Package>,
    /// Files and links, by path.
    pub files: Changes<FileChange>,
}

/// Changes of one kind of thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changes<T> {
    /// Only in the second.
    pub added: Vec<T>,
    /// Only in the first.
    pub removed: Vec<T>,
    /// In both, different.
    pub changed: Vec<T>,
}

/// A package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Architecture.
    pub arch: String,
    /// Version in the first commit.
    pub from: Option<String>,
    /// Version in the second commit.
    pub to: Option<String>,
}

/// A file or symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileChange {
    /// Path with leading slash.
    pub path: String,
    /// Bytes in the first commit.
    pub from: Option<u64>,
    /// Bytes in the second commit. The same number as in the first: other content, owner or mode.
    pub to: Option<u64>,
}

/// [`find`] among what a product has released and built.
pub fn find_in(project: &Project, board: &str, name: &str) -> Result<Side> {
    let (updates, keys) = (project.updates_dir(), project.keys_dir());
    find(&updates, &keys, &project.repo_dir(), board, name)
}

/// Finds a commit by the name a person gives it: a released version of the board, a ref, or a
/// checksum (or its unique beginning). `updates` is looked into first.
pub fn find(updates: &Path, keys: &Path, repo: &Path, board: &str, name: &str) -> Result<Side> {
    if updates.join("tuf").exists() {
        let site = Site::open(updates, keys)?;
        if keys::release::is_target_name(name) {
            if let Some(release) = site.release(board, name)? {
                return side(site.repo(), release.commit);
            }
        }
    }
    let mut tried = Vec::new();
    for path in [repo.to_path_buf(), updates.join("repo")] {
        if !path.join("config").exists() {
            continue;
        }
        match contents::open(&path)?.resolve_rev(name, true) {
            Ok(Some(commit)) => return side(path, commit.to_string()),
            Ok(None) => tried.push(path.display().to_string()),
            Err(error) => tried.push(format!("{} ({error})", path.display())),
        }
    }
    if tried.is_empty() {
        bail!("looking for {name}: nothing has been built yet; run `builder build` first");
    }
    bail!(
        "looking for {name}: no release of {board} has this version, and no ref or commit in {}; \
         `builder release --list` shows what is released",
        tried.join(" and ")
    )
}

fn side(repo: PathBuf, commit: String) -> Result<Side> {
    let version = Commit::load(&contents::open(&repo)?, &commit)?
        .text("version")
        .unwrap_or_default();
    Ok(Side {
        repo,
        commit,
        version,
    })
}

/// Compares two commits.
pub fn diff(from: &Side, to: &Side) -> Result<Diff> {
    let (repo_from, repo_to) = (contents::open(&from.repo)?, contents::open(&to.repo)?);
    let old = Commit::load(&repo_from, &from.commit)?;
    let new = Commit::load(&repo_to, &to.commit)?;
    Ok(Diff {
        packages: packages(&old, &new),
        files: files((&old, &repo_from), (&new, &repo_to))
            .with_context(|| format!("comparing {} with {}", from.commit, to.commit))?,
        from: from.clone(),
        to: to.clone(),
    })
}

fn packages(old: &Commit, new: &Commit) -> Changes<Package> {
    let (old, new) = (old.text(PACKAGES), new.text(PACKAGES));
    let (Some(old), Some(new)) = (old, new) else {
        // A tree from a tarball says nothing of packages.
        return sorted(Vec::new());
    };
    let (old, new) = (parse_packages(&old), parse_packages(&new));
    let all = both(&old, &new).map(|((name, arch), from, to)| Package {
        name: (*name).to_string(),
        arch: (*arch).to_string(),
        from: from.map(ToString::to_string),
        to: to.map(ToString::to_string),
    });
    sorted(all.collect())
}

/// By name and architecture: two architectures of one library are two packages.
fn parse_packages(text: &str) -> BTreeMap<(&str, &str), &str> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, version) = (words.next()?, words.next()?);
            Some(((name, words.next().unwrap_or("")), version))
        })
        .collect()
}

fn files(old: (&Commit, &Repo), new: (&Commit, &Repo)) -> Result<Changes<FileChange>> {
    let from = old.0.contents(old.1)?.files;
    let to = new.0.contents(new.1)?.files;
    let size = |repo: &Repo, checksum: Option<&String>| -> Result<Option<u64>> {
        checksum
            .map(|checksum| Ok(entry(repo, checksum)?.size))
            .transpose()
    };
    let all = both(&from, &to)
        .map(|(path, before, after)| {
            Ok(FileChange {
                path: path.clone(),
                from: size(old.1, before)?,
                to: size(new.1, after)?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(sorted(all))
}

/// The keys whose values differ, with the values, in order.
fn both<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    let gone = old.iter().filter(|(key, _)| !new.contains_key(key));
    let gone = gone.map(|(key, value)| (key, Some(value), None));
    let rest = new
        .iter()
        .map(|(key, value)| (key, old.get(key), Some(value)))
        .filter(|(_, before, after)| before != after);
    gone.chain(rest)
}

/// Something that was in the first, in the second, or in both.
trait Change {
    fn was(&self) -> bool;
    fn is(&self) -> bool;
}

impl Change for Package {
    fn was(&self) -> bool {
        self.from.is_some()
    }
    fn is(&self) -> bool {
        self.to.is_some()
    }
}

impl Change for FileChange {
    fn was(&self) -> bool {
        self.from.is_some()
    }
    fn is(&self) -> bool {
        self.to.is_some()
    }
}

fn sorted<T: Change>(all: Vec<T>) -> Changes<T> {
    let (changed, rest): (Vec<T>, Vec<T>) = all.into_iter().partition(|one| one.was() && one.is());
    let (added, removed) = rest.into_iter().partition(Change::is);
    Changes {
        added,
        removed,
        changed,
    }
}

impl<T> Changes<T> {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

impl Diff {
    /// The table with every file.
    pub fn full_table(&self) -> String {
        self.table(usize::MAX)
    }

    fn table(&self, shown: usize) -> String {
        let mut out = String::new();
        let name = |side: &Side| match side.version.as_str() {
            "" => delta::short(&side.commit).to_string(),
            version => format!("{version} ({})", delta::short(&side.commit)),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{} → {}", name(&self.from), name(&self.to));
        if self.packages.is_empty() && self.files.is_empty() {
            let _ = writeln!(out, "no package and no file differs");
            return out;
        }
        self.packages_table(&mut out);
        self.files_table(&mut out, shown);
        out
    }

    fn packages_table(&self, out: &mut String) {
        let Changes {
            added,
            removed,
            changed,
        } = &self.packages;
        let _ = writeln!(
            out,
            "packages: {} added, {} removed, {} changed",
            added.len(),
            removed.len(),
            changed.len()
        );
        for (sign, list) in [("+", added), ("-", removed), ("~", changed)] {
            for package in list {
                let versions: Vec<&str> = [&package.from, &package.to]
                    .into_iter()
                    .flatten()
                    .map(String::as_str)
                    .collect();
                let _ = writeln!(
                    out,
                    "  {sign} {:<32} {}",
                    package.name,
                    versions.join(" → ")
                );
            }
        }
    }

    fn files_table(&self, out: &mut String, shown: usize) {
        let Changes {
            added,
            removed,
            changed,
        } = &self.files;
        let _ = writeln!(
            out,
            "files: {} added, {} removed, {} changed",
            added.len(),
            removed.len(),
            changed.len()
        );
        for (sign, list) in [("+", added), ("-", removed), ("~", changed)] {
            for file in list.iter().take(shown) {
                let sizes: Vec<String> = [file.from, file.to]
                    .into_iter()
                    .flatten()
                    .map(table::size)
                    .collect();
                let _ = writeln!(out, "  {sign} {:<60} {}", file.path, sizes.join(" → "));
            }
            if list.len() > shown {
                let _ = writeln!(out, "  {sign} … and {} more (--all)", list.len() - shown);
            }
        }
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.table(SHOWN))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::World;
    use super::*;

    fn find_in(world: &World, name: &str) -> Result<Side> {
        let dir = world.dir.path();
        find(
            &dir.join("updates"),
            &dir.join("keys"),
            &world.repo,
            "test-board",
            name,
        )
    }

    #[test]
    fn packages_and_files_are_told_apart() {
        let world = World::new();
        let (one, two) = (world.commit("1.0", 1), world.commit("1.1", 2));
        let from = find_in(&world, &one).unwrap();
        // The ref is the later commit; a unique beginning of a checksum will do.
        assert_eq!(find_in(&world, "thing/test-board").unwrap().commit, two);
        let to = find_in(&world, &two[..12]).unwrap();
        let diff = diff(&from, &to).unwrap();
        assert_eq!(
            (diff.from.version.as_str(), diff.to.version.as_str()),
            ("1.0", "1.1")
        );
        let names = |list: &[Package]| -> Vec<String> {
            list.iter().map(|package| package.name.clone()).collect()
        };
        assert_eq!(names(&diff.packages.added), ["extra-1.1"]);
        assert_eq!(names(&diff.packages.removed), ["extra-1.0"]);
        assert_eq!(
            diff.packages.changed,
            [Package {
                name: "lib".into(),
                arch: "amd64".into(),
                from: Some("1.0".into()),
                to: Some("1.1".into())
            }]
        );
        let file = |path: &str, from, to| FileChange {
            path: path.into(),
            from,
            to,
        };
        assert_eq!(diff.files.added, [file("/usr/only-1.1", None, Some(3))]);
        assert_eq!(diff.files.removed, [file("/usr/only-1.0", Some(3), None)]);
        assert_eq!(
            diff.files.changed,
            [file("/usr/bin/program", Some(200_000), Some(200_000))]
        );
        let text = diff.to_string();
        assert!(
            text.contains("1.0 → 1.1") && text.contains("/usr/bin/program"),
            "{text}"
        );
        let json = serde_json::to_value(&diff).unwrap();
        assert_eq!(json["files"]["added"][0]["path"], "/usr/only-1.1");
    }

    #[test]
    fn the_same_commit_differs_in_nothing_and_a_wrong_name_is_told() {
        let world = World::new();
        let one = world.commit("1.0", 1);
        let side = find_in(&world, &one).unwrap();
        let same = diff(&side, &side).unwrap();
        assert!(same.to_string().contains("no package and no file differs"));
        let error = find_in(&world, "9.9").unwrap_err().to_string();
        assert!(error.contains("9.9") && error.contains("--list"), "{error}");
    }

    #[test]
    fn a_long_list_is_cut_in_the_table_only() {
        let file = |n: usize| FileChange {
            path: format!("/f{n:03}"),
            from: None,
            to: Some(n as u64),
        };
        let side = Side {
            repo: PathBuf::new(),
            commit: "0".repeat(64),
            version: String::new(),
        };
        let diff = Diff {
            from: side.clone(),
            to: side,
            packages: sorted(Vec::new()),
            files: sorted((0..50).map(file).collect()),
        };
        assert!(diff.to_string().contains("and 30 more"));
        assert!(diff.full_table().contains("/f049"));
    }
}
