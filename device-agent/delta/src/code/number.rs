//! Numbers: their length in bits first, then the bits.

use super::mix::{hash, Model};
use super::range::BitCoder;

/// Codes numbers, each kind of number with statistics of its own.
pub(crate) struct Numbers {
    model: Model<2>,
}

impl Numbers {
    pub(crate) fn new() -> Self {
        Self {
            model: Model::new(16, 1, 255),
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> u64 {
        self.model.memory()
    }

    /// Codes a number of a kind, in a context.
    pub(crate) fn code<C: BitCoder>(
        &mut self,
        coder: &mut C,
        kind: u32,
        context: u32,
        value: u64,
    ) -> u64 {
        let length = 64 - value.leading_zeros();
        let base = hash(0x51, kind);
        let contexts = [hash(base, 0x1000), hash(base, 0x2000 + context)];
        let length = self.model.tree(coder, &contexts, 0, 7, length).min(64);
        if length <= 1 {
            return u64::from(length);
        }
        let mut found = 1u64;
        for i in (0..length - 1).rev() {
            // The highest bits have a shape, the lowest are noise.
            let shape = if found < 64 { found as u32 } else { 0x80 + i };
            let at = [
                hash(hash(base, 0x3000 + length), shape),
                hash(hash(base, 0x4000 + length + (context << 8)), shape),
            ];
            let bit = self.model.bit(coder, &at, 0, ((value >> i) & 1) as u32);
            found = (found << 1) | u64::from(bit);
        }
        found
    }

    /// Codes a number that may be negative.
    pub(crate) fn signed<C: BitCoder>(
        &mut self,
        coder: &mut C,
        kind: u32,
        context: u32,
        value: i64,
    ) -> i64 {
        let folded = ((value << 1) ^ (value >> 63)) as u64;
        let folded = self.code(coder, kind, context, folded);
        ((folded >> 1) as i64) ^ -((folded & 1) as i64)
    }
}
