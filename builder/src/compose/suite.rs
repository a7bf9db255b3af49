//! A tree from the packages of a lock, by mmdebstrap: as root, or as an ordinary user in a user namespace.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{ensure, Context, Result};

use super::foreign;
use super::layers::Layers;
use super::repository;
use super::strip::Rules;
use crate::cache::Cache;
use crate::command::Command;
use crate::lock::{self, BoardLock, DEFAULT_SUITE, INITRAMFS_STAND_IN};
use crate::progress::{Progress, Stage};
use crate::project::Merged;

/// Makes the tar at `out`.
pub(super) fn make(
    merged: &Merged,
    lock: &BoardLock,
    source_date_epoch: u64,
    cache: &Cache,
    progress: Progress,
    stage: &Stage,
    out: &Path,
) -> Result<()> {
    let arch = &merged.board.arch;
    if arch != foreign::NATIVE {
        foreign::check_emulation(arch)?;
    }
    let debs = lock::fetch(&lock.packages, merged, cache, progress)?;
    let helpers = helpers(merged, lock, cache, progress)?;
    // Not in the cache: a user's cache is closed to the namespace in which apt runs.
    let scratch = tempfile::Builder::new()
        .prefix("treeline-packages-")
        .tempdir()
        .context("creating a directory for the packages")?;
    stage.note("indexing packages");
    let repo = scratch.path().join("repo");
    fs::create_dir(&repo)?;
    for dir in [scratch.path(), repo.as_path()] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    }
    let mut all = debs;
    all.push(repository::stand_in(scratch.path())?);
    repository::make(&repo, &all)?;
    let hooks = if helpers.is_empty() {
        None
    } else {
        Some(foreign::prepare(&helpers, scratch.path())?)
    };
    stage.note(if arch != foreign::NATIVE && hooks.is_none() {
        "installing packages, all of it emulated: `builder update-lock` makes this several times faster"
    } else {
        "installing packages"
    });
    let raw = out.with_extension("raw");
    let install = Install {
        merged,
        lock,
        source_date_epoch,
        repo: &repo,
        hooks,
    };
    install.run(&raw)?;
    stage.note("writing the tar");
    let rules = Rules::of(merged);
    let mut layers = Layers::default();
    layers.add(&raw)?;
    layers.write(out, |path| rules.keeps(path))
}

/// This machine's programs for a tree of another architecture, unpacked.
fn helpers(
    merged: &Merged,
    lock: &BoardLock,
    cache: &Cache,
    progress: Progress,
) -> Result<Vec<foreign::Unpacked>> {
    let debs = lock::fetch(&lock.helpers, merged, cache, progress)?;
    lock.helpers
        .iter()
        .zip(&debs)
        .map(|(package, deb)| {
            Ok(foreign::Unpacked {
                name: package.name.clone(),
                dir: lock::unpack(deb, cache)?,
            })
        })
        .collect()
}

/// What mmdebstrap is told.
struct Install<'a> {
    merged: &'a Merged,
    lock: &'a BoardLock,
    source_date_epoch: u64,
    repo: &'a Path,
    hooks: Option<foreign::Hooks>,
}

impl Install<'_> {
    fn run(&self, raw: &Path) -> Result<()> {
        let root = nix::unistd::Uid::effective().is_root();
        if !root {
            check_id_ranges()?;
        }
        let arch = &self.merged.board.arch;
        let suite = self.merged.product.base.suite.as_deref();
        let file = File::create(raw).with_context(|| format!("creating {}", raw.display()))?;
        self.hooked(Command::new("mmdebstrap", "mmdebstrap").clear_env())
            .env("SOURCE_DATE_EPOCH", self.source_date_epoch.to_string())
            // Exactly the packages of the lock, unpacked and configured by dpkg: no apt inside, no solving.
            .arg("--variant=custom")
            .arg(if root {
                "--mode=root"
            } else {
                "--mode=unshare"
            })
            .arg(format!("--architectures={arch}"))
            .arg(format!("--include={}", self.packages().join(",")))
            .arg("--format=tar")
            // The tree is thrown away once it is a tar: no need to wait for the disk.
            .arg("--dpkgopt=force-unsafe-io")
            .arg("--skip=check/signed-by")
            .arg(suite.unwrap_or(DEFAULT_SUITE))
            .arg("-")
            .arg(format!(
                "deb [trusted=yes] copy://{} ./",
                self.repo.display()
            ))
            .stdout(file)
            .run()
            .with_context(|| format!("installing the packages of the lock for {arch}"))
    }

    /// Names with versions, sorted.
    fn packages(&self) -> Vec<String> {
        let locked = self.lock.packages.iter();
        let mut packages: Vec<String> = locked
            .map(|package| format!("{}={}", package.name, package.version))
            .collect();
        packages.sort();
        packages.push(INITRAMFS_STAND_IN.to_string());
        packages
    }

    /// This machine's programs come first in the search path of what runs in the tree; outside of it there is
    /// no such directory.
    fn hooked(&self, command: Command) -> Command {
        let Some(hooks) = &self.hooks else {
            return command;
        };
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .env(
                "PATH",
                format!(
                    "{}/bin:{path}:/usr/sbin:/usr/bin:/sbin:/bin",
                    foreign::PLACE
                ),
            )
            .arg(format!("--extract-hook={}", hooks.put.display()))
            .arg(format!("--customize-hook={}", hooks.take.display()))
    }
}

/// An ordinary user needs a range of ids of their own: a tree has more owners than one.
fn check_id_ranges() -> Result<()> {
    let uid = nix::unistd::Uid::effective();
    let name = nix::unistd::User::from_uid(uid)
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name);
    for file in ["/etc/subuid", "/etc/subgid"] {
        let text = fs::read_to_string(file).unwrap_or_default();
        ensure!(
            has_id_range(&text, &name, uid.as_raw()),
            "composing as the user {name}: {file} gives no range of ids; install the Debian package uidmap and run \
             `sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}` (ranges of users must \
             not overlap)"
        );
    }
    Ok(())
}

/// Lines are `name or id:first:count` (subuid(5)).
fn has_id_range(text: &str, name: &str, uid: u32) -> bool {
    text.lines().any(|line| {
        let mut fields = line.split(':');
        let owner = fields.next().unwrap_or_default();
        (owner == name || owner == uid.to_string())
            && fields
                .nth(1)
                .and_then(|count| count.trim().parse::<u32>().ok())
                .is_some_and(|count| count >= 65_536)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_ranges() {
        let text = "root:1:2\nada:100000:65536\n1007:165536:65536\nsmall:300000:10\n";
        for (name, uid, has) in [
            ("ada", 1000, true),
            ("bob", 1007, true),
            ("small", 1001, false),
            ("ad", 1002, false),
        ] {
            assert_eq!(has_id_range(text, name, uid), has, "{name}");
        }
    }
}
