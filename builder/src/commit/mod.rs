//! A tree into a commit of an archive-mode OSTree repository.
//!
//! All checksums are computed first, from the tree alone and on all processors; only objects that the
//! repository lacks are written. So the same tree gives the same checksum wherever it is committed, and
//! committing a tree again costs one reading of it.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result};
use ostree::glib::prelude::*;
use ostree::{gio, glib, ObjectType, Repo, RepoMode};

use crate::progress::{Progress, Stage};
use crate::tree::{Assembled, Kind, Tree};

mod object;

use object::{FileObject, Metadata};

/// Key of the detached metadata that carries ed25519 signatures, type `aay`, as libostree defines it.
const SIGNATURES: &str = "ostree.sign.ed25519";
/// zlib level of file objects: a device gets deltas, so the repository's own size matters less than
/// the time to write it.
const ZLIB_LEVEL: &str = "3";

const NO_CANCEL: Option<&gio::Cancellable> = None;

/// What a commit says besides its tree.
#[derive(Debug, Clone)]
pub struct CommitMeta {
    /// Ref to move to the commit, `<product>/<board>`.
    pub reference: String,
    /// Product version; also the commit's `version` metadata.
    pub version: String,
    /// Seconds since the epoch.
    pub timestamp: u64,
    /// Further metadata, all strings.
    pub metadata: BTreeMap<String, String>,
}

/// Writes the tree as a commit and moves the ref. The repository is created if it is not there.
/// Returns the commit's checksum, 64 hex digits.
pub fn commit(
    repo: &Path,
    assembled: &Assembled,
    meta: &CommitMeta,
    progress: Progress,
) -> Result<String> {
    let stage = progress.stage("commit");
    let repository = open_or_create(repo)?;
    stage.note("checksums");
    let files = object::files(&assembled.tree)?;
    let written = write_all(
        &repository,
        &assembled.tree,
        &files,
        assembled,
        meta,
        &stage,
    )
    .with_context(|| format!("committing to the repository {}", repo.display()))?;
    stage.done(format_args!(
        "{} ({} of {} files new)",
        written.checksum,
        written.new,
        files.len()
    ));
    Ok(written.checksum)
}

/// Signs a commit: the detached metadata gets the ed25519 signature of the commit object's bytes.
/// Signatures of other keys stay.
pub fn sign(repo: &Path, checksum: &str, key: &dyn keys::signer::Sign) -> Result<()> {
    let repository = open(repo)?;
    let attach = || -> Result<()> {
        let commit = repository.load_variant(ObjectType::Commit, checksum)?;
        let signature = key.sign(&commit.data_as_bytes())?.to_vec();
        let old = repository.read_commit_detached_metadata(checksum, NO_CANCEL)?;
        let dict = glib::VariantDict::new(old.as_ref());
        let mut signatures: Vec<Vec<u8>> =
            dict.lookup(SIGNATURES).ok().flatten().unwrap_or_default();
        if !signatures.contains(&signature) {
            signatures.push(signature);
        }
        dict.insert_value(SIGNATURES, &signatures.to_variant());
        repository.write_commit_detached_metadata(checksum, Some(&dict.end()), NO_CANCEL)?;
        Ok(())
    };
    attach().with_context(|| format!("signing commit {checksum} in {}", repo.display()))
}

struct Written {
    checksum: String,
    new: usize,
}

fn open(path: &Path) -> Result<Repo> {
    let repository = Repo::new_for_path(path);
    repository
        .open(NO_CANCEL)
        .with_context(|| format!("opening the OSTree repository {}", path.display()))?;
    Ok(repository)
}

/// Opens the archive repository at `path`, created if there is none.
pub fn open_or_create(path: &Path) -> Result<Repo> {
    if path.join("config").exists() {
        return open(path);
    }
    std::fs::create_dir_all(path).with_context(|| format!("creating {}", path.display()))?;
    let repository = Repo::new_for_path(path);
    let create = || -> Result<()> {
        repository.create(RepoMode::Archive, NO_CANCEL)?;
        let config = repository.copy_config();
        config.set_string("archive", "zlib-level", ZLIB_LEVEL);
        // libostree's own rule, 3 % of the disk, stops builds on a large disk that is nearly full.
        config.set_string("core", "min-free-space-size", "256MB");
        repository.write_config(&config)?;
        repository.reload_config(NO_CANCEL)?;
        Ok(())
    };
    create().with_context(|| format!("creating the OSTree repository {}", path.display()))?;
    Ok(repository)
}

