//! A binary arithmetic coder without carries: the interval is kept as its two 32-bit ends, and leading
//! bytes that have become equal are shifted out.

use std::io::Read;

/// Codes bits by their probabilities.
pub(crate) trait BitCoder {
    /// Whether values are given (true) or asked for (false).
    const ENCODES: bool;

    /// Codes one bit; `p1` is the probability of a one in 1/65536, from 1 to 65535. An encoder returns
    /// `bit`, a decoder what it has read.
    fn bit(&mut self, bit: u32, p1: u32) -> u32;

    /// Whether everything decoded so far came from the stream: an error says that it ended or failed.
    fn check(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn split(low: u32, high: u32, p1: u32) -> u32 {
    // Smaller than `high`, because p1 < 65536: both halves keep at least one value.
    low + ((u64::from(high - low) * u64::from(p1)) >> 16) as u32
}

/// Writes into memory.
#[cfg(feature = "make")]
pub(crate) struct Encoder {
    low: u32,
    high: u32,
    out: Vec<u8>,
}

#[cfg(feature = "make")]
impl Encoder {
    pub(crate) fn new() -> Self {
        Self {
            low: 0,
            high: u32::MAX,
            out: Vec::new(),
        }
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.out.len()
    }

    /// The coded bytes, with the four that a decoder reads ahead.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.out.extend_from_slice(&self.high.to_be_bytes());
        self.out
    }
}

#[cfg(feature = "make")]
impl BitCoder for Encoder {
    const ENCODES: bool = true;

    fn bit(&mut self, bit: u32, p1: u32) -> u32 {
        let middle = split(self.low, self.high, p1);
        if bit == 1 {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.out.push((self.high >> 24) as u8);
            self.low <<= 8;
            self.high = (self.high << 8) | 0xff;
        }
        bit
    }
}

/// Reads from a stream. After its end it reads as ones; [`Decoder::check`] tells.
pub(crate) struct Decoder<R> {
    low: u32,
    high: u32,
    value: u32,
    source: R,
    buffer: Box<[u8]>,
    filled: usize,
    at: usize,
    /// Bytes read after the end.
    missing: u32,
    decisions: u64,
    error: Option<std::io::Error>,
}

impl<R: Read> Decoder<R> {
    pub(crate) fn new(source: R) -> Self {
        let mut new = Self {
            low: 0,
            high: u32::MAX,
            value: 0,
            source,
            buffer: vec![0; 1 << 16].into_boxed_slice(),
            filled: 0,
            at: 0,
            missing: 0,
            decisions: 0,
            error: None,
        };
        for _ in 0..4 {
            new.value = (new.value << 8) | u32::from(new.byte());
        }
        new
    }

    fn byte(&mut self) -> u8 {
        if self.at == self.filled {
            self.at = 0;
            self.filled = 0;
            if self.missing == 0 && self.error.is_none() {
                loop {
                    match self.source.read(&mut self.buffer) {
                        Ok(bytes) => self.filled = bytes,
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                        Err(error) => self.error = Some(error),
                    }
                    break;
                }
            }
            if self.filled == 0 {
                self.missing = self.missing.saturating_add(1);
                return 0xff;
            }
        }
        let byte = self.buffer[self.at];
        self.at += 1;
        byte
    }

    /// Bits read.
    pub(crate) fn decisions(&self) -> u64 {
        self.decisions
    }

    /// Whether the last bytes are those with which an encoder ends.
    pub(crate) fn ended(&self) -> bool {
        self.value == self.high
    }
}

impl<R: Read> BitCoder for Decoder<R> {
    const ENCODES: bool = false;

    fn bit(&mut self, _: u32, p1: u32) -> u32 {
        self.decisions += 1;
        let middle = split(self.low, self.high, p1);
        let bit = u32::from(self.value <= middle);
        if bit == 1 {
            self.high = middle;
        } else {
            self.low = middle + 1;
        }
        while (self.low ^ self.high) >> 24 == 0 {
            self.low <<= 8;
            self.high = (self.high << 8) | 0xff;
            self.value = (self.value << 8) | u32::from(self.byte());
        }
        bit
    }

    fn check(&mut self) -> std::io::Result<()> {
        if let Some(error) = self.error.take() {
            self.missing = 1;
            return Err(error);
        }
        if self.missing > 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }
}
