//! Delta files: made once per pair of commits, kept in the cache, published by one rename.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result};
use keys::release::Artifact;

use super::contents::{self, Commit};
use super::{full, Compression};
use crate::cache::{sha256_file, Cache, Inputs};
use crate::command::Command;
use crate::progress::Stage;

/// Deltas made at a time. Each is one libostree process that may take a gigabyte of memory.
const AT_A_TIME: usize = 2;
/// Hex digits of a checksum in file names.
const SHORT: usize = 8;

/// A delta to make.
#[derive(Debug, Clone)]
pub(super) struct Job {
    /// The commit it starts from; none: the whole.
    pub(super) from: Option<String>,
}

/// A delta made, in the cache.
#[derive(Debug, Clone)]
pub(super) struct Made {
    pub(super) from: Option<String>,
    pub(super) file: PathBuf,
    pub(super) bytes: u64,
    pub(super) cached: bool,
    pub(super) seconds: f64,
}

/// The place of a delta below the base address.
pub(super) fn place(board: &str, from: Option<&str>, to: &str) -> String {
    let from = from.map_or("full", short);
    format!("deltas/{board}/{from}-{}.delta", short(to))
}

/// The first digits of a checksum.
pub(super) fn short(checksum: &str) -> &str {
    checksum.get(..SHORT).unwrap_or(checksum)
}

/// Makes deltas to one commit of the repository at `path`.
pub(super) struct Maker<'a> {
    pub(super) path: &'a Path,
    pub(super) commit: &'a Commit,
    pub(super) compression: Compression,
    pub(super) cache: &'a Cache,
    pub(super) stage: &'a Stage,
}

impl Maker<'_> {
    /// Makes the whole, then the others side by side, in the order of `jobs`.
    pub(super) fn make_all(&self, jobs: &[Job]) -> Result<Vec<Made>> {
        let mut made: Vec<Option<Made>> = vec![None; jobs.len()];
        let mut waiting = VecDeque::new();
        for (index, job) in jobs.iter().enumerate() {
            match job.from {
                // This one uses all processors by itself.
                None => made[index] = Some(self.make(job)?),
                Some(_) => waiting.push_back((index, job)),
            }
        }
        let waiting = Mutex::new(waiting);
        let next = || {
            waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front()
        };
        let results = std::thread::scope(|scope| -> Result<Vec<(usize, Made)>> {
            let next = &next;
            let threads: Vec<_> = (0..AT_A_TIME)
                .map(|_| {
                    scope.spawn(move || -> Result<Vec<(usize, Made)>> {
                        let mut done = Vec::new();
                        while let Some((index, job)) = next() {
                            done.push((index, self.make(job)?));
                        }
                        Ok(done)
                    })
                })
                .collect();
            let mut all = Vec::new();
            for thread in threads {
                let done = thread
                    .join()
                    .map_err(|_| anyhow::anyhow!("a thread that makes deltas panicked"))?;
                all.extend(done?);
            }
            Ok(all)
        })?;
        for (index, one) in results {
            made[index] = Some(one);
        }
        Ok(made.into_iter().flatten().collect())
    }

    fn make(&self, job: &Job) -> Result<Made> {
        let begun = Instant::now();
        let name = job.from.as_deref().map_or("nothing", short);
        self.stage
            .note(format!("{name} → {}", short(&self.commit.checksum)));
        let key = self.key(job)?;
        let cached = self.cache.path("deltas", &key).exists();
        let file = self
            .cache
            .get_or_make("deltas", &key, |out| self.generate(job, out))
            .with_context(|| format!("making the delta from {name} to {}", self.commit.checksum))?;
        let bytes = fs::metadata(&file)
            .with_context(|| format!("reading {}", file.display()))?
            .len();
        Ok(Made {
            from: job.from.clone(),
            file,
            bytes,
            cached,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }

    /// The signatures travel in the delta, so they belong to the key.
    fn key(&self, job: &Job) -> Result<String> {
        let signatures = self.commit.signatures();
        let inputs = Inputs::new("delta", 1)
            .add(job.from.as_deref().unwrap_or(""))
            .add(&self.commit.checksum)
            .json(&signatures)?;
        let inputs = match job.from {
            None => inputs.add(self.compression.as_str()),
            Some(_) => inputs,
        };
        Ok(inputs.key())
    }

    fn generate(&self, job: &Job, out: &Path) -> Result<()> {
        let Some(from) = &job.from else {
            let repo = contents::open(self.path)?;
            return full::write(&repo, self.commit, self.compression, out);
        };
        Command::new("ostree", "ostree")
            .arg(format!("--repo={}", self.path.display()))
            .args(["static-delta", "generate", "--inline"])
            // Every object inside: a device fetches one file and nothing beside it.
            .arg("--min-fallback-size=0")
            .arg(format!("--from={from}"))
            .arg(format!("--to={}", self.commit.checksum))
            // libostree wants a path with a directory; `out` is absolute.
            .arg(format!("--filename={}", out.display()))
            .run()
    }
}

/// Copies a delta into the published directory, whole or not at all, and describes it. The cache's
/// file is copied, not linked: what happens to a published file must not reach the cache.
pub(super) fn put(updates: &Path, place: &str, made: &Path) -> Result<Artifact> {
    let target = updates.join(place);
    let sha256 = sha256_file(made)?;
    let same = match sha256_file(&target) {
        Ok(there) => there == sha256,
        Err(_) => false,
    };
    if !same {
        copy(made, &target).with_context(|| format!("publishing {}", target.display()))?;
    }
    let length = fs::metadata(made)
        .with_context(|| format!("reading {}", made.display()))?
        .len();
    Ok(Artifact {
        path: place.to_string(),
        length,
        sha256,
    })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let dir = to.parent().context("it has no directory")?;
    fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let scratch = to.with_extension("new");
    fs::copy(from, &scratch)?;
    fs::File::open(&scratch)?.sync_all()?;
    fs::rename(&scratch, to)?;
    Ok(())
}

/// Whether a published file is what its release says it is.
pub(super) fn is_intact(updates: &Path, artifact: &Artifact) -> bool {
    let file = updates.join(&artifact.path);
    fs::metadata(&file).is_ok_and(|found| found.len() == artifact.length)
        && sha256_file(&file).is_ok_and(|found| found == artifact.sha256)
}
