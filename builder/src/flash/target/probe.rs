//! Marks beyond the image that tell whether a card has the room it claims.
//!
//! Counterfeit cards forget what is written beyond their real capacity, or put it elsewhere, most often
//! where the upper bits of the address are dropped. So the marks stand one power of two apart, the same
//! distance behind each: on such a card they overwrite one another.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::ops::Range;

use super::Guard;
use crate::flash::buffer::Buffer;

/// Bytes of a mark.
const SIZE: usize = 4096;

/// The marks on one target.
pub struct Probe {
    places: Vec<u64>,
    nonce: u64,
}

impl Probe {
    /// Marks for a disk of `size` bytes whose first `used` bytes belong to the image; none in `kept`.
    pub fn new(size: u64, used: u64, kept: &[Range<u64>]) -> Self {
        let first = used.next_multiple_of(1 << 20);
        let powers = (20..63).map(|n| 1u64 << n).filter(|power| *power >= first);
        let mut places: Vec<u64> = std::iter::once(0)
            .chain(powers)
            .map(|power| power + first)
            .collect();
        // The very end belongs to the spare partition table.
        places.push((size.saturating_sub(1 << 20)) / (1 << 20) * (1 << 20));
        places.retain(|at| {
            let end = at + SIZE as u64;
            let free = kept.iter().all(|kept| end <= kept.start || kept.end <= *at);
            free && *at >= first && end + (64 << 10) <= size
        });
        places.sort_unstable();
        places.dedup();
        Self {
            places,
            nonce: RandomState::new().build_hasher().finish(),
        }
    }

    fn mark(&self, at: u64, buffer: &mut Buffer) {
        for (n, word) in buffer.bytes_mut().chunks_exact_mut(8).enumerate() {
            let value = self.nonce ^ at.rotate_left(17) ^ (n as u64).wrapping_mul(0x9e37_79b9);
            word.copy_from_slice(&value.to_le_bytes());
        }
    }

    /// Writes the marks, the farthest one first, so that a nearer one would overwrite it.
    pub fn write(&self, disk: &mut Guard) -> io::Result<()> {
        let mut buffer = Buffer::new(SIZE);
        for at in self.places.iter().rev() {
            self.mark(*at, &mut buffer);
            disk.write_at(buffer.bytes(), *at)?;
        }
        disk.flush()
    }

    /// The first place whose mark is gone.
    pub fn first_lost(&self, disk: &mut Guard) -> io::Result<Option<u64>> {
        let (mut wanted, mut is) = (Buffer::new(SIZE), Buffer::new(SIZE));
        for at in &self.places {
            self.mark(*at, &mut wanted);
            disk.read_at(is.bytes_mut(), *at)?;
            if wanted.bytes() != is.bytes() {
                return Ok(Some(*at));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "ranges are meant")]
mod tests {
    use super::super::simulated::{Fault, Memory};
    use super::*;

    const MIB: u64 = 1 << 20;

    fn lost(size: u64, used: u64, fault: Fault) -> Option<u64> {
        let mut guard = Guard::new(Box::new(Memory::with(size, fault)), Vec::new());
        let probe = Probe::new(size, used, &[]);
        probe.write(&mut guard).unwrap();
        probe.first_lost(&mut guard).unwrap()
    }

    #[test]
    fn an_honest_card_keeps_its_marks() {
        for used in [MIB, 3 * MIB, 64 * MIB] {
            assert_eq!(lost(64 * MIB, used, Fault::None), None);
        }
    }

    #[test]
    fn a_card_with_less_room_than_it_claims_loses_them() {
        for real in [8 * MIB, 16 * MIB, 32 * MIB] {
            assert!(
                lost(64 * MIB, 3 * MIB, Fault::Wraps(real)).is_some(),
                "{real}"
            );
            assert!(
                lost(64 * MIB, 3 * MIB, Fault::Forgets(real)).is_some(),
                "{real}"
            );
        }
    }

    #[test]
    fn nothing_that_is_kept_is_marked() {
        let probe = Probe::new(64 * MIB, 3 * MIB, &[4 * MIB..63 * MIB]);
        assert!(probe
            .places
            .iter()
            .all(|at| !(4 * MIB..63 * MIB).contains(at)));
    }
}
