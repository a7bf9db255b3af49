//! A whole delta: which objects, from which old ones, in what order.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::kept::Pair;
use super::packed;
use super::pairing::{self, OldName};
use super::similar::Shared;
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

    /// What [`Objects::keep`] was given for this key, perhaps by an earlier run. It may be damaged.
    fn kept(&self, _key: &Checksum) -> Option<Vec<u8>> {
        None
    }

    /// May keep what two files have in common, for the next delta from one to the other.
    fn keep(&self, _key: &Checksum, _plan: &[u8]) {}
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
    /// Place in the new commit's list of files.
    place: usize,
    like: Option<Like>,
    bytes: u64,
}

/// A file that resembles another: its place in the list of its commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Like {
    Old(usize),
    /// One of the new commit that comes before.
    New(usize),
}

/// Both commits' objects.
struct Sides<'a> {
    old: &'a Closure,
    new: &'a Closure,
}

impl Sides<'_> {
    fn name(&self, like: Like) -> &Checksum {
        match like {
            Like::Old(place) => &self.old.files[place],
            Like::New(place) => &self.new.files[place],
        }
    }

    fn path(&self, like: Like) -> &str {
        match like {
            Like::Old(place) => &self.old.paths[place],
            Like::New(place) => &self.new.paths[place],
        }
    }
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
    // Of several the first, so that the same delta comes out each time.
    let mut normal: HashMap<String, usize> = HashMap::new();
    for (path, place) in &old.tree_at {
        let first = normal.entry(pairing::normal(path)).or_insert(*place);
        *first = (*first).min(*place);
    }
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
    let sides = Sides {
        old: &old,
        new: &new,
    };
    let jobs = jobs(objects, &sides, threads)?;
    let files = files(objects, &sides, &jobs, threads, &mut stream)?;
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

fn jobs(objects: &dyn Objects, sides: &Sides<'_>, threads: usize) -> Result<Vec<Job>, Error> {
    let (old, new) = (sides.old, sides.new);
    let size = |name: &Checksum| objects.size(name).map_err(Error::Old);
    let mut wanted = Vec::new();
    for (place, (name, path)) in new.files.iter().zip(&new.paths).enumerate() {
        if !old.has_file(name) {
            wanted.push((place, path.as_str(), size(name)?));
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
    let by_name = pairing::choose(
        &names,
        &wanted.iter().map(|w| (w.1, w.2)).collect::<Vec<_>>(),
    );
    let mut likes: Vec<Option<Like>> = by_name.iter().map(|l| l.map(Like::Old)).collect();
    by_content(objects, sides, &names, &wanted, threads, &mut likes)?;
    let jobs = wanted.iter().zip(likes);
    jobs.map(|((place, _, bytes), like)| {
        let before = match like {
            Some(like) => size(sides.name(like))?,
            None => 0,
        };
        Ok(Job {
            name: new.files[*place],
            place: *place,
            like,
            bytes: bytes + before,
        })
    })
    .collect()
}

/// Takes another file than the one of the like name where that shares more content: one that has gone, or a new one
/// that comes before.
fn by_content(
    objects: &dyn Objects,
    sides: &Sides<'_>,
    names: &[OldName<'_>],
    wanted: &[(usize, &str, u64)],
    threads: usize,
    likes: &mut [Option<Like>],
) -> Result<(), Error> {
    let old = (0..names.len()).filter(|i| names[*i].gone && names[*i].bytes > 0);
    let mut candidates: Vec<Like> = old.map(Like::Old).collect();
    let first_new = candidates.len();
    candidates.extend(wanted.iter().map(|w| Like::New(w.0)));
    let read = |like: &Like| Ok(objects.file(sides.name(*like))?.1);
    let shared = Shared::read(&candidates, threads, &read).map_err(Error::Old)?;
    let place_of: HashMap<Like, usize> = candidates
        .iter()
        .enumerate()
        .map(|(i, c)| (*c, i))
        .collect();
    for (i, like) in likes.iter_mut().enumerate() {
        let own = first_new + i;
        let present = like.and_then(|like| place_of.get(&like).copied());
        if let Some(better) = shared.best(own, present, |other| other < own) {
            *like = Some(candidates[better]);
        }
    }
    Ok(())
}

fn files(
    objects: &dyn Objects,
    sides: &Sides<'_>,
    jobs: &[Job],
    threads: usize,
    stream: &mut Stream<Encoder>,
) -> Result<Vec<FileCost>, Error> {
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
        for (job, ready) in batch.iter().zip(prepare(objects, sides, batch, threads)?) {
            let before = stream.coder.len();
            file(stream, job, &ready, &mut last)?;
            costs.push(FileCost {
                path: sides.new.paths[job.place].clone(),
                from: job.like.map(|like| sides.path(like).to_owned()),
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
    sides: &Sides<'_>,
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
                let ready = ready(objects, sides, job);
                done.lock().unwrap_or_else(PoisonError::into_inner)[i] = Some(ready);
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.into_iter().flatten().collect()
}

fn ready(objects: &dyn Objects, sides: &Sides<'_>, job: &Job) -> Result<Ready, Error> {
    let before = match job.like {
        Some(like) => objects.file(sides.name(like)).map_err(Error::Old)?,
        None => Default::default(),
    };
    let after = objects.file(&job.name).map_err(Error::Old)?;
    let pair = Pair {
        objects,
        old: job.like.map_or([0; 32], |like| *sides.name(like)),
        new: job.name,
    };
    let plan = pair.plan(0, &before.1, &after.1, true);
    let fresh: u64 = plan.steps.iter().map(|s| s.fresh).sum();
    let packed = match fresh * 4 > plan.length {
        true => packed::find(&before.1, &after.1, &|part, old, new, elf| {
            pair.plan(part, old, new, elf)
        }),
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
    match job.like {
        None => {
            stream.number(SOURCE, 2, 0)?;
        }
        Some(Like::Old(place)) => {
            stream.number(SOURCE, 2, 1)?;
            stream.signed(SOURCE + 0x10, (place as i64).wrapping_sub(*last as i64))?;
            *last = place as u64 + 1;
        }
        Some(Like::New(place)) => {
            stream.number(SOURCE, 2, 2)?;
            stream.number(SOURCE + 0x20, 0, (job.place - place) as u64)?;
        }
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
