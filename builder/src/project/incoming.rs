//! Keys that come: made here, or named. Where people's keys have a passphrase, a key that is made has it too.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use base64::engine::general_purpose::STANDARD;
use base64::Engine as _;
use keys::keyfile::{self, passphrase, PrivateKey};
use keys::signer::{self, Signer};

use super::secrets;

/// Where a key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// It is made. It has a passphrase if people's keys in the directory have one, or if `encrypt` says so.
    Made {
        /// Gives it a passphrase in any case.
        encrypt: bool,
    },
    /// It is there: a key file, a signer's description, a `pkcs11:` URI, or a public key in base64 whose private
    /// half stays elsewhere.
    Named(&'a str),
}

impl Incoming<'_> {
    /// Puts the key `name` of the directory `dir` into the file `place` (`….pem`; a description into `….toml`), and
    /// says its public key. Of a public key there is no file.
    pub(super) fn put(&self, dir: &Path, name: &str, place: &Path) -> Result<[u8; 32]> {
        secrets::private_dir(place.parent().unwrap_or(dir))?;
        match *self {
            Self::Made { encrypt } => Ok(make(dir, name, place, encrypt)?.public_bytes()),
            Self::Named(uri) if signer::is_uri(uri) => on_token(uri, place),
            Self::Named(file) if Path::new(file).exists() => copy(file, place),
            Self::Named(text) => public(text),
        }
    }
}

fn on_token(uri: &str, place: &Path) -> Result<[u8; 32]> {
    let key = Signer::on_token(uri)?;
    let place = place.with_extension("toml");
    fs::write(&place, signer::description(uri, &key.public_base64()))
        .with_context(|| format!("writing {}", place.display()))?;
    Ok(key.public_bytes())
}

fn copy(file: &str, place: &Path) -> Result<[u8; 32]> {
    let kind = Path::new(file).extension().and_then(|kind| kind.to_str());
    let Some(kind @ ("pem" | "toml")) = kind else {
        bail!("{file}: a key is a file .pem, a signer is described by a file .toml");
    };
    let copy = place.with_extension(kind);
    fs::copy(file, &copy).with_context(|| format!("writing {}", copy.display()))?;
    Ok(Signer::open(place)?.public_bytes())
}

/// Reads a public key.
pub(super) fn public(text: &str) -> Result<[u8; 32]> {
    STANDARD
        .decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .with_context(|| {
            format!(
                "reading '{text}': it is neither a file nor the base64 of a public key of 32 bytes"
            )
        })
}

/// Makes the key `name` of the directory `dir` and writes it to the file `place`. Keys of the machine that publishes
/// (snapshot, timestamp) are encrypted only on demand: they sign by themselves.
pub fn make(dir: &Path, name: &str, place: &Path, encrypt: bool) -> Result<PrivateKey> {
    let key = PrivateKey::generate()?;
    match secret(dir, name, encrypt)? {
        Some(secret) => {
            key.save_new_encrypted(place, &secret)?;
            // A draft is signed with it at once: nobody types the same again.
            passphrase::remember(place, &secret);
        }
        None => key.save_new(place)?,
    }
    Ok(key)
}

fn secret(dir: &Path, name: &str, encrypt: bool) -> Result<Option<String>> {
    let by_itself = matches!(name, "snapshot" | "timestamp");
    match encrypted(dir)?.first() {
        Some(other) if encrypt || !by_itself => {
            // One passphrase opens all keys of a directory, so it must be the one that there is.
            PrivateKey::load(other).context("the new key gets the passphrase of the others")?;
            Ok(Some(passphrase::get(other)?))
        }
        None if encrypt => Ok(Some(passphrase::new(&dir.join(format!("{name}.pem")))?)),
        _ => Ok(None),
    }
}

/// The key files in `dir` that have a passphrase, in order.
fn encrypted(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "pem"))
        .filter(|path| keyfile::is_encrypted(path))
        .collect();
    found.sort();
    Ok(found)
}
