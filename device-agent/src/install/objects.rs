//! A release object by object, for a device that no delta starts from: only what the repository lacks is
//! transferred, and what has arrived stays for the next attempt.
//!
//! The server's `repo/` is an OSTree repository in archive mode. Every object is named by the SHA-256 of
//! its content, and the chain of names begins with the commit of the signed release: commit, directory
//! and metadata objects are checked before they are parsed, files by libostree while it writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::{stream, StreamExt, TryStreamExt};
use ostree::gio::{self, Cancellable};
use ostree::glib::{Bytes, Variant, VariantTy};
use ostree::{ObjectType, Repo};
use sha2::{Digest, Sha256};
use url::Url;

use super::Say;
use crate::problem::{Kind, Problem};
use crate::stage::{self, Verified, Wanted};
use crate::transport::Transport;

const NONE: Option<&Cancellable> = None;
/// Objects in transfer at a time.
const PARALLEL: usize = 8;
/// Attempts for one object.
const ATTEMPTS: u32 = 3;
/// Bytes that a commit, directory or metadata object may have: libostree's own limit.
const METADATA_LIMIT: u64 = 128 << 20;

/// Where objects come from and what may arrive.
#[derive(Debug)]
pub(super) struct Source<'a> {
    /// The way there.
    pub transport: &'a Transport,
    /// Address of the repository, with a slash at its end.
    pub repository: Url,
    /// Directory for files on their way into the repository.
    pub dir: &'a Path,
    /// Bytes that no single file can exceed: those of the installed release.
    pub limit: u64,
    /// Pause after the first failed attempt.
    pub pause: Duration,
}

/// What the repository lacks.
#[derive(Default)]
struct Missing {
    metadata: BTreeMap<String, (ObjectType, Bytes)>,
    files: BTreeSet<String>,
    bytes: u64,
}

/// Brings the commit into the repository; returns it with the number of bytes transferred.
pub(super) async fn pull(
    source: &Source<'_>,
    repo: &Repo,
    wanted: &Wanted<'_>,
    say: Say<'_>,
) -> Result<(Verified, u64)> {
    std::fs::create_dir_all(source.dir)
        .with_context(|| format!("creating {}", source.dir.display()))?;
    source.sweep();
    let commit = source.metadata(ObjectType::Commit, wanted.commit).await?;
    let detached = source.detached(wanted.commit).await?;
    stage::accept(&commit, &detached, wanted)?;
    let mut missing = source.walk(repo, &commit).await?;
    missing.bytes += (commit.len() + detached.size()) as u64;
    say(&format!(
        "no delta fits: fetching {} files one by one",
        missing.files.len()
    ));
    repo.prepare_transaction(NONE)
        .context("preparing the repository")?;
    let transferred = source.files(repo, &missing.files, say).await;
    let transferred = match transferred {
        Ok(bytes) => missing.bytes + bytes,
        Err(error) => {
            // Whole objects are worth keeping: the next attempt need not fetch them again.
            let _ = repo.commit_transaction(NONE);
            return Err(error);
        }
    };
    let verified = stage::transact(repo, wanted, || {
        for (checksum, (kind, bytes)) in &missing.metadata {
            write_metadata(repo, *kind, checksum, bytes)?;
        }
        repo.write_commit_detached_metadata(wanted.commit, Some(&detached), NONE)
            .map_err(|error| stage::room_or(error, "writing into the repository"))?;
        write_metadata(repo, ObjectType::Commit, wanted.commit, &commit)
    })?;
    let _ = std::fs::remove_dir(source.dir);
    Ok((verified, transferred))
}

fn write_metadata(repo: &Repo, kind: ObjectType, checksum: &str, bytes: &Bytes) -> Result<()> {
    repo.write_metadata(kind, Some(checksum), &variant(kind, bytes)?, NONE)
        .map_err(|error| stage::room_or(error, "writing into the repository"))?;
    Ok(())
}

/// The parsed form of a metadata object (formats: libostree, `ostree-core.h`).
fn variant(kind: ObjectType, bytes: &Bytes) -> Result<Variant> {
    let signature = match kind {
        ObjectType::Commit => "(a{sv}aya(say)sstayay)",
        ObjectType::DirTree => "(a(say)a(sayay))",
        _ => "(uuua(ayay))",
    };
    let of = VariantTy::new(signature).context("naming the type of an object")?;
    Ok(Variant::from_bytes_with_type(bytes, of))
}

