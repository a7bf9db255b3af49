//! A product's keys: made once, never overwritten.
//!
//! `keys/` holds the ed25519 keys that sign releases and commits, the public `root.json` that devices
//! trust, and in `tls/` a certificate authority and a server certificate for `builder serve`. Of the
//! root keys (`root-1.pem`, …) several must sign together; they belong on other machines.

use std::fs;
use std::num::NonZeroU64;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{bail, Context, Result};
use keys::author::root::{self, RoleSet};
use keys::author::Expiry;
use keys::keyfile::{passphrase, PrivateKey};
use keys::signer::Signer;

use crate::serve::tls;

/// The private keys beside those of root, by file name without extension, in the order they are shown.
pub const ROLES: [&str; 4] = ["targets", "snapshot", "timestamp", "commit"];

/// How keys are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// Root keys.
    pub root_keys: u8,
    /// How many of them must sign.
    pub root_threshold: u8,
    /// Encrypts the keys that are not needed by the machine that publishes: root, targets, commit.
    pub encrypt: bool,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            root_keys: 3,
            root_threshold: 2,
            encrypt: false,
        }
    }
}

/// What [`init`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// The signing keys and `root.json`.
    pub signing: bool,
    /// The certificates for `builder serve`.
    pub tls: bool,
}

/// Makes what is missing in `dir`: the signing keys if there are none, the certificates if there are
/// none. What is there stays as it is; half a set of signing keys is an error, because a new key
/// beside an old `root.json` would be of no use.
pub fn init(dir: &Path) -> Result<Made> {
    init_as(dir, Wish::default())
}

/// The same, with keys as wished.
pub fn init_as(dir: &Path, wish: Wish) -> Result<Made> {
    let present: Vec<PathBuf> = ROLES
        .iter()
        .map(|role| dir.join(format!("{role}.pem")))
        .chain(root_keys(dir))
        .chain([dir.join("root.json")])
        .filter(|path| path.exists())
        .collect();
    if !present.is_empty() && !dir.join("root.json").exists() {
        bail!(
            "making keys in {}: {} is there, but no root.json that says who may sign; \
             restore root.json from a copy, or move the directory away to begin with new keys",
            dir.display(),
            present[0].display()
        );
    }
    private_dir(dir)?;
    let made = Made {
        signing: present.is_empty(),
        tls: !dir.join("tls/ca.pem").exists(),
    };
    if made.signing {
        signing_keys(dir, wish)?;
    }
    tls::ensure(&dir.join("tls"), &host_name())?;
    Ok(made)
}

/// The root keys that are here, in order: `root-1.pem`, …, or the `root.pem` of earlier products. A
/// signing program (`root-1.toml`) counts as its key.
pub fn root_keys(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| {
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let kind = path.extension().is_some_and(|e| e == "pem" || e == "toml");
            kind && (stem == "root" || stem.starts_with("root-"))
        })
        .map(|path| path.with_extension("pem"))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// The public keys of the keys that are here, by role.
pub fn public(dir: &Path) -> Result<Vec<(String, String)>> {
    let others = ROLES.iter().map(|role| dir.join(format!("{role}.pem")));
    root_keys(dir)
        .into_iter()
        .chain(others)
        .map(|path| {
            let key = Signer::open(&path)
                .context("reading the product's keys; `builder keys init` makes them")?;
            let role = path.file_stem().unwrap_or_default().to_string_lossy();
            Ok((role.into_owned(), key.public_base64()))
        })
        .collect()
}

/// Writes the keys, then `root.json`: its presence says that the set is complete.
fn signing_keys(dir: &Path, wish: Wish) -> Result<()> {
    let threshold = NonZeroU64::new(u64::from(wish.root_threshold))
        .filter(|_| wish.root_threshold <= wish.root_keys)
        .with_context(|| {
            format!(
                "making keys: {} of {} root keys cannot sign",
                wish.root_threshold, wish.root_keys
            )
        })?;
    let roots: Vec<String> = (1..=wish.root_keys).map(|i| format!("root-{i}")).collect();
    let names = roots.iter().map(String::as_str).chain(ROLES);
    let secret = wish
        .encrypt
        .then(|| passphrase::new(&dir.join("root-1.pem")))
        .transpose()?;
    // In a scratch directory first, so that an interruption leaves no half a set.
    let scratch = scratch(dir)?;
    let mut made = Vec::new();
    for name in names {
        let key = PrivateKey::generate()?;
        let path = scratch.path().join(format!("{name}.pem"));
        // What signs by itself every few days cannot be asked for a passphrase.
        match &secret {
            Some(secret) if !["snapshot", "timestamp"].contains(&name) => {
                key.save_new_encrypted(&path, secret)?;
            }
            _ => key.save_new(&path)?,
        }
        made.push((name.to_owned(), key));
    }
    let root = first_root(&made, threshold)
        .context("making root.json, which says whose signatures devices trust")?;
    for (name, _) in &made {
        let name = format!("{name}.pem");
        move_new(&scratch.path().join(&name), &dir.join(&name))?;
    }
    // By rename: a full disk leaves no half of it.
    let whole = scratch.path().join("root.json");
    write_new(&whole, &root, 0o644)?;
    move_new(&whole, &dir.join("root.json"))
}

