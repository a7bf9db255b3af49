//! Reading the content of a file, wherever it stands. Reads are positional, so threads may share it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use anyhow::{Context, Result};

use super::Content;

impl Content {
    /// Content held in memory.
    pub fn bytes(bytes: impl Into<Vec<u8>>) -> Self {
        Self::Bytes(Arc::from(bytes.into()))
    }

    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Slice { len, .. } | Self::Host { len, .. } => *len,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A reader over exactly [`Content::len`] bytes; a source that has become shorter is an error.
    pub fn open(&self) -> Result<Reader> {
        let (source, offset) = match self {
            Self::Bytes(bytes) => (Source::Bytes(bytes.clone()), 0),
            Self::Slice {
                archive, offset, ..
            } => (Source::File(archive.clone()), *offset),
            Self::Host { path, .. } => {
                let file =
                    File::open(path).with_context(|| format!("opening {}", path.display()))?;
                (Source::File(Arc::new(file)), 0)
            }
        };
        Ok(Reader {
            source,
            offset,
            left: self.len(),
        })
    }

    /// All of it.
    pub fn read(&self) -> Result<Vec<u8>> {
        if let Self::Bytes(bytes) = self {
            return Ok(bytes.to_vec());
        }
        let mut bytes = Vec::with_capacity(usize::try_from(self.len())?);
        self.open()?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// Reads a [`Content`].
#[derive(Debug)]
pub struct Reader {
    source: Source,
    offset: u64,
    left: u64,
}

#[derive(Debug)]
enum Source {
    Bytes(Arc<[u8]>),
    File(Arc<File>),
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = match &self.source {
            Source::Bytes(bytes) => {
                let from = usize::try_from(self.offset)
                    .unwrap_or(usize::MAX)
                    .min(bytes.len());
                let count = want.min(bytes.len() - from);
                buffer[..count].copy_from_slice(&bytes[from..from + count]);
                count
            }
            Source::File(file) => file.read_at(&mut buffer[..want], self.offset)?,
        };
        if count == 0 && want != 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!(
                    "{} bytes short: the file changed while it was being read",
                    self.left
                ),
            ));
        }
        self.offset += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}
