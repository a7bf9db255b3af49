//! The client's workflow of The Update Framework (specification, section 5): what is fetched in
//! which order, and what each piece must fulfil before the next is believed.
//!
//! Every piece is kept only when it has passed all checks. A piece is at most as long, and comes at
//! least as fast, as is fixed here, whatever the server says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use jiff::Timestamp as Time;
use url::Url;

use super::datastore::Datastore;
use super::{ClientError, Transport};
use crate::tuf::metadata::{fits, MetaFile, Role, Root, Snapshot, Target, Targets, Timestamp};
use crate::tuf::signed::{Signers, Unverified};

/// Bytes beyond which root metadata is refused unread.
const MAX_ROOT: u64 = 256 * 1024;
/// The same for timestamp metadata.
const MAX_TIMESTAMP: u64 = 64 * 1024;
/// The same for snapshot metadata.
const MAX_SNAPSHOT: u64 = 1024 * 1024;
/// The same for targets metadata: room for some ten thousand releases.
const MAX_TARGETS: u64 = 4 * 1024 * 1024;
/// Roots followed in one go. What was followed is kept, so the next attempt goes on from there.
const MAX_ROOTS: u32 = 1024;
/// Roles looked into for one target.
const MAX_ROLES: usize = 32;
/// A file may take this long, and a second more for every so many bytes.
const PATIENCE: Duration = match cfg!(test) {
    false => Duration::from_secs(120),
    true => Duration::from_millis(200),
};
const SLOWEST: u64 = 512;

/// Up-to-date, verified metadata of one repository.
#[derive(Debug)]
pub struct Updater {
    source: Source,
    datastore: Datastore,
    now: Time,
    root: Root,
    timestamp: Timestamp,
    snapshot: Snapshot,
    targets: Targets,
}

/// Where metadata comes from.
#[derive(Debug)]
struct Source {
    transport: Arc<dyn Transport>,
    metadata: Url,
}

/// Root metadata that is trusted, and what it is compared with.
struct Refresh<'a> {
    source: &'a Source,
    datastore: &'a Datastore,
    now: Time,
    root: Root,
}

