//! A product's keys: made once, never overwritten.
//!
//! `keys/` holds the ed25519 keys that sign releases and commits, the public `root.json` that devices
//! trust, and in `tls/` a certificate authority and a server certificate for `builder serve`.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{bail, Context, Result};
use keys::author::{create_root, Expiry, Keyring};
use keys::keyfile::PrivateKey;

use crate::serve::tls;

/// The private keys by file name without extension, in the order they are shown.
pub const ROLES: [&str; 5] = ["root", "targets", "snapshot", "timestamp", "commit"];

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
    let present: Vec<PathBuf> = ROLES
        .iter()
        .map(|role| dir.join(format!("{role}.pem")))
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
        signing_keys(dir)?;
    }
    tls::ensure(&dir.join("tls"), &host_name())?;
    Ok(made)
}

/// The public keys, by role.
pub fn public(dir: &Path) -> Result<Vec<(String, String)>> {
    ROLES
        .iter()
        .map(|role| {
            let key = PrivateKey::load(&dir.join(format!("{role}.pem")))
                .context("reading the product's keys; `builder keys init` makes them")?;
            Ok(((*role).to_string(), key.public_base64()))
        })
        .collect()
}

/// Writes the five keys, then `root.json`: its presence says that the set is complete.
fn signing_keys(dir: &Path) -> Result<()> {
    // In a scratch directory first, so that an interruption leaves no half a set.
    let scratch = scratch(dir)?;
    for role in ROLES {
        PrivateKey::generate()?.save_new(&scratch.path().join(format!("{role}.pem")))?;
    }
    let keyring = Keyring::in_dir(scratch.path());
    let root = create_root(&keyring, &Expiry::from(SystemTime::now()))
        .context("making root.json, which says whose signatures devices trust")?;
    for role in ROLES {
        let name = format!("{role}.pem");
        move_new(&scratch.path().join(&name), &dir.join(&name))?;
    }
    write_new(&dir.join("root.json"), &root, 0o644)
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

fn private_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("creating the key directory {}", dir.display()))
}

fn scratch(dir: &Path) -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(".making-")
        .tempdir_in(dir)
        .with_context(|| format!("creating a scratch directory in {}", dir.display()))
}

/// Moves, unless there is something of that name already.
fn move_new(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        bail!(
            "writing {}: it exists; keys are never overwritten",
            to.display()
        );
    }
    fs::rename(from, to).with_context(|| format!("writing {}", to.display()))
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<()> {
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
        for file in ["root.pem", "commit.pem", "tls/ca.key", "tls/server.key"] {
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
    fn keys_without_their_root_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("commit.pem"), "x").unwrap();
        let error = init(dir.path()).unwrap_err().to_string();
        assert!(error.contains("no root.json"), "{error}");
    }
}
