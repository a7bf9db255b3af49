//! What is written to. Everything above this module knows a disk only as a [`Target`], so that tests can
//! hand in disks that fail, lie, fill up or vanish.

mod bytes;
pub mod disk;
mod guard;
pub mod probe;
#[cfg(test)]
pub(crate) mod simulated;

use std::io;
use std::ops::Range;

pub use bytes::Bytes;
pub use guard::{Guard, Verified, BOOT_AREA};

/// A disk, card or file. Offsets and lengths of reads and writes are multiples of [`Target::block`], the
/// memory is aligned to [`super::buffer::ALIGNMENT`].
pub trait Target: Send {
    /// Size, bytes.
    fn size(&self) -> u64;
    /// Logical block, bytes: a power of two from 512 to 4096.
    fn block(&self) -> usize;
    /// Writes all of `data` at byte `at`.
    fn write_at(&mut self, data: &[u8], at: u64) -> io::Result<()>;
    /// Fills `buffer` with what the medium holds at byte `at`, not with what some cache remembers.
    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<()>;
    /// Tells the device that nobody needs this range any more; `false` if it cannot be told.
    fn discard(&mut self, range: Range<u64>) -> io::Result<bool>;
    /// Returns when all that was written is on the medium.
    fn flush(&mut self) -> io::Result<()>;
}
