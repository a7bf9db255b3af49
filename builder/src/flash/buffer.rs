//! Memory that direct I/O can use, and a fixed stock of it: however many targets, however slow, the program
//! never takes more.

use std::sync::mpsc::{channel, Receiver, Sender};

/// Direct I/O wants memory aligned to the logical block of the disk; pages do for all of them.
pub const ALIGNMENT: usize = 4096;

/// A piece of memory that begins at a multiple of [`ALIGNMENT`].
#[derive(Debug)]
pub struct Buffer {
    store: Vec<u8>,
    skip: usize,
    size: usize,
}

impl Buffer {
    /// `size` zero bytes.
    pub fn new(size: usize) -> Self {
        let store = vec![0; size + ALIGNMENT];
        // The standard library may decline to tell; then direct I/O fails and says so.
        let skip = store.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Self { store, skip, size }
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.store[self.skip..self.skip + self.size]
    }

    /// The bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.store[self.skip..self.skip + self.size]
    }
}

/// A part of an image in memory. The memory returns to its stock when the last user lets go.
#[derive(Debug)]
pub struct Chunk {
    /// First byte on the disk.
    pub at: u64,
    /// Bytes of the image in it; what follows in the buffer is zero up to a multiple of [`ALIGNMENT`].
    pub length: usize,
    buffer: Option<Buffer>,
    home: Sender<Buffer>,
}

impl Chunk {
    /// The bytes of the image.
    pub fn data(&self) -> &[u8] {
        self.padded(1)
    }

    /// The same with zeros up to a multiple of `block`, a power of two up to [`ALIGNMENT`].
    pub fn padded(&self, block: usize) -> &[u8] {
        let end = self.length.next_multiple_of(block);
        self.buffer.as_ref().map_or(&[], |buffer| {
            &buffer.bytes()[..end.min(buffer.bytes().len())]
        })
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            // Nobody waits for it any more at the end.
            let _ = self.home.send(buffer);
        }
    }
}

/// The stock.
#[derive(Debug)]
pub struct Stock {
    free: Receiver<Buffer>,
    home: Sender<Buffer>,
}

impl Stock {
    /// `count` buffers of `size` bytes, a multiple of [`ALIGNMENT`].
    pub fn new(count: usize, size: usize) -> Self {
        let (home, free) = channel();
        for _ in 0..count {
            let _ = home.send(Buffer::new(size));
        }
        Self { free, home }
    }

    /// Waits for a free buffer and lets `fill` put `length` bytes for the place `at` into it.
    pub fn chunk<E>(
        &self,
        at: u64,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Chunk, E> {
        let mut chunk = Chunk {
            at,
            length,
            // The stock holds a sender itself, so this waits and never fails.
            buffer: self.free.recv().ok(),
            home: self.home.clone(),
        };
        if let Some(buffer) = &mut chunk.buffer {
            let bytes = buffer.bytes_mut();
            fill(&mut bytes[..length])?;
            let end = length.next_multiple_of(ALIGNMENT).min(bytes.len());
            bytes[length..end].fill(0);
        }
        Ok(chunk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_return() {
        let stock = Stock::new(1, 3 * ALIGNMENT);
        for round in 1..4u8 {
            let chunk = stock
                .chunk::<()>(7, 5000, |bytes| {
                    bytes.fill(round);
                    Ok(())
                })
                .unwrap();
            assert_eq!(chunk.data(), vec![round; 5000]);
            assert_eq!(chunk.padded(512).len(), 5120);
            assert_eq!(&chunk.padded(4096)[5000..], &[0; 3192]);
            assert_eq!(chunk.data().as_ptr() as usize % ALIGNMENT, 0);
        }
    }
}
