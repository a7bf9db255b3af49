//! Writing release metadata: the host's side of The Update Framework.
//!
//! A repository is a plain directory that any web server can hand out: `1.root.json`,
//! `N.targets.json`, `N.snapshot.json`, `timestamp.json`, and the targets' contents in `targets/`
//! under their hashes. Nothing that a published file refers to is ever changed; a new state
//! appears by the one rename of `timestamp.json`, so a client sees the old state or the new one.
//!
//! What stands in the directory is checked before it is signed again: whoever can write to the
//! web server must not get his targets signed by the next publication.

mod error;
mod existing;
mod publish;
pub mod root;
#[cfg(test)]
pub(crate) mod tests;
mod write;

use std::collections::HashMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use jiff::Timestamp as Time;
use sha2::{Digest as _, Sha256};
use tough::schema::key::{Ed25519Key, Ed25519Scheme, Key};
use tough::schema::{Hashes, Metafile, Role, RoleKeys, RoleType, Root, Signature, Signed, Target};

pub use error::AuthorError;
pub use publish::{delegate, publish, refresh, Delegation};

use crate::release::is_target_name;
use crate::signer::Signer;

/// Version of the specification that the metadata follows.
const SPEC_VERSION: &str = "1.0.0";
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long root metadata is valid: it is signed by hand and far apart.
pub const ROOT_VALID: Duration = DAY.saturating_mul(3653);
/// How long targets metadata is valid.
pub const TARGETS_VALID: Duration = DAY.saturating_mul(365);
/// How long snapshot metadata is valid.
pub const SNAPSHOT_VALID: Duration = DAY.saturating_mul(30);
/// How long timestamp metadata is valid: the longest time for which an old state can be passed
/// off as the newest, and the time within which something must be published again.
pub const TIMESTAMP_VALID: Duration = DAY.saturating_mul(30);

/// The private keys of the four roles, as files.
#[derive(Debug, Clone)]
pub struct Keyring {
    /// Signs root metadata: needed by [`create_root`] and [`next_root`] only, best kept offline.
    pub root: PathBuf,
    /// Signs what is offered.
    pub targets: PathBuf,
    /// Signs the consistent set of metadata.
    pub snapshot: PathBuf,
    /// Signs which set is the newest.
    pub timestamp: PathBuf,
    /// The directory of the keys of delegated roles: `targets-NAME.pem` signs what is left to NAME.
    pub delegated: PathBuf,
}

impl Keyring {
    /// The key of a delegated role.
    pub fn of(&self, role: &str) -> PathBuf {
        self.delegated.join(format!("targets-{role}.pem"))
    }

    /// The usual names in a directory of keys: `root.pem`, `targets.pem`, ….
    pub fn in_dir(dir: &Path) -> Self {
        Self {
            root: dir.join("root.pem"),
            targets: dir.join("targets.pem"),
            snapshot: dir.join("snapshot.pem"),
            timestamp: dir.join("timestamp.pem"),
            delegated: dir.to_owned(),
        }
    }
}

/// Until when new metadata is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// Root metadata.
    pub root: SystemTime,
    /// Targets metadata.
    pub targets: SystemTime,
    /// Snapshot metadata.
    pub snapshot: SystemTime,
    /// Timestamp metadata.
    pub timestamp: SystemTime,
}

impl Expiry {
    /// The default times of validity, counted from `now`.
    pub fn from(now: SystemTime) -> Self {
        Self {
            root: now + ROOT_VALID,
            targets: now + TARGETS_VALID,
            snapshot: now + SNAPSHOT_VALID,
            timestamp: now + TIMESTAMP_VALID,
        }
    }
}

/// What [`publish`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// Version of the new timestamp metadata.
    pub timestamp_version: u64,
    /// How many targets are offered now.
    pub targets: usize,
}

/// Makes the first root metadata, `1.root.json`: one key a role, one signature wanted.
pub fn create_root(keyring: &Keyring, expiry: &Expiry) -> Result<Vec<u8>, AuthorError> {
    let root = root(keyring, NonZeroU64::MIN, expiry)?;
    let signed = sign(&root, root.clone(), &keyring.root)?;
    write::to_bytes(&signed)
}

/// Makes the root metadata that follows `previous`, for replaced keys or a later expiry. It is
/// signed with `previous_root_key` too: that is how devices in the field come to trust it.
pub fn next_root(
    previous: &[u8],
    previous_root_key: &Path,
    keyring: &Keyring,
    expiry: &Expiry,
) -> Result<Vec<u8>, AuthorError> {
    let previous = existing::parse_root(previous)?;
    let root = root(keyring, next(Some(previous.version))?, expiry)?;
    let mut signed = sign(&root, root.clone(), &keyring.root)?;
    let by_previous = sign(&previous, root, previous_root_key)?;
    for signature in by_previous.signatures {
        if !signed.signatures.contains(&signature) {
            signed.signatures.push(signature);
        }
    }
    write::to_bytes(&signed)
}

fn root(keyring: &Keyring, version: NonZeroU64, expiry: &Expiry) -> Result<Root, AuthorError> {
    let mut keys = HashMap::new();
    let mut roles = HashMap::new();
    for (role, file) in [
        (RoleType::Root, &keyring.root),
        (RoleType::Targets, &keyring.targets),
        (RoleType::Snapshot, &keyring.snapshot),
        (RoleType::Timestamp, &keyring.timestamp),
    ] {
        let key = public_key(Signer::open(file)?.public_bytes());
        let id = key.key_id().map_err(AuthorError::json)?;
        let role_keys = RoleKeys {
            keyids: vec![id.clone()],
            threshold: NonZeroU64::MIN,
            _extra: HashMap::new(),
        };
        roles.insert(role, role_keys);
        keys.insert(id, key);
    }
    Ok(Root {
        spec_version: SPEC_VERSION.to_owned(),
        consistent_snapshot: true,
        version,
        expires: time(expiry.root)?,
        keys,
        roles,
        _extra: HashMap::new(),
    })
}

