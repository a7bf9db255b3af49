//! Files with a Zstandard frame in them, as kernels have: the frame's content is coded like any other file, then
//! how it was compressed, so that the same bytes come out.

use crate::code::BitCoder;
use crate::plan::Plan;
use crate::source::Source;
use crate::stream::{Given, Mode, Room, Stream};
use crate::zstd::decisions::{self, Decisions};
use crate::zstd::frame::{self, Block};
use crate::zstd::guide::Guide;
use crate::zstd::matches::Matches;
use crate::zstd::recent::Recent;
use crate::Error;

/// Bytes before the frame's blocks, and after them, at most.
pub(crate) const AROUND: u64 = 4 << 20;
/// Bytes that a frame unpacks to at most.
pub(crate) const CONTENT: u64 = 512 << 20;

/// Kinds of numbers.
const PLACE: u32 = 0x40;
const LENGTHS: u32 = 0x50;

/// What an encoder knows of such a file.
pub(crate) struct Packed {
    /// Where the old file's frame begins.
    pub old_at: u64,
    /// Before the blocks, and after them.
    pub head: Vec<u8>,
    pub tail: Vec<u8>,
    pub content: Vec<u8>,
    pub blocks: Vec<Block>,
    /// How head, tail and content are built from the old ones.
    pub plans: [Plan; 3],
}

/// One of the three parts.
fn given(packed: &Packed, part: usize) -> Given<'_> {
    let plan = &packed.plans[part];
    Given {
        bytes: [&packed.head, &packed.tail, &packed.content][part],
        mode: if plan.sections.is_empty() {
            Mode::Steps
        } else {
            Mode::Elf
        },
        plan,
        packed: None,
    }
}

impl<C: BitCoder> Stream<C> {
    /// Codes a file of so many bytes with a compressed part.
    pub(crate) fn packed(
        &mut self,
        length: u64,
        old: &dyn Source,
        packed: Option<&Packed>,
        room: Room<'_>,
        out: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let at = self.number(PLACE, 0, packed.map_or(0, |p| p.old_at))?;
        let mut old_content = room().map_err(Error::Write)?;
        let mut matches = Matches::new(room().map_err(Error::Write)?);
        let (begin, end) = frame::unpack(old, at, CONTENT, &mut *old_content, &mut |block| {
            matches.add(&block)
        })?;
        matches.finish()?;
        let old_head = part(old, 0, begin)?;
        let old_tail = part(old, end, old.len())?;
        let mut lengths = [0u64; 3];
        let before = [begin, old_tail.len() as u64, old_content.len()];
        for (i, limit) in [AROUND, AROUND, CONTENT].into_iter().enumerate() {
            let known = packed.map_or(0, |p| given(p, i).bytes.len() as u64);
            let grown = self.signed(LENGTHS + i as u32, known.wrapping_sub(before[i]) as i64)?;
            lengths[i] = before[i].wrapping_add(grown as u64);
            if lengths[i] > limit {
                return Err(Error::Limit(limit));
            }
        }
        let around = (old_head.len() + old_tail.len()) as u64;
        self.held = around + matches.memory() + frame::UNPACKING;
        let mut written = 0;
        let mut counted = |bytes: &[u8]| {
            written += bytes.len() as u64;
            if written > length {
                return Err(Error::Damaged("a compressed part is too long"));
            }
            out(bytes)
        };
        let known = packed.map(|p| [given(p, 0), given(p, 1), given(p, 2)]);
        let known = |i: usize| known.as_ref().map(|k| &k[i]);
        self.blob(lengths[0], &old_head, known(0), room, &mut counted)?;
        let mut content = room().map_err(Error::Write)?;
        let source = old_content.as_source();
        let plan = self.blob(lengths[2], source, known(2), room, &mut |bytes| {
            content.append(bytes).map_err(Error::Write)
        })?;
        let mut guide = Guide::new(&plan.steps, matches);
        self.holds(guide.memory() + Recent::memory() + frame::MEMORY);
        let models = self.decisions.get_or_insert_with(Decisions::new);
        decisions::code(
            &mut self.coder,
            models,
            &mut guide,
            content.as_source(),
            packed.map(|p| &p.blocks[..]),
            &mut counted,
        )?;
        self.blob(lengths[1], &old_tail, known(1), room, &mut counted)?;
        self.held = 0;
        if written != length {
            return Err(Error::Damaged("a compressed part is too short"));
        }
        Ok(())
    }
}

fn part(old: &dyn Source, from: u64, to: u64) -> Result<Vec<u8>, Error> {
    let length = to.checked_sub(from).filter(|l| *l <= AROUND);
    let length = length.ok_or(Error::Damaged("a compressed part leaves its file"))?;
    let mut bytes = vec![0; length as usize];
    old.read_at(from, &mut bytes).map_err(Error::Old)?;
    Ok(bytes)
}
