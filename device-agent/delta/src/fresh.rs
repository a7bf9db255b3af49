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

/// What is known of a field besides the bytes before it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aimed {
    pub(crate) class: u32,
    /// Where it is expected to aim.
    pub(crate) expected: u64,
    /// Where the old one aimed.
    pub(crate) old: u64,
    /// Where it stands, or what it counts from.
    pub(crate) here: u64,
    /// Bytes.
    pub(crate) width: u32,
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
    /// Where the last such field aimed.
    last: u64,
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
            last: 0,
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

    /// Whether what followed the same bytes before says so too: 0 if it is not known, else by how many were the same.
    pub(crate) fn agrees(&self, byte: u8) -> u32 {
        if self.length == 0 {
            return 0;
        }
        let same = self.past[self.from as usize & (PAST - 1)] == byte;
        self.length.ilog2().min(15) << 1 | u32::from(same)
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

    /// Where a field aims: its bytes from the highest on. The caller has nothing on the tape yet.
    pub(crate) fn target<C: BitCoder>(
        &mut self,
        coder: &mut C,
        aimed: &Aimed,
        actual: u64,
        tape: &Tape<'_>,
    ) -> u64 {
        let h = tape.history();
        let mut found = 0u64;
        for i in (0..aimed.width).rev() {
            let high = hash(hash(i, found as u32), (found >> 32) as u32);
            let expected = aimed.expected >> (8 * i);
            let right = expected >> 8 == found;
            let here = aimed.here >> (8 * i);
            let near = here >> 8 == found;
            let kind = 9 + i.min(3);
            let old = aimed.old as u32;
            let contexts = [
                hash(high, 0x100),
                hash(high, hash(0x101, self.last as u32)),
                hash(high, hash(0x102, h as u32 & 0xff_ffff)),
                hash(
                    hash(0x103, aimed.class << 8 | i),
                    u32::from(right) << 8 | expected as u32 & 0xff,
                ),
                hash(high, hash(0x104, old)),
                hash(high, hash(0x105, h as u32 & 0xffff)),
                hash(
                    hash(0x106, (h as u32 & 0xff) << 8 | aimed.width << 4 | i),
                    u32::from(near) << 8 | here as u32 & 0xff,
                ),
                hash(high, hash(0x107, aimed.class)),
            ];
            let byte = (actual >> (8 * i)) as u8;
            let byte = self.history.byte(coder, &contexts, None, kind, byte);
            found = found << 8 | u64::from(byte);
        }
        self.last = found;
        found
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
