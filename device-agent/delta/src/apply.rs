//! Applying a delta: one pass over it, old objects read where they are, new ones written as they come.

use std::io::{self, Read};

use crate::code::Decoder;
use crate::object::{name_of, Checksum, FileName, Kind};
use crate::source::{Scratch, Source};
use crate::stream::{Closure, Stream, HEADER, HEADER_LIMIT, LENGTH, MAGIC, METADATA_LIMIT, SOURCE};
use crate::Error;

/// A file object of the old commit.
pub struct OldFile {
    /// The serialised `(uuuusa(ayay))`: owner, group, mode, device, link target, attributes.
    pub header: Vec<u8>,
    /// Its content; nothing for a link.
    pub content: Box<dyn Source>,
}

/// A file object on its way into the repository.
pub trait NewFile {
    /// Takes the next bytes.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// All bytes have come and have the object's checksum: the object may enter the repository.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A repository that a delta is applied in.
pub trait Repository {
    /// A commit or directory object.
    fn metadata(&mut self, kind: Kind, name: &Checksum) -> io::Result<Vec<u8>>;

    /// A file object.
    fn file(&mut self, name: &Checksum) -> io::Result<OldFile>;

    /// Takes a commit or directory object, whose checksum is right.
    fn put_metadata(&mut self, kind: Kind, name: &Checksum, bytes: &[u8]) -> io::Result<()>;

    /// Takes the signatures of the commit, a serialised `a{sv}`. Nothing vouches for them but what is in them.
    fn put_detached(&mut self, commit: &Checksum, bytes: &[u8]) -> io::Result<()>;

    /// Begins a file object of so many bytes; `None` if it is there already.
    fn begin(
        &mut self,
        name: &Checksum,
        header: &[u8],
        length: u64,
    ) -> io::Result<Option<Box<dyn NewFile>>>;

    /// Room for content that is needed while one file is made; up to three times as much as the largest
    /// compressed file unpacks to.
    fn scratch(&self) -> io::Result<Box<dyn Scratch>>;
}

/// What was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Objects made.
    pub objects: u64,
    /// Bytes of their contents.
    pub bytes: u64,
    /// Bytes of memory that it took at most, roughly: statistics, lists of objects, the largest file's plan. Not what
    /// the repository itself takes.
    pub memory: u64,
    /// Decisions read: bits, each with a prediction of its own. They are what takes the time.
    pub decisions: u64,
}

/// Applies a delta that leads from the commit `from` to the commit `to`. Its length and its SHA-256 should
/// have been checked before. `limit`: bytes of all objects together.
///
/// The commit comes into the repository last, so that a commit that is there is whole.
pub fn apply(
    mut delta: impl Read,
    from: &Checksum,
    to: &Checksum,
    limit: u64,
    repository: &mut dyn Repository,
) -> Result<Applied, Error> {
    from_stream(&mut delta, from, to, limit, repository)
}

/// For any stream the same code: it is compiled with this crate, and with this crate's care for speed.
fn from_stream(
    delta: &mut dyn Read,
    from: &Checksum,
    to: &Checksum,
    limit: u64,
    repository: &mut dyn Repository,
) -> Result<Applied, Error> {
    let mut magic = [0u8; MAGIC.len()];
    delta.read_exact(&mut magic).map_err(Error::Delta)?;
    if magic != MAGIC {
        return Err(Error::Format {
            found: magic.to_vec(),
            wanted: MAGIC.to_vec(),
        });
    }
    let mut run = Run {
        stream: Stream::new(Decoder::new(delta)),
        repository,
        left: limit,
        limit,
        applied: Applied::default(),
    };
    run.all(from, to)?;
    run.applied.decisions = run.stream.coder.decisions();
    Ok(run.applied)
}

struct Run<'a> {
    stream: Stream<Decoder<&'a mut dyn Read>>,
    repository: &'a mut dyn Repository,
    left: u64,
    limit: u64,
    applied: Applied,
}

