//! The lock of a build: taken from `product.lock`, made anew only where it must be.

use std::fs::File;
use std::path::Path;

use anyhow::{bail, Context, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::cache::{Cache, Inputs};
use crate::lock::{self, BoardLock, Lock, LockDiff};
use crate::manifest::shown;
use crate::progress::Progress;
use crate::project::{Merged, Project};

/// A board's part of the lock, with the lock's time.
#[derive(Debug, Clone)]
pub struct Locked {
    /// The packages.
    pub board: BoardLock,
    /// Seconds since 1970 that everything built from it carries.
    pub source_date_epoch: u64,
    /// What changed, if it was made anew.
    pub renewed: Option<LockDiff>,
}

/// The lock for `merged`. If there is none for the board, or if `product.toml` asks for other packages than it was
/// made for, it becomes that of a board which asks for the same packages, and is made anew if there is no such
/// board. Then it is written; `frozen` makes that an error.
pub fn current(
    project: &Project,
    merged: &Merged,
    frozen: bool,
    cache: &Cache,
    progress: Progress,
) -> Result<Locked> {
    let path = project.lock_path();
    let found = Lock::read(&path)?;
    let id = &merged.board.id;
    let board = found.as_ref().and_then(|lock| lock.boards.get(id));
    match (&found, board) {
        (Some(lock), Some(board)) if board.request == request(merged)? => Ok(Locked {
            board: board.clone(),
            source_date_epoch: lock.source_date_epoch,
            renewed: None,
        }),
        _ if frozen => {
            let reason = if board.is_some() {
                format!("was made for other packages than product.toml asks for on {id}")
            } else {
                format!("says nothing of board {id}")
            };
            bail!(
                "using {}: it {reason}; run `builder update-lock --board {id}`",
                shown(&path)
            )
        }
        (Some(lock), _) => match alike(lock, &request(merged)?) {
            Some(content) => {
                let content = content.clone();
                write(project, id, content)
            }
            None => renew(project, merged, cache, progress),
        },
        (None, _) => renew(project, merged, cache, progress),
    }
}

/// The part of a board that asks for the same; none that was made from files, which change.
fn alike<'a>(lock: &'a Lock, request: &str) -> Option<&'a BoardLock> {
    let from_packages = |board: &&BoardLock| board.base.is_none() && board.files.is_empty();
    let mut boards = lock.boards.values().filter(from_packages);
    boards.find(|board| board.request == request)
}

/// Makes the lock for `merged` anew from the archive as it is now, and writes it.
pub fn renew(
    project: &Project,
    merged: &Merged,
    cache: &Cache,
    progress: Progress,
) -> Result<Locked> {
    let mut board = lock::resolve(merged, cache, progress)?;
    board.request = request(merged)?;
    write(project, &merged.board.id, board)
}

/// Writes what was found for the board `id`.
fn write(project: &Project, id: &str, board: BoardLock) -> Result<Locked> {
    let path = project.lock_path();
    let _alone = alone(&project.dir)?;
    // Read again: resolving takes a while, and another board may have been locked meanwhile.
    let mut lock = Lock::read(&path)?.unwrap_or_default();
    let old = lock.boards.get(id).cloned().unwrap_or_default();
    let renewed = lock::diff(&old, &board);
    lock.set(id, board.clone());
    lock.write(&path)?;
    Ok(Locked {
        board,
        source_date_epoch: lock.source_date_epoch,
        renewed: Some(renewed),
    })
}

