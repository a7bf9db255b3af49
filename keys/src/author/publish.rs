//! A new state of the repository: what changes is signed, from the leaves to the one file that makes
//! it current.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::Path;

use tough::schema::{
    DelegatedRole, Delegations, Metafile, PathPattern, PathSet, Role as _, Root, Signature, Signed,
    Snapshot, Targets, Timestamp,
};
use tough::TargetName;

use super::existing::{self, delegates, Existing};
use super::{
    add_target, described, next, public_key, role, time, write, AuthorError, Expiry, Keyring,
    Published, SPEC_VERSION,
};
use crate::release::is_target_name;
use crate::signer::Signer;

/// A part of the targets that another key signs for: those of a product or of a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegation {
    /// Name of the role; its key is `targets-NAME.pem`.
    pub name: String,
    /// Its targets, as patterns of their names (`*`, `?`, `[…]`).
    pub patterns: Vec<String>,
}

/// Adds targets (name, content) to the repository in `server_dir`, replacing those of the same
/// name, and publishes the result; makes the repository if there is none. With nothing to add it
/// renews the times of validity.
///
/// A target that is left to a delegated role is signed by the key of that role alone: the targets
/// key is needed for the others only.
///
/// `root_json` is the product's trusted root metadata; what is in the directory must be signed as
/// it says.
pub fn publish(
    root_json: &[u8],
    keyring: &Keyring,
    server_dir: &Path,
    add: Vec<(String, Vec<u8>)>,
    expiry: &Expiry,
) -> Result<Published, AuthorError> {
    let mut state = State::open(root_json, keyring, server_dir, expiry)?;
    write::create_dir(&server_dir.join("targets"))?;
    let renew = add.is_empty();
    for (name, content) in &add {
        let target = add_target(server_dir, name, content)?;
        let key =
            TargetName::new(name.as_str()).map_err(|_| AuthorError::Name { name: name.clone() })?;
        let by = delegates(&state.targets, name).next().map(str::to_owned);
        match by.and_then(|role| state.delegated.get_mut(&role)) {
            Some(role) => {
                role.changed = true;
                role.targets.targets.insert(key, target);
            }
            None => {
                state.targets_changed = true;
                state.targets.targets.insert(key, target);
            }
        }
    }
    if renew {
        state.targets_changed = true;
        for (name, role) in &mut state.delegated {
            role.changed = Signer::open(&keyring.of(name)).is_ok();
        }
    }
    state.targets_changed |= state.first;
    state.write(root_json)
}

/// Renews the snapshot and the timestamp: what the machine that publishes does every few days
/// without the key of anything that can be installed.
pub fn refresh(
    root_json: &[u8],
    keyring: &Keyring,
    server_dir: &Path,
    expiry: &Expiry,
) -> Result<Published, AuthorError> {
    let state = State::open(root_json, keyring, server_dir, expiry)?;
    if state.first {
        return Err(AuthorError::existing(
            server_dir,
            "nothing has been published there yet",
        ));
    }
    state.write(root_json)
}

