//! The cache: artefacts by the hash of what they were made from.
//!
//! `TREELINE_CACHE` (default `~/.cache/treeline`) holds one directory per kind and one entry per
//! input hash. An entry appears by one rename, so an interrupted stage leaves none.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest, Sha256};

/// How the names of scratch directories begin.
const MAKING: &str = ".making-";
/// A scratch directory younger than this may belong to a process that has not locked it yet.
const SETTLED: Duration = Duration::from_secs(60);
/// An entry that nobody has asked for in this time is removed when another one of its kind is made.
const UNUSED: Duration = Duration::from_secs(60 * 24 * 3600);

/// The cache directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache named by `TREELINE_CACHE`, else `$XDG_CACHE_HOME/treeline`, else `~/.cache/treeline`.
    pub fn from_env() -> Result<Self> {
        let root = if let Some(dir) = std::env::var_os("TREELINE_CACHE") {
            PathBuf::from(dir)
        } else if let Some(dir) = std::env::var_os("XDG_CACHE_HOME") {
            Path::new(&dir).join("treeline")
        } else {
            let home = std::env::var_os("HOME")
                .context("finding the cache: neither TREELINE_CACHE nor HOME is set")?;
            Path::new(&home).join(".cache/treeline")
        };
        Self::at(root)
    }

    /// A cache at `root`, created if it is not there.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root)
            .with_context(|| format!("creating the cache directory {}", root.display()))?;
        let root = root
            .canonicalize()
            .with_context(|| format!("finding the cache directory {}", root.display()))?;
        Ok(Self { root })
    }

    /// Where the cache stands.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of the entry `key` of a kind such as `debs` or `base`; it may not exist.
    pub fn path(&self, kind: &str, key: &str) -> PathBuf {
        self.root.join(kind).join(key)
    }

    /// Returns the entry `key`, made by `make` if it is not there. `make` is given a path that does
    /// not exist, beside the entry; what it leaves there (file or directory) becomes the entry.
    pub fn get_or_make(
        &self,
        kind: &str,
        key: &str,
        make: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<PathBuf> {
        let entry = self.path(kind, key);
        if entry.exists() {
            used_now(&entry);
            return Ok(entry);
        }
        let parent = self.root.join(kind);
        fs::create_dir_all(&parent).with_context(|| format!("creating {}", parent.display()))?;
        let scratch = tempfile::Builder::new()
            .prefix(MAKING)
            .tempdir_in(&parent)
            .with_context(|| format!("creating a scratch directory in {}", parent.display()))?;
        let _busy = busy(scratch.path())?;
        sweep(&parent);
        let made = scratch.path().join("entry");
        make(&made)?;
        // What is unpacked may bring a time of its own.
        used_now(&made);
        match fs::rename(&made, &entry) {
            Ok(()) => Ok(entry),
            // Somebody else made the same entry meanwhile: by construction it is the same.
            Err(_) if entry.exists() => Ok(entry),
            Err(error) => {
                Err(error).with_context(|| format!("moving a new entry to {}", entry.display()))
            }
        }
    }
}

/// A kind of small entries that are only made to save time: what cannot be kept is made again.
#[derive(Debug)]
pub struct Kept {
    dir: PathBuf,
}

impl Kept {
    /// Entries of a kind; those that nobody has asked for in a long time are removed.
    pub fn of(cache: &Cache, kind: &str) -> Self {
        let dir = cache.root.join(kind);
        sweep(&dir);
        Self { dir }
    }

    /// The entry `key`, if it is there.
    pub fn get(&self, key: &str) -> Option<Vec<u8>> {
        let entry = self.dir.join(key);
        let bytes = fs::read(&entry).ok()?;
        used_now(&entry);
        Some(bytes)
    }

    /// Keeps an entry, in place of what was there.
    pub fn put(&self, key: &str, bytes: &[u8]) -> Result<()> {
        let entry = self.dir.join(key);
        let writing = || format!("writing {}", entry.display());
        fs::create_dir_all(&self.dir).with_context(writing)?;
        let mut file = tempfile::NamedTempFile::new_in(&self.dir).with_context(writing)?;
        file.write_all(bytes).with_context(writing)?;
        file.persist(&entry).with_context(writing)?;
        Ok(())
    }
}

/// Marks a scratch directory as in use for as long as the value lives, even if the process is killed.
fn busy(scratch: &Path) -> Result<Flock<fs::File>> {
    let dir = fs::File::open(scratch).with_context(|| format!("opening {}", scratch.display()))?;
    Flock::lock(dir, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, error)| error)
        .with_context(|| format!("locking {}", scratch.display()))
}

/// Notes in an entry's time of change that it was asked for. It may belong to somebody else, who then sees
/// to it.
fn used_now(entry: &Path) {
    if let Ok(file) = fs::File::open(entry) {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// Whether a file or directory was last changed longer ago than `limit`.
fn older(entry: &fs::DirEntry, limit: Duration) -> bool {
    let changed = entry.metadata().and_then(|meta| meta.modified());
    changed.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > limit))
}

