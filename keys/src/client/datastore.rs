//! The directory in which the last seen metadata is kept, byte for byte as it came.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::ClientError;
use crate::tuf::metadata::{Role as _, Root};
use crate::tuf::signed::Unverified;

/// No metadata is kept that has more bytes.
const MAX_FILE: u64 = 8 * 1024 * 1024;

/// The directory for one trusted root.
#[derive(Debug, Clone)]
pub(super) struct Datastore {
    dir: PathBuf,
}

impl Datastore {
    /// This directory itself.
    pub(super) fn at(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// The directory for this root below `parent`. Every root has its own: what was seen under the
    /// keys of another product (or of development) says nothing under these. A system that brings
    /// the very root which the device has already followed goes on with what it has seen.
    pub(super) fn prepare(parent: &Path, trusted_root: &[u8]) -> Result<Self, ClientError> {
        let id = hex::encode(&Sha256::digest(trusted_root)[..8]);
        let datastore = Self {
            dir: parent.join(id),
        };
        let new = !datastore.dir.exists();
        match fs::create_dir_all(&datastore.dir) {
            Ok(()) => {
                if new {
                    datastore.take_over(parent, trusted_root);
                }
                Ok(datastore)
            }
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

    /// Copies what was seen under an earlier system whose root metadata had been followed to
    /// `trusted_root`. A failure loses the memory, nothing else.
    fn take_over(&self, parent: &Path, trusted_root: &[u8]) {
        let Ok(entries) = fs::read_dir(parent) else {
            return;
        };
        for entry in entries.flatten() {
            let other = Self::at(&entry.path());
            if other.dir == self.dir || other.read("root").as_deref() != Some(trusted_root) {
                continue;
            }
            for role in ["timestamp", "snapshot", "targets"] {
                if let Some(bytes) = other.read(role) {
                    let _ = self.write(role, &bytes);
                }
            }
            return;
        }
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

    /// The root metadata to start from: the newest seen under this trusted root, else that root.
    /// (A server could hide a root that revokes a key.) It was verified when it was stored; a
    /// damaged one does not parse or does not verify.
    pub(super) fn newest_root(&self, trusted_root: &[u8]) -> Vec<u8> {
        let version = |bytes: &[u8]| {
            let root = Unverified::<Root>::parse(bytes).ok()?;
            Some(root.verify_by_itself().ok()?.version())
        };
        match self.read("root") {
            Some(stored) if version(&stored) > version(trusted_root) => stored,
            _ => trusted_root.to_vec(),
        }
    }

    /// What is kept of a role; nothing if it cannot be read.
    pub(super) fn read(&self, role: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = File::open(self.file(role)).ok()?;
        file.take(MAX_FILE).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Keeps a role's metadata: by rename, so that the old or the new is there after a power cut.
    pub(super) fn write(&self, role: &str, bytes: &[u8]) -> Result<(), ClientError> {
        if self.read(role).as_deref() == Some(bytes) {
            return Ok(());
        }
        let path = self.file(role);
        let new = path.with_extension("new");
        let written = File::create(&new).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_data()
        });
        written
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|e| self.error(&e))
    }

    fn file(&self, role: &str) -> PathBuf {
        self.dir.join(format!("{}.json", plain_name(role)))
    }

    fn error(&self, error: &io::Error) -> ClientError {
        ClientError::Datastore(format!("{}: {error}", self.dir.display()))
    }
}

/// A role's name as a file name: what is not plain stands as `%` and two hex digits.
fn plain_name(role: &str) -> String {
    role.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}
