//! Bytes that are not simply the old ones: predicted from those before them, from what was expected in their place,
//! and from where a field may aim.

use crate::code::{hash, table, BitCoder, ByteModel, Known, CONTEXTS};
use crate::tape::Tape;
use crate::Error;

/// Bytes remembered.
const PAST: usize = 1 << table(22);
/// Places remembered, as a power of two.
const PLACES: u32 = table(18);
/// Bytes that must be equal for a place to be followed, and compared at most.
const LEAST: u32 = 6;
const COMPARED: u32 = 32;
/// The first kind of a field's target; its lower bytes have the next three.
const TARGET: u32 = 9;

/// What is expected in a byte's place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    /// Which kind of expectation it is, from 1 on.
    pub(crate) kind: u32,
    pub(crate) byte: u8,
    /// What is expected of the next one.
    pub(crate) next: u8,
}

/// What is known of where a field aims.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Aimed {
    pub(crate) class: u32,
    /// Where it is expected to aim.
    pub(crate) expected: u64,
    /// Where the old one aimed.
    pub(crate) old: u64,
    /// What it counts from.
    pub(crate) here: u64,
    /// Bytes.
    pub(crate) width: u32,
}

/// Statistics of bytes.
pub(crate) struct Bytes {
    model: ByteModel,
    /// By hash of the last bytes: where in `past` they were last seen.
    seen: Box<[u32]>,
    past: Box<[u8]>,
    at: u32,
    /// What is being followed in `past`, and how many bytes were the same.
    from: u32,
    length: u32,
    /// Where the last field aimed.
    last: u64,
}

impl Bytes {
    pub(crate) fn new() -> Self {
        Self {
            model: ByteModel::new(),
            seen: vec![0; 1 << PLACES].into_boxed_slice(),
            past: vec![0; PAST].into_boxed_slice(),
            at: 0,
            from: 0,
            length: 0,
            last: 0,
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> u64 {
        self.model.memory() + (size_of_val(&*self.seen) + size_of_val(&*self.past)) as u64
    }

    fn past(&self, at: u32) -> u8 {
        self.past[at as usize & (PAST - 1)]
    }

    /// Whether what followed the same bytes before says so too: 0 if it is not known, else by how many were the same.
    pub(crate) fn agrees(&self, byte: u8) -> u32 {
        if self.length == 0 {
            return 0;
        }
        self.length.ilog2().min(15) << 1 | u32::from(self.past(self.from) == byte)
    }

    /// A byte of which nothing is known but those before it.
    pub(crate) fn fresh<C: BitCoder>(
        &mut self,
        coder: &mut C,
        tape: &mut Tape<'_>,
    ) -> Result<(), Error> {
        let h = tape.history();
        let own = [
            hash(5, (h >> 8) as u32 & 0xffff),
            hash(6, (h >> 24) as u32 & 0xff | (tape.at as u32 & 3) << 8),
            hash(7, (h >> 16) as u32 & 0xffff),
        ];
        let byte = self.code(coder, 0, own, tape.ahead(0), tape);
        self.push(byte, tape)
    }

    /// A byte in the place of an expected one. It goes on the tape by [`Bytes::push`].
    pub(crate) fn instead<C: BitCoder>(
        &mut self,
        coder: &mut C,
        expected: Expected,
        actual: u8,
        tape: &Tape<'_>,
    ) -> u8 {
        let byte = u32::from(expected.byte);
        let last = (tape.history() & 0xff) as u32;
        let own = [
            hash(hash(8, expected.kind), byte),
            hash(hash(9, expected.kind), last << 8 | byte),
            hash(
                hash(10, expected.kind),
                u32::from(expected.next) << 8 | byte,
            ),
        ];
        self.code(coder, expected.kind, own, actual, tape)
    }

    fn code<C: BitCoder>(
        &mut self,
        coder: &mut C,
        kind: u32,
        [a, b, c]: [u32; 3],
        actual: u8,
        tape: &Tape<'_>,
    ) -> u8 {
        let h = tape.history();
        let low = |bytes: u32| (h & ((1u64 << (8 * bytes)) - 1)) as u32;
        let contexts: [u32; CONTEXTS] = [
            hash(0, low(1)),
            hash(1, low(2)),
            hash(2, low(3)),
            hash(3, low(4)),
            hash(hash(4, low(4)), (h >> 32) as u32 & 0xffff),
            a,
            b,
            c,
        ];
        let known = Known {
            kind,
            last: h as u8,
            copy: (self.length > 0).then(|| (self.past(self.from), self.length)),
        };
        self.model.code(coder, &contexts, &known, actual)
    }

    /// Where a field aims, its bytes from the highest on. Nothing of the field is on the tape yet.
    pub(crate) fn target<C: BitCoder>(
        &mut self,
        coder: &mut C,
        aimed: &Aimed,
        actual: u64,
        tape: &Tape<'_>,
    ) -> u64 {
        let h = tape.history();
        let before = (h & 0xffff_ffff) as u32;
        let mut found = 0u64;
        for i in (0..aimed.width).rev() {
            let high = hash(hash(i, found as u32), (found >> 32) as u32);
            // A byte of an address in the context of one that is right so far, or not.
            let beside = |address: u64| {
                let address = address >> (8 * i);
                u32::from(address >> 8 == found) << 8 | (address & 0xff) as u32
            };
            let contexts: [u32; CONTEXTS] = [
                hash(high, 0x100),
                hash(high, hash(0x101, self.last as u32)),
                hash(high, hash(0x102, before & 0xff_ffff)),
                hash(hash(0x103, aimed.class << 8 | i), beside(aimed.expected)),
                hash(high, hash(0x104, aimed.old as u32)),
                hash(high, hash(0x105, before & 0xffff)),
                hash(
                    hash(0x106, (before & 0xff) << 8 | aimed.width << 4 | i),
                    beside(aimed.here),
                ),
                hash(high, hash(0x107, aimed.class)),
            ];
            let known = Known {
                kind: TARGET + i.min(3),
                last: h as u8,
                copy: None,
            };
            let byte = (actual >> (8 * i)) as u8;
            let byte = self.model.code(coder, &contexts, &known, byte);
            found = found << 8 | u64::from(byte);
        }
        self.last = found;
        found
    }

    /// Puts a byte on the tape, and remembers it.
    pub(crate) fn push(&mut self, byte: u8, tape: &mut Tape<'_>) -> Result<(), Error> {
        tape.push(byte)?;
        if self.length > 0 && self.past(self.from) == byte {
            self.length = self.length.saturating_add(1);
            self.from = self.from.wrapping_add(1);
        } else {
            self.length = 0;
        }
        self.past[self.at as usize & (PAST - 1)] = byte;
        self.at = self.at.wrapping_add(1);
        let h = tape.history();
        let key = hash(hash(6, h as u32), (h >> 32) as u32 & 0xffff) >> (32 - PLACES);
        let seen = std::mem::replace(&mut self.seen[key as usize], self.at);
        if self.length == 0 && seen > 0 {
            let same = |back: &u32| {
                self.past(seen.wrapping_sub(back + 1)) == self.past(self.at.wrapping_sub(back + 1))
            };
            let length = (0..COMPARED).take_while(same).count() as u32;
            if length >= LEAST {
                (self.from, self.length) = (seen, length);
            }
        }
        Ok(())
    }
}
