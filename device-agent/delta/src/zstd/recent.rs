//! Where the latest bytes of a content have stood before.

use std::io;

use crate::source::{Cached, Source};

/// Lengths of what is looked for, in bytes; bits of the table of each.
const KEYS: [(u32, u32); CANDIDATES] = [(8, 19), (6, 19), (4, 18)];
/// Places that are proposed.
pub(crate) const CANDIDATES: usize = 3;
/// Bytes compared at most.
pub(crate) const COMPARED: u64 = 1 << 12;

/// A content and an index of its beginning.
pub(crate) struct Recent<'a> {
    content: &'a dyn Source,
    cache: Cached,
    tables: [Vec<u32>; CANDIDATES],
    /// Up to here the tables know.
    at: u64,
}

fn key(word: u64, which: usize) -> usize {
    let (bytes, bits) = KEYS[which];
    let word = word << (64 - 8 * bytes);
    (word.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - bits)) as usize
}

impl<'a> Recent<'a> {
    pub(crate) fn new(content: &'a dyn Source) -> Self {
        Self {
            content,
            cache: Cached::new(),
            tables: KEYS.map(|(_, bits)| vec![0; 1 << bits]),
            at: 0,
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory() -> u64 {
        let tables: u64 = KEYS.iter().map(|(_, bits)| 4u64 << bits).sum();
        tables + Cached::MEMORY
    }

    /// Indexes everything before `place`.
    pub(crate) fn reach(&mut self, place: u64) -> io::Result<()> {
        while self.at < place {
            let word = self.cache.word(self.content, self.at)?;
            self.at += 1;
            for (which, table) in self.tables.iter_mut().enumerate() {
                table[key(word, which)] = self.at as u32;
            }
        }
        Ok(())
    }

    /// How far back the same bytes stood last, for each length; 0: nowhere.
    pub(crate) fn candidates(&mut self, place: u64) -> io::Result<[u32; CANDIDATES]> {
        let word = self.cache.word(self.content, place)?;
        let mut found = [0; CANDIDATES];
        for (which, distance) in found.iter_mut().enumerate() {
            let before = u64::from(self.tables[which][key(word, which)]);
            if before > 0 {
                *distance = (place + 1 - before) as u32;
            }
        }
        Ok(found)
    }

    /// Bytes from `place` on that stand so far back, too, up to a limit.
    pub(crate) fn common(&mut self, place: u64, distance: u32, limit: u64) -> io::Result<u64> {
        let Some(other) = place.checked_sub(distance.into()).filter(|_| distance > 0) else {
            return Ok(0);
        };
        let limit = limit.min(COMPARED).min(self.content.len() - place);
        let mut length = 0;
        while length < limit {
            let differ = self.cache.word(self.content, place + length)?
                ^ self.cache.word(self.content, other + length)?;
            if differ != 0 {
                return Ok(limit.min(length + u64::from(differ.trailing_zeros() / 8)));
            }
            length += 8;
        }
        Ok(limit)
    }

    pub(crate) fn read(&mut self, from: u64, count: usize, out: &mut Vec<u8>) -> io::Result<()> {
        for place in from..from + count as u64 {
            out.push(self.cache.byte(self.content, place)?);
        }
        Ok(())
    }
}
