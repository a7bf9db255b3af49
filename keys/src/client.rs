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
mod found;
mod refresh;
mod source;
#[cfg(test)]
mod tests;
mod transport;
mod updater;

use std::path::Path;
use std::sync::Arc;

use url::Url;

pub use error::ClientError;
pub use found::Found;
pub use transport::{
    async_trait, Bytes, FilesystemTransport, Transport, TransportError, TransportErrorKind,
    TransportStream,
};
pub use updater::Updater;

use crate::release::{
    channel_target, is_target_name, release_target, Channel, ContentError, Release,
};
use datastore::Datastore;

/// Bytes a target (release or channel description) may have. The deltas are no targets.
pub const MAX_TARGET: u64 = 1024 * 1024;

/// Verified metadata of an update server.
#[derive(Debug)]
pub struct Client {
    updater: Updater,
    targets: Url,
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
        T: Transport + 'static,
    {
        let (metadata, targets) = addresses(base)?;
        let datastore = Datastore::prepare(datastore, trusted_root)?;
        let transport: Arc<dyn Transport> = Arc::new(transport);
        let mut recreated = false;
        loop {
            let root = datastore.newest_root(trusted_root);
            let from = (datastore.clone(), transport.clone());
            match Updater::refresh_from(&root, from.0, &metadata, from.1).await {
                Ok(updater) => return Ok(Self { updater, targets }),
                Err(ClientError::Datastore(_)) if !recreated => {
                    recreated = true;
                    datastore.recreate()?;
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// The content of a target; `None` if the server's metadata does not name it.
    pub async fn target(&self, name: &str) -> Result<Option<Vec<u8>>, ClientError> {
        if !is_target_name(name) {
            return Ok(None);
        }
        match self.updater.find(name).await? {
            Some(found) => {
                let content = self.updater.read(&found, &self.targets, MAX_TARGET);
                content.await.map(Some)
            }
            None => Ok(None),
        }
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
        self.updater.expires()
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