impl Updater {
    /// Brings the metadata kept in the directory `dir` up to date with that at `metadata`. `dir`
    /// must hold a trusted `root.json`.
    pub async fn refresh(
        dir: &Path,
        metadata: &Url,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, ClientError> {
        let datastore = Datastore::at(dir);
        let root = datastore.read("root").ok_or_else(|| {
            ClientError::TrustedRoot(format!("there is no root.json in {}", dir.display()))
        })?;
        Self::refresh_from(&root, datastore, metadata, transport).await
    }

    pub(super) async fn refresh_from(
        root: &[u8],
        datastore: Datastore,
        metadata: &Url,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, ClientError> {
        let source = Source {
            transport,
            metadata: metadata.clone(),
        };
        let bytes = root;
        let root = Unverified::<Root>::parse(bytes)
            .and_then(Unverified::verify_by_itself)
            .map_err(ClientError::TrustedRoot)?;
        datastore.write("root", bytes)?;
        let mut refresh = Refresh {
            source: &source,
            datastore: &datastore,
            now: Time::now(),
            root,
        };
        refresh.follow_roots().await?;
        let timestamp = refresh.timestamp().await?;
        let snapshot = refresh.snapshot(&timestamp).await?;
        let Refresh { now, root, .. } = refresh;
        let signers = root.signers(&root.roles.targets);
        let role = TargetsRole {
            source: &source,
            datastore: &datastore,
            now,
            consistent: root.consistent_snapshot,
            snapshot: &snapshot,
        };
        let targets = role.load("targets", signers).await?;
        Ok(Self {
            source,
            datastore,
            now,
            root,
            timestamp,
            snapshot,
            targets,
        })
    }

    /// When the first piece of the top-level metadata expires, seconds since 1970.
    pub fn expires(&self) -> i64 {
        [
            self.root.expires(),
            self.timestamp.expires(),
            self.snapshot.expires(),
            self.targets.expires(),
        ]
        .iter()
        .map(|time| time.as_second())
        .min()
        .unwrap_or(0)
    }

    /// Looks for a target, first in the top-level metadata, then in the roles that it leaves this
    /// name to: in their order, each with those below it before the next (pre-order, depth first).
    ///
    /// A role reached on two ways is checked against the keys of the one by which it was reached.
    pub async fn find(&self, name: &str) -> Result<Option<Found>, ClientError> {
        let role = TargetsRole {
            source: &self.source,
            datastore: &self.datastore,
            now: self.now,
            consistent: self.root.consistent_snapshot,
            snapshot: &self.snapshot,
        };
        let mut loaded: BTreeMap<String, Targets> = BTreeMap::new();
        let mut visited = BTreeSet::from(["targets".to_owned()]);
        if let Some(target) = self.targets.targets.get(name) {
            return Ok(Some(Found::new(name, target)));
        }
        // Each with the role that delegates to it; the last one is next.
        let mut open: Vec<(String, String)> = Vec::new();
        push(&mut open, "targets", &self.targets, name);
        while let Some((child, parent)) = open.pop() {
            if visited.len() > MAX_ROLES {
                return Ok(None);
            }
            if !visited.insert(child.clone()) {
                continue;
            }
            let by = loaded.get(&parent).unwrap_or(&self.targets);
            let Some(signers) = by.delegations.as_ref().and_then(|d| d.signers(&child)) else {
                continue;
            };
            let targets = role.load(&child, signers).await?;
            if let Some(target) = targets.targets.get(name) {
                return Ok(Some(Found::new(name, target)));
            }
            push(&mut open, &child, &targets, name);
            loaded.insert(child, targets);
        }
        Ok(None)
    }

    /// The content of a target below `base`, checked. Nothing is read of one that has more than
    /// `limit` bytes.
    pub async fn read(
        &self,
        found: &Found,
        base: &Url,
        limit: u64,
    ) -> Result<Vec<u8>, ClientError> {
        let length = found.target.length;
        if length > limit {
            return Err(ClientError::TooLarge {
                what: found.name.clone(),
                limit,
            });
        }
        let url = found.url(base, self.root.consistent_snapshot)?;
        let bytes = self.source.read(&url, length).await?;
        found
            .check(&bytes)
            .map_err(|reason| ClientError::Tampered {
                what: url.to_string(),
                reason,
            })?;
        Ok(bytes)
    }
}

/// Puts the roles that `targets` leaves a name to before all others, the first of them last.
fn push(open: &mut Vec<(String, String)>, role: &str, targets: &Targets, name: &str) {
    let Some(delegations) = &targets.delegations else {
        return;
    };
    let mut children = delegations.candidates(name);
    if let Some(last) = children.iter().position(|child| child.terminating) {
        children.truncate(last + 1);
        open.clear();
    }
    let children = children.into_iter().rev();
    open.extend(children.map(|child| (child.name, role.to_owned())));
}

/// A target that signed metadata describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    name: String,
    target: Target,
}

impl Found {
    fn new(name: &str, target: &Target) -> Self {
        Self {
            name: name.to_owned(),
            target: target.clone(),
        }
    }

    /// Bytes it has.
    pub fn length(&self) -> u64 {
        self.target.length
    }

    /// Whether these bytes are it; if not, what differs.
    pub fn check(&self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() as u64 != self.target.length {
            return Err(format!(
                "it has {} bytes, signed are {}",
                bytes.len(),
                self.target.length
            ));
        }
        if !fits(&self.target.hashes, bytes) {
            return Err("its hash is not the one that was signed".to_owned());
        }
        Ok(())
    }

    /// Where it is: with consistent snapshots its hash stands before the file's name.
    fn url(&self, base: &Url, consistent: bool) -> Result<Url, ClientError> {
        let (dir, file) = match self.name.rsplit_once('/') {
            Some((dir, file)) => (Some(dir), file),
            None => (None, self.name.as_str()),
        };
        let hashes = &self.target.hashes;
        let hash = hashes.get("sha256").or_else(|| hashes.get("sha512"));
        let file = match hash {
            Some(hash) if consistent => format!("{hash}.{file}"),
            _ => file.to_owned(),
        };
        let dirs = dir.into_iter().flat_map(|dir| dir.split('/'));
        below(base, dirs.chain([file.as_str()]))
    }
}

/// An address below another one; no part of it can leave that place.
fn below<'a>(base: &Url, parts: impl Iterator<Item = &'a str>) -> Result<Url, ClientError> {
    let mut url = base.clone();
    let refused = |what: &str| ClientError::Malformed {
        what: format!("a name below {base}"),
        reason: format!("'{what}' cannot be part of an address"),
    };
    let mut segments = url
        .path_segments_mut()
        .map_err(|()| refused(base.as_str()))?;
    segments.pop_if_empty();
    for part in parts {
        if part.is_empty() || part == "." || part == ".." {
            return Err(refused(part));
        }
        segments.push(part);
    }
    drop(segments);
    Ok(url)
}

