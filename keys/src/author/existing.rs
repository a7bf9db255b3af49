//! Reading what has been published, checked as strictly as a client does, but whatever its age.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tough::schema::{Metafile, PathSet, Role, Root, Signed, Snapshot, Targets, Timestamp};
use tough::TargetName;

use super::AuthorError;
use crate::tuf::pattern::matches;

/// The published state.
pub(super) struct Existing {
    pub(super) timestamp: Timestamp,
    pub(super) snapshot: Snapshot,
    pub(super) targets: Targets,
    /// The roles that the targets metadata leaves targets to.
    pub(super) delegated: BTreeMap<String, Targets>,
}

impl Existing {
    pub(super) fn target(&self, dir: &Path, name: &str) -> Result<Option<Vec<u8>>, AuthorError> {
        let Ok(key) = TargetName::new(name) else {
            return Ok(None);
        };
        let below = delegates(&self.targets, name).filter_map(|role| self.delegated.get(role));
        let mut roles = std::iter::once(&self.targets).chain(below);
        let Some(target) = roles.find_map(|role| role.targets.get(&key)) else {
            return Ok(None);
        };
        let path = dir
            .join("targets")
            .join(format!("{}.{name}", hex::encode(&*target.hashes.sha256)));
        let bytes = fs::read(&path).map_err(AuthorError::io("reading", &path))?;
        check_hash(&path, &bytes, &target.hashes.sha256)?;
        Ok(Some(bytes))
    }
}

/// Reads root metadata and checks that it is signed by its own keys.
pub(super) fn parse_root(bytes: &[u8]) -> Result<Root, AuthorError> {
    let root: Signed<Root> =
        serde_json::from_slice(bytes).map_err(|e| AuthorError::Root(e.to_string()))?;
    root.signed
        .verify_role(&root)
        .map_err(|e| AuthorError::Root(e.to_string()))?;
    Ok(root.signed)
}

/// Devices follow the root metadata one version at a time, to the last one: the product's own must
/// be that one, with no gap before it.
pub(super) fn check_chain(dir: &Path, root: &Root) -> Result<(), AuthorError> {
    let own = root.version.get();
    let file = |version: u64| dir.join(format!("{version}.root.json"));
    let newer = file(own.saturating_add(1));
    if newer.exists() {
        return Err(AuthorError::Chain {
            path: newer,
            reason: format!(
                "it is newer than the product's root metadata (version {own}); use the newest"
            ),
        });
    }
    let before = file(own - 1);
    if (1..own - 1).any(|version| file(version).exists()) && !before.exists() {
        return Err(AuthorError::Chain {
            path: before,
            reason: "it is missing, and devices cannot pass over it; put it there first".to_owned(),
        });
    }
    Ok(())
}

/// Reads the published state; `None` if nothing was published yet.
pub(super) fn read(dir: &Path, root: &Root) -> Result<Option<Existing>, AuthorError> {
    let roots = roots(dir, root)?;
    let path = dir.join("timestamp.json");
    let Some(bytes) = read_file(&path)? else {
        return nothing_published(dir).map(|()| None);
    };
    let timestamp: Timestamp = verified(&roots, &path, &bytes)?;
    let (path, bytes) = named(
        dir,
        &path,
        timestamp.meta.get("snapshot.json"),
        "snapshot.json",
    )?;
    let snapshot: Snapshot = verified(&roots, &path, &bytes)?;
    let (path, bytes) = named(
        dir,
        &path,
        snapshot.meta.get("targets.json"),
        "targets.json",
    )?;
    let targets: Targets = verified(&roots, &path, &bytes)?;
    let delegated = delegated(dir, &path, &snapshot, &targets)?;
    Ok(Some(Existing {
        timestamp,
        snapshot,
        targets,
        delegated,
    }))
}

