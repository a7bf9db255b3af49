//! The new file as it is coded.

use crate::code::BitCoder;
use crate::Error;

/// Bytes of a file that are looked at together.
pub(crate) const WINDOW: u64 = 1 << 16;

/// The new file: what is given (encoder) or made (decoder).
pub(crate) struct Tape<'a> {
    given: Option<&'a [u8]>,
    /// Bytes coded.
    pub(crate) at: u64,
    /// The last eight, newest lowest.
    history: u64,
    pending: Vec<u8>,
    out: &'a mut dyn FnMut(&[u8]) -> Result<(), Error>,
}

impl<'a> Tape<'a> {
    pub(crate) fn new(
        given: Option<&'a [u8]>,
        out: &'a mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Self {
        Self {
            given,
            at: 0,
            history: 0,
            pending: Vec::with_capacity(WINDOW as usize + 64),
            out,
        }
    }

    /// The last eight bytes, newest lowest.
    pub(crate) fn history(&self) -> u64 {
        self.history
    }

    /// The byte that follows so many after the next; nothing of worth in a decoder.
    pub(crate) fn ahead(&self, place: usize) -> u8 {
        self.given
            .and_then(|given| given.get(self.at as usize + place))
            .copied()
            .unwrap_or(0)
    }

    /// Takes the next byte.
    pub(crate) fn push(&mut self, byte: u8) -> Result<(), Error> {
        self.at += 1;
        self.history = self.history << 8 | u64::from(byte);
        self.pending.push(byte);
        if self.pending.len() >= WINDOW as usize {
            self.flush()?;
        }
        Ok(())
    }

    /// Takes the next bytes.
    pub(crate) fn extend(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.at += bytes.len() as u64;
        for &byte in &bytes[bytes.len().saturating_sub(8)..] {
            self.history = self.history << 8 | u64::from(byte);
        }
        self.pending.extend_from_slice(bytes);
        if self.pending.len() >= WINDOW as usize {
            self.flush()?;
        }
        Ok(())
    }

    /// Codes all bytes as they are.
    pub(crate) fn stored<C: BitCoder>(&mut self, coder: &mut C, length: u64) -> Result<(), Error> {
        for i in 0..length {
            if i % WINDOW == 0 {
                coder.check().map_err(Error::Delta)?;
            }
            let actual = self.ahead(0);
            let byte = (0..8).rev().fold(0u8, |byte, i| {
                byte << 1 | coder.bit(u32::from(actual >> i) & 1, 1 << 15) as u8
            });
            self.push(byte)?;
        }
        coder.check().map_err(Error::Delta)?;
        self.flush()
    }

    /// Hands on what is pending.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        (self.out)(&self.pending)?;
        self.pending.clear();
        Ok(())
    }
}