impl Source {
    /// Reads a metadata file. `role` may be any text; it is one part of the address.
    async fn metadata(
        &self,
        version: Option<u64>,
        role: &str,
        limit: u64,
    ) -> Result<Vec<u8>, ClientError> {
        let file = match version {
            Some(version) => format!("{version}.{role}.json"),
            None => format!("{role}.json"),
        };
        let url = below(&self.metadata, std::iter::once(file.as_str()))?;
        self.read(&url, limit).await
    }

    /// Reads a file of at most `limit` bytes that does not come more slowly than is bearable.
    async fn read(&self, url: &Url, limit: u64) -> Result<Vec<u8>, ClientError> {
        let failed = |error| ClientError::from_transport(&error);
        let begun = Instant::now();
        let mut stream = self.transport.fetch(url.clone()).await.map_err(failed)?;
        let mut bytes: Vec<u8> = Vec::new();
        while let Some(chunk) = stream.try_next().await.map_err(failed)? {
            if bytes.len() as u64 + chunk.len() as u64 > limit {
                return Err(ClientError::TooLarge {
                    what: url.to_string(),
                    limit,
                });
            }
            bytes.extend_from_slice(&chunk);
            let patience = PATIENCE + Duration::from_secs(bytes.len() as u64 / SLOWEST);
            if begun.elapsed() > patience {
                return Err(ClientError::Network {
                    url: url.to_string(),
                    reason: format!(
                        "after {} s only {} bytes had come",
                        begun.elapsed().as_secs(),
                        bytes.len()
                    ),
                });
            }
        }
        Ok(bytes)
    }
}

impl Refresh<'_> {
    /// Section 5.3: from the trusted root to the newest, one version after the other, each signed by
    /// the one before and by itself.
    async fn follow_roots(&mut self) -> Result<(), ClientError> {
        for _ in 0..MAX_ROOTS {
            let next = self.root.version().get().saturating_add(1);
            let bytes = match self.source.metadata(Some(next), "root", MAX_ROOT).await {
                Err(ClientError::NotOnServer { .. }) => {
                    return not_expired("root", self.root.expires(), self.now);
                }
                fetched => fetched?,
            };
            let new = parse::<Root>("root", &bytes)?;
            new.check(self.root.root_signers())
                .map_err(|reason| signature("root", reason))?;
            let new = new
                .verify_by_itself()
                .map_err(|reason| signature("root", reason))?;
            if new.version().get() != next {
                return Err(version_differs("root", new.version().get(), next));
            }
            self.datastore.write("root", &bytes)?;
            self.root = new;
        }
        Err(ClientError::Other(format!(
            "the server has more than {MAX_ROOTS} newer root metadata files; the next check goes on from there"
        )))
    }

    /// Section 5.4.
    async fn timestamp(&self) -> Result<Timestamp, ClientError> {
        let signers = self.root.signers(&self.root.roles.timestamp);
        let old = self.kept::<Timestamp>(signers);
        let bytes = self
            .source
            .metadata(None, "timestamp", MAX_TIMESTAMP)
            .await?;
        let new = verified::<Timestamp>("timestamp", &bytes, signers)?;
        if let Some(old) = old {
            let (had, has) = (old.version(), new.version());
            if has < had {
                return Err(rollback("timestamp", has.get(), had.get()));
            }
            if has == had {
                // The same version never brings anything else than what was seen first.
                not_expired("timestamp", old.expires(), self.now)?;
                return Ok(old);
            }
            let (had, has) = (old.meta.snapshot.version, new.meta.snapshot.version);
            if has < had {
                return Err(rollback("snapshot in the timestamp", has.get(), had.get()));
            }
        }
        not_expired("timestamp", new.expires(), self.now)?;
        self.datastore.write("timestamp", &bytes)?;
        Ok(new)
    }

    /// Section 5.5.
    async fn snapshot(&self, timestamp: &Timestamp) -> Result<Snapshot, ClientError> {
        let signers = self.root.signers(&self.root.roles.snapshot);
        let meta = &timestamp.meta.snapshot;
        let old = match self.kept::<Snapshot>(signers) {
            Some(old) if old.version() == meta.version && old.expires() > self.now => {
                return Ok(old);
            }
            old => old,
        };
        let version = self.root.consistent_snapshot.then(|| meta.version.get());
        let limit = limit(meta, "snapshot", MAX_SNAPSHOT)?;
        let bytes = self.source.metadata(version, "snapshot", limit).await?;
        described("snapshot", &bytes, meta)?;
        let new = verified::<Snapshot>("snapshot", &bytes, signers)?;
        for (file, had) in old.iter().flat_map(|old| &old.meta) {
            let has = new.meta.get(file).ok_or_else(|| {
                ClientError::Rollback(format!("the snapshot does not name {file} any more"))
            })?;
            if has.version < had.version {
                return Err(rollback(file, has.version.get(), had.version.get()));
            }
        }
        if new.version() != meta.version {
            return Err(version_differs(
                "snapshot",
                new.version().get(),
                meta.version.get(),
            ));
        }
        not_expired("snapshot", new.expires(), self.now)?;
        self.datastore.write("snapshot", &bytes)?;
        Ok(new)
    }

    /// What is kept of a role, if it is still signed as it must be; its age does not matter here.
    fn kept<T: Role>(&self, signers: Signers<'_>) -> Option<T> {
        let bytes = self.datastore.read(T::TYPE)?;
        verified(T::TYPE, &bytes, signers).ok()
    }
}

