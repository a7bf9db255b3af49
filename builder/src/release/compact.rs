//! Deltas in Treeline's own format (`docs/src/delta-format.md`), made from two commits of the repository.

use std::cell::{Cell, OnceCell};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context, Result};
use bsp::device::DeltaTime;
use keys::release::{Compact, Delta};
use ostree::gio::prelude::*;
use ostree::{gio, glib, ObjectType, Repo};
use serde::{Deserialize, Serialize};
use treeline_delta::{
    Checksum, Header, Kind, NewFile, Objects, OldFile, Repository, Scratch, Source,
};

use super::contents::{self, NO_CANCEL};
use super::delta::{self, Maker};
use super::{CompactFile, File};
use crate::cache::{Cache, Inputs, Kept};

/// Names in the cache's entry: the delta, and what applying it takes.
const DELTA: &str = "delta";
const NEED: &str = "need.json";

/// Adds the compact form to every delta that has none in this version, or whose published file is gone.
pub(super) fn add(
    maker: &Maker<'_>,
    updates: &Path,
    board: &str,
    deltas: &mut [Delta],
    rows: &mut [File],
) -> Result<()> {
    for delta in deltas {
        let known = delta.compact.take();
        let intact = known.filter(|known| {
            known.version == treeline_delta::VERSION && delta::is_intact(updates, &known.file)
        });
        let compact = match intact {
            Some(known) => Some(known),
            None => make(maker, updates, board, delta)?,
        };
        let row = rows
            .iter_mut()
            .find(|row| row.from.as_ref() == Some(&delta.from));
        if let (Some(row), Some(compact)) = (row, &compact) {
            row.compact = Some(CompactFile {
                bytes: compact.file.length,
                scratch_bytes: compact.scratch_bytes,
                memory_bytes: compact.memory_bytes,
                time: DeltaTime::of(compact.decisions),
            });
        }
        delta.compact = compact;
    }
    Ok(())
}

/// The compact form, published; `None` if it is no smaller: a device would not take it.
fn make(maker: &Maker<'_>, updates: &Path, board: &str, delta: &Delta) -> Result<Option<Compact>> {
    let (from, to) = (&delta.from, &maker.commit.checksum);
    maker.stage.note(format!(
        "{} → {}, compact",
        delta::short(from),
        delta::short(to)
    ));
    let key = Inputs::new("compact", treeline_delta::VERSION.into())
        .add(from)
        .add(to)
        .json(&maker.commit.signatures())?
        .key();
    let entry = maker
        .cache
        .get_or_make("deltas", &key, |out| {
            write(maker.path, from, to, maker.cache, out)
        })
        .with_context(|| {
            format!("making the compact delta from {from} to {to}; `--deltas 0` releases without")
        })?;
    let made = entry.join(DELTA);
    let length = fs::metadata(&made)
        .with_context(|| format!("reading {}", made.display()))?
        .len();
    if length >= delta.file.length {
        return Ok(None);
    }
    let place = delta::place(board, Some(from), to).replace(".delta", ".compact");
    let need = entry.join(NEED);
    let reading = || format!("reading {}", need.display());
    let need: Need =
        serde_json::from_slice(&fs::read(&need).with_context(reading)?).with_context(reading)?;
    Ok(Some(Compact {
        file: delta::put(updates, &place, &made)?,
        version: treeline_delta::VERSION,
        output_bytes: need.output_bytes,
        scratch_bytes: need.scratch_bytes,
        memory_bytes: need.memory_bytes,
        decisions: need.decisions,
    }))
}

/// What applying a delta takes, as it was measured by applying it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// Bytes of all objects that it makes.
    pub output_bytes: u64,
    /// Bytes on disk besides, while one file is made.
    pub scratch_bytes: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Decisions read: what takes the time.
    pub decisions: u64,
}

/// A delta made and tried.
#[derive(Debug, Clone)]
pub struct Proven {
    /// The delta, and what each file of it costs.
    pub made: treeline_delta::Made,
    /// What applying it took.
    pub need: Need,
}

/// Makes the delta between two commits of a repository, and applies it once, to nothing but the checking and
/// counting of what comes out. What two files have in common is kept in the cache for other deltas between them.
pub fn between(repo: &Path, from: &str, to: &str, cache: &Cache) -> Result<Proven> {
    let objects = Archive::new(repo, cache);
    let (from, to) = (checksum(from)?, checksum(to)?);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let made = treeline_delta::make(&objects, &from, &to, threads)?;
    let need = proven(&objects, &made.bytes, &from, &to)?;
    Ok(Proven { made, need })
}

/// Writes a delta and what it makes into the directory `out`.
fn write(repo: &Path, from: &str, to: &str, cache: &Cache, out: &Path) -> Result<()> {
    let proven = between(repo, from, to, cache)?;
    let writing = || format!("writing {}", out.display());
    fs::create_dir(out).with_context(writing)?;
    fs::write(out.join(DELTA), &proven.made.bytes).with_context(writing)?;
    fs::write(out.join(NEED), serde_json::to_vec(&proven.need)?).with_context(writing)
}

fn proven(objects: &Archive, delta: &[u8], from: &Checksum, to: &Checksum) -> Result<Need> {
    let room = Rc::new(Room::default());
    let mut trial = Trial {
        objects,
        room: Rc::clone(&room),
    };
    let applied = treeline_delta::apply(delta, from, to, u64::MAX, &mut trial)
        .context("applying the delta that was just made")?;
    Ok(Need {
        output_bytes: applied.bytes,
        scratch_bytes: room.most.get(),
        memory_bytes: applied.memory,
        decisions: applied.decisions,
    })
}

