//! A whole delta: which objects, from which old ones, in what order.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::packed;
use super::pairing::{self, OldName};
use crate::code::Encoder;
use crate::object::{Checksum, Kind};
use crate::packed::Packed;
use crate::plan::Plan;
use crate::source::Scratch;
use crate::stream::{Closure, Given, Mode, Stream, HEADER, LENGTH, MAGIC, SOURCE};
use crate::Error;

/// Bytes of old and new files that are held at a time.
const BATCH: u64 = 192 << 20;

/// The repository with both commits.
pub trait Objects: Sync {
    /// A commit or directory object.
    fn metadata(&self, kind: Kind, name: &Checksum) -> io::Result<Vec<u8>>;

    /// The signatures of a commit, a serialised `a{sv}`; empty if there are none.
    fn detached(&self, commit: &Checksum) -> io::Result<Vec<u8>>;

    /// A file object's header, the serialised `(uuuusa(ayay))`, and its content.
    fn file(&self, name: &Checksum) -> io::Result<(Vec<u8>, Vec<u8>)>;

    /// Bytes of a file object's content.
    fn size(&self, name: &Checksum) -> io::Result<u64>;
}

/// A delta made.
#[derive(Debug, Clone)]
pub struct Made {
    /// The delta.
    pub bytes: Vec<u8>,
    /// What each new file cost, in the order of the tree.
    pub files: Vec<FileCost>,
}

/// What a file of the new commit cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileCost {
    /// Path in the tree.
    pub path: String,
    /// The old file it is built from.
    pub from: Option<String>,
    /// Bytes of the file.
    pub length: u64,
    /// Bytes of the delta.
    pub cost: u64,
}

struct Job {
    name: Checksum,
    /// Place in the old commit's list of files.
    like: Option<usize>,
    bytes: u64,
}

struct Ready {
    old: (Vec<u8>, Vec<u8>),
    new: (Vec<u8>, Vec<u8>),
    mode: Mode,
    plan: Plan,
    packed: Option<Packed>,
}

/// Makes the delta from one commit to another, with so many threads.
pub fn make(
    objects: &dyn Objects,
    from: &Checksum,
    to: &Checksum,
    threads: usize,
) -> Result<Made, Error> {
    let old_commit = objects.metadata(Kind::Commit, from).map_err(Error::Old)?;
    let new_commit = objects.metadata(Kind::Commit, to).map_err(Error::Old)?;
    let detached = objects.detached(to).map_err(Error::Old)?;
    let read = |kind, name: &Checksum| objects.metadata(kind, name).map_err(Error::Old);
    let old = Closure::walk(&old_commit, true, &mut |kind, name, _| match kind {
        Kind::DirMeta => Ok(Vec::new()),
        _ => read(kind, name),
    })?;
    let mut stream = Stream::new(Encoder::new());
    bytes(&mut stream, &old_commit, &new_commit)?;
    bytes(&mut stream, &[], &detached)?;
    let normal: HashMap<String, usize> = old
        .tree_at
        .iter()
        .map(|(path, place)| (pairing::normal(path), *place))
        .collect();
    let new = Closure::walk(&new_commit, true, &mut |kind, name, path| {
        let content = read(kind, name)?;
        let (known, like) = match kind {
            Kind::DirTree => (
                old.has_tree(name),
                old.tree_at
                    .get(path)
                    .or_else(|| normal.get(&pairing::normal(path))),
            ),
            _ => (old.has_meta(name), None),
        };
        if !known {
            stream.number(SOURCE, 1, like.map_or(0, |i| *i as u64 + 1))?;
            let like = match like {
                Some(place) => read(kind, &old.trees[*place])?,
                None => Vec::new(),
            };
            bytes(&mut stream, &like, &content)?;
        }
        Ok(content)
    })?;
    let jobs = jobs(objects, &old, &new)?;
    let files = files(objects, &old, &new, &jobs, threads, &mut stream)?;
    stream.number(LENGTH, 9, 0x5a)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend(stream.coder.finish());
    Ok(Made { bytes, files })
}

fn bytes(stream: &mut Stream<Encoder>, old: &[u8], new: &[u8]) -> Result<(), Error> {
    stream.number(LENGTH, 0, new.len() as u64)?;
    let given = Given {
        bytes: new,
        mode: Mode::Steps,
        plan: &super::plan(old, new, false),
        packed: None,
    };
    stream.blob(
        new.len() as u64,
        &old,
        Some(&given),
        &in_memory,
        &mut |_| Ok(()),
    )?;
    Ok(())
}

fn in_memory() -> io::Result<Box<dyn Scratch>> {
    Ok(Box::new(Vec::new()))
}

