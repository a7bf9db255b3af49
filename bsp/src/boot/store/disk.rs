//! A block device that holds a boot state.

use std::fs::File;
use std::path::Path;

use super::StoreError;
use crate::block::{BlockDevice, BlockError};

/// A block device, or an image of one, that holds a boot state.
#[derive(Debug, Clone)]
pub(crate) struct Disk(BlockDevice);

impl Disk {
    pub(crate) fn new(path: &Path) -> Self {
        Self(BlockDevice::new(path))
    }

    /// Opens for reading.
    pub(crate) fn open(&self) -> Result<File, StoreError> {
        Ok(self.0.open()?)
    }

    /// `length` bytes at `offset`.
    pub(crate) fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, StoreError> {
        Ok(self.0.read(offset, length)?)
    }

    /// Writes through to the disk, and reads back.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        Ok(self.0.write(offset, bytes)?)
    }
}

impl From<BlockError> for StoreError {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Io {
                doing,
                device,
                source,
            } => Self::Io {
                doing,
                device,
                source,
            },
            BlockError::Lost { device } => Self::Lost { device },
        }
    }
}
