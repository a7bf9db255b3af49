//! Fetching a file: never more of it than is allowed, never more slowly than is bearable.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt as _;
use url::Url;

use super::{ClientError, Transport};

/// A file may take this long, and a second more for every so many bytes.
const PATIENCE: Duration = match cfg!(test) {
    false => Duration::from_secs(120),
    true => Duration::from_millis(200),
};
const SLOWEST: u64 = 512;

/// Where metadata comes from.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) transport: Arc<dyn Transport>,
    pub(super) metadata: Url,
}

impl Source {
    /// Reads a metadata file. `role` may be any text; it is one part of the address.
    pub(super) async fn metadata(
        &self,
        version: Option<u64>,
        role: &str,
        limit: u64,
    ) -> Result<Vec<u8>, ClientError> {
        let file = match version {
            Some(version) => format!("{version}.{role}.json"),
            None => format!("{role}.json"),
        };
        let url = below(&self.metadata, std::iter::once(file.as_str()))?;
        self.read(&url, limit).await
    }

    /// Reads a file of at most `limit` bytes that does not come more slowly than is bearable.
    pub(super) async fn read(&self, url: &Url, limit: u64) -> Result<Vec<u8>, ClientError> {
        let failed = |error| ClientError::from_transport(&error);
        let begun = Instant::now();
        let mut stream = self.transport.fetch(url.clone()).await.map_err(failed)?;
        let mut bytes: Vec<u8> = Vec::new();
        while let Some(chunk) = stream.try_next().await.map_err(failed)? {
            if bytes.len() as u64 + chunk.len() as u64 > limit {
                return Err(ClientError::TooLarge {
                    what: url.to_string(),
                    limit,
                });
            }
            bytes.extend_from_slice(&chunk);
            let patience = PATIENCE + Duration::from_secs(bytes.len() as u64 / SLOWEST);
            if begun.elapsed() > patience {
                return Err(ClientError::Network {
                    url: url.to_string(),
                    reason: format!(
                        "after {} s only {} bytes had come",
                        begun.elapsed().as_secs(),
                        bytes.len()
                    ),
                });
            }
        }
        Ok(bytes)
    }
}

/// An address below another one; no part of it can leave that place.
pub(super) fn below<'a>(
    base: &Url,
    parts: impl Iterator<Item = &'a str>,
) -> Result<Url, ClientError> {
    let mut url = base.clone();
    let refused = |what: &str| ClientError::Malformed {
        what: format!("a name below {base}"),
        reason: format!("'{what}' cannot be part of an address"),
    };
    let mut segments = url
        .path_segments_mut()
        .map_err(|()| refused(base.as_str()))?;
    segments.pop_if_empty();
    for part in parts {
        if part.is_empty() || part == "." || part == ".." {
            return Err(refused(part));
        }
        segments.push(part);
    }
    drop(segments);
    Ok(url)
}
