//! Frames: blocks one after another, each built from what came before it.

use super::block::{self, Carried, Sequence, Shape, BLOCK};
use super::BAD;
use crate::source::{Cached, Scratch, Source};
use crate::Error;

/// The first bytes of a frame.
pub(crate) const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The latest three distances (RFC 8878, section 3.1.1.5).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Distances([u32; 3]);

impl Default for Distances {
    fn default() -> Self {
        Self([1, 4, 8])
    }
}

impl Distances {
    /// By number in the frame, in the order of preference; some may be nothing.
    pub(crate) fn known(&self, literals: u32) -> [u32; 3] {
        let [a, b, c] = self.0;
        if literals == 0 {
            [b, c, a.wrapping_sub(1)]
        } else {
            [a, b, c]
        }
    }

    /// How a distance is written by whoever prefers the latest ones.
    pub(crate) fn usual(&self, literals: u32, distance: u32) -> u32 {
        match self.known(literals).iter().position(|d| *d == distance) {
            Some(place) => place as u32 + 1,
            None => distance.saturating_add(3),
        }
    }

    /// The distance that is meant; remembers it.
    pub(crate) fn take(&mut self, literals: u32, offset: u32) -> Result<u32, Error> {
        let [a, b, c] = self.0;
        let distance = match offset {
            0 => return Err(BAD),
            1..=3 => self.known(literals)[offset as usize - 1],
            _ => offset - 3,
        };
        let place = match offset {
            1..=3 => offset - 1 + u32::from(literals == 0),
            _ => 3,
        };
        self.0 = match place {
            0 => [a, b, c],
            1 => [distance, a, c],
            _ => [distance, a, b],
        };
        if distance == 0 {
            return Err(BAD);
        }
        Ok(distance)
    }
}

/// Bytes of memory for a block, roughly: what it stands for, and its sequences.
pub(crate) const MEMORY: u64 = 8 * BLOCK as u64;
/// Pages of the content that are remembered while it is unpacked, and their bytes.
const PAGES: usize = 1 << 9;
pub(crate) const UNPACKING: u64 = Cached::memory(PAGES);

/// A block, and what it stands for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Block {
    pub last: bool,
    /// 0 as it is, 1 one byte repeated, 2 compressed.
    pub kind: u8,
    /// Bytes it stands for.
    pub size: u32,
    pub shape: Shape,
    pub sequences: Vec<Sequence>,
    /// By sequence, how far back its bytes come from.
    pub distances: Vec<u32>,
}

/// Where a frame's blocks begin; `None` if no frame is here.
fn blocks(file: &dyn Source, at: u64) -> Option<u64> {
    let mut head = [0u8; 5];
    file.read_at(at, &mut head).ok()?;
    let flags = head[4];
    if head[..4] != MAGIC || flags & 0x0b != 0 {
        // No dictionary, nothing reserved.
        return None;
    }
    let single = flags & 0x20 != 0;
    let size = match flags >> 6 {
        0 => u64::from(single),
        n => 1 << n,
    };
    Some(at + 5 + u64::from(!single) + size)
}

/// Unpacks the frame that begins at `at`, block by block; returns where its blocks begin and end. `content`
/// must be empty and may hold `limit` bytes.
pub(crate) fn unpack(
    file: &dyn Source,
    at: u64,
    limit: u64,
    content: &mut dyn Scratch,
    each: &mut dyn FnMut(Block) -> Result<(), Error>,
) -> Result<(u64, u64), Error> {
    let begin = blocks(file, at).ok_or(BAD)?;
    let mut carried = Carried::default();
    let mut distances = Distances::default();
    let mut at = begin;
    let mut cache = Cached::new(PAGES);
    loop {
        let mut head = [0u8; 3];
        file.read_at(at, &mut head).map_err(Error::Old)?;
        let word = u32::from(head[0]) | u32::from(head[1]) << 8 | u32::from(head[2]) << 16;
        let mut found = Block {
            last: word & 1 == 1,
            kind: (word >> 1 & 3) as u8,
            size: word >> 3,
            ..Block::default()
        };
        let stored = if found.kind == 1 {
            1
        } else {
            found.size as usize
        };
        if found.size as usize > BLOCK || found.kind > 2 {
            return Err(BAD);
        }
        let mut bytes = vec![0; stored];
        file.read_at(at + 3, &mut bytes).map_err(Error::Old)?;
        at += 3 + stored as u64;
        match found.kind {
            0 => {}
            1 => bytes = vec![bytes[0]; found.size as usize],
            _ => {
                let taken = block::take(&bytes, &mut carried)?;
                bytes = Vec::with_capacity(BLOCK);
                let mut rest = taken.literals.as_slice();
                for sequence in &taken.sequences {
                    let (literals, after) = rest
                        .split_at_checked(sequence.literals as usize)
                        .ok_or(BAD)?;
                    bytes.extend_from_slice(literals);
                    rest = after;
                    let distance = distances.take(sequence.literals, sequence.offset)?;
                    copy(
                        content,
                        &mut cache,
                        &mut bytes,
                        distance,
                        sequence.length as usize,
                    )?;
                    found.distances.push(distance);
                }
                bytes.extend_from_slice(rest);
                found.size = bytes.len() as u32;
                (found.shape, found.sequences) = (taken.shape, taken.sequences);
            }
        }
        if bytes.len() > BLOCK || content.len() + bytes.len() as u64 > limit {
            return Err(BAD);
        }
        content.append(&bytes).map_err(Error::Write)?;
        let last = found.last;
        each(found)?;
        if last {
            return Ok((begin, at));
        }
    }
}

/// Repeats bytes that stand so far back, in this block or before it.
fn copy(
    before: &dyn Scratch,
    cache: &mut Cached,
    bytes: &mut Vec<u8>,
    distance: u32,
    length: usize,
) -> Result<(), Error> {
    let distance = distance as usize;
    if bytes.len() + length > BLOCK || distance == 0 {
        return Err(BAD);
    }
    let mut left = length;
    while left > 0 {
        let count = match bytes.len().checked_sub(distance) {
            Some(place) => {
                let count = left.min(distance);
                bytes.extend_from_within(place..place + count);
                count
            }
            None => {
                let back = distance - bytes.len();
                let place = before.len().checked_sub(back as u64).ok_or(BAD)?;
                let there = cache.from(before.as_source(), place);
                let there = there.map_err(Error::Write)?;
                let count = left.min(back).min(there.len());
                bytes.extend_from_slice(&there[..count]);
                count
            }
        };
        if count == 0 {
            return Err(BAD);
        }
        left -= count;
    }
    Ok(())
}