fn write_all(
    repository: &Repo,
    tree: &Tree,
    files: &BTreeMap<String, FileObject>,
    assembled: &Assembled,
    meta: &CommitMeta,
    stage: &Stage,
) -> Result<Written> {
    let transaction = repository.auto_transaction(NO_CANCEL)?;
    let mut missing = Vec::new();
    let mut seen = HashSet::new();
    for (path, file) in files {
        if seen.insert(&file.checksum)
            && !repository.has_object(ObjectType::File, &file.checksum, NO_CANCEL)?
        {
            missing.push((path, file));
        }
    }
    stage.bytes(missing.iter().map(|(_, file)| file.stream_len()).sum());
    for (path, file) in &missing {
        write_file(repository, tree, path, file).with_context(|| format!("writing /{path}"))?;
        stage.advance(file.stream_len());
    }
    let root = write_dir(repository, tree, "", files)?;
    let root = ostree::MutableTree::from_checksum(repository, &root.contents, &root.meta);
    let root = repository.write_mtree(&root, NO_CANCEL)?;
    let root = root
        .downcast_ref::<ostree::RepoFile>()
        .context("libostree returned no directory of the repository")?;
    let checksum = repository.write_commit_with_time(
        None,
        Some(&format!("{} {}", meta.reference, meta.version)),
        None,
        Some(&commit_metadata(assembled, meta)),
        root,
        meta.timestamp,
        NO_CANCEL,
    )?;
    repository.transaction_set_ref(None, &meta.reference, Some(&checksum));
    transaction.commit(NO_CANCEL)?;
    Ok(Written {
        checksum: checksum.to_string(),
        new: missing.len(),
    })
}

/// Sorted, so that the commit's bytes do not depend on the order of insertion.
fn commit_metadata(assembled: &Assembled, meta: &CommitMeta) -> glib::Variant {
    let mut all: BTreeMap<String, glib::Variant> = meta
        .metadata
        .iter()
        .map(|(key, value)| (key.clone(), value.to_variant()))
        .collect();
    all.insert("version".into(), meta.version.to_variant());
    all.insert("ostree.bootable".into(), true.to_variant());
    all.insert("ostree.linux".into(), assembled.kernel_version.to_variant());
    all.to_variant()
}

fn write_file(repository: &Repo, tree: &Tree, path: &str, file: &FileObject) -> Result<()> {
    let node = tree.get(path).context("it is not in the tree")?;
    let stream = gio::ReadInputStream::new(file.stream(node)?);
    repository.write_content(Some(&file.checksum), &stream, file.stream_len(), NO_CANCEL)?;
    Ok(())
}

struct Directory {
    contents: String,
    meta: String,
}

fn write_dir(
    repository: &Repo,
    tree: &Tree,
    path: &str,
    files: &BTreeMap<String, FileObject>,
) -> Result<Directory> {
    let node = tree.get(path).context("the tree has no root directory")?;
    let mut names = Vec::new();
    let mut dirs = Vec::new();
    for (name, child) in tree.children(path) {
        let child_path = crate::tree::join(path, name);
        if let Kind::Dir = child.kind {
            let dir = write_dir(repository, tree, &child_path, files)?;
            dirs.push((name.to_string(), dir));
        } else {
            let file = files
                .get(&child_path)
                .with_context(|| format!("/{child_path} has no checksum"))?;
            names.push((name.to_string(), file.checksum.clone()));
        }
    }
    let contents = write_metadata(repository, &object::dirtree(names, dirs)?)?;
    let meta = write_metadata(repository, &object::dirmeta(node))?;
    Ok(Directory { contents, meta })
}

fn write_metadata(repository: &Repo, metadata: &Metadata) -> Result<String> {
    let checksum = metadata.checksum();
    if !repository.has_object(metadata.kind, &checksum, NO_CANCEL)? {
        repository.write_metadata(metadata.kind, Some(&checksum), &metadata.variant, NO_CANCEL)?;
    }
    Ok(checksum)
}

#[cfg(test)]
mod tests;
