//! Signed metadata, and the check that enough keys have signed it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use serde::Deserialize;
use serde_json::Value;

use super::canonical::canonical;
use super::key::Key;
use super::metadata::{Role, Root};

/// Metadata with its signatures, read but not yet trusted.
#[derive(Debug, Clone)]
pub(crate) struct Unverified<T> {
    content: T,
    message: Vec<u8>,
    signatures: Vec<Signature>,
}

#[derive(Debug, Clone, Deserialize)]
struct Signature {
    keyid: String,
    sig: String,
}

#[derive(Deserialize)]
struct Envelope {
    signed: Value,
    signatures: Vec<Signature>,
}

/// The keys that may sign a role.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Signers<'a> {
    pub(crate) keys: &'a BTreeMap<String, Key>,
    pub(crate) keyids: &'a [String],
    pub(crate) threshold: NonZeroU32,
}

impl<T: Role> Unverified<T> {
    /// Reads metadata; says what is wrong with it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let kind = envelope.signed.get("_type").and_then(Value::as_str);
        if kind != Some(T::TYPE) {
            return Err(format!("it is not {} metadata by its '_type'", T::TYPE));
        }
        // The specification promises compatibility within a major version.
        let spec = envelope.signed.get("spec_version").and_then(Value::as_str);
        if !spec.is_some_and(|spec| spec == "1" || spec.starts_with("1.")) {
            return Err("its 'spec_version' is not 1.x".to_owned());
        }
        let message =
            canonical(&envelope.signed).ok_or("it has a number that is not whole".to_owned())?;
        let content = T::deserialize(envelope.signed).map_err(|e| e.to_string())?;
        Ok(Self {
            content,
            message,
            signatures: envelope.signatures,
        })
    }

    /// The content, if enough of the keys have signed; else what is missing.
    pub(crate) fn verify(self, signers: Signers<'_>) -> Result<T, String> {
        self.check(signers)?;
        Ok(self.content)
    }

    /// Checks the signatures. One key counts once, whatever ids it has.
    pub(crate) fn check(&self, signers: Signers<'_>) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        let mut valid = BTreeSet::new();
        for signature in &self.signatures {
            if !seen.insert(&signature.keyid) {
                return Err(format!("key {} has signed twice", short(&signature.keyid)));
            }
            if !signers.keyids.contains(&signature.keyid) {
                continue;
            }
            let Some(key) = signers.keys.get(&signature.keyid) else {
                continue;
            };
            let Ok(sig) = hex::decode(&signature.sig) else {
                continue;
            };
            if key.verify(&self.message, &sig) {
                valid.insert(key.material());
            }
        }
        let wanted = signers.threshold.get() as usize;
        if valid.len() < wanted {
            return Err(format!(
                "{} of {wanted} wanted signatures are by keys of this role",
                valid.len()
            ));
        }
        Ok(())
    }
}

impl Unverified<Root> {
    /// Root metadata says itself who signs it.
    pub(crate) fn verify_by_itself(self) -> Result<Root, String> {
        self.check(self.content.root_signers())?;
        Ok(self.content)
    }
}

impl Root {
    /// Who signs root metadata.
    pub(crate) fn root_signers(&self) -> Signers<'_> {
        self.signers(&self.roles.root)
    }

    /// The signers of a top-level role.
    pub(crate) fn signers<'a>(&'a self, role: &'a super::metadata::RoleKeys) -> Signers<'a> {
        Signers {
            keys: &self.keys,
            keyids: &role.keyids,
            threshold: role.threshold,
        }
    }
}

/// Enough of a key id to know it by; it may be any text.
fn short(id: &str) -> String {
    id.chars().take(16).collect()
}
