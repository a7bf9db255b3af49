//! A disk in memory that holds only what is not zero.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};

const BLOCK: usize = 4096;

/// A file of a fixed size in memory; blocks of zeros take no room.
#[derive(Debug)]
pub(super) struct Sparse {
    blocks: BTreeMap<u64, Box<[u8; BLOCK]>>,
    size: u64,
    position: u64,
}

impl Sparse {
    /// All zeros.
    pub(super) fn new(size: u64) -> Self {
        Self {
            blocks: BTreeMap::new(),
            size,
            position: 0,
        }
    }

    /// Writes every block that holds something, in order, to the same place in `out`.
    pub(super) fn copy_to(&self, out: &mut (impl Write + Seek)) -> io::Result<()> {
        for (index, block) in &self.blocks {
            let offset = index * BLOCK as u64;
            let length = (BLOCK as u64).min(self.size - offset) as usize;
            out.seek(SeekFrom::Start(offset))?;
            out.write_all(&block[..length])?;
        }
        out.flush()
    }

    /// Block number, first byte in the block, and how many of `wanted` bytes lie in it.
    fn span(&self, wanted: usize) -> (u64, usize, usize) {
        let within = (self.position % BLOCK as u64) as usize;
        let left = usize::try_from(self.size.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let length = wanted.min(BLOCK - within).min(left);
        (self.position / BLOCK as u64, within, length)
    }
}

impl Read for Sparse {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (index, within, length) = self.span(buffer.len());
        match self.blocks.get(&index) {
            Some(block) => buffer[..length].copy_from_slice(&block[within..within + length]),
            None => buffer[..length].fill(0),
        }
        self.position += length as u64;
        Ok(length)
    }
}

impl Write for Sparse {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let (index, within, length) = self.span(data.len());
        let data = &data[..length];
        if self.blocks.contains_key(&index) || data.iter().any(|byte| *byte != 0) {
            let block = self
                .blocks
                .entry(index)
                .or_insert_with(|| Box::new([0; BLOCK]));
            block[within..within + length].copy_from_slice(data);
        }
        self.position += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Sparse {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.size.checked_add_signed(offset),
        };
        self.position = position.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn behaves_like_a_file_of_fixed_size(writes in proptest::collection::vec((0u64..12000, proptest::collection::vec(0u8..3, 0..6000)), 0..8)) {
            const SIZE: usize = 10_000;
            let mut plain = vec![0u8; SIZE];
            let mut sparse = Sparse::new(SIZE as u64);
            for (offset, data) in writes {
                sparse.seek(SeekFrom::Start(offset)).unwrap();
                let fits = SIZE.saturating_sub(offset as usize).min(data.len());
                prop_assert_eq!(sparse.write_all(&data).is_ok(), fits == data.len());
                if fits > 0 {
                    plain[offset as usize..][..fits].copy_from_slice(&data[..fits]);
                }
            }
            let mut read = Vec::new();
            sparse.rewind().unwrap();
            sparse.read_to_end(&mut read).unwrap();
            prop_assert_eq!(&read, &plain);
            let mut copy = io::Cursor::new(vec![0u8; SIZE]);
            sparse.copy_to(&mut copy).unwrap();
            prop_assert_eq!(copy.into_inner(), plain);
        }
    }
}
