//! A target with closed places. The two rules that matter most stand here, in front of every write: what is
//! to be kept is never touched, and the first MiB is written last.

use std::io;
use std::ops::Range;

use super::Target;
use crate::flash::buffer::Buffer;

/// The first bytes of a disk: partition table and, on many boards, the first boot loader. A disk whose
/// first MiB is empty boots nowhere.
pub const BOOT_AREA: u64 = 1 << 20;

/// Proof that everything outside the boot area was read back and is right. Only a finished comparison makes
/// one.
#[derive(Debug)]
pub struct Verified(());

impl Verified {
    /// Only for the end of a comparison without a difference.
    pub(in crate::flash) fn after_comparison(compared: u64, wanted: u64) -> Option<Self> {
        (compared == wanted).then_some(Self(()))
    }
}

/// A target behind its rules.
pub struct Guard {
    inner: Box<dyn Target>,
    kept: Vec<Range<u64>>,
}

impl Guard {
    /// Closes `kept` and the boot area of `inner`.
    pub fn new(inner: Box<dyn Target>, kept: Vec<Range<u64>>) -> Self {
        Self { inner, kept }
    }

    /// Size, bytes.
    pub fn size(&self) -> u64 {
        self.inner.size()
    }

    /// Logical block, bytes.
    pub fn block(&self) -> usize {
        self.inner.block()
    }

    /// The ranges that are kept.
    pub fn kept(&self) -> &[Range<u64>] {
        &self.kept
    }

    /// The parts of `range` outside the boot area that may be written.
    pub fn open_parts(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let outside = range.start.max(BOOT_AREA)..range.end;
        let mut parts = Vec::from_iter([outside]);
        for kept in &self.kept {
            parts = parts
                .into_iter()
                .flat_map(|part| {
                    [
                        part.start..part.end.min(kept.start),
                        part.start.max(kept.end)..part.end,
                    ]
                })
                .filter(|part| part.start < part.end)
                .collect();
        }
        parts.retain(|part| part.start < part.end);
        parts
    }

    fn refuse_kept(&self, range: &Range<u64>) -> io::Result<()> {
        let hit = |kept: &&Range<u64>| range.start < kept.end && kept.start < range.end;
        match self.kept.iter().find(hit) {
            Some(kept) => Err(io::Error::other(format!(
                "refused to write to bytes {}–{}, which are to be kept",
                kept.start, kept.end
            ))),
            None if range.end > self.inner.size() => Err(io::Error::other(format!(
                "refused to write beyond the end, to byte {} of {}",
                range.end,
                self.inner.size()
            ))),
            None => Ok(()),
        }
    }

    fn refuse(&self, range: &Range<u64>) -> io::Result<()> {
        if range.start < BOOT_AREA {
            return Err(io::Error::other(
                "refused to write to the first MiB before everything else is verified",
            ));
        }
        self.refuse_kept(range)
    }

    /// Writes outside the closed places.
    pub fn write_at(&mut self, data: &[u8], at: u64) -> io::Result<()> {
        self.refuse(&(at..at + data.len() as u64))?;
        self.inner.write_at(data, at)
    }

    /// Reads anything.
    pub fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        self.inner.read_at(buffer, at)
    }

    /// Discards outside the closed places.
    pub fn discard(&mut self, range: Range<u64>) -> io::Result<bool> {
        self.refuse(&range)?;
        self.inner.discard(range)
    }

    /// Returns when all that was written is on the medium.
    pub fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }

    /// Makes the disk one that does not boot: `area` (zeros, or a table that only names what is kept)
    /// replaces the boot area, and the spare partition table at the end loses its header.
    pub fn close_boot(&mut self, area: &Buffer) -> io::Result<()> {
        let length = usize::try_from(BOOT_AREA.min(self.size())).unwrap_or_default();
        let length = length / self.block() * self.block();
        let area = area.bytes().get(..length).ok_or_else(short)?;
        self.refuse_kept(&(0..length as u64))?;
        self.inner.write_at(area, 0)?;
        self.inner.flush()?;
        let block = self.block() as u64;
        let last = (self.size() / block).saturating_sub(1) * block;
        if last >= BOOT_AREA && self.refuse_kept(&(last..last + block)).is_ok() {
            let zeros = Buffer::new(self.block());
            self.inner.write_at(zeros.bytes(), last)?;
            self.inner.flush()?;
        }
        Ok(())
    }

    /// Writes the boot area: the disk boots from now on.
    pub fn write_boot(&mut self, area: &Buffer, _proof: &Verified) -> io::Result<()> {
        let length = usize::try_from(BOOT_AREA.min(self.size())).unwrap_or_default();
        let length = length / self.block() * self.block();
        let area = area.bytes().get(..length).ok_or_else(short)?;
        self.refuse_kept(&(0..length as u64))?;
        self.inner.write_at(area, 0)?;
        self.inner.flush()
    }
}

fn short() -> io::Error {
    io::Error::other("the boot area is incomplete")
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "ranges are meant")]
mod tests {
    use super::super::simulated::Memory;
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn kept_places_and_the_boot_area_are_closed() {
        let disk = Memory::new(8 * MIB);
        let seen = disk.content();
        let mut guard = Guard::new(Box::new(disk), vec![4 * MIB..6 * MIB]);
        let buffer = Buffer::new(8192);
        for at in [
            0,
            MIB - 4096,
            4 * MIB - 4096,
            4 * MIB,
            6 * MIB - 4096,
            8 * MIB - 4096,
        ] {
            assert!(guard.write_at(buffer.bytes(), at).is_err(), "{at}");
            assert!(guard.discard(at..at + 8192).is_err(), "{at}");
        }
        for at in [MIB, 4 * MIB - 8192, 6 * MIB, 8 * MIB - 8192] {
            guard.write_at(buffer.bytes(), at).unwrap();
        }
        assert_eq!(
            guard.open_parts(0..8 * MIB),
            [MIB..4 * MIB, 6 * MIB..8 * MIB]
        );
        assert!(guard.open_parts(0..MIB).is_empty());
        let seen = seen.lock().unwrap();
        assert!(seen[4 * MIB as usize..6 * MIB as usize]
            .iter()
            .all(|b| *b == 0xee));
    }

    #[test]
    fn nothing_boots_from_a_closed_disk() {
        let disk = Memory::new(4 * MIB);
        let seen = disk.content();
        let mut guard = Guard::new(Box::new(disk), Vec::new());
        guard.close_boot(&Buffer::new(1 << 20)).unwrap();
        let seen = seen.lock().unwrap();
        assert!(seen[..1 << 20].iter().all(|b| *b == 0));
        assert!(seen[(4 << 20) - 512..].iter().all(|b| *b == 0));
        assert!(seen[1 << 20..(4 << 20) - 512].iter().all(|b| *b == 0xee));
    }

    #[test]
    fn a_comparison_that_did_not_see_everything_proves_nothing() {
        assert!(Verified::after_comparison(9, 10).is_none());
        assert!(Verified::after_comparison(10, 10).is_some());
    }
}