impl Run<'_> {
    fn all(&mut self, from: &Checksum, to: &Checksum) -> Result<(), Error> {
        let old_commit = self
            .repository
            .metadata(Kind::Commit, from)
            .map_err(Error::Old)?;
        let repository = &mut *self.repository;
        let old = Closure::walk(&old_commit, false, &mut |kind, name, _| {
            // The content of metadata is of no interest here.
            if kind == Kind::DirMeta {
                return Ok(Vec::new());
            }
            repository.metadata(kind, name).map_err(Error::Old)
        })?;
        let commit = self.bytes(&old_commit, METADATA_LIMIT)?;
        check(&name_of(&commit), to)?;
        let detached = self.bytes(&[], METADATA_LIMIT)?;
        let new = Closure::walk(&commit, false, &mut |kind, name, _| {
            self.directory(&old, kind, name)
        })?;
        let lists = old.memory() + new.memory();
        let mut last = 0u64;
        for (place, name) in new.files.iter().enumerate() {
            if !old.has_file(name) {
                self.file(&old, &new.files[..place], name, &mut last)?;
            }
        }
        self.applied.memory = lists + self.stream.memory() + self.stream.most;
        // The end of the stream is part of it: what has been cut off is noticed.
        if self.stream.number(LENGTH, 9, 0)? != 0x5a || !self.stream.coder.ended() {
            return Err(Error::Damaged("it does not end where it should"));
        }
        self.repository
            .put_detached(to, &detached)
            .map_err(Error::Write)?;
        self.repository
            .put_metadata(Kind::Commit, to, &commit)
            .map_err(Error::Write)
    }

    fn count(&mut self, bytes: u64) -> Result<(), Error> {
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or(Error::Limit(self.limit))?;
        self.applied.bytes += bytes;
        Ok(())
    }

    /// A small blob as a whole.
    fn bytes(&mut self, old: &[u8], limit: u64) -> Result<Vec<u8>, Error> {
        let length = self.stream.number(LENGTH, 0, 0)?;
        if length > limit {
            return Err(Error::Limit(limit));
        }
        self.count(length)?;
        let mut bytes = Vec::new();
        self.stream
            .blob(length, &old, None, &no_room, &mut |more| {
                bytes.extend_from_slice(more);
                Ok(())
            })?;
        Ok(bytes)
    }

    fn directory(&mut self, old: &Closure, kind: Kind, name: &Checksum) -> Result<Vec<u8>, Error> {
        let known = match kind {
            Kind::DirTree => old.has_tree(name),
            _ => old.has_meta(name),
        };
        if known {
            return match kind {
                Kind::DirTree => self.repository.metadata(kind, name).map_err(Error::Old),
                _ => Ok(Vec::new()),
            };
        }
        let list = match kind {
            Kind::DirTree => &old.trees,
            _ => &old.metas,
        };
        let source = self.stream.number(SOURCE, 1, 0)?;
        let like = match source.checked_sub(1) {
            None => Vec::new(),
            Some(index) => {
                let name = pick(list, index)?;
                self.repository.metadata(kind, name).map_err(Error::Old)?
            }
        };
        let bytes = self.bytes(&like, METADATA_LIMIT)?;
        check(&name_of(&bytes), name)?;
        self.repository
            .put_metadata(kind, name, &bytes)
            .map_err(Error::Write)?;
        self.applied.objects += 1;
        Ok(bytes)
    }

    /// `before`: the new commit's files that come before this one.
    fn file(
        &mut self,
        old: &Closure,
        before: &[Checksum],
        name: &Checksum,
        last: &mut u64,
    ) -> Result<(), Error> {
        let like = match self.stream.number(SOURCE, 2, 0)? {
            0 => OldFile {
                header: Vec::new(),
                content: Box::new(&[][..]),
            },
            1 => {
                *last = last.wrapping_add(self.stream.signed(SOURCE + 0x10, 0)? as u64);
                let found = pick(&old.files, *last)?;
                *last += 1;
                self.repository.file(found).map_err(Error::Old)?
            }
            2 => {
                let back = self.stream.number(SOURCE + 0x20, 0, 0)?;
                let found = pick(before, (before.len() as u64).wrapping_sub(back))?;
                self.repository.file(found).map_err(Error::Old)?
            }
            _ => return Err(Error::Damaged("a file is made from an unknown source")),
        };
        let header = if self.stream.number(HEADER, 0, 0)? == 0 {
            like.header.clone()
        } else {
            self.bytes(&like.header, HEADER_LIMIT)?
        };
        let grown = self.stream.signed(LENGTH + 0x10, 0)?;
        let length = like.content.len().wrapping_add(grown as u64);
        self.count(length)?;
        let mut target = self
            .repository
            .begin(name, &header, length)
            .map_err(Error::Write)?;
        let mut sum = FileName::new(&header);
        let repository = &*self.repository;
        let room = || repository.scratch();
        let old = like.content.as_ref();
        self.stream.blob(length, old, None, &room, &mut |bytes| {
            sum.update(bytes);
            match &mut target {
                Some(file) => file.write(bytes).map_err(Error::Write),
                None => Ok(()),
            }
        })?;
        check(&sum.finish(), name)?;
        if let Some(file) = target {
            file.finish().map_err(Error::Write)?;
        }
        self.applied.objects += 1;
        Ok(())
    }
}

/// Small things hold nothing compressed.
fn no_room() -> io::Result<Box<dyn Scratch>> {
    Err(io::Error::other("a directory with a compressed part"))
}

fn pick(list: &[Checksum], index: u64) -> Result<&Checksum, Error> {
    usize::try_from(index)
        .ok()
        .and_then(|index| list.get(index))
        .ok_or(Error::Damaged("it refers to an object that is not there"))
}

fn check(found: &Checksum, wanted: &Checksum) -> Result<(), Error> {
    if found == wanted {
        return Ok(());
    }
    Err(Error::Checksum(
        wanted.iter().map(|b| format!("{b:02x}")).collect(),
    ))
}
