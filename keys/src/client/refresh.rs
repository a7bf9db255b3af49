//! The steps from a trusted root to verified top-level metadata, and the same for delegated roles.

use jiff::Timestamp as Time;

use super::datastore::Datastore;
use super::source::Source;
use super::ClientError;
use crate::tuf::metadata::{fits, MetaFile, Role, Root, Snapshot, Targets, Timestamp};
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
/// Root metadata that is trusted, and what it is compared with.
pub(super) struct Refresh<'a> {
    pub(super) source: &'a Source,
    pub(super) datastore: &'a Datastore,
    pub(super) now: Time,
    pub(super) root: Root,
}

impl Refresh<'_> {
    /// Section 5.3: from the trusted root to the newest, one version after the other, each signed by
    /// the one before and by itself.
    pub(super) async fn follow_roots(&mut self) -> Result<(), ClientError> {
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
    pub(super) async fn timestamp(&self) -> Result<Timestamp, ClientError> {
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
    pub(super) async fn snapshot(&self, timestamp: &Timestamp) -> Result<Snapshot, ClientError> {
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
pub(super) struct TargetsRole<'a> {
    pub(super) source: &'a Source,
    pub(super) datastore: &'a Datastore,
    pub(super) now: Time,
    pub(super) consistent: bool,
    pub(super) snapshot: &'a Snapshot,
}

impl TargetsRole<'_> {
    /// Section 5.6: as kept, if that is what the snapshot names, else from the server.
    pub(super) async fn load(
        &self,
        role: &str,
        signers: Signers<'_>,
    ) -> Result<Targets, ClientError> {
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
