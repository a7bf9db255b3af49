//! Reading release metadata: the device's side of The Update Framework.
//!
//! [`Client::open`] fetches and verifies the metadata; after that a target is handed out only with
//! the content that was signed. How bytes are fetched is the caller's affair ([`Transport`]):
//! HTTP on the device, [`FilesystemTransport`] for `file://`.
//!
//! The datastore holds what was seen last, against being shown an older state. It is a memory, not
//! a truth: lost or damaged it is made anew.

mod datastore;
mod error;
#[cfg(test)]
mod tests;

use std::path::Path;

use tough::schema::{Target, Targets};
pub use tough::{
    async_trait, Bytes, FilesystemTransport, Transport, TransportError, TransportErrorKind,
    TransportStream,
};
use tough::{ExpirationEnforcement, IntoVec, Limits, Repository, RepositoryLoader, TargetName};
use url::Url;

pub use error::ClientError;

use crate::release::{
    channel_target, is_target_name, release_target, Channel, ContentError, Release,
};
use datastore::Datastore;

/// Bytes a target (release or channel description) may have. The deltas are no targets.
pub const MAX_TARGET: u64 = 1024 * 1024;

/// Bytes and counts beyond which metadata is refused unread. A `targets.json` of 4 MiB has room
/// for some ten thousand releases.
const LIMITS: Limits = Limits {
    max_root_size: 256 * 1024,
    max_targets_size: 4 * 1024 * 1024,
    max_timestamp_size: 64 * 1024,
    max_snapshot_size: 256 * 1024,
    max_root_updates: 256,
};

/// Verified metadata of an update server.
#[derive(Debug)]
pub struct Client {
    repository: Repository,
    datastore: Datastore,
}

impl Client {
    /// Fetches and verifies the metadata below `base` (`base` + `tuf/`), starting from the root
    /// metadata that came with the system. `datastore` is a directory of its own; it is made if
    /// it is not there.
    pub async fn open<T>(
        trusted_root: &[u8],
        datastore: &Path,
        base: &Url,
        transport: T,
    ) -> Result<Self, ClientError>
    where
        T: Transport + Clone + Send + Sync + 'static,
    {
        let (metadata, targets) = addresses(base)?;
        let datastore = Datastore::prepare(datastore, trusted_root)?;
        let mut recreated = false;
        let mut clock_forgotten = false;
        loop {
            let root = datastore.newest_root(trusted_root);
            let loaded = RepositoryLoader::new(&root, metadata.clone(), targets.clone())
                .transport(transport.clone())
                .limits(LIMITS)
                .datastore(datastore.dir())
                .expiration_enforcement(ExpirationEnforcement::Safe)
                .load()
                .await;
            match loaded {
                Ok(repository) => {
                    return Ok(Self {
                        repository,
                        datastore,
                    })
                }
                Err(e) if error::is_clock(&e) && !clock_forgotten => {
                    clock_forgotten = true;
                    datastore.forget_time()?;
                }
                Err(e) if error::is_datastore(&e) && !recreated => {
                    recreated = true;
                    datastore.recreate()?;
                }
                Err(e) => return Err(ClientError::from_tough(&e)),
            }
        }
    }

    /// The content of a target; `None` if the server's metadata does not name it.
    pub async fn target(&self, name: &str) -> Result<Option<Vec<u8>>, ClientError> {
        let Some((name, target)) = self.find(name) else {
            return Ok(None);
        };
        if target.length > MAX_TARGET {
            return Err(ClientError::TooLarge {
                what: name.raw().to_owned(),
                limit: MAX_TARGET,
            });
        }
        match self.read(&name).await {
            Err(e) if error::is_clock(&e) => {
                self.datastore.forget_time()?;
                self.read(&name).await
            }
            done => done,
        }
        .map_err(|e| ClientError::from_tough(&e))
    }

    /// A channel's releases for a board.
    pub async fn channel(&self, board: &str, channel: &str) -> Result<Channel, ClientError> {
        let name = channel_target(board, channel);
        let bytes = self.wanted_target(&name).await?;
        let found = Channel::parse(&bytes).map_err(|e| content(&name, e))?;
        same(&name, "board", &found.board, board)?;
        same(&name, "channel", &found.channel, channel)?;
        Ok(found)
    }

    /// A release for a board.
    pub async fn release(&self, board: &str, version: &str) -> Result<Release, ClientError> {
        let name = release_target(board, version);
        let bytes = self.wanted_target(&name).await?;
        let found = Release::parse(&bytes).map_err(|e| content(&name, e))?;
        same(&name, "version", &found.version, version)?;
        if !found.boards.iter().any(|b| b == board) {
            same(&name, "boards", &found.boards.join(" "), board)?;
        }
        Ok(found)
    }

    /// When the first piece of the metadata expires, seconds since 1970.
    pub fn expires(&self) -> i64 {
        let repository = &self.repository;
        [
            repository.root().signed.expires,
            repository.targets().signed.expires,
            repository.snapshot().signed.expires,
            repository.timestamp().signed.expires,
        ]
        .iter()
        .map(|time| time.as_second())
        .min()
        .unwrap_or(0)
    }

    fn find(&self, name: &str) -> Option<(TargetName, &Target)> {
        if !is_target_name(name) {
            return None;
        }
        let targets: &Targets = &self.repository.targets().signed;
        let name = TargetName::new(name).ok()?;
        let target = targets.targets.get(&name)?;
        Some((name, target))
    }

    async fn read(&self, name: &TargetName) -> Result<Option<Vec<u8>>, tough::error::Error> {
        match self.repository.read_target(name).await? {
            Some(stream) => Ok(Some(stream.into_vec().await?)),
            None => Ok(None),
        }
    }

    async fn wanted_target(&self, name: &str) -> Result<Vec<u8>, ClientError> {
        self.target(name)
            .await?
            .ok_or_else(|| ClientError::MissingTarget {
                name: name.to_owned(),
            })
    }
}

/// Where metadata and targets are below the server's base address.
fn addresses(base: &Url) -> Result<(Url, Url), ClientError> {
    let mut base = base.clone();
    // Without the slash the last part would be taken for a file and replaced.
    if !base.path().ends_with('/') {
        let path = format!("{}/", base.path());
        base.set_path(&path);
    }
    let join = |path| {
        base.join(path)
            .map_err(|e| ClientError::Other(format!("the address '{base}' cannot be used: {e}")))
    };
    Ok((join("tuf/")?, join("tuf/targets/")?))
}

fn content(name: &str, error: ContentError) -> ClientError {
    ClientError::Malformed {
        what: name.to_owned(),
        reason: error.to_string(),
    }
}

/// The content must be about what was asked for, whatever its name says.
fn same(name: &str, field: &'static str, found: &str, wanted: &str) -> Result<(), ClientError> {
    if found == wanted {
        return Ok(());
    }
    Err(ClientError::Malformed {
        what: name.to_owned(),
        reason: format!("its field '{field}' says '{found}', not '{wanted}'"),
    })
}