/// What targets metadata, top-level and delegated, is checked against.
struct TargetsRole<'a> {
    source: &'a Source,
    datastore: &'a Datastore,
    now: Time,
    consistent: bool,
    snapshot: &'a Snapshot,
}

impl TargetsRole<'_> {
    /// Section 5.6: as kept, if that is what the snapshot names, else from the server.
    async fn load(&self, role: &str, signers: Signers<'_>) -> Result<Targets, ClientError> {
        let meta = self.snapshot.meta.get(&format!("{role}.json"));
        let meta = meta.ok_or_else(|| ClientError::Malformed {
            what: "snapshot metadata".to_owned(),
            reason: format!("it does not name {role}.json"),
        })?;
        if let Some(kept) = self.datastore.read(role) {
            if let Ok(targets) = self.check(role, &kept, meta, signers) {
                return Ok(targets);
            }
        }
        let version = self.consistent.then(|| meta.version.get());
        let limit = limit(meta, role, MAX_TARGETS)?;
        let bytes = self.source.metadata(version, role, limit).await?;
        let targets = self.check(role, &bytes, meta, signers)?;
        self.datastore.write(role, &bytes)?;
        Ok(targets)
    }

    fn check(
        &self,
        role: &str,
        bytes: &[u8],
        meta: &MetaFile,
        signers: Signers<'_>,
    ) -> Result<Targets, ClientError> {
        described(role, bytes, meta)?;
        let targets = verified::<Targets>(role, bytes, signers)?;
        if targets.version() != meta.version {
            return Err(version_differs(
                role,
                targets.version().get(),
                meta.version.get(),
            ));
        }
        not_expired(role, targets.expires(), self.now)?;
        Ok(targets)
    }
}

fn parse<T: Role>(role: &str, bytes: &[u8]) -> Result<Unverified<T>, ClientError> {
    Unverified::parse(bytes).map_err(|reason| ClientError::Malformed {
        what: format!("{role} metadata"),
        reason,
    })
}

fn verified<T: Role>(role: &str, bytes: &[u8], signers: Signers<'_>) -> Result<T, ClientError> {
    parse::<T>(role, bytes)?
        .verify(signers)
        .map_err(|reason| signature(role, reason))
}

/// Length and hash that the role above gives, where it gives them.
fn described(role: &str, bytes: &[u8], meta: &MetaFile) -> Result<(), ClientError> {
    let length = meta
        .length
        .is_none_or(|length| length == bytes.len() as u64);
    let hash = meta.hashes.as_ref().is_none_or(|h| fits(h, bytes));
    if length && hash {
        return Ok(());
    }
    Err(ClientError::Tampered {
        what: format!("{role} metadata"),
        reason: "its length or hash is not the one that was signed".to_owned(),
    })
}

/// Bytes that may be read of a described file.
fn limit(meta: &MetaFile, role: &str, max: u64) -> Result<u64, ClientError> {
    match meta.length {
        Some(length) if length > max => Err(ClientError::TooLarge {
            what: format!("{role} metadata"),
            limit: max,
        }),
        length => Ok(length.unwrap_or(max)),
    }
}

fn not_expired(role: &str, expires: Time, now: Time) -> Result<(), ClientError> {
    if expires > now {
        return Ok(());
    }
    Err(ClientError::Expired {
        role: role.to_owned(),
        now: now.to_string(),
    })
}

fn signature(role: &str, reason: String) -> ClientError {
    ClientError::Signature {
        role: role.to_owned(),
        reason,
    }
}

fn rollback(what: &str, found: u64, seen: u64) -> ClientError {
    ClientError::Rollback(format!("{what} has version {found}, seen was {seen}"))
}

fn version_differs(role: &str, found: u64, named: u64) -> ClientError {
    ClientError::Tampered {
        what: format!("{role} metadata"),
        reason: format!("it has version {found}, wanted is {named}"),
    }
}
