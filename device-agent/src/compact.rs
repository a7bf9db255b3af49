//! Applies a delta in Treeline's own format: old objects are read where they lie in the repository, new
//! ones written into it as they come, each checked before it enters. Never more than a few windows of a file
//! are in memory.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};
use ostree::gio::{prelude::*, Cancellable};
use ostree::glib::{Bytes, Variant, VariantTy};
use ostree::{ContentWriter, ObjectType, Repo};
use treeline_delta::{
    Checksum, Error, FileSource, Header, Kind as Metadata, NewFile, OldFile, Repository, Scratch,
    Source,
};

use crate::problem::{Kind, Problem};
use crate::stage::{self, Verified, Wanted};

const NONE: Option<&Cancellable> = None;

/// Applies the delta in `file` (already checked by hash) to the commit `from` and verifies what came out, in
/// one transaction. `limit`: bytes of all objects it may make.
pub fn apply(
    repo: &Repo,
    file: &Path,
    from: &str,
    limit: u64,
    wanted: &Wanted<'_>,
) -> Result<Verified> {
    let delta = File::open(file).with_context(|| format!("opening {}", file.display()))?;
    repo.prepare_transaction(NONE)
        .context("preparing the repository")?;
    stage::transact(repo, wanted, || {
        let (from, to) = (checksum(from)?, checksum(wanted.commit)?);
        let mut target = Target { repo };
        treeline_delta::apply(delta, &from, &to, limit, &mut target).map_err(told)?;
        Ok(())
    })
}

fn checksum(text: &str) -> Result<Checksum> {
    let mut bytes = Checksum::default();
    hex::decode_to_slice(text, &mut bytes)
        .with_context(|| format!("reading the checksum {text}"))?;
    Ok(bytes)
}

/// The error with its kind: a full file system and a wrong content are told apart from the rest.
fn told(error: Error) -> anyhow::Error {
    let kind = match error {
        Error::Write(cause) => {
            return match cause.downcast::<ostree::glib::Error>() {
                Ok(error) => stage::room_or(error, "writing into the repository"),
                Err(cause) => anyhow::Error::new(cause).context("writing into the repository"),
            }
        }
        Error::Old(_) | Error::Delta(_) => Kind::Other,
        _ => Kind::Trust,
    };
    Problem::new(kind, format!("applying the delta: {error}")).into()
}

struct Target<'a> {
    repo: &'a Repo,
}

fn object_type(kind: Metadata) -> ObjectType {
    match kind {
        Metadata::Commit => ObjectType::Commit,
        Metadata::DirTree => ObjectType::DirTree,
        Metadata::DirMeta => ObjectType::DirMeta,
    }
}

/// A serialised value of a type.
fn variant(bytes: &[u8], of: &str) -> io::Result<Variant> {
    let of = VariantTy::new(of).map_err(io::Error::other)?;
    let value = Variant::from_bytes_with_type(&Bytes::from(bytes), of);
    match value.is_normal_form() {
        true => Ok(value),
        false => Err(io::Error::other(format!("it is not of the type {of}"))),
    }
}