/// Keeps other builders from the product's lock until the result is dropped. What is locked is the directory:
/// a file would be left behind.
fn alone(dir: &Path) -> Result<Flock<File>> {
    let failed = || format!("waiting for other builders in {} (flock)", shown(dir));
    let open = File::open(dir).with_context(failed)?;
    Flock::lock(open, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(failed)
}

/// Hash of everything in the description that says which packages there are.
fn request(merged: &Merged) -> Result<String> {
    let board = &merged.board;
    let firmware = (
        board.firmware_packages(),
        board.user_files(),
        &board.components,
    );
    let base = &merged.product.base;
    // Addresses are left out: the same suite from another mirror is the same suite.
    let key = Inputs::new("lock request", 1)
        .json(&(&base.suite, &base.components, &base.updates))?
        .json(&(&base.rootfs, &base.oci))?
        .json(&merged.product.packages)?
        .json(&(&board.arch, &board.packages, firmware))?
        .json(&lock::BASE_PACKAGES)?;
    // Needs one more tool; without it the hash is what it was before there were such boards.
    let key = match &board.boot.core {
        Some(core) => key.json(core)?,
        None => key,
    };
    Ok(key.key())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn merged(extra: &str) -> Merged {
        let text = format!("name = \"p\"\nversion = \"1\"\n{extra}[base]\nsuite = \"trixie\"\n");
        let dir = Path::new("/nonexistent");
        let project = Project {
            dir: dir.into(),
            product: crate::manifest::parse("product.toml", &text, dir).unwrap(),
        };
        project.merged(&project.board("x86_64-uefi").unwrap())
    }

    #[test]
    fn only_what_chooses_packages_makes_a_lock_stale() {
        let plain = request(&merged("")).unwrap();
        assert_eq!(
            request(&merged("kernel-args = [\"quiet\"]\n")).unwrap(),
            plain
        );
        assert_ne!(
            request(&merged("packages.add = [\"curl\"]\n")).unwrap(),
            plain
        );
        assert_ne!(
            request(&merged("board.x86_64-uefi.packages.drop = [\"tzdata\"]\n")).unwrap(),
            plain
        );
    }

    #[test]
    fn a_frozen_lock_that_does_not_fit_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let merged = merged("");
        let project = Project {
            dir: dir.path().into(),
            product: merged.product.clone(),
        };
        let cache = Cache::at(dir.path().join("cache")).unwrap();
        let now = || current(&project, &merged, true, &cache, Progress::Quiet);
        let error = now().unwrap_err().to_string();
        assert!(
            error.contains("says nothing of board x86_64-uefi"),
            "{error}"
        );

        let mut lock = Lock::default();
        lock.set("x86_64-uefi", BoardLock::default());
        lock.write(&project.lock_path()).unwrap();
        let error = now().unwrap_err().to_string();
        assert!(error.contains("was made for other packages"), "{error}");

        let fitting = BoardLock {
            request: request(&merged).unwrap(),
            ..BoardLock::default()
        };
        lock.set("x86_64-uefi", fitting);
        lock.write(&project.lock_path()).unwrap();
        assert!(now().unwrap().renewed.is_none());
    }

    #[test]
    fn builders_at_the_same_time_keep_what_each_has_found() {
        let dir = tempfile::tempdir().unwrap();
        let project = Project {
            dir: dir.path().into(),
            product: merged("").product,
        };
        let boards: Vec<String> = (0..16).map(|n| format!("board-{n}")).collect();
        std::thread::scope(|scope| {
            for id in &boards {
                scope.spawn(|| write(&project, id, BoardLock::default()).unwrap());
            }
        });
        let lock = Lock::read(&project.lock_path()).unwrap().unwrap();
        assert_eq!(lock.boards.len(), boards.len());
    }

    #[test]
    fn boards_that_ask_for_the_same_are_locked_once() {
        let dir = tempfile::tempdir().unwrap();
        let text = "name = \"p\"\nversion = \"1\"\n[base]\nsuite = \"trixie\"\n";
        let project = Project {
            dir: dir.path().into(),
            product: crate::manifest::parse("product.toml", text, dir.path()).unwrap(),
        };
        let of = |id: &str| project.merged(&project.board(id).unwrap());
        let mut lock = Lock::default();
        let content = BoardLock {
            request: request(&of("cubieboard")).unwrap(),
            ..BoardLock::default()
        };
        lock.set("cubieboard", content.clone());
        lock.write(&project.lock_path()).unwrap();
        let cache = Cache::at(dir.path().join("cache")).unwrap();
        let now = |id: &str, frozen| current(&project, &of(id), frozen, &cache, Progress::Quiet);
        assert!(now("cubietruck", true).is_err());
        assert_eq!(now("cubietruck", false).unwrap().board, content);
        let written = Lock::read(&project.lock_path()).unwrap().unwrap();
        assert_eq!(written.boards["cubietruck"], content);
        // Other packages, and files: neither is the same.
        let other = request(&of("wandboard")).unwrap();
        assert_eq!(alike(&written, &other), None);
        let mut from_files = written;
        for board in from_files.boards.values_mut() {
            board.files.push(lock::LockedFile {
                path: "spl".into(),
                sha256: String::new(),
            });
        }
        assert_eq!(alike(&from_files, &content.request), None);
    }
}