/// Leaves targets to a role of their own, whose key stands in the keyring. Those of these names that
/// are there already go over to it. The targets key signs it.
pub fn delegate(
    root_json: &[u8],
    keyring: &Keyring,
    server_dir: &Path,
    delegation: &Delegation,
    expiry: &Expiry,
) -> Result<Published, AuthorError> {
    let name = &delegation.name;
    let top = ["root", "targets", "snapshot", "timestamp"].contains(&name.as_str());
    if top || !is_target_name(name) {
        return Err(AuthorError::Delegation {
            name: name.clone(),
            reason: "the name is not a plain one of its own".to_owned(),
        });
    }
    let mut state = State::open(root_json, keyring, server_dir, expiry)?;
    let public = Signer::open(&keyring.of(name))?.public_bytes();
    let key = public_key(public);
    let keyid = key.key_id().map_err(AuthorError::json)?;
    let patterns: Result<Vec<_>, _> = delegation
        .patterns
        .iter()
        .map(|pattern| PathPattern::new(pattern.as_str()))
        .collect();
    let patterns = patterns.map_err(|e| AuthorError::Delegation {
        name: name.clone(),
        reason: e.to_string(),
    })?;
    let delegations = state
        .targets
        .delegations
        .get_or_insert_with(Delegations::new);
    delegations.roles.retain(|role| role.name != *name);
    delegations.roles.push(DelegatedRole {
        name: name.clone(),
        keyids: vec![keyid.clone()],
        threshold: NonZeroU64::MIN,
        paths: PathSet::Paths(patterns),
        // Nobody else signs for these targets.
        terminating: true,
        targets: None,
    });
    delegations.keys.insert(keyid, key);
    let used: Vec<_> = delegations
        .roles
        .iter()
        .flat_map(|role| role.keyids.clone())
        .collect();
    delegations.keys.retain(|id, _| used.contains(id));
    state.targets_changed = true;
    state.hand_over(name, expiry)?;
    state.write(root_json)
}

/// A delegated role and whether it is signed anew.
struct Delegated {
    targets: Targets,
    changed: bool,
}

/// What becomes the next state.
struct State<'a> {
    root: Root,
    keyring: &'a Keyring,
    dir: &'a Path,
    expiry: &'a Expiry,
    first: bool,
    timestamp_version: Option<NonZeroU64>,
    snapshot: Snapshot,
    targets: Targets,
    targets_changed: bool,
    delegated: BTreeMap<String, Delegated>,
}

impl<'a> State<'a> {
    fn open(
        root_json: &[u8],
        keyring: &'a Keyring,
        dir: &'a Path,
        expiry: &'a Expiry,
    ) -> Result<Self, AuthorError> {
        let root = existing::parse_root(root_json)?;
        existing::check_chain(dir, &root)?;
        let existing = existing::read(dir, &root)?;
        let first = existing.is_none();
        let (timestamp_version, snapshot, targets, delegated) = match existing {
            None => (
                None,
                Snapshot::new(
                    SPEC_VERSION.to_owned(),
                    NonZeroU64::MIN,
                    time(expiry.snapshot)?,
                ),
                empty(expiry)?,
                BTreeMap::new(),
            ),
            Some(Existing {
                timestamp,
                mut snapshot,
                targets,
                delegated,
            }) => {
                snapshot.version = next(Some(snapshot.version))?;
                snapshot.expires = time(expiry.snapshot)?;
                (Some(timestamp.version), snapshot, targets, delegated)
            }
        };
        let delegated = delegated.into_iter().map(|(name, targets)| {
            let changed = false;
            (name, Delegated { targets, changed })
        });
        Ok(Self {
            delegated: delegated.collect(),
            root,
            keyring,
            dir,
            expiry,
            first,
            timestamp_version,
            snapshot,
            targets,
            targets_changed: false,
        })
    }

    /// Gives a delegated role the targets whose names are left to it.
    fn hand_over(&mut self, name: &str, expiry: &Expiry) -> Result<(), AuthorError> {
        let mut role = match self.delegated.remove(name) {
            Some(role) => role.targets,
            None => {
                let mut new = empty(expiry)?;
                // `write` raises it. A version of an earlier role of this name must not come again.
                let before = self.snapshot.meta.get(&format!("{name}.json"));
                new.version = before.map_or(NonZeroU64::MIN, |meta| meta.version);
                new
            }
        };
        let all = std::mem::take(&mut self.targets.targets);
        for (target, described) in all {
            let by = delegates(&self.targets, target.raw()).next();
            let place = match by {
                Some(by) if by == name => &mut role.targets,
                _ => &mut self.targets.targets,
            };
            place.insert(target, described);
        }
        let targets = role;
        let changed = true;
        self.delegated
            .insert(name.to_owned(), Delegated { targets, changed });
        Ok(())
    }