/// A checksum inside an object: 32 bytes.
fn checksum(value: &Variant) -> Result<String> {
    let bytes = value.data();
    if bytes.len() != 32 {
        return Err(Problem::new(
            Kind::Trust,
            "the commit's tree holds a checksum that is none: it was not made by libostree",
        )
        .into());
    }
    Ok(hex::encode(bytes))
}

impl Source<'_> {
    /// Removes what a killed run has left.
    fn sweep(&self) {
        let entries = std::fs::read_dir(self.dir).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if path.extension().is_some_and(|e| e == "filez") {
                // What cannot be removed only takes room.
                let _ = std::fs::remove_file(path);
            }
        }
    }

    fn url(&self, checksum: &str, ending: &str) -> Result<Url> {
        let path = format!("objects/{}/{}.{ending}", &checksum[..2], &checksum[2..]);
        self.repository
            .join(&path)
            .with_context(|| format!("the address of {path}"))
    }

    /// A metadata object with the right SHA-256.
    async fn metadata(&self, kind: ObjectType, checksum: &str) -> Result<Bytes> {
        let ending = match kind {
            ObjectType::Commit => "commit",
            ObjectType::DirTree => "dirtree",
            _ => "dirmeta",
        };
        let url = self.url(checksum, ending)?;
        let mut bytes = Vec::new();
        self.get(&url, METADATA_LIMIT, &mut bytes).await?;
        if hex::encode(Sha256::digest(&bytes)) != checksum {
            return Err(Problem::new(
                Kind::Trust,
                format!("downloading {url}: it does not have the SHA-256 it is named by"),
            )
            .hint("the server holds a damaged or foreign repository; publish the release again")
            .into());
        }
        Ok(Bytes::from_owned(bytes))
    }

    /// The signatures of a commit. Nothing vouches for this object but what is in it.
    async fn detached(&self, commit: &str) -> Result<Variant> {
        let mut bytes = Vec::new();
        let url = self.url(commit, "commitmeta")?;
        self.get(&url, METADATA_LIMIT, &mut bytes).await?;
        let of = VariantTy::new("a{sv}").context("naming the type of an object")?;
        Ok(Variant::from_bytes_with_type(&Bytes::from_owned(bytes), of))
    }

    /// Goes through the tree, a level at a time, and lists what is not here.
    async fn walk(&self, repo: &Repo, commit: &Bytes) -> Result<Missing> {
        let commit = variant(ObjectType::Commit, commit)?;
        let mut missing = Missing::default();
        let mut seen = BTreeSet::new();
        let mut metas = BTreeSet::from([checksum(&commit.child_value(7))?]);
        let mut level = BTreeSet::from([checksum(&commit.child_value(6))?]);
        while !level.is_empty() {
            let mut next = BTreeSet::new();
            for tree in self.level(repo, level, &mut missing).await? {
                for file in tree.child_value(0).iter() {
                    let name = checksum(&file.child_value(1))?;
                    if !has(repo, ObjectType::File, &name)? {
                        missing.files.insert(name);
                    }
                }
                for dir in tree.child_value(1).iter() {
                    let name = checksum(&dir.child_value(1))?;
                    metas.insert(checksum(&dir.child_value(2))?);
                    if seen.insert(name.clone()) {
                        next.insert(name);
                    }
                }
            }
            level = next;
        }
        self.fetch_metadata(repo, ObjectType::DirMeta, &metas, &mut missing)
            .await?;
        Ok(missing)
    }

    /// The directories of one level, from here or from there.
    async fn level(
        &self,
        repo: &Repo,
        names: BTreeSet<String>,
        missing: &mut Missing,
    ) -> Result<Vec<Variant>> {
        self.fetch_metadata(repo, ObjectType::DirTree, &names, missing)
            .await?;
        names
            .iter()
            .map(|name| match missing.metadata.get(name) {
                Some((kind, bytes)) => variant(*kind, bytes),
                None => repo
                    .load_variant(ObjectType::DirTree, name)
                    .with_context(|| format!("reading directory object {name}")),
            })
            .collect()
    }

    async fn fetch_metadata(
        &self,
        repo: &Repo,
        kind: ObjectType,
        names: &BTreeSet<String>,
        missing: &mut Missing,
    ) -> Result<()> {
        let mut absent = Vec::new();
        for name in names {
            if !missing.metadata.contains_key(name) && !has(repo, kind, name)? {
                absent.push(name.clone());
            }
        }
        let mut arriving =
            stream::iter(absent)
                .map(|name| async move {
                    Ok::<_, anyhow::Error>((self.metadata(kind, &name).await?, name))
                })
                .buffer_unordered(PARALLEL);
        while let Some((bytes, name)) = arriving.try_next().await? {
            missing.bytes += bytes.len() as u64;
            missing.metadata.insert(name, (kind, bytes));
        }
        Ok(())
    }

    /// Fetches files into the repository; returns the bytes transferred.
    async fn files(&self, repo: &Repo, names: &BTreeSet<String>, say: Say<'_>) -> Result<u64> {
        let mut arriving = stream::iter(names)
            .map(|name| async move { Ok::<_, anyhow::Error>((self.file(name).await?, name)) })
            .buffer_unordered(PARALLEL);
        let (mut done, mut bytes, mut shown) = (0, 0, 0);
        while let Some((path, name)) = arriving.try_next().await? {
            bytes += std::fs::metadata(&path).map_or(0, |meta| meta.len());
            let written = write_file(repo, &path, name);
            // In the repository or useless: either way it is not needed again.
            let _ = std::fs::remove_file(&path);
            written?;
            done += 1;
            let tenth = done * 10 / names.len();
            if tenth != shown {
                shown = tenth;
                say(&format!("fetched {} %", tenth * 10));
            }
        }
        Ok(bytes)
    }

    async fn file(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(format!("{name}.filez"));
        let mut file =
            std::fs::File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        self.get(&self.url(name, "filez")?, self.limit, &mut file)
            .await?;
        Ok(path)
    }

    /// One object, with some patience.
    async fn get(&self, url: &Url, limit: u64, sink: &mut impl Sink) -> Result<()> {
        let mut pause = self.pause;
        for _ in 1..ATTEMPTS {
            match self.transport.read(url, limit, sink).await {
                Err(error) if crate::problem::kind_of(&error) == Kind::Network => {
                    sink.restart()?;
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                other => return other,
            }
        }
        self.transport.read(url, limit, sink).await
    }
}