/// Removes the scratch directories that killed processes have left, and the entries that nobody uses any
/// more. What cannot be removed (it may belong to root) only takes room.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with(MAKING) {
            if older(&entry, SETTLED) && busy(&path).is_ok() {
                let _ = fs::remove_dir_all(&path);
            }
        } else if older(&entry, UNUSED) {
            let _ = match path.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
        }
    }
}

/// Hash of a stage's inputs. Every part is framed by its length, so parts cannot run into each other.
#[derive(Debug, Default)]
pub struct Inputs(Sha256);

impl Inputs {
    /// Inputs of the stage `name`; bump `revision` when the stage's code changes its result.
    pub fn new(name: &str, revision: u32) -> Self {
        Self::default().add(name).add(revision.to_le_bytes())
    }

    /// Adds bytes.
    #[allow(clippy::should_implement_trait)]
    pub fn add(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a value by its JSON form.
    pub fn json(self, value: &impl serde::Serialize) -> Result<Self> {
        Ok(self.add(serde_json::to_vec(value).context("hashing a stage's inputs")?))
    }

    /// Adds the content of a file.
    pub fn file(self, path: &Path) -> Result<Self> {
        Ok(self.add(sha256_file(path)?))
    }

    /// The key: 64 hex digits.
    pub fn key(self) -> String {
        hex::encode(self.0.finalize())
    }
}

/// SHA-256 of a file, 64 hex digits.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = std::io::Read::read(&mut file, &mut buffer)
            .with_context(|| format!("reading {}", path.display()))?;
        if count == 0 {
            return Ok(hex::encode(hash.finalize()));
        }
        hash.update(&buffer[..count]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_left_is_swept_and_what_is_in_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let [left, used, young] =
            ["left", "used", "young"].map(|name| dir.path().join(format!("kind/{MAKING}{name}")));
        for scratch in [&left, &used, &young] {
            fs::create_dir_all(scratch.join("entry")).unwrap();
        }
        let old = SystemTime::now() - 2 * SETTLED;
        for scratch in [&left, &used] {
            fs::File::open(scratch).unwrap().set_modified(old).unwrap();
        }
        let _lock = busy(&used).unwrap();
        cache
            .get_or_make("kind", "key", |path| Ok(fs::write(path, "x")?))
            .unwrap();
        assert_eq!(
            [&left, &used, &young].map(|scratch| scratch.exists()),
            [false, true, true]
        );
    }

    #[test]
    fn what_nobody_has_asked_for_in_a_long_time_goes() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let make = |key: &str| cache.get_or_make("kind", key, |path| Ok(fs::create_dir(path)?));
        let age = |key: &str| {
            let entry = fs::File::open(dir.path().join("kind").join(key)).unwrap();
            entry.set_modified(SystemTime::now() - 2 * UNUSED).unwrap();
        };
        for key in ["forgotten", "asked-for"] {
            make(key).unwrap();
        }
        age("forgotten");
        age("asked-for");
        make("asked-for").unwrap();
        make("new").unwrap();
        let left = ["forgotten", "asked-for", "new"].map(|key| cache.path("kind", key).exists());
        assert_eq!(left, [false, true, true]);
    }

    #[test]
    fn what_is_kept_is_found_again_and_goes_when_nobody_asks() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let kept = Kept::of(&cache, "kind");
        assert_eq!(kept.get("a"), None);
        kept.put("a", b"1").unwrap();
        kept.put("a", b"2").unwrap();
        kept.put("b", b"3").unwrap();
        for key in ["a", "b"] {
            let entry = fs::File::open(cache.path("kind", key)).unwrap();
            entry.set_modified(SystemTime::now() - 2 * UNUSED).unwrap();
        }
        assert_eq!(kept.get("a").as_deref(), Some(&b"2"[..]));
        let later = Kept::of(&cache, "kind");
        assert_eq!(later.get("a").as_deref(), Some(&b"2"[..]));
        assert_eq!(later.get("b"), None);
    }

    #[test]
    fn an_entry_is_made_once_and_a_failed_one_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        assert!(cache
            .get_or_make("kind", "k", |path| {
                fs::write(path, "half")?;
                anyhow::bail!("power cut")
            })
            .is_err());
        assert!(!cache.path("kind", "k").exists());
        for _ in 0..2 {
            let path = cache
                .get_or_make("kind", "k", |path| Ok(fs::write(path, "whole")?))
                .unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), "whole");
        }
    }

    #[test]
    fn parts_cannot_run_into_each_other() {
        assert_ne!(
            Inputs::new("s", 1).add("ab").add("c").key(),
            Inputs::new("s", 1).add("a").add("bc").key()
        );
    }
}