fn checksum(text: &str) -> Result<Checksum> {
    let mut bytes = Checksum::default();
    hex::decode_to_slice(text, &mut bytes)
        .with_context(|| format!("reading the checksum {text}"))?;
    Ok(bytes)
}

/// The repository; each thread opens it for itself, because libostree's handle stays in its thread.
struct Archive {
    path: PathBuf,
    plans: Kept,
}

thread_local! {
    static OPEN: OnceCell<(PathBuf, Repo)> = const { OnceCell::new() };
}

impl Archive {
    fn new(path: &Path, cache: &Cache) -> Self {
        Self {
            path: path.to_owned(),
            plans: Kept::of(cache, "plans"),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&Repo) -> Result<T>) -> io::Result<T> {
        let open = || contents::open(&self.path);
        OPEN.with(|cell| {
            if cell.get().is_none() {
                // Set only here, and never twice in a thread.
                let _ = cell.set((self.path.clone(), open()?));
            }
            match cell.get() {
                Some((path, repo)) if *path == self.path => act(repo),
                _ => act(&open()?),
            }
        })
        .map_err(|error| io::Error::other(format!("{error:#}")))
    }
}

fn object_type(kind: Kind) -> ObjectType {
    match kind {
        Kind::Commit => ObjectType::Commit,
        Kind::DirTree => ObjectType::DirTree,
        Kind::DirMeta => ObjectType::DirMeta,
    }
}

fn load(
    repo: &Repo,
    name: &str,
) -> Result<(Option<gio::InputStream>, gio::FileInfo, glib::Variant)> {
    repo.load_file(name, NO_CANCEL)
        .with_context(|| format!("reading file object {name}"))
}

impl Objects for Archive {
    fn metadata(&self, kind: Kind, name: &Checksum) -> io::Result<Vec<u8>> {
        let name = hex::encode(name);
        self.with(|repo| {
            let found = repo
                .load_variant(object_type(kind), &name)
                .with_context(|| format!("reading object {name}"))?;
            Ok(found.data().to_vec())
        })
    }

    fn detached(&self, commit: &Checksum) -> io::Result<Vec<u8>> {
        let name = hex::encode(commit);
        self.with(|repo| {
            let found = repo
                .read_commit_detached_metadata(&name, NO_CANCEL)
                .with_context(|| format!("reading the signatures of commit {name}"))?;
            Ok(found.map_or_else(Vec::new, |found| found.data().to_vec()))
        })
    }

    fn file(&self, name: &Checksum) -> io::Result<(Vec<u8>, Vec<u8>)> {
        let name = hex::encode(name);
        self.with(|repo| {
            let (stream, info, xattrs) = load(repo, &name)?;
            let link = info.symlink_target();
            let header = Header {
                uid: info.attribute_uint32("unix::uid"),
                gid: info.attribute_uint32("unix::gid"),
                mode: info.attribute_uint32("unix::mode"),
                target: link.map_or_else(String::new, |l| l.to_string_lossy().into_owned()),
                xattrs: xattrs.data().to_vec(),
            };
            let mut content = Vec::new();
            if let Some(stream) = stream {
                stream
                    .into_read()
                    .read_to_end(&mut content)
                    .with_context(|| format!("reading file object {name}"))?;
            }
            Ok((header.to_bytes(), content))
        })
    }

    fn size(&self, name: &Checksum) -> io::Result<u64> {
        let name = hex::encode(name);
        self.with(|repo| {
            let entry = contents::entry(repo, &name)?;
            Ok(if entry.link { 0 } else { entry.size })
        })
    }

    fn kept(&self, key: &Checksum) -> Option<Vec<u8>> {
        self.plans.get(&hex::encode(key))
    }

    fn keep(&self, key: &Checksum, plan: &[u8]) {
        // What is not kept is found again.
        let _ = self.plans.put(&hex::encode(key), plan);
    }
}

/// A device that forgets what it is given.
struct Trial<'a> {
    objects: &'a Archive,
    room: Rc<Room>,
}

/// Bytes of scratch content, now and at most.
#[derive(Default)]
struct Room {
    now: Cell<u64>,
    most: Cell<u64>,
}

/// Scratch content that is counted as long as it is there.
struct Counted {
    content: Vec<u8>,
    room: Rc<Room>,
}

impl Source for Counted {
    fn len(&self) -> u64 {
        Source::len(&self.content)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.content.read_at(offset, buffer)
    }
}

impl Scratch for Counted {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.content.extend_from_slice(bytes);
        let now = self.room.now.get() + bytes.len() as u64;
        self.room.now.set(now);
        self.room.most.set(self.room.most.get().max(now));
        Ok(())
    }

    fn as_source(&self) -> &dyn Source {
        self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let now = self.room.now.get().saturating_sub(Source::len(self));
        self.room.now.set(now);
    }
}

struct Forgotten;

impl NewFile for Forgotten {
    fn write(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        Ok(())
    }
}

impl Repository for Trial<'_> {
    fn metadata(&mut self, kind: Kind, name: &Checksum) -> io::Result<Vec<u8>> {
        self.objects.metadata(kind, name)
    }

    fn file(&mut self, name: &Checksum) -> io::Result<OldFile> {
        let (header, content) = self.objects.file(name)?;
        Ok(OldFile {
            header,
            content: Box::new(content),
        })
    }

    fn put_metadata(&mut self, _: Kind, _: &Checksum, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn put_detached(&mut self, _: &Checksum, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn begin(&mut self, _: &Checksum, _: &[u8], _: u64) -> io::Result<Option<Box<dyn NewFile>>> {
        Ok(Some(Box::new(Forgotten)))
    }

    fn scratch(&self) -> io::Result<Box<dyn Scratch>> {
        Ok(Box::new(Counted {
            content: Vec::new(),
            room: Rc::clone(&self.room),
        }))
    }
}