impl Repository for Target<'_> {
    fn metadata(&mut self, kind: Metadata, name: &Checksum) -> io::Result<Vec<u8>> {
        let found = self
            .repo
            .load_variant(object_type(kind), &hex::encode(name))
            .map_err(io::Error::other)?;
        Ok(found.data().to_vec())
    }

    fn file(&mut self, name: &Checksum) -> io::Result<OldFile> {
        let name = hex::encode(name);
        let (_, info, xattrs) = self.repo.load_file(&name, NONE).map_err(io::Error::other)?;
        let target = info.symlink_target();
        let header = Header {
            uid: info.attribute_uint32("unix::uid"),
            gid: info.attribute_uint32("unix::gid"),
            mode: info.attribute_uint32("unix::mode"),
            target: match &target {
                Some(target) => target.to_string_lossy().into_owned(),
                None => String::new(),
            },
            xattrs: xattrs.data().to_vec(),
        };
        let content: Box<dyn Source> = if header.is_link() {
            Box::new(&[][..])
        } else {
            let dir = self.repo.path().path();
            let dir = dir.ok_or_else(|| io::Error::other("the repository has no path"))?;
            Box::new(FileSource::new(content(&dir, &name)?)?)
        };
        Ok(OldFile {
            header: header.to_bytes(),
            content,
        })
    }

    fn put_metadata(&mut self, kind: Metadata, name: &Checksum, bytes: &[u8]) -> io::Result<()> {
        let of = match kind {
            Metadata::Commit => "(a{sv}aya(say)sstayay)",
            Metadata::DirTree => "(a(say)a(sayay))",
            Metadata::DirMeta => "(uuua(ayay))",
        };
        self.repo
            .write_metadata(
                object_type(kind),
                Some(&hex::encode(name)),
                &variant(bytes, of)?,
                NONE,
            )
            .map_err(io::Error::other)?;
        Ok(())
    }

    fn put_detached(&mut self, commit: &Checksum, bytes: &[u8]) -> io::Result<()> {
        let detached = variant(bytes, "a{sv}")?;
        self.repo
            .write_commit_detached_metadata(&hex::encode(commit), Some(&detached), NONE)
            .map_err(io::Error::other)
    }

    fn begin(
        &mut self,
        name: &Checksum,
        header: &[u8],
        length: u64,
    ) -> io::Result<Option<Box<dyn NewFile>>> {
        let name = hex::encode(name);
        let there = self
            .repo
            .has_object(ObjectType::File, &name, NONE)
            .map_err(io::Error::other)?;
        if there {
            return Ok(None);
        }
        let header = Header::parse(header).map_err(io::Error::other)?;
        let xattrs = variant(&header.xattrs, "a(ayay)")?;
        Ok(Some(if header.is_link() {
            Box::new(NewLink {
                repo: self.repo.clone(),
                name,
                header,
                xattrs,
            })
        } else {
            let writer = self
                .repo
                .write_regfile(
                    Some(&name),
                    header.uid,
                    header.gid,
                    header.mode,
                    length,
                    Some(&xattrs),
                )
                .map_err(io::Error::other)?;
            Box::new(NewRegular { writer })
        }))
    }

    fn scratch(&self) -> io::Result<Box<dyn Scratch>> {
        let dir = self.repo.path().path();
        let dir = dir.ok_or_else(|| io::Error::other("the repository has no path"))?;
        Ok(Box::new(FileSource::new(nameless(&dir.join("tmp"))?)?))
    }
}

/// The content of a file object, also of one that this transaction has made. Only a repository of mode `bare…` has
/// contents as they are; another fails here, and the other ways to the release remain.
fn content(repo: &Path, name: &str) -> io::Result<File> {
    let place = format!("{}/{}.file", &name[..2], &name[2..]);
    match File::open(repo.join("objects").join(&place)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    // libostree keeps what a transaction makes beside the objects until its end (`tmp/staging-…`).
    for entry in repo.join("tmp").read_dir()? {
        let entry = entry?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(b"staging-")
        {
            if let Ok(file) = File::open(entry.path().join(&place)) {
                return Ok(file);
            }
        }
    }
    let what = format!("file object {name} is not in {}", repo.display());
    Err(io::Error::new(io::ErrorKind::NotFound, what))
}

/// A file without a name: it goes with the last who has it open, also when the power fails.
fn nameless(dir: &Path) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_TMPFILE)
        .mode(0o600)
        .open(dir)
}

struct NewRegular {
    writer: ContentWriter,
}

impl NewFile for NewRegular {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self.writer.write_all(bytes, NONE) {
            Ok((_, None)) => Ok(()),
            Ok((_, Some(error))) | Err(error) => Err(io::Error::other(error)),
        }
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        // libostree compares the checksum once more.
        self.writer.finish(NONE).map_err(io::Error::other)?;
        Ok(())
    }
}

struct NewLink {
    repo: Repo,
    name: String,
    header: Header,
    xattrs: Variant,
}

impl NewFile for NewLink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match bytes {
            [] => Ok(()),
            _ => Err(io::Error::other("a symbolic link has no content")),
        }
    }

    fn finish(self: Box<Self>) -> io::Result<()> {
        self.repo
            .write_symlink(
                Some(&self.name),
                self.header.uid,
                self.header.gid,
                Some(&self.xattrs),
                &self.header.target,
                NONE,
            )
            .map_err(io::Error::other)?;
        Ok(())
    }
}
