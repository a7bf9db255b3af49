//! The client's workflow of The Update Framework (specification, section 5): what is fetched in
//! which order, and what each piece must fulfil before the next is believed.
//!
//! Every piece is kept only when it has passed all checks. A piece is at most as long, and comes at
//! least as fast, as is fixed here, whatever the server says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp as Time;
use url::Url;

use super::datastore::Datastore;
use super::found::Found;
use super::refresh::{Refresh, TargetsRole};
use super::source::Source;
use super::{ClientError, Transport};
use crate::tuf::metadata::{Role as _, Root, Snapshot, Targets, Timestamp};
use crate::tuf::signed::Unverified;

/// Roles looked into for one target.
const MAX_ROLES: usize = 32;

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
        let length = found.length();
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
