//! Root metadata signed by several people, each with a key of his own, far apart.
//!
//! A draft is root metadata that is not signed enough yet. It is carried from one key to the next as
//! a file; each adds a signature; when enough of the old and of the new root keys have signed, it is
//! the product's root metadata. Nothing here needs a network or any key but the one that signs.

use std::collections::HashMap;
use std::num::NonZeroU64;

use tough::schema::decoded::{Decoded, Hex};
use tough::schema::key::Key;
use tough::schema::{RoleKeys, RoleType, Root, Signature, Signed};

use super::{existing, next, public_key, time, write, AuthorError, Expiry, SPEC_VERSION};
use crate::keyfile::PrivateKey;
use crate::signer::Signer;

/// Public ed25519 keys of the roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleSet {
    /// Root keys.
    pub root: Vec<[u8; 32]>,
    /// How many of them must sign.
    pub threshold: NonZeroU64,
    /// Targets key.
    pub targets: [u8; 32],
    /// Snapshot key.
    pub snapshot: [u8; 32],
    /// Timestamp key.
    pub timestamp: [u8; 32],
}

/// A role whose keys root metadata names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TopRole {
    /// Root.
    Root,
    /// Targets.
    Targets,
    /// Snapshot.
    Snapshot,
    /// Timestamp.
    Timestamp,
}

/// What the next root metadata changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Nothing but how long it is valid.
    Renew,
    /// One key takes the place of another; of a role with one key, `old` may be left out.
    Replace {
        /// The role.
        role: TopRole,
        /// The key that goes.
        old: Option<[u8; 32]>,
        /// The key that comes; without one the role has a key less.
        new: Option<[u8; 32]>,
    },
    /// Another number of root signatures wanted.
    Threshold(NonZeroU64),
}

/// How far a draft is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Version of the draft.
    pub version: u64,
    /// When it expires, seconds since 1970.
    pub expires: i64,
    /// Root keys named in the draft: public key, and whether it has signed.
    pub keys: Vec<([u8; 32], bool)>,
    /// Signatures wanted of these.
    pub threshold: u64,
    /// The same of the root metadata before; empty for the first.
    pub before: Vec<([u8; 32], bool)>,
    /// Signatures wanted of those.
    pub before_threshold: u64,
}

impl Progress {
    /// Whether nothing is missing.
    pub fn complete(&self) -> bool {
        let enough = |keys: &[([u8; 32], bool)], threshold: u64| {
            keys.iter().filter(|(_, signed)| *signed).count() as u64 >= threshold
        };
        enough(&self.keys, self.threshold) && enough(&self.before, self.before_threshold)
    }
}

/// A draft of the first root metadata.
pub fn first(keys: &RoleSet, expiry: &Expiry) -> Result<Vec<u8>, AuthorError> {
    let mut root = Root {
        spec_version: SPEC_VERSION.to_owned(),
        consistent_snapshot: true,
        version: NonZeroU64::MIN,
        expires: time(expiry.root)?,
        keys: HashMap::new(),
        roles: HashMap::new(),
        _extra: HashMap::new(),
    };
    for (role, keys, threshold) in [
        (RoleType::Root, keys.root.as_slice(), keys.threshold),
        (RoleType::Targets, &[keys.targets], NonZeroU64::MIN),
        (RoleType::Snapshot, &[keys.snapshot], NonZeroU64::MIN),
        (RoleType::Timestamp, &[keys.timestamp], NonZeroU64::MIN),
    ] {
        let mut named = RoleKeys {
            keyids: Vec::new(),
            threshold,
            _extra: HashMap::new(),
        };
        for key in keys {
            let (id, key) = identified(*key)?;
            named.keyids.push(id.clone());
            root.keys.insert(id, key);
        }
        root.roles.insert(role, named);
    }
    draft(root)
}

/// A draft of the root metadata that follows `previous`.
pub fn following(
    previous: &[u8],
    change: &Change,
    expiry: &Expiry,
) -> Result<Vec<u8>, AuthorError> {
    let mut root = existing::parse_root(previous)?;
    root.version = next(Some(root.version))?;
    root.expires = time(expiry.root)?;
    match change {
        Change::Renew => {}
        Change::Threshold(threshold) => role_of(&mut root, TopRole::Root)?.threshold = *threshold,
        Change::Replace { role, old, new } => replace(&mut root, *role, *old, *new)?,
    }
    draft(root)
}

fn replace(
    root: &mut Root,
    role: TopRole,
    old: Option<[u8; 32]>,
    new: Option<[u8; 32]>,
) -> Result<(), AuthorError> {
    let named = role_of(root, role)?;
    let old = match old {
        Some(old) => identified(old)?.0,
        None if named.keyids.len() == 1 => named.keyids[0].clone(),
        None => {
            let keys = named.keyids.len();
            return Err(AuthorError::Root(format!(
                "the role has {keys} keys; say which one goes"
            )));
        }
    };
    let at = named.keyids.iter().position(|id| *id == old);
    let at = at.ok_or_else(|| {
        AuthorError::Root("the key that should go is none of this role's".to_owned())
    })?;
    named.keyids.remove(at);
    if let Some(new) = new {
        let (id, key) = identified(new)?;
        if root.roles.values().any(|role| role.keyids.contains(&id)) {
            return Err(AuthorError::Root(
                "the new key is in use already; every role has a key of its own".to_owned(),
            ));
        }
        role_of(root, role)?.keyids.insert(at, id.clone());
        root.keys.insert(id, key);
    }
    let used = |id: &Decoded<Hex>| root.roles.values().any(|role| role.keyids.contains(id));
    let unused: Vec<_> = root.keys.keys().filter(|id| !used(id)).cloned().collect();
    for id in unused {
        root.keys.remove(&id);
    }
    Ok(())
}

