//! Huffman coded literals (RFC 8878, section 4.2).

use super::bits::{Backward, Writer};
use super::fse::Counts;
use super::BAD;
use crate::Error;

/// Bits of a code at most.
const LONGEST: u32 = 11;

/// A code: by byte, its bits and how many there are.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    longest: u32,
    codes: Vec<(u16, u8)>,
    /// By the next `longest` bits: byte and length.
    table: Vec<(u8, u8)>,
}

impl Tree {
    /// Reads a description; returns its length in bytes besides.
    pub(super) fn parse(bytes: &[u8]) -> Result<(Self, usize), Error> {
        let first = *bytes.first().ok_or(BAD)?;
        if first >= 128 {
            let count = usize::from(first) - 127;
            let packed = bytes.get(1..1 + count.div_ceil(2)).ok_or(BAD)?;
            let weights = (0..count).map(|i| packed[i / 2] >> (4 - 4 * (i % 2)) & 15);
            return Ok((Self::new(weights.collect())?, 1 + packed.len()));
        }
        let packed = bytes.get(1..1 + usize::from(first)).ok_or(BAD)?;
        let (counts, used) = Counts::parse(packed, 6, 13)?;
        let table = counts.decoder()?;
        let mut bits = Backward::new(&packed[used..])?;
        // Two states take turns, until the stream ends.
        let mut states = [table.begin(&mut bits), table.begin(&mut bits)];
        let mut weights = Vec::new();
        loop {
            for i in 0..2 {
                weights.push(table.symbol(states[i]));
                if weights.len() > 255 {
                    return Err(BAD);
                }
                if bits.left() < table.needs(states[i]) {
                    weights.push(table.symbol(states[1 - i]));
                    return Ok((Self::new(weights)?, 1 + packed.len()));
                }
                states[i] = table.next(states[i], &mut bits);
            }
        }
    }

    /// From all weights but the last, which follows from the others.
    fn new(mut weights: Vec<u8>) -> Result<Self, Error> {
        if weights.len() > 255 || weights.iter().any(|w| u32::from(*w) > LONGEST + 1) {
            return Err(BAD);
        }
        let sum: u32 = weights
            .iter()
            .filter(|w| **w > 0)
            .map(|w| 1 << (w - 1))
            .sum();
        if sum == 0 {
            return Err(BAD);
        }
        let longest = sum.ilog2() + 1;
        let rest = (1 << longest) - sum;
        if longest > LONGEST || !rest.is_power_of_two() {
            return Err(BAD);
        }
        weights.push(rest.ilog2() as u8 + 1);
        let mut codes = vec![(0, 0); weights.len()];
        let mut table = Vec::with_capacity(1 << longest);
        for weight in 1..=longest + 1 {
            for (byte, _) in weights
                .iter()
                .enumerate()
                .filter(|(_, w)| u32::from(**w) == weight)
            {
                let bits = longest + 1 - weight;
                codes[byte] = ((table.len() >> (weight - 1)) as u16, bits as u8);
                table.resize(table.len() + (1 << (weight - 1)), (byte as u8, bits as u8));
            }
        }
        if table.len() != 1 << longest {
            return Err(BAD);
        }
        Ok(Self {
            longest,
            codes,
            table,
        })
    }

    /// Adds `count` bytes.
    pub(super) fn decode(
        &self,
        stream: &[u8],
        count: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let mut bits = Backward::new(stream)?;
        for _ in 0..count {
            let (byte, length) = self.table[bits.peek(self.longest) as usize];
            bits.skip(length.into());
            out.push(byte);
        }
        if bits.left() != 0 {
            return Err(BAD);
        }
        Ok(())
    }

    pub(super) fn encode(&self, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Writer::default();
        for byte in bytes.iter().rev() {
            let (code, bits) = self
                .codes
                .get(usize::from(*byte))
                .copied()
                .unwrap_or((0, 0));
            if bits == 0 {
                return Err(BAD);
            }
            out.add(code.into(), bits.into());
        }
        Ok(out.finish())
    }
}
