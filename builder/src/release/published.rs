//! The published directory: what has been released, its lock, and its OSTree repository.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use keys::author;
use keys::release::{channel_target, release_target, Channel, Release};
use nix::fcntl::{Flock, FlockArg};

use super::contents::{self, NO_CANCEL};
use crate::command::Command;

/// The directory that devices are served from, with the product's trusted root metadata.
#[derive(Debug, Clone)]
pub(super) struct Site {
    /// `out/updates`.
    pub(super) dir: PathBuf,
    /// Content of `root.json`.
    pub(super) root: Vec<u8>,
}

impl Site {
    /// The site in `dir` of the product whose keys stand in `keys`.
    pub(super) fn open(dir: &Path, keys: &Path) -> Result<Self> {
        let file = keys.join("root.json");
        let root = fs::read(&file).with_context(|| {
            format!(
                "reading the root metadata {}; `builder keys init` makes a product's keys",
                file.display()
            )
        })?;
        Ok(Self {
            dir: dir.to_path_buf(),
            root,
        })
    }

    /// Where TUF metadata stands.
    pub(super) fn tuf(&self) -> PathBuf {
        self.dir.join("tuf")
    }

    /// The OSTree repository that plain `ostree` clients pull from.
    pub(super) fn repo(&self) -> PathBuf {
        self.dir.join("repo")
    }

    /// Keeps a second `builder release` out while the guard lives.
    pub(super) fn lock(&self) -> Result<Flock<fs::File>> {
        fs::create_dir_all(&self.dir)
            .with_context(|| format!("creating {}", self.dir.display()))?;
        // Beside the directory, not in it: it is no part of what is served.
        let mut name = self.dir.clone().into_os_string();
        name.push(".lock");
        let path = PathBuf::from(name);
        let file = fs::File::create(&path)
            .with_context(|| format!("creating the lock {}", path.display()))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| {
            anyhow::anyhow!(
                "locking {}: {errno}; another release is being published, wait until it is done",
                path.display()
            )
        })
    }

    /// A release, if it has been published.
    pub(super) fn release(&self, board: &str, version: &str) -> Result<Option<Release>> {
        let name = release_target(board, version);
        match author::target(&self.root, &self.tuf(), &name)? {
            None => Ok(None),
            Some(bytes) => Release::parse(&bytes)
                .map(Some)
                .with_context(|| format!("reading the published {name}")),
        }
    }

    /// A channel, if something has been released in it.
    pub(super) fn channel(&self, board: &str, channel: &str) -> Result<Option<Channel>> {
        let name = channel_target(board, channel);
        match author::target(&self.root, &self.tuf(), &name)? {
            None => Ok(None),
            Some(bytes) => Channel::parse(&bytes)
                .map(Some)
                .with_context(|| format!("reading the published {name}")),
        }
    }

    /// Copies a commit with its signatures from the build repository. Objects are hard links where
    /// the file system allows it, so this costs next to nothing.
    pub(super) fn take_commit(&self, from: &Path, checksum: &str) -> Result<()> {
        let repo = self.repo();
        if !repo.join("config").exists() {
            fs::create_dir_all(&repo).with_context(|| format!("creating {}", repo.display()))?;
            ostree(&repo).args(["init", "--mode=archive"]).run()?;
        }
        ostree(&repo)
            .arg("pull-local")
            .arg(from)
            .arg(checksum)
            .run()
            .with_context(|| format!("copying commit {checksum} to {}", repo.display()))
    }

    /// Points a ref of the served repository to a commit and renews the summary.
    pub(super) fn set_ref(&self, reference: &str, checksum: &str) -> Result<()> {
        let path = self.repo();
        let set = || -> Result<()> {
            let repo = contents::open(&path)?;
            repo.set_ref_immediate(None, reference, Some(checksum), NO_CANCEL)?;
            repo.regenerate_summary(None, NO_CANCEL)?;
            Ok(())
        };
        set().with_context(|| format!("setting the ref {reference} in {}", path.display()))
    }
}

fn ostree(repo: &Path) -> Command {
    Command::new("ostree", "ostree").arg(format!("--repo={}", repo.display()))
}
