//! Bits as Zstandard stores them (RFC 8878): bit streams that are read from their end, table descriptions
//! from their beginning.

use super::BAD;
use crate::Error;

/// Reads a stream from its last bit to its first.
pub(super) struct Backward<'a> {
    bytes: &'a [u8],
    /// Bits not yet read; negative once more was asked for than there was.
    left: i64,
}

impl<'a> Backward<'a> {
    /// The highest set bit of the last byte marks the end.
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Error> {
        let last = bytes.last().copied().filter(|b| *b != 0).ok_or(BAD)?;
        let left = 8 * bytes.len() as i64 - i64::from(last.leading_zeros()) - 1;
        Ok(Self { bytes, left })
    }

    /// The next `count` bits, at most 32; zeros where the stream has ended.
    pub(super) fn take(&mut self, count: u32) -> u32 {
        if count == 0 {
            return 0;
        }
        let end = self.left;
        self.left -= i64::from(count);
        if end <= 0 {
            return 0;
        }
        let begin = end - i64::from(count);
        let first = (begin.max(0) / 8) as usize;
        let mut window = [0u8; 8];
        let room = self.bytes.len().min(first + 8) - first;
        window[..room].copy_from_slice(&self.bytes[first..first + room]);
        let word = u64::from_le_bytes(window);
        let shifted = if begin >= 0 {
            word >> (begin % 8)
        } else {
            word << -begin
        };
        (shifted & ((1u64 << count) - 1)) as u32
    }

    /// The next `count` bits without taking them.
    pub(super) fn peek(&mut self, count: u32) -> u32 {
        let left = self.left;
        let bits = self.take(count);
        self.left = left;
        bits
    }

    pub(super) fn skip(&mut self, count: u32) {
        self.left -= i64::from(count);
    }

    /// Bits not yet read; negative: so many too many were.
    pub(super) fn left(&self) -> i64 {
        self.left
    }
}

/// Writes what [`Backward`] reads, in the opposite order.
#[derive(Default)]
pub(super) struct Writer {
    out: Vec<u8>,
    word: u64,
    filled: u32,
}

impl Writer {
    /// Adds at most 32 bits.
    pub(super) fn add(&mut self, bits: u32, count: u32) {
        let bits = u64::from(bits) & ((1u64 << count) - 1);
        self.word |= bits << self.filled;
        self.filled += count;
        while self.filled >= 8 {
            self.out.push(self.word as u8);
            self.word >>= 8;
            self.filled -= 8;
        }
    }

    /// Adds the mark of the end.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.add(1, 1);
        if self.filled > 0 {
            self.out.push(self.word as u8);
        }
        self.out
    }
}

/// Reads from the first bit on.
pub(super) struct Forward<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Forward<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// The next `count` bits, at most 16, without taking them; zeros past the end.
    pub(super) fn peek(&self, count: u32) -> u32 {
        let byte = |i: usize| u32::from(self.bytes.get(self.at / 8 + i).copied().unwrap_or(0));
        let word = byte(0) | byte(1) << 8 | byte(2) << 16;
        word >> (self.at % 8) & ((1 << count) - 1)
    }

    pub(super) fn skip(&mut self, count: u32) {
        self.at += count as usize;
    }

    /// Bytes that were read, the last one perhaps in part; an error if they are not there.
    pub(super) fn bytes(&self) -> Result<usize, Error> {
        let bytes = self.at.div_ceil(8);
        if bytes > self.bytes.len() {
            return Err(BAD);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_last_is_read_first() {
        let mut writer = Writer::default();
        let values = [
            (5u32, 3u32),
            (0, 1),
            (0xffff_ffff, 32),
            (0x12345, 20),
            (1, 1),
        ];
        for (bits, count) in values {
            writer.add(bits, count);
        }
        let bytes = writer.finish();
        let mut reader = Backward::new(&bytes).unwrap();
        for (bits, count) in values.iter().rev() {
            assert_eq!(reader.peek(*count), *bits);
            assert_eq!(reader.take(*count), *bits);
        }
        assert_eq!(reader.left(), 0);
        assert_eq!(reader.take(4), 0);
        assert_eq!(reader.left(), -4);
    }
}
