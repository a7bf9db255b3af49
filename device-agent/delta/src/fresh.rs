//! Bytes predicted from those before them, and from what was expected in their place.

use crate::code::{hash, BitCoder, History};
use crate::tape::Tape;
use crate::Error;

/// Bytes remembered.
const PAST: usize = 1 << 22;
/// Places remembered, as a power of two.
const PLACES: u32 = 18;
/// Bytes that must be equal for a place to be looked at.
const LEAST: u32 = 6;

/// What is known of a byte besides those before it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Expected {
    /// 0: nothing; else which kind of expectation it is.
    pub(crate) kind: u32,
    pub(crate) byte: u8,
    pub(crate) next: u8,
}

/// Statistics of bytes.
pub(crate) struct Fresh {
    history: History<8>,
    /// By hash of the last bytes: where in `past` they were last seen.
    seen: Box<[u32]>,
    past: Box<[u8]>,
    at: u32,
    from: u32,
    length: u32,
}

impl Fresh {
    pub(crate) fn new() -> Self {
        Self {
            history: History::new(),
            seen: vec![0; 1 << PLACES].into_boxed_slice(),
            past: vec![0; PAST].into_boxed_slice(),
            at: 0,
            from: 0,
            length: 0,
        }
    }

    /// A byte without a model in the old file.
    pub(crate) fn code<C: BitCoder>(
        &mut self,
        coder: &mut C,
        tape: &mut Tape<'_>,
    ) -> Result<(), Error> {
        let byte = self.byte(coder, Expected::default(), tape.ahead(0), tape);
        tape.push(byte)?;
        self.took(tape.history());
        Ok(())
    }

    /// A byte; the caller tells by [`Fresh::took`] when it is on the tape.
    pub(crate) fn byte<C: BitCoder>(
        &mut self,
        coder: &mut C,
        expected: Expected,
        actual: u8,
        tape: &Tape<'_>,
    ) -> u8 {
        let h = tape.history();
        let low = |bytes: u32| (h & ((1u64 << (8 * bytes)) - 1)) as u32;
        let copy =
            (self.length > 0).then(|| (self.past[self.from as usize & (PAST - 1)], self.length));
        let (last, e) = (low(1), u32::from(expected.byte));
        let (a, b, c) = match expected.kind {
            0 => (
                hash(5, low(3) >> 8),
                hash(6, (h >> 24) as u32 & 0xff | (tape.at as u32 & 3) << 8),
                hash(7, (h >> 16) as u32 & 0xffff),
            ),
            kind => (
                hash(hash(8, kind), e),
                hash(hash(9, kind), last << 8 | e),
                hash(hash(10, kind), u32::from(expected.next) << 8 | e),
            ),
        };
        let contexts = [
            hash(0, last),
            hash(1, low(2)),
            hash(2, low(3)),
            hash(3, (h & 0xffff_ffff) as u32),
            hash(hash(4, h as u32), (h >> 32) as u32 & 0xffff),
            a,
            b,
            c,
        ];
        self.history
            .byte(coder, &contexts, copy, expected.kind, actual)
    }

    /// The last byte of `recent` (newest lowest) is on the tape.
    pub(crate) fn took(&mut self, recent: u64) {
        let byte = recent as u8;
        if self.length > 0 && self.past[self.from as usize & (PAST - 1)] == byte {
            self.length += 1;
            self.from = self.from.wrapping_add(1);
        } else {
            self.length = 0;
        }
        self.past[self.at as usize & (PAST - 1)] = byte;
        self.at = self.at.wrapping_add(1);
        let key = hash(hash(6, recent as u32), (recent >> 32) as u32 & 0xffff) >> (32 - PLACES);
        if self.length == 0 && self.seen[key as usize] > 0 {
            let from = self.seen[key as usize];
            let mut length = 0;
            while length < 32
                && self.past[from.wrapping_sub(length + 1) as usize & (PAST - 1)]
                    == self.past[self.at.wrapping_sub(length + 1) as usize & (PAST - 1)]
            {
                length += 1;
            }
            if length >= LEAST {
                (self.from, self.length) = (from, length);
            }
        }
        self.seen[key as usize] = self.at;
    }
}
