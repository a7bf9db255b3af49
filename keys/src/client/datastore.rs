//! The directory in which the last seen metadata is kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use tough::schema::{Root, Signed};

use super::ClientError;

/// Name that `tough` gives to the file with the latest time it has seen.
const KNOWN_TIME: &str = "latest_known_time.json";
/// Name that `tough` gives to the newest root metadata.
const ROOT: &str = "root.json";

/// The directory for one trusted root.
#[derive(Debug)]
pub(super) struct Datastore {
    dir: PathBuf,
}

impl Datastore {
    /// The directory for this root below `parent`. Every root has its own: what was seen under the
    /// keys of another product (or of development) says nothing under these.
    pub(super) fn prepare(parent: &Path, trusted_root: &[u8]) -> Result<Self, ClientError> {
        let id = hex::encode(&Sha256::digest(trusted_root)[..8]);
        let datastore = Self {
            dir: parent.join(id),
        };
        match fs::create_dir_all(&datastore.dir) {
            Ok(()) => Ok(datastore),
            // Something that is no directory stands in the way.
            Err(_) if parent.is_file() || datastore.dir.is_file() => {
                if parent.is_file() {
                    fs::remove_file(parent).map_err(|e| datastore.error(&e))?;
                }
                datastore.recreate()?;
                Ok(datastore)
            }
            Err(e) => Err(datastore.error(&e)),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Throws the memory away. What is lost is the protection against an older state that has not
    /// expired; a device that can never update again would be worse.
    pub(super) fn recreate(&self) -> Result<(), ClientError> {
        let removed = match fs::symlink_metadata(&self.dir) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&self.dir),
            Ok(_) => fs::remove_file(&self.dir),
            Err(_) => Ok(()),
        };
        removed
            .and_then(|()| fs::create_dir_all(&self.dir))
            .map_err(|e| self.error(&e))
    }

    /// Forgets the latest known time. `tough` refuses to work when the clock is behind it, which is
    /// the normal state of a device without a battery-backed clock that has been off (and of one
    /// whose clock was once wrong). The versions in the datastore still protect against an older
    /// state; expiry is judged by the clock as it is now.
    pub(super) fn forget_time(&self) -> Result<(), ClientError> {
        match fs::remove_file(self.dir.join(KNOWN_TIME)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.error(&e)),
            _ => Ok(()),
        }
    }

    /// The root metadata to start from: the newest seen under this trusted root, else that root.
    /// (`tough` stores it and never reads it, so a server could hide a root that revokes a key.)
    /// It was verified when it was stored; a damaged one does not parse or does not verify.
    pub(super) fn newest_root(&self, trusted_root: &[u8]) -> Vec<u8> {
        let version = |bytes: &[u8]| {
            let root: Signed<Root> = serde_json::from_slice(bytes).ok()?;
            root.signed.verify_role(&root).ok()?;
            Some(root.signed.version)
        };
        match fs::read(self.dir.join(ROOT)) {
            Ok(stored) if version(&stored) > version(trusted_root) => stored,
            _ => trusted_root.to_vec(),
        }
    }

    fn error(&self, error: &io::Error) -> ClientError {
        ClientError::Datastore(format!("{}: {error}", self.dir.display()))
    }
}
