//! Where the latest bytes of a content have stood before.

use std::io;

use crate::packed::CONTENT;
use crate::source::{Cached, Source};

/// Lengths of what is looked for, in bytes; bits of the table of each.
const KEYS: [(u32, u32); CANDIDATES] = [(8, 19), (6, 19), (4, 18)];
/// Places that are proposed.
pub(crate) const CANDIDATES: usize = 3;
/// Bytes compared at most.
pub(crate) const COMPARED: u64 = 1 << 12;

/// Bytes of the content that are held around the present place, and how many of them before it.
const NEAR: u64 = 1 << 18;
const BEHIND: u64 = 1 << 16;
/// Pages of the rest that are remembered.
const PAGES: usize = 1 << 9;
/// Bits of an entry that tell what it stands for from what shares its place in the table.
const TAG: u32 = 3;
const _: () = assert!(CONTENT <= 1 << (u32::BITS - TAG));

/// A content and an index of its beginning.
pub(crate) struct Recent<'a> {
    content: &'a dyn Source,
    cache: Cached,
    /// A stretch of the content, and where it begins.
    near: Vec<u8>,
    start: u64,
    /// Places (29 bits) below a tag; 0: none.
    tables: [Vec<u32>; CANDIDATES],
    /// Up to here the tables know.
    at: u64,
}

/// Place in the table, and the tag.
fn key(word: u64, which: usize) -> (usize, u32) {
    let (bytes, bits) = KEYS[which];
    let word = word << (64 - 8 * bytes);
    let key = word.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (64 - bits - TAG);
    ((key >> TAG) as usize, key as u32 & ((1 << TAG) - 1))
}

/// How many bytes are the same.
fn alike(a: &[u8], b: &[u8]) -> usize {
    let (a8, b8) = (a.chunks_exact(8), b.chunks_exact(8));
    let mut same = 0;
    for (a, b) in a8.zip(b8) {
        let (Ok(a), Ok(b)) = (a.try_into(), b.try_into()) else {
            break;
        };
        let differ = u64::from_le_bytes(a) ^ u64::from_le_bytes(b);
        if differ != 0 {
            return same + (differ.trailing_zeros() / 8) as usize;
        }
        same += 8;
    }
    let rest = a[same..].iter().zip(&b[same..]);
    same + rest.take_while(|(a, b)| a == b).count()
}

impl<'a> Recent<'a> {
    pub(crate) fn new(content: &'a dyn Source) -> Self {
        Self {
            content,
            cache: Cached::new(PAGES),
            near: Vec::new(),
            start: 0,
            tables: KEYS.map(|(_, bits)| vec![0; 1 << bits]),
            at: 0,
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory() -> u64 {
        let tables: u64 = KEYS.iter().map(|(_, bits)| 4u64 << bits).sum();
        tables + Cached::memory(PAGES) + NEAR
    }

    /// The bytes from a place on, as many as are asked for or are there; at most half of what is held.
    fn here(&mut self, from: u64, count: u64) -> io::Result<&[u8]> {
        let to = (from + count).min(self.content.len());
        if from < self.start || to > self.start + self.near.len() as u64 {
            let start = from.saturating_sub(BEHIND);
            let length = (self.content.len() - start).min(NEAR);
            self.near.resize(length as usize, 0);
            self.start = start;
            if let Err(error) = self.content.read_at(start, &mut self.near) {
                self.near.clear();
                return Err(error);
            }
        }
        Ok(&self.near[(from - self.start) as usize..(to - self.start) as usize])
    }

    /// Indexes everything before `place`.
    pub(crate) fn reach(&mut self, place: u64) -> io::Result<()> {
        while self.at < place {
            let from = self.at;
            let count = (place - from).min(COMPARED);
            self.here(from, count + 8)?;
            let near = &self.near[(from - self.start) as usize..];
            for i in 0..count as usize {
                let word = word(&near[i..]);
                for (which, table) in self.tables.iter_mut().enumerate() {
                    let (index, tag) = key(word, which);
                    table[index] = (from as u32 + i as u32) | tag << (32 - TAG);
                }
            }
            self.at += count;
        }
        Ok(())
    }

    /// How far back the same bytes stood last, for each length; 0: nowhere.
    pub(crate) fn candidates(&mut self, place: u64) -> io::Result<[u32; CANDIDATES]> {
        let word = word(self.here(place, 8)?);
        let mut found = [0; CANDIDATES];
        for (which, distance) in found.iter_mut().enumerate() {
            let (index, tag) = key(word, which);
            let entry = self.tables[which][index];
            let before = entry & (u32::MAX >> TAG);
            if before > 0 && entry >> (32 - TAG) == tag {
                *distance = place as u32 - before;
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
        self.here(place, limit)?;
        let near = (place - self.start) as usize;
        let here = &self.near[near..near + limit as usize];
        if other >= self.start {
            let there = &self.near[(other - self.start) as usize..];
            return Ok(alike(here, &there[..here.len()]) as u64);
        }
        let mut length = 0;
        while length < here.len() {
            let there = self.cache.from(self.content, other + length as u64)?;
            let count = there.len().min(here.len() - length);
            let same = alike(&here[length..length + count], &there[..count]);
            length += same;
            if same < count || count == 0 {
                break;
            }
        }
        Ok(length as u64)
    }

    pub(crate) fn read(&mut self, from: u64, count: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let mut from = from;
        let end = from + count as u64;
        while from < end {
            let count = (end - from).min(COMPARED);
            out.extend_from_slice(self.here(from, count)?);
            from += count;
        }
        Ok(())
    }
}

/// Eight bytes, the first lowest; zeros past the end.
fn word(bytes: &[u8]) -> u64 {
    match bytes.first_chunk() {
        Some(word) => u64::from_le_bytes(*word),
        None => {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            u64::from_le_bytes(word)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_stands_there() {
        // Stretches that come again, some from farther back than what is held.
        let mut content: Vec<u8> = Vec::new();
        let mut state = 1u32;
        while content.len() < 2 * NEAR as usize {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let from = (state >> 8) as usize % (content.len() + 1);
            let to = (from + (state >> 24) as usize).min(content.len());
            content.extend_from_within(from..to);
            content.extend_from_slice(&state.to_le_bytes());
        }
        let source = content.as_slice();
        let mut recent = Recent::new(&source);
        let (mut found, mut far) = (0, 0);
        for place in (0..content.len() - 8).step_by(211) {
            recent.reach(place as u64).unwrap();
            for distance in recent.candidates(place as u64).unwrap() {
                let Some(other) = place.checked_sub(distance as usize) else {
                    panic!("{distance} bytes before {place}");
                };
                let limit = 300.min(content.len() - place);
                let same = content[place..place + limit].iter().zip(&content[other..]);
                let wanted = match distance {
                    0 => 0,
                    _ => same.take_while(|(a, b)| a == b).count() as u64,
                };
                let common = recent.common(place as u64, distance, 300).unwrap();
                assert_eq!(common, wanted, "{distance} bytes before {place}");
                found += u32::from(common >= 8);
                far += u32::from(common >= 8 && u64::from(distance) > NEAR);
            }
        }
        assert!(found > 100 && far > 20, "{found}, {far} of them far away");
        let mut read = Vec::new();
        recent.read(5, 10_000, &mut read).unwrap();
        assert_eq!(read, content[5..10_005]);
    }
}