fn first_root(made: &[(String, PrivateKey)], threshold: NonZeroU64) -> Result<Vec<u8>> {
    let named = |wanted: &str| {
        made.iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, key)| key.public_bytes())
            .with_context(|| format!("there is no {wanted} key"))
    };
    let roots = || made.iter().filter(|(name, _)| name.starts_with("root-"));
    let set = RoleSet {
        root: roots().map(|(_, key)| key.public_bytes()).collect(),
        threshold,
        targets: named("targets")?,
        snapshot: named("snapshot")?,
        timestamp: named("timestamp")?,
    };
    let mut draft = root::first(&set, &Expiry::from(SystemTime::now()))?;
    for (_, key) in roots() {
        draft = root::sign_with_key(&draft, key)?;
    }
    Ok(draft)
}

/// This machine's name, if a certificate can carry it.
fn host_name() -> Vec<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim().to_lowercase();
    let usable = !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    if usable {
        vec![name]
    } else {
        Vec::new()
    }
}

pub(crate) fn private_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("creating the key directory {}", dir.display()))
}

pub(crate) fn scratch(dir: &Path) -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(".making-")
        .tempdir_in(dir)
        .with_context(|| format!("creating a scratch directory in {}", dir.display()))
}

/// Moves, unless there is something of that name already.
pub(crate) fn move_new(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        bail!(
            "writing {}: it exists; keys are never overwritten",
            to.display()
        );
    }
    fs::rename(from, to).with_context(|| format!("writing {}", to.display()))
}

pub(crate) fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("creating {}", path.display()))?;
    std::io::Write::write_all(&mut file, content)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_made_once_and_belong_to_their_owner() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let both = Made {
            signing: true,
            tls: true,
        };
        assert_eq!(init(&keys).unwrap(), both);
        assert_eq!(mode(&keys), 0o700);
        for file in [
            "root-1.pem",
            "root-3.pem",
            "commit.pem",
            "tls/ca.key",
            "tls/server.key",
        ] {
            assert_eq!(mode(&keys.join(file)), 0o600, "{file}");
        }
        let before = fs::read(keys.join("root.json")).unwrap();
        let none = Made {
            signing: false,
            tls: false,
        };
        assert_eq!(init(&keys).unwrap(), none);
        assert_eq!(fs::read(keys.join("root.json")).unwrap(), before);
        let left: Vec<_> = fs::read_dir(&keys)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with('.'))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn root_keys_are_two_of_three() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path()).unwrap();
        assert_eq!(root_keys(dir.path()).len(), 3);
        let root = fs::read(dir.path().join("root.json")).unwrap();
        let progress = root::progress(None, &root).unwrap();
        assert!(progress.complete());
        assert_eq!((progress.keys.len(), progress.threshold), (3, 2));
        let names: Vec<String> = public(dir.path())
            .unwrap()
            .into_iter()
            .map(|k| k.0)
            .collect();
        let wanted = [
            "root-1",
            "root-2",
            "root-3",
            "targets",
            "snapshot",
            "timestamp",
            "commit",
        ];
        assert_eq!(names, wanted);
        // Taken away to where they belong.
        for key in root_keys(dir.path()) {
            fs::remove_file(key).unwrap();
        }
        assert_eq!(public(dir.path()).unwrap().len(), 4);
        let wish = Wish {
            root_keys: 1,
            ..Wish::default()
        };
        let other = tempfile::tempdir().unwrap();
        let error = init_as(other.path(), wish).unwrap_err().to_string();
        assert!(error.contains("2 of 1"), "{error}");
    }

    #[test]
    fn keys_without_their_root_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("commit.pem"), "x").unwrap();
        let error = init(dir.path()).unwrap_err().to_string();
        assert!(error.contains("no root.json"), "{error}");
    }
}
