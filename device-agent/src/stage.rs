//! Brings a verified artefact into the repository, and lets nothing stay there that is not signed for this
//! product and board.

use std::path::Path;

use anyhow::{Context, Result};
use ostree::gio::{self, prelude::*, Cancellable};
use ostree::glib::{Variant, VariantDict, VariantTy};
use ostree::{ObjectType, Repo, RepoCommitState, RepoFile};
use sha2::{Digest, Sha256};

use crate::problem::{Kind, Problem};
use crate::stop_point;

const NONE: Option<&Cancellable> = None;
/// Keeps a verified commit in the repository until it is deployed.
pub const STAGED_REF: &str = "treeline/staged";

/// More bytes of kernel arguments than any kernel takes.
const KARGS_BYTES: usize = 16 * 1024;

/// What a commit must be to be accepted on this device.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Checksum, from the signed release.
    pub commit: &'a str,
    /// Product name.
    pub product: &'a str,
    /// Board id.
    pub board: &'a str,
    /// Public keys, base64.
    pub keys: &'a [String],
}

/// A commit that stands in the repository, complete, signed, and made for this product and board. Only a
/// value of this type can be deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Checksum.
    pub commit: String,
    /// Version in the commit's metadata.
    pub version: String,
    /// Kernel arguments for its deployments, without identity and `ostree=`.
    pub kargs: Vec<String>,
}

/// The commit, if an earlier run has brought it here completely.
pub fn present(repo: &Repo, wanted: &Wanted<'_>) -> Option<Verified> {
    match repo.load_commit(wanted.commit) {
        Ok((_, state)) if !state.contains(RepoCommitState::PARTIAL) => verify(repo, wanted).ok(),
        _ => None,
    }
}

/// Applies the delta in `file` (already checked by hash) and verifies what came out, in one transaction.
pub fn apply(repo: &Repo, file: &Path, wanted: &Wanted<'_>) -> Result<Verified> {
    repo.prepare_transaction(NONE)
        .context("preparing the repository")?;
    transact(repo, wanted, || {
        repo.static_delta_execute_offline(&gio::File::for_path(file), false, NONE)
            .map_err(|error| room_or(error, "applying the delta"))
    })
}

/// Ends the transaction that is open: `fill` brings the rest of the commit, then it is verified. What is not
/// accepted leaves no trace in the repository.
pub fn transact(
    repo: &Repo,
    wanted: &Wanted<'_>,
    fill: impl FnOnce() -> Result<()>,
) -> Result<Verified> {
    match fill().and_then(|()| verify(repo, wanted)) {
        Ok(verified) => {
            repo.transaction_set_ref(None, STAGED_REF, Some(wanted.commit));
            repo.commit_transaction(NONE)
                .map_err(|error| room_or(error, "writing into the repository"))?;
            stop_point::reach("applied");
            Ok(verified)
        }
        Err(error) => {
            // The first error is the one that matters; what an abort leaves is swept at the next start.
            let _ = repo.abort_transaction(NONE);
            Err(error)
        }
    }
}

/// An error of libostree, told apart from a full file system.
pub fn room_or(error: ostree::glib::Error, doing: &str) -> anyhow::Error {
    let full =
        error.matches(gio::IOErrorEnum::NoSpace) || error.message().contains("min-free-space");
    let kind = if full { Kind::Room } else { Kind::Other };
    Problem::new(kind, format!("{doing}: {}", error.message())).into()
}

/// Checks checksum, signature, product and board of a commit in the repository.
fn verify(repo: &Repo, wanted: &Wanted<'_>) -> Result<Verified> {
    let commit = repo
        .load_variant(ObjectType::Commit, wanted.commit)
        .map_err(|error| {
            distrust(
                wanted,
                &format!("not what the artefact holds: {}", error.message()),
            )
        })?;
    let detached = repo
        .read_commit_detached_metadata(wanted.commit, NONE)
        .with_context(|| format!("reading the signatures of commit {}", wanted.commit))?
        .unwrap_or_else(|| VariantDict::new(None).end());
    Ok(Verified {
        commit: wanted.commit.to_owned(),
        version: accept(&commit.data_as_bytes(), &detached, wanted)?,
        kargs: kernel_arguments(repo, wanted.commit)?,
    })
}

