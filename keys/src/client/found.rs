//! A target that has been found: what it must be, and where it is.

use url::Url;

use super::source::below;
use super::ClientError;
use crate::tuf::metadata::{fits, Target};

/// A target that signed metadata describes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub(super) name: String,
    target: Target,
}

impl Found {
    pub(super) fn new(name: &str, target: &Target) -> Self {
        Self {
            name: name.to_owned(),
            target: target.clone(),
        }
    }

    /// Bytes it has.
    pub fn length(&self) -> u64 {
        self.target.length
    }

    /// Whether these bytes are it; if not, what differs.
    pub fn check(&self, bytes: &[u8]) -> Result<(), String> {
        if bytes.len() as u64 != self.target.length {
            return Err(format!(
                "it has {} bytes, signed are {}",
                bytes.len(),
                self.target.length
            ));
        }
        if !fits(&self.target.hashes, bytes) {
            return Err("its hash is not the one that was signed".to_owned());
        }
        Ok(())
    }

    /// Where it is: with consistent snapshots its hash stands before the file's name.
    pub(super) fn url(&self, base: &Url, consistent: bool) -> Result<Url, ClientError> {
        let (dir, file) = match self.name.rsplit_once('/') {
            Some((dir, file)) => (Some(dir), file),
            None => (None, self.name.as_str()),
        };
        let hashes = &self.target.hashes;
        let hash = hashes.get("sha256").or_else(|| hashes.get("sha512"));
        let file = match hash {
            Some(hash) if consistent => format!("{hash}.{file}"),
            _ => file.to_owned(),
        };
        let dirs = dir.into_iter().flat_map(|dir| dir.split('/'));
        below(base, dirs.chain([file.as_str()]))
    }
}
