//! The decisions that the old file's compressor made, by place in its content.

use super::frame::Block;
use crate::source::Scratch;
use crate::Error;

/// Bytes of a match as it is kept: beginning, source, end.
const RECORD: usize = 12;
/// Matches that are read together.
const GROUP: usize = 1 << 10;

/// A stretch of literals, then bytes that came from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Match {
    /// Where the literals begin.
    pub literals: u64,
    /// Where the repeated bytes begin.
    pub begin: u64,
    /// Where they end.
    pub end: u64,
    /// Where they came from.
    pub source: u64,
}

/// All matches of a file, in order, kept outside of memory.
pub(crate) struct Matches {
    kept: Box<dyn Scratch>,
    pending: Vec<u8>,
    /// End of the last match of each group.
    ends: Vec<u32>,
    count: u64,
    /// Content so far.
    at: u64,
    last: u32,
    /// Number of the group that is held, with the end of the match before it.
    group: (usize, u64, Vec<u8>),
    /// The record found last.
    found: usize,
}

impl Matches {
    pub(crate) fn new(kept: Box<dyn Scratch>) -> Self {
        Self {
            kept,
            pending: Vec::new(),
            ends: Vec::new(),
            count: 0,
            at: 0,
            last: 0,
            group: (usize::MAX, 0, Vec::new()),
            found: 0,
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> u64 {
        (size_of_val(&*self.ends) + 2 * GROUP * RECORD) as u64
    }

    /// Takes the next block's.
    pub(crate) fn add(&mut self, block: &Block) -> Result<(), Error> {
        let mut at = self.at;
        for (sequence, distance) in block.sequences.iter().zip(&block.distances) {
            at += u64::from(sequence.literals);
            let source = (at as u32).wrapping_sub(*distance);
            let end = at as u32 + sequence.length;
            for number in [at as u32, source, end] {
                self.pending.extend_from_slice(&number.to_le_bytes());
            }
            at = end.into();
            self.last = end;
            self.count += 1;
            if self.count % GROUP as u64 == 0 {
                self.group_is_full()?;
            }
        }
        self.at += u64::from(block.size);
        Ok(())
    }

    fn group_is_full(&mut self) -> Result<(), Error> {
        self.ends.push(self.last);
        self.kept.append(&self.pending).map_err(Error::Write)?;
        self.pending.clear();
        Ok(())
    }

    /// All have been added.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.group_is_full()
    }

    /// The match that this place belongs to, or whose literals it does.
    pub(crate) fn at(&mut self, place: u64) -> Result<Option<Match>, Error> {
        let (held, before) = (self.group.0, self.group.1);
        let inside = self
            .ends
            .get(held)
            .is_some_and(|end| before <= place && place < u64::from(*end));
        let group = if inside {
            held
        } else {
            self.ends.partition_point(|end| u64::from(*end) <= place)
        };
        if group == self.ends.len() {
            return Ok(None);
        }
        if self.group.0 != group {
            let from = (group * GROUP * RECORD) as u64;
            let length = (self.kept.len() - from).min((GROUP * RECORD) as u64);
            self.group.0 = usize::MAX;
            self.group.2.resize(length as usize, 0);
            self.kept
                .read_at(from, &mut self.group.2)
                .map_err(Error::Write)?;
            let before = group.checked_sub(1).map_or(0, |g| self.ends[g]);
            (self.group.0, self.group.1) = (group, before.into());
        }
        let count = self.group.2.len() / RECORD;
        let (mut low, mut high) = (0, count);
        // Most often it is the one found last, or the next.
        let last = self.found;
        if last + 2 < count
            && (last == 0 || self.number(last - 1, 2) <= place)
            && place < self.number(last + 1, 2)
        {
            (low, high) = (last, last + 1);
        }
        while low < high {
            let middle = (low + high) / 2;
            if self.number(middle, 2) <= place {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        self.found = low;
        let literals = match low.checked_sub(1) {
            Some(before) => self.number(before, 2),
            None => self.group.1,
        };
        Ok((low < count).then(|| Match {
            literals,
            begin: self.number(low, 0),
            source: self.number(low, 1),
            end: self.number(low, 2),
        }))
    }

    fn number(&self, record: usize, field: usize) -> u64 {
        let at = record * RECORD + 4 * field;
        let bytes = &self.group.2[at..at + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zstd::block::Sequence;

    #[test]
    fn every_place_finds_its_match() {
        let mut matches = Matches::new(Box::new(Vec::new()));
        let mut block = Block {
            size: 30_000,
            ..Block::default()
        };
        for _ in 0..3000 {
            block.sequences.push(Sequence {
                literals: 2,
                length: 7,
                offset: 8,
            });
            block.distances.push(5);
        }
        matches.add(&block).unwrap();
        matches.finish().unwrap();
        for place in [0, 1, 2, 8, 9, 9215, 9216, 9217, 26_999, 5, 20_000] {
            let found = matches.at(place).unwrap().unwrap();
            let first = place / 9 * 9;
            let wanted = Match {
                literals: first,
                begin: first + 2,
                end: first + 9,
                source: (first + 2).wrapping_sub(5) as u32 as u64,
            };
            assert_eq!(found, wanted, "{place}");
        }
        assert_eq!(matches.at(27_000).unwrap(), None);
    }
}
