//! Signatures on commits: `ostree.sign.ed25519` in a commit's detached metadata.
//!
//! libostree keeps there an `aay`: every element is a plain ed25519 signature over the bytes of
//! the commit object. Debian's libostree is built without ed25519, so it is checked here.

use aws_lc_rs::signature::{UnparsedPublicKey, ED25519};
use base64::engine::general_purpose::STANDARD;
use base64::Engine as _;

/// Key of the signatures in a commit's detached metadata.
pub const METADATA_KEY: &str = "ostree.sign.ed25519";

/// Bytes of a public key.
const KEY_LEN: usize = 32;
/// Bytes of a signature.
const SIGNATURE_LEN: usize = 64;

/// Why a commit is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// The commit bears no signature at all.
    #[error("checking the commit's signature: the commit is not signed; publish it again with the commit key")]
    Unsigned,
    /// No key is known that it could be checked with.
    #[error("checking the commit's signature: no commit key is configured")]
    NoKeys,
    /// A configured key, or every signature, does not have the right form.
    #[error("checking the commit's signature: {0}")]
    Malformed(String),
    /// Well-formed, but by none of the known keys, or over other bytes.
    #[error("checking the commit's signature: none of {signatures} signature(s) fits any of {keys} known key(s): signed with another key, or changed after signing")]
    Untrusted {
        /// How many signatures were tried.
        signatures: usize,
        /// With how many keys.
        keys: usize,
    },
}

/// Checks that one of `signatures` over the bytes of the commit object is by one of `keys`
/// (base64, 32 bytes each). One fitting pair suffices; a broken key or signature beside it does no
/// harm, and is named only when nothing fits.
pub fn verify(keys: &[String], commit: &[u8], signatures: &[Vec<u8>]) -> Result<(), CommitError> {
    if keys.is_empty() {
        return Err(CommitError::NoKeys);
    }
    if signatures.is_empty() {
        return Err(CommitError::Unsigned);
    }
    let decoded: Vec<Result<[u8; KEY_LEN], String>> =
        keys.iter().map(|key| decode_key(key)).collect();
    let good: Vec<&[u8; KEY_LEN]> = decoded.iter().flatten().collect();
    for key in &good {
        let key = UnparsedPublicKey::new(&ED25519, key);
        if signatures
            .iter()
            .any(|signature| key.verify(commit, signature).is_ok())
        {
            return Ok(());
        }
    }
    if let Some(Err(reason)) = decoded.iter().find(|key| key.is_err()) {
        return Err(CommitError::Malformed(reason.clone()));
    }
    if let Some(odd) = signatures.iter().find(|s| s.len() != SIGNATURE_LEN) {
        return Err(CommitError::Malformed(format!(
            "a signature has {} bytes, not {SIGNATURE_LEN}",
            odd.len()
        )));
    }
    Err(CommitError::Untrusted {
        signatures: signatures.len(),
        keys: good.len(),
    })
}

fn decode_key(key: &str) -> Result<[u8; KEY_LEN], String> {
    let bytes = STANDARD
        .decode(key.trim())
        .map_err(|e| format!("the configured commit key '{key}' is not base64: {e}"))?;
    let len = bytes.len();
    bytes
        .try_into()
        .map_err(|_| format!("the configured commit key '{key}' has {len} bytes, not {KEY_LEN}"))
}

#[cfg(test)]
mod tests;