fn distrust(wanted: &Wanted<'_>, text: &str) -> Problem {
    Problem::new(Kind::Trust, format!("commit {}: {text}", wanted.commit))
}

/// Checks checksum, signature, product and board of a commit object with its detached metadata; returns its
/// version. What fails here fails again however the commit is fetched.
pub fn accept(commit: &[u8], detached: &Variant, wanted: &Wanted<'_>) -> Result<String> {
    if hex::encode(Sha256::digest(commit)) != wanted.commit {
        return Err(distrust(wanted, "the object does not have this checksum")
            .conclusive()
            .into());
    }
    keys::commit::verify(wanted.keys, commit, &signatures(detached)).map_err(|error| {
        distrust(wanted, &error.to_string())
            .hint("it was not signed with the product's commit key; nothing has been installed")
            .conclusive()
    })?;
    let commit = Variant::from_bytes_with_type(
        &ostree::glib::Bytes::from(commit),
        VariantTy::new("(a{sv}aya(say)sstayay)").context("naming the type of a commit")?,
    );
    let metadata = VariantDict::new(Some(&commit.child_value(0)));
    let text = |key: &str| metadata.lookup::<String>(key).ok().flatten();
    for (key, want) in [
        ("treeline.product", wanted.product),
        ("treeline.board", wanted.board),
    ] {
        let found = text(key).unwrap_or_default();
        if found != want {
            return Err(Problem::new(
                Kind::Refused,
                format!(
                    "commit {}: its {key} is \"{found}\", this device is \"{want}\"",
                    wanted.commit
                ),
            )
            .conclusive()
            .into());
        }
    }
    Ok(text("version").unwrap_or_default())
}

fn signatures(detached: &Variant) -> Vec<Vec<u8>> {
    let list: Option<Variant> = VariantDict::new(Some(detached))
        .lookup_value(keys::commit::METADATA_KEY, VariantTy::new("aay").ok());
    list.iter()
        .flat_map(|list| list.iter())
        .map(|signature| signature.data().to_vec())
        .collect()
}

/// Reads the kernel arguments from the commit itself: an update brings its own.
fn kernel_arguments(repo: &Repo, commit: &str) -> Result<Vec<String>> {
    let (root, _) = repo
        .read_commit(commit, NONE)
        .with_context(|| format!("reading the tree of commit {commit}"))?;
    let refused = |what: String| {
        Problem::new(
            Kind::Refused,
            format!("commit {commit}: reading usr/lib/device-agent/kargs: {what}"),
        )
        .hint("the release was not made by `builder`; it could not come back from a failed trial")
    };
    let file = root
        .resolve_relative_path("usr/lib/device-agent/kargs")
        .downcast::<RepoFile>()
        .map_err(|_| refused("not a file of the repository".into()))?;
    file.ensure_resolved()
        .map_err(|error| refused(error.message().to_owned()))?;
    // Through the object: the generic way of GIO assumes a plain file behind every stream.
    let (stream, _, _) = repo
        .load_file(&file.checksum(), NONE)
        .map_err(|error| refused(error.message().to_owned()))?;
    let stream = stream.ok_or_else(|| refused("not a plain file".into()))?;
    let mut content = vec![0; KARGS_BYTES];
    let (length, broken) = stream
        .read_all(&mut content, NONE)
        .map_err(|error| refused(error.message().to_owned()))?;
    if let Some(error) = broken {
        return Err(refused(error.message().to_owned()).into());
    }
    content.truncate(length);
    let args: Vec<String> = String::from_utf8_lossy(&content)
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    if !args.iter().any(|arg| arg.starts_with("root=")) {
        return Err(Problem::new(
            Kind::Refused,
            format!("commit {commit}: usr/lib/device-agent/kargs names no root file system"),
        )
        .into());
    }
    Ok(args)
}