fn role_of(root: &mut Root, role: TopRole) -> Result<&mut RoleKeys, AuthorError> {
    let kind = match role {
        TopRole::Root => RoleType::Root,
        TopRole::Targets => RoleType::Targets,
        TopRole::Snapshot => RoleType::Snapshot,
        TopRole::Timestamp => RoleType::Timestamp,
    };
    root.roles
        .get_mut(&kind)
        .ok_or_else(|| AuthorError::Root(format!("it names no {kind} role")))
}

fn draft(root: Root) -> Result<Vec<u8>, AuthorError> {
    for (role, named) in &root.roles {
        let (has, wants) = (named.keyids.len() as u64, named.threshold.get());
        if has < wants {
            return Err(AuthorError::Root(format!(
                "the {role} role would have {has} key(s), and {wants} must sign"
            )));
        }
    }
    write::to_bytes(&Signed {
        signed: root,
        signatures: Vec::new(),
    })
}

/// Adds a signature to a draft; one by the same key is replaced.
pub fn sign(draft: &[u8], signer: &Signer) -> Result<Vec<u8>, AuthorError> {
    let sign = |message: &[u8]| Ok(signer.sign(message)?);
    add_signature(draft, signer.public_bytes(), sign)
}

/// The same with a key that is at hand.
pub fn sign_with_key(draft: &[u8], key: &PrivateKey) -> Result<Vec<u8>, AuthorError> {
    add_signature(draft, key.public_bytes(), |message| Ok(key.sign(message)))
}

/// Takes over the signatures that another copy of the same draft has got.
pub fn merge(draft: &[u8], other: &[u8]) -> Result<Vec<u8>, AuthorError> {
    let mut draft = parse(draft)?;
    let other = parse(other)?;
    if draft.signed != other.signed {
        return Err(AuthorError::Root(
            "the two files are not the same draft".to_owned(),
        ));
    }
    for signature in other.signatures {
        draft
            .signatures
            .retain(|known| known.keyid != signature.keyid);
        draft.signatures.push(signature);
    }
    write::to_bytes(&draft)
}

fn add_signature(
    draft: &[u8],
    public: [u8; 32],
    sign: impl Fn(&[u8]) -> Result<[u8; 64], AuthorError>,
) -> Result<Vec<u8>, AuthorError> {
    let mut draft = parse(draft)?;
    let (keyid, _) = identified(public)?;
    let message = tough::schema::Role::canonical_form(&draft.signed).map_err(AuthorError::json)?;
    let sig = sign(&message)?.to_vec().into();
    draft.signatures.retain(|known| known.keyid != keyid);
    draft.signatures.push(Signature { keyid, sig });
    write::to_bytes(&draft)
}

/// How far a draft is signed, `previous` being the root metadata before it.
pub fn progress(previous: Option<&[u8]>, draft: &[u8]) -> Result<Progress, AuthorError> {
    let draft = parse(draft)?;
    let previous = previous.map(existing::parse_root).transpose()?;
    if let Some(previous) = &previous {
        let (wanted, found) = (next(Some(previous.version))?, draft.signed.version);
        if wanted != found {
            return Err(AuthorError::Root(format!(
                "the draft has version {found}, the one after the product's is {wanted}"
            )));
        }
    }
    let (keys, threshold) = signed_by(&draft.signed, &draft)?;
    let (before, before_threshold) = match &previous {
        Some(previous) => signed_by(previous, &draft)?,
        None => (Vec::new(), 0),
    };
    Ok(Progress {
        version: draft.signed.version.get(),
        expires: draft.signed.expires.as_second(),
        keys,
        threshold,
        before,
        before_threshold,
    })
}

/// The root keys of `root`, and which of them have signed the draft.
#[expect(clippy::type_complexity, reason = "a list of pairs, and a number")]
fn signed_by(
    root: &Root,
    draft: &Signed<Root>,
) -> Result<(Vec<([u8; 32], bool)>, u64), AuthorError> {
    let role = root
        .roles
        .get(&RoleType::Root)
        .ok_or_else(|| AuthorError::Root("it names no root role".to_owned()))?;
    let mut found = Vec::new();
    for id in &role.keyids {
        let Some(Key::Ed25519 { keyval, .. }) = root.keys.get(id) else {
            continue;
        };
        let Ok(public) = <[u8; 32]>::try_from(&*keyval.public) else {
            continue;
        };
        found.push((public, has_signed(root, draft, id)));
    }
    Ok((found, role.threshold.get()))
}

/// Whether this one key has rightly signed: asked of a root that wants it alone.
fn has_signed(root: &Root, draft: &Signed<Root>, id: &Decoded<Hex>) -> bool {
    let mut alone = root.clone();
    if let Some(role) = alone.roles.get_mut(&RoleType::Root) {
        role.keyids = vec![id.clone()];
        role.threshold = NonZeroU64::MIN;
    }
    alone.verify_role(draft).is_ok()
}

/// The version of root metadata, whether signed enough or not.
pub fn version(root: &[u8]) -> Result<u64, AuthorError> {
    Ok(parse(root)?.signed.version.get())
}

/// When root metadata expires, seconds since 1970.
pub fn expires(root: &[u8]) -> Result<i64, AuthorError> {
    Ok(parse(root)?.signed.expires.as_second())
}

fn parse(draft: &[u8]) -> Result<Signed<Root>, AuthorError> {
    serde_json::from_slice(draft).map_err(|e| AuthorError::Root(e.to_string()))
}

fn identified(public: [u8; 32]) -> Result<(Decoded<Hex>, Key), AuthorError> {
    let key = public_key(public);
    Ok((key.key_id().map_err(AuthorError::json)?, key))
}