    fn write(mut self, root_json: &[u8]) -> Result<Published, AuthorError> {
        write::create_dir(self.dir)?;
        let root_name = format!("{}.root.json", self.root.version);
        write::once(&self.dir.join(root_name), root_json)?;
        for (name, role) in &mut self.delegated {
            if role.changed {
                role.targets.version = next(Some(role.targets.version))?;
                role.targets.expires = time(self.expiry.targets)?;
                let meta =
                    sign_delegated(self.keyring, self.dir, name, &self.targets, &role.targets)?;
                self.snapshot.meta.insert(format!("{name}.json"), meta);
            }
        }
        if self.targets_changed {
            if !self.first {
                self.targets.version = next(Some(self.targets.version))?;
            }
            self.targets.expires = time(self.expiry.targets)?;
            let targets = self.targets.clone();
            let meta = role(&self.root, targets, &self.keyring.targets, self.dir)?;
            self.snapshot.meta.insert("targets.json".to_owned(), meta);
        } else {
            self.still_signed()?;
        }
        let count = self
            .delegated
            .values()
            .map(|role| role.targets.targets.len());
        let targets = count.sum::<usize>() + self.targets.targets.len();
        let snapshot = role(&self.root, self.snapshot, &self.keyring.snapshot, self.dir)?;
        let mut timestamp = Timestamp::new(
            SPEC_VERSION.to_owned(),
            next(self.timestamp_version)?,
            time(self.expiry.timestamp)?,
        );
        timestamp.meta.insert("snapshot.json".to_owned(), snapshot);
        let timestamp_version = timestamp.version.get();
        role(&self.root, timestamp, &self.keyring.timestamp, self.dir)?;
        Ok(Published {
            timestamp_version,
            targets,
        })
    }

    /// What is not signed anew must be signed by the targets key of today: after it was replaced,
    /// devices would refuse the rest.
    fn still_signed(&self) -> Result<(), AuthorError> {
        let path = self
            .dir
            .join(format!("{}.targets.json", self.targets.version));
        let bytes = std::fs::read(&path).map_err(AuthorError::io("reading", &path))?;
        let signed: Signed<Targets> =
            serde_json::from_slice(&bytes).map_err(|e| AuthorError::existing(&path, e))?;
        self.root
            .verify_role(&signed)
            .map_err(|e| AuthorError::Key {
                role: "targets".to_owned(),
                file: path,
                reason: format!("{e}; publish with the targets key first"),
            })
    }
}

fn empty(expiry: &Expiry) -> Result<Targets, AuthorError> {
    let mut targets = Targets::new(
        SPEC_VERSION.to_owned(),
        NonZeroU64::MIN,
        time(expiry.targets)?,
    );
    targets.delegations = None;
    Ok(targets)
}

/// Signs a delegated role's metadata, checks it as a client would, and writes it.
fn sign_delegated(
    keyring: &Keyring,
    dir: &Path,
    name: &str,
    by: &Targets,
    targets: &Targets,
) -> Result<Metafile, AuthorError> {
    let file = keyring.of(name);
    let signer = Signer::open(&file)?;
    let key = public_key(signer.public_bytes());
    let message = targets.canonical_form().map_err(AuthorError::json)?;
    let signed = Signed {
        signed: targets.clone(),
        signatures: vec![Signature {
            keyid: key.key_id().map_err(AuthorError::json)?,
            sig: signer.sign(&message)?.to_vec().into(),
        }],
    };
    let delegations = by.delegations.clone().unwrap_or_default();
    delegations
        .verify_role(&signed, name)
        .map_err(|e| AuthorError::Key {
            role: name.to_owned(),
            file,
            reason: e.to_string(),
        })?;
    let bytes = write::to_bytes(&signed)?;
    write::replace(
        &dir.join(format!("{}.{name}.json", targets.version)),
        &bytes,
    )?;
    Ok(described(&bytes, targets.version))
}
