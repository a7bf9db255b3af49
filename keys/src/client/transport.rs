//! How bytes come from an update server: the caller's affair, behind one small trait.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;

pub use async_trait::async_trait;
pub use bytes::Bytes;
use futures_util::stream::{self, Stream};
use url::Url;

/// Bytes of a file read from the disk at a time.
const CHUNK: usize = 64 * 1024;

/// The content of a file as it comes.
pub type TransportStream = Pin<Box<dyn Stream<Item = Result<Bytes, TransportError>> + Send>>;

/// Fetches files. It bounds how long a silence may last; what a file may hold and how slowly it may
/// come is bounded by who reads the stream.
#[async_trait]
pub trait Transport: fmt::Debug + Send + Sync {
    /// Opens a file.
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError>;
}

/// Kinds of failure that a reader acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportErrorKind {
    /// The server answered that it has no such file.
    FileNotFound,
    /// Whoever answered is not the server that is wanted.
    Untrusted,
    /// Anything else: the file may be there.
    Other,
}

/// Why a file could not be fetched.
#[derive(Debug)]
pub struct TransportError {
    kind: TransportErrorKind,
    url: String,
    cause: Box<dyn Error + Send + Sync>,
}

impl TransportError {
    /// A failure with its cause.
    pub fn new_with_cause(
        kind: TransportErrorKind,
        url: impl AsRef<str>,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            kind,
            url: url.as_ref().to_owned(),
            cause: cause.into(),
        }
    }

    /// What kind it is.
    pub fn kind(&self) -> TransportErrorKind {
        self.kind
    }

    /// What was fetched.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fetching {}: {}", self.url, self.cause)
    }
}

impl Error for TransportError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.cause)
    }
}

/// Files of `file://` addresses: an update directory on a stick, or a test's.
#[derive(Debug, Clone, Copy, Default)]
pub struct FilesystemTransport;

#[async_trait]
impl Transport for FilesystemTransport {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        let failed = |url: &Url, error: io::Error| {
            let kind = match error.kind() {
                io::ErrorKind::NotFound => TransportErrorKind::FileNotFound,
                _ => TransportErrorKind::Other,
            };
            TransportError::new_with_cause(kind, url, error)
        };
        let path = url
            .to_file_path()
            .map_err(|()| failed(&url, io::Error::other("it is not the address of a file")))?;
        let mut file = File::open(path).map_err(|error| failed(&url, error))?;
        let mut over = false;
        let chunks = std::iter::from_fn(move || {
            if over {
                return None;
            }
            let mut chunk = vec![0; CHUNK];
            match file.read(&mut chunk) {
                Ok(0) => None,
                Ok(read) => {
                    chunk.truncate(read);
                    Some(Ok(Bytes::from(chunk)))
                }
                Err(error) => {
                    over = true;
                    Some(Err(failed(&url, error)))
                }
            }
        });
        Ok(Box::pin(stream::iter(chunks)))
    }
}
