//! Two copies on the disk. Whoever reads them (a boot ROM, mostly) takes the first that has its magic: so the
//! switch to the second is to clear the first sector of the first, and the switch back is to write it.

use anyhow::{bail, Result};
use bsp::block::BlockDevice;
use bsp::loader::{Blob, SECTOR};

use super::copies::Copies;

/// Where the copies are: a disk, or what a test takes for one.
pub trait Disk {
    /// `length` bytes at `offset`.
    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>>;
    /// Writes; it is on the medium when this returns.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()>;
}

impl Disk for BlockDevice {
    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        Ok(BlockDevice::read(self, offset, length)?)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        Ok(BlockDevice::write(self, offset, bytes)?)
    }
}

/// The two copies.
#[derive(Debug)]
pub struct TwoPlaces<D> {
    disk: D,
    blob: Blob,
}

impl<D: Disk> TwoPlaces<D> {
    /// The copies of `blob` on `disk`.
    pub fn new(disk: D, blob: Blob) -> Self {
        Self { disk, blob }
    }

    /// The disk, when all is done.
    #[cfg(test)]
    pub fn into_disk(self) -> D {
        self.disk
    }

    fn place(&self, copy: usize, at: u64) -> u64 {
        self.blob.offsets[copy] + at
    }

    fn is_taken(&self, copy: usize) -> Result<bool> {
        Ok(self.blob.is_taken(&self.read(copy, 0, SECTOR)?))
    }
}

impl<D: Disk> Copies for TwoPlaces<D> {
    fn read(&self, copy: usize, at: u64, length: usize) -> Result<Vec<u8>> {
        self.disk.read(self.place(copy, at), length)
    }

    fn write(&mut self, copy: usize, at: u64, bytes: &[u8]) -> Result<()> {
        let place = self.place(copy, at);
        self.disk.write(place, bytes)
    }

    fn started(&self) -> Result<usize> {
        for copy in 0..2 {
            if self.is_taken(copy)? {
                return Ok(copy);
            }
        }
        bail!(
            "neither of its places (bytes {} and {}) has it: this machine was started from somewhere else",
            self.blob.offsets[0],
            self.blob.offsets[1]
        )
    }

    fn start(&mut self, copy: usize) -> Result<()> {
        // The first is taken as soon as it has its first sector, which it got last.
        if copy == 1 && self.is_taken(0)? {
            self.write(0, 0, &[0; SECTOR])?;
        }
        Ok(())
    }
}