fn jobs(objects: &dyn Objects, old: &Closure, new: &Closure) -> Result<Vec<Job>, Error> {
    let size = |name: &Checksum| objects.size(name).map_err(Error::Old);
    let mut wanted = Vec::new();
    for (name, path) in new.files.iter().zip(&new.paths) {
        if !old.has_file(name) {
            wanted.push((*name, path.as_str(), size(name)?));
        }
    }
    let mut names = Vec::new();
    for (name, path) in old.files.iter().zip(&old.paths) {
        names.push(OldName {
            path,
            bytes: size(name)?,
            gone: !new.has_file(name),
        });
    }
    let likes = pairing::choose(
        &names,
        &wanted.iter().map(|w| (w.1, w.2)).collect::<Vec<_>>(),
    );
    Ok(wanted
        .iter()
        .zip(likes)
        .map(|((name, _, bytes), like)| Job {
            name: *name,
            like,
            bytes: bytes + like.map_or(0, |i| names[i].bytes),
        })
        .collect())
}

fn files(
    objects: &dyn Objects,
    old: &Closure,
    new: &Closure,
    jobs: &[Job],
    threads: usize,
    stream: &mut Stream<Encoder>,
) -> Result<Vec<FileCost>, Error> {
    let path_of: HashMap<&Checksum, &String> = new.files.iter().zip(&new.paths).collect();
    let mut costs = Vec::with_capacity(jobs.len());
    let mut last = 0u64;
    let mut begin = 0;
    while begin < jobs.len() {
        let mut held = 0;
        let mut end = begin;
        while end < jobs.len() && (end == begin || held + jobs[end].bytes <= BATCH) {
            held += jobs[end].bytes;
            end += 1;
        }
        let batch = &jobs[begin..end];
        for (job, ready) in batch.iter().zip(prepare(objects, old, batch, threads)?) {
            let before = stream.coder.len();
            file(stream, job, &ready, &mut last)?;
            costs.push(FileCost {
                path: path_of
                    .get(&job.name)
                    .map_or_else(String::new, |p| (*p).clone()),
                from: job.like.map(|i| old.paths[i].clone()),
                length: ready.new.1.len() as u64,
                cost: (stream.coder.len() - before) as u64,
            });
        }
        begin = end;
    }
    Ok(costs)
}

/// Plans for files, side by side, in order.
fn prepare(
    objects: &dyn Objects,
    old: &Closure,
    batch: &[Job],
    threads: usize,
) -> Result<Vec<Ready>, Error> {
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<Option<Result<Ready, Error>>>> =
        Mutex::new((0..batch.len()).map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, batch.len().max(1)) {
            scope.spawn(|| loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(job) = batch.get(i) else { break };
                let ready = ready(objects, old, job);
                done.lock().unwrap_or_else(PoisonError::into_inner)[i] = Some(ready);
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.into_iter().flatten().collect()
}

fn ready(objects: &dyn Objects, old: &Closure, job: &Job) -> Result<Ready, Error> {
    let before = match job.like {
        Some(place) => objects.file(&old.files[place]).map_err(Error::Old)?,
        None => Default::default(),
    };
    let after = objects.file(&job.name).map_err(Error::Old)?;
    let plan = super::plan(&before.1, &after.1, true);
    let fresh: u64 = plan.steps.iter().map(|s| s.fresh).sum();
    let packed = match fresh * 4 > plan.length {
        true => packed::find(&before.1, &after.1),
        false => None,
    };
    let mode = if packed.is_some() {
        Mode::Packed
    } else if fresh * 16 > plan.length * 15 && is_compressed(&after.1) {
        Mode::Stored
    } else if plan.sections.is_empty() {
        Mode::Steps
    } else {
        Mode::Elf
    };
    Ok(Ready {
        old: before,
        new: after,
        mode,
        plan,
        packed,
    })
}

/// Whether all bytes are about equally frequent.
fn is_compressed(bytes: &[u8]) -> bool {
    if bytes.len() < 4096 {
        return false;
    }
    let mut counts = [0u64; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let total = bytes.len() as f64;
    let entropy: f64 = counts
        .iter()
        .filter(|n| **n > 0)
        .map(|n| -(*n as f64) * (*n as f64 / total).log2())
        .sum();
    entropy / total > 7.95
}

fn file(
    stream: &mut Stream<Encoder>,
    job: &Job,
    ready: &Ready,
    last: &mut u64,
) -> Result<(), Error> {
    stream.number(SOURCE, 2, job.like.is_some().into())?;
    if let Some(place) = job.like {
        stream.signed(SOURCE + 0x10, (place as i64).wrapping_sub(*last as i64))?;
        *last = place as u64 + 1;
    }
    let same = ready.old.0 == ready.new.0;
    stream.number(HEADER, 0, (!same).into())?;
    if !same {
        bytes(stream, &ready.old.0, &ready.new.0)?;
    }
    let (before, after) = (&ready.old.1, &ready.new.1);
    stream.signed(LENGTH + 0x10, after.len() as i64 - before.len() as i64)?;
    let given = Given {
        bytes: after,
        mode: ready.mode,
        plan: &ready.plan,
        packed: ready.packed.as_ref(),
    };
    stream.blob(
        after.len() as u64,
        &before.as_slice(),
        Some(&given),
        &in_memory,
        &mut |_| Ok(()),
    )?;
    Ok(())
}
