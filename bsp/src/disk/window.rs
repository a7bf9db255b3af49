//! A part of a file that looks like a file of its own.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;

/// Reads and writes within `bytes` of the inner file, and fails rather than step outside.
#[derive(Debug)]
pub struct Window<T> {
    inner: T,
    bytes: Range<u64>,
    position: u64,
}

impl<T> Window<T> {
    /// The part `bytes` of `inner`; its first byte becomes byte 0.
    pub fn new(inner: T, bytes: Range<u64>) -> Self {
        Self {
            inner,
            bytes,
            position: 0,
        }
    }

    fn length(&self) -> u64 {
        self.bytes.end.saturating_sub(self.bytes.start)
    }

    /// How many of `wanted` bytes there are from the present position on.
    fn available(&self, wanted: usize) -> usize {
        let left = self.length().saturating_sub(self.position);
        usize::try_from(left).unwrap_or(usize::MAX).min(wanted)
    }
}

impl<T: Seek> Window<T> {
    fn place(&mut self) -> io::Result<()> {
        let offset = self
            .bytes
            .start
            .checked_add(self.position)
            .ok_or_else(outside)?;
        self.inner.seek(SeekFrom::Start(offset)).map(|_| ())
    }
}

fn outside() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "an access outside the partition was refused",
    )
}

impl<T: Read + Seek> Read for Window<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.available(buffer.len());
        self.place()?;
        let done = self.inner.read(&mut buffer[..length])?;
        self.position += done as u64;
        Ok(done)
    }
}

impl<T: Write + Seek> Write for Window<T> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let length = self.available(data.len());
        if length == 0 && !data.is_empty() {
            return Err(outside());
        }
        self.place()?;
        let done = self.inner.write(&data[..length])?;
        self.position += done as u64;
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T> Seek for Window<T> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
            SeekFrom::End(offset) => self.length().checked_add_signed(offset),
        };
        self.position = position.ok_or_else(outside)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_outside_is_touched() {
        let mut bytes = io::Cursor::new(vec![9u8; 10]);
        let mut window = Window::new(&mut bytes, 2..6);
        window.seek(SeekFrom::End(-1)).unwrap();
        assert_eq!(window.write(&[1, 2]).unwrap(), 1);
        assert!(window.write(&[2]).is_err());
        assert!(window.seek(SeekFrom::Current(-9)).is_err());
        window.rewind().unwrap();
        let mut all = Vec::new();
        window.read_to_end(&mut all).unwrap();
        assert_eq!(all, [9, 9, 9, 1]);
        assert_eq!(bytes.into_inner(), [9, 9, 9, 9, 9, 1, 9, 9, 9, 9]);
    }
}
