//! What the old file says of the decisions in the new one.

use super::matches::{Match, Matches};
use crate::layout::{pieces, place_of, Mapped, Step};
use crate::pieces::{disjoint, Piece};
use crate::Error;

/// Where the new content stood in the old one, where the old one has come, and what was decided there.
pub(crate) struct Guide {
    /// In the order of the new content.
    new: Vec<Piece>,
    /// In the order of the old one.
    old: Vec<Piece>,
    matches: Matches,
    last: usize,
}

/// The old match at a place of the new content.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    /// The place in the old content.
    pub at: u64,
    pub of: Match,
}

impl Guide {
    pub(crate) fn new(steps: &[Step], matches: Matches) -> Self {
        let new = pieces(steps);
        let old = disjoint(new.clone());
        Self {
            new,
            old,
            matches,
            last: 0,
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> u64 {
        (size_of_val(&*self.new) + size_of_val(&*self.old)) as u64 + self.matches.memory()
    }

    fn old_place(&mut self, new: u64) -> Option<u64> {
        let holds = |p: &Piece| p.new <= new && new - p.new < p.length;
        if !self.new.get(self.last).is_some_and(holds) {
            self.last += 1;
            if !self.new.get(self.last).is_some_and(holds) {
                self.last = self.new.partition_point(|p| p.new <= new).checked_sub(1)?;
            }
        }
        let piece = self.new.get(self.last).filter(|p| holds(p))?;
        Some(piece.old + (new - piece.new))
    }

    pub(super) fn seen(&mut self, new: u64) -> Result<Option<Seen>, Error> {
        let Some(at) = self.old_place(new) else {
            return Ok(None);
        };
        Ok(self.matches.at(at)?.map(|of| Seen { at, of }))
    }

    /// Where a place of the old content has come.
    pub(super) fn new_place(&self, old: u64) -> Mapped {
        place_of(&self.old, old)
    }
}