/// The content of a target in the repository in `server_dir`, its signatures and hash checked but
/// not its time of validity: what was published last, even if it has expired since.
pub fn target(
    root_json: &[u8],
    server_dir: &Path,
    name: &str,
) -> Result<Option<Vec<u8>>, AuthorError> {
    let root = existing::parse_root(root_json)?;
    match existing::read(server_dir, &root)? {
        Some(existing) => existing.target(server_dir, name),
        None => Ok(None),
    }
}

/// The names of the targets that the repository in `server_dir` offers, sorted.
pub fn target_names(root_json: &[u8], server_dir: &Path) -> Result<Vec<String>, AuthorError> {
    let root = existing::parse_root(root_json)?;
    let Some(existing) = existing::read(server_dir, &root)? else {
        return Ok(Vec::new());
    };
    let mut names: Vec<String> = existing
        .delegated
        .values()
        .chain([&existing.targets])
        .flat_map(|role| role.targets.keys())
        .map(|name| name.raw().to_owned())
        .collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// A role of the published state: its name, its version, and when it expires, seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validity {
    /// `targets`, `snapshot`, `timestamp` or the name of a delegated role.
    pub role: String,
    /// Version.
    pub version: u64,
    /// When it expires.
    pub expires: i64,
}

/// What is published and until when it is valid; nothing if nothing has been published.
pub fn validity(root_json: &[u8], server_dir: &Path) -> Result<Vec<Validity>, AuthorError> {
    let root = existing::parse_root(root_json)?;
    let Some(state) = existing::read(server_dir, &root)? else {
        return Ok(Vec::new());
    };
    fn of<T: Role>(name: &str, role: &T) -> Validity {
        Validity {
            role: name.to_owned(),
            version: role.version().get(),
            expires: role.expires().as_second(),
        }
    }
    let mut found = vec![of("targets", &state.targets)];
    found.extend(state.delegated.iter().map(|(name, role)| of(name, role)));
    found.push(of("snapshot", &state.snapshot));
    found.push(of("timestamp", &state.timestamp));
    Ok(found)
}

/// Writes a target's content under its hash and describes it.
fn add_target(server_dir: &Path, name: &str, content: &[u8]) -> Result<Target, AuthorError> {
    if !is_target_name(name) {
        return Err(AuthorError::Name {
            name: name.to_owned(),
        });
    }
    let sha256 = Sha256::digest(content).to_vec();
    let file = format!("{}.{name}", hex::encode(&sha256));
    write::replace(&server_dir.join("targets").join(file), content)?;
    Ok(Target {
        length: content.len() as u64,
        hashes: hashes(sha256),
        custom: HashMap::new(),
        _extra: HashMap::new(),
    })
}

/// Signs one role's metadata, writes it, and describes the file for the role above.
fn role<T: Role + Clone>(
    root: &Root,
    role: T,
    key_file: &Path,
    server_dir: &Path,
) -> Result<Metafile, AuthorError> {
    let version = role.version();
    let file = server_dir.join(role.filename(true));
    let bytes = write::to_bytes(&sign(root, role, key_file)?)?;
    write::replace(&file, &bytes)?;
    Ok(described(&bytes, version))
}

/// A metadata file as the role above describes it.
fn described(bytes: &[u8], version: NonZeroU64) -> Metafile {
    Metafile {
        length: Some(bytes.len() as u64),
        hashes: Some(hashes(Sha256::digest(bytes).to_vec())),
        version,
        _extra: HashMap::new(),
    }
}

/// Signs, and checks the result as a client would: a key that the root does not name is found
/// here, not in the field.
fn sign<T: Role>(root: &Root, role: T, key_file: &Path) -> Result<Signed<T>, AuthorError> {
    let key = Signer::open(key_file)?;
    let keyid = public_key(key.public_bytes())
        .key_id()
        .map_err(AuthorError::json)?;
    let message = role.canonical_form().map_err(AuthorError::json)?;
    let signed = Signed {
        signed: role,
        signatures: vec![Signature {
            keyid,
            sig: key.sign(&message)?.to_vec().into(),
        }],
    };
    root.verify_role(&signed).map_err(|e| AuthorError::Key {
        role: T::TYPE.to_string(),
        file: key_file.to_owned(),
        reason: e.to_string(),
    })?;
    Ok(signed)
}

fn public_key(public: [u8; 32]) -> Key {
    Key::Ed25519 {
        keyval: Ed25519Key {
            public: public.to_vec().into(),
            _extra: HashMap::new(),
        },
        scheme: Ed25519Scheme::Ed25519,
        _extra: HashMap::new(),
    }
}

fn hashes(sha256: Vec<u8>) -> Hashes {
    Hashes {
        sha256: sha256.into(),
        _extra: HashMap::new(),
    }
}

fn next(version: Option<NonZeroU64>) -> Result<NonZeroU64, AuthorError> {
    match version {
        None => Ok(NonZeroU64::MIN),
        Some(version) => version.checked_add(1).ok_or(AuthorError::Versions),
    }
}

/// Whole seconds: the specification's form of a time has no fraction.
fn time(time: SystemTime) -> Result<Time, AuthorError> {
    Time::try_from(time)
        .and_then(|time| Time::from_second(time.as_second()))
        .map_err(|e| AuthorError::Expiry(e.to_string()))
}
