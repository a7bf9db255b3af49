//! A guarded target as an ordinary file of bytes, for file systems that are changed in place.

use std::io::{self, Read, Seek, SeekFrom, Write};

use super::Guard;
use crate::flash::buffer::{Buffer, ALIGNMENT};

/// Reads and writes any bytes of a target; blocks are read, changed and written as a whole.
pub struct Bytes<'a> {
    guard: &'a mut Guard,
    position: u64,
    block: Buffer,
}

impl<'a> Bytes<'a> {
    /// The bytes of `guard`, closed places included: writing there is refused.
    pub fn new(guard: &'a mut Guard) -> Self {
        Self {
            guard,
            position: 0,
            block: Buffer::new(ALIGNMENT),
        }
    }

    /// Loads the block of the present position; returns where it begins and the part from the position on.
    fn load(&mut self) -> io::Result<(u64, std::ops::Range<usize>)> {
        let block = ALIGNMENT as u64;
        let start = self.position / block * block;
        let left = self.guard.size().saturating_sub(start);
        let length = usize::try_from(left.min(block)).map_err(io::Error::other)?;
        let length = length / self.guard.block() * self.guard.block();
        let from = usize::try_from(self.position - start).map_err(io::Error::other)?;
        if from >= length {
            return Ok((start, 0..0));
        }
        self.guard
            .read_at(&mut self.block.bytes_mut()[..length], start)?;
        Ok((start, from..length))
    }
}

impl Read for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let (_, part) = self.load()?;
        let count = part.len().min(buffer.len());
        let from = part.start;
        buffer[..count].copy_from_slice(&self.block.bytes()[from..from + count]);
        self.position += count as u64;
        Ok(count)
    }
}

impl Write for Bytes<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let (start, part) = self.load()?;
        let count = part.len().min(data.len());
        let from = part.start;
        self.block.bytes_mut()[from..from + count].copy_from_slice(&data[..count]);
        self.guard
            .write_at(&self.block.bytes()[..part.end], start)?;
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.guard.flush()
    }
}

impl Seek for Bytes<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.guard.size().checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulated::Memory;
    use super::*;

    #[test]
    fn any_bytes_can_be_read_and_written_but_not_the_closed_ones() {
        let disk = Memory::new(4 << 20);
        let mut guard = Guard::new(Box::new(disk), Vec::new());
        let mut bytes = Bytes::new(&mut guard);
        bytes.seek(SeekFrom::Start((1 << 20) + 4090)).unwrap();
        bytes.write_all(&[7; 5000]).unwrap();
        bytes.seek(SeekFrom::Start((1 << 20) + 4089)).unwrap();
        let mut read = vec![0; 5002];
        bytes.read_exact(&mut read).unwrap();
        assert_eq!(
            (read[0], read[1], read[5000], read[5001]),
            (0xee, 7, 7, 0xee)
        );
        bytes.seek(SeekFrom::Start(100)).unwrap();
        assert!(bytes.write_all(&[7]).is_err());
        bytes.seek(SeekFrom::End(0)).unwrap();
        assert!(bytes.write_all(&[7]).is_err());
    }
}
