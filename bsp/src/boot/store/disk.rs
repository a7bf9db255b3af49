//! Reading and writing ranges of a block device so that what was written is really there.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::StoreError;

/// A block device, or an image of one, that holds a boot state.
#[derive(Debug, Clone)]
pub(crate) struct Disk {
    path: PathBuf,
}

impl Disk {
    pub(crate) fn new(path: &Path) -> Self {
        Self { path: path.into() }
    }

    /// Opens for reading.
    pub(crate) fn open(&self) -> Result<File, StoreError> {
        File::open(&self.path).map_err(self.error("opening"))
    }

    fn error(&self, doing: &'static str) -> impl FnOnce(std::io::Error) -> StoreError + '_ {
        move |source| StoreError::Io {
            doing,
            device: self.path.clone(),
            source,
        }
    }

    /// `length` bytes at `offset`.
    pub(crate) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        let mut file = self.open()?;
        let mut bytes = vec![0; length];
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(self.error("reading"))?;
        Ok(bytes)
    }

    /// Writes through to the disk, and reads back.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
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
            return Err(StoreError::Lost {
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
