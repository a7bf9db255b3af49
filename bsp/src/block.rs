//! Reading and writing ranges of a block device so that what was written is really there.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

/// A range that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The device could not be opened, read or written.
    #[error("{doing} {}: {source}", device.display())]
    Io {
        /// `opening`, `reading` or `writing`.
        doing: &'static str,
        /// The block device or image.
        device: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The device took the write and returned something else.
    #[error("writing {}: reading it back gave something else; the device may be failing or write-protected", device.display())]
    Lost {
        /// The block device or image.
        device: PathBuf,
    },
}

/// A block device, or an image of one.
#[derive(Debug, Clone)]
pub struct BlockDevice {
    path: PathBuf,
}

impl BlockDevice {
    /// The device at `path`; nothing is opened yet.
    pub fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// Opens for reading.
    pub fn open(&self) -> Result<File, BlockError> {
        File::open(&self.path).map_err(self.error("opening"))
    }

    fn error(&self, doing: &'static str) -> impl FnOnce(std::io::Error) -> BlockError + '_ {
        move |source| BlockError::Io {
            doing,
            device: self.path.clone(),
            source,
        }
    }

    /// Bytes of the device.
    pub fn bytes(&self) -> Result<u64, BlockError> {
        self.open()?
            .seek(SeekFrom::End(0))
            .map_err(self.error("reading"))
    }

    /// `length` bytes at `offset`.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, BlockError> {
        let mut file = self.open()?;
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(self.error("reading"))?;
        Ok(bytes)
    }

    /// Writes through to the disk, and reads back.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), BlockError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_SYNC.bits())
            .open(&self.path)
            .map_err(self.error("opening"))?;
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.write_all(bytes))
            .and_then(|()| file.sync_all())
            .map_err(self.error("writing"))?;
        let mut back = vec![0; bytes.len()];
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut back))
            .map_err(self.error("reading"))?;
        let raw = self.read_uncached(offset, bytes.len());
        if back != bytes || raw.is_some_and(|raw| raw != bytes) {
            return Err(BlockError::Lost {
                device: self.path.clone(),
            });
        }
        Ok(())
    }

    /// What the device itself returns, past the page cache; `None` where that is not to be had (an image
    /// file, a device with larger sectors).
    fn read_uncached(&self, offset: u64, length: usize) -> Option<Vec<u8>> {
        const ALIGNMENT: usize = 4096;
        let mut file = OpenOptions::new()
            .read(true)
            .custom_flags(OFlag::O_DIRECT.bits())
            .open(&self.path)
            .ok()?;
        if !file.metadata().ok()?.file_type().is_block_device() {
            return None;
        }
        let mut buffer = vec![0; ALIGNMENT.checked_add(length)?];
        let start = buffer.as_ptr().align_offset(ALIGNMENT);
        let range = buffer.get_mut(start..start.checked_add(length)?)?;
        file.seek(SeekFrom::Start(offset)).ok()?;
        file.read_exact(range).ok()?;
        Some(range.to_vec())
    }
}