/// The metadata of the roles that `targets` delegates to, as the snapshot names it.
fn delegated(
    dir: &Path,
    from: &Path,
    snapshot: &Snapshot,
    targets: &Targets,
) -> Result<BTreeMap<String, Targets>, AuthorError> {
    let mut found = BTreeMap::new();
    let Some(delegations) = &targets.delegations else {
        return Ok(found);
    };
    for role in &delegations.roles {
        let file = format!("{}.json", role.name);
        let (path, bytes) = named(dir, from, snapshot.meta.get(&file), &file)?;
        let signed: Signed<Targets> =
            serde_json::from_slice(&bytes).map_err(|e| AuthorError::existing(&path, e))?;
        delegations
            .verify_role(&signed, &role.name)
            .map_err(|e| AuthorError::existing(&path, e))?;
        found.insert(role.name.clone(), signed.signed);
    }
    Ok(found)
}

/// The roles that `targets` leaves a target to, in order.
pub(super) fn delegates<'a>(
    targets: &'a Targets,
    name: &'a str,
) -> impl Iterator<Item = &'a str> + 'a {
    let roles = targets.delegations.iter().flat_map(|known| &known.roles);
    roles.filter_map(move |role| {
        let PathSet::Paths(patterns) = &role.paths else {
            return None;
        };
        let fits = patterns.iter().any(|p| matches(p.value(), name));
        fits.then_some(role.name.as_str())
    })
}

/// The root metadata that published files may be signed under: the product's own, and earlier
/// ones in the directory so far as the product's own root key signed them as well. (After a key of
/// another role was replaced, what is published is still signed with the old one.)
fn roots(dir: &Path, root: &Root) -> Result<Vec<Root>, AuthorError> {
    let mut roots = vec![root.clone()];
    for version in (1..root.version.get()).rev() {
        let Some(bytes) = read_file(&dir.join(format!("{version}.root.json")))? else {
            break;
        };
        match serde_json::from_slice::<Signed<Root>>(&bytes) {
            Ok(older)
                if older.signed.version.get() == version && root.verify_role(&older).is_ok() =>
            {
                roots.push(older.signed);
            }
            _ => break,
        }
    }
    Ok(roots)
}

/// Without `timestamp.json` nothing is published, except that a first publication may have been
/// cut off. Later versions mean that the file was lost: starting again at version 1 would look
/// like a rollback to every device.
fn nothing_published(dir: &Path) -> Result<(), AuthorError> {
    let second = dir.join("2.snapshot.json");
    if second.exists() {
        return Err(AuthorError::existing(
            &dir.join("timestamp.json"),
            "it is missing beside later metadata",
        ));
    }
    Ok(())
}

/// Reads the file that metadata names, and checks its hash.
fn named(
    dir: &Path,
    from: &Path,
    meta: Option<&Metafile>,
    name: &str,
) -> Result<(PathBuf, Vec<u8>), AuthorError> {
    let meta =
        meta.ok_or_else(|| AuthorError::existing(from, format!("it does not name {name}")))?;
    let path = dir.join(format!("{}.{name}", meta.version));
    let bytes = fs::read(&path).map_err(AuthorError::io("reading", &path))?;
    if let Some(hashes) = &meta.hashes {
        check_hash(&path, &bytes, &hashes.sha256)?;
    }
    Ok((path, bytes))
}

fn check_hash(path: &Path, bytes: &[u8], sha256: &[u8]) -> Result<(), AuthorError> {
    if Sha256::digest(bytes).as_slice() == sha256 {
        return Ok(());
    }
    Err(AuthorError::existing(
        path,
        "its SHA-256 is not the one that was signed",
    ))
}

fn verified<T: Role + Serialize + DeserializeOwned>(
    roots: &[Root],
    path: &Path,
    bytes: &[u8],
) -> Result<T, AuthorError> {
    let signed: Signed<T> =
        serde_json::from_slice(bytes).map_err(|e| AuthorError::existing(path, e))?;
    let mut refused = String::new();
    for root in roots {
        match root.verify_role(&signed) {
            Ok(()) => return Ok(signed.signed),
            Err(e) if refused.is_empty() => refused = e.to_string(),
            Err(_) => {}
        }
    }
    Err(AuthorError::existing(path, refused))
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, AuthorError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(AuthorError::io("reading", path)(e)),
    }
}