fn has(repo: &Repo, kind: ObjectType, name: &str) -> Result<bool> {
    repo.has_object(kind, name, NONE)
        .with_context(|| format!("looking for object {name}"))
}

/// A file of an archive repository into ours; libostree refuses content that does not have the name.
fn write_file(repo: &Repo, path: &Path, name: &str) -> Result<()> {
    let spoilt = |error: ostree::glib::Error| {
        let problem = stage::room_or(error, &format!("taking the object {name}"));
        match crate::problem::kind_of(&problem) {
            Kind::Room => problem,
            _ => Problem::new(Kind::Trust, format!("{problem:#}"))
                .hint("the server holds a damaged or foreign repository; publish the release again")
                .into(),
        }
    };
    let file = gio::File::for_path(path);
    let (input, info, xattrs) =
        ostree::content_file_parse(true, &file, false, NONE).map_err(spoilt)?;
    let (content, length) =
        ostree::raw_file_to_content_stream(&input, &info, Some(&xattrs), NONE).map_err(spoilt)?;
    repo.write_content(Some(name), &content, length, NONE)
        .map_err(spoilt)?;
    Ok(())
}

/// What an object is read into.
pub(crate) trait Sink: Write {
    /// Forgets what came so far.
    fn restart(&mut self) -> std::io::Result<()>;
}

impl Sink for Vec<u8> {
    fn restart(&mut self) -> std::io::Result<()> {
        self.clear();
        Ok(())
    }
}

impl Sink for std::fs::File {
    fn restart(&mut self) -> std::io::Result<()> {
        use std::io::Seek;
        self.set_len(0)?;
        self.rewind()
    }
}
