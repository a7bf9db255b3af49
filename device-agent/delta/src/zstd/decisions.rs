//! Coding what a compressor decided, where its content is known: by what the old file's compressor decided at the
//! same place, and by what it could have decided.

use super::block::{self, Carried, Sequence, Shape, BLOCK, TABLES};
use super::frame::{Block, Distances};
use super::guide::Guide;
use super::recent::{Recent, CANDIDATES};
use super::BAD;
use crate::code::{hash, BitCoder, Model, Numbers};
use crate::source::Source;
use crate::Error;

/// Kinds of numbers.
const SIZE: u32 = 0;
const KIND: u32 = 1;
const LAST: u32 = 2;
const SHAPE: u32 = 3;
const LITERALS: u32 = 0x10;
const DISTANCE: u32 = 0x20;
const LENGTH: u32 = 0x30;
const UNUSUAL: u32 = 0x40;

/// Sets of weights.
const SETS: usize = 64;

/// Statistics of decisions.
pub(crate) struct Decisions {
    flags: Model<4>,
    bytes: Model<2>,
    numbers: Numbers,
}

impl Decisions {
    pub(crate) fn new() -> Self {
        Self {
            flags: Model::new(18, SETS, 255),
            bytes: Model::new(14, 8, 255),
            numbers: Numbers::new(),
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> u64 {
        self.flags.memory() + self.bytes.memory() + self.numbers.memory()
    }
}

/// Codes the blocks of a frame whose content is known, and hands out their bytes.
pub(crate) fn code<C: BitCoder>(
    coder: &mut C,
    models: &mut Decisions,
    guide: &mut Guide,
    content: &dyn Source,
    given: Option<&[Block]>,
    out: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut run = Run {
        coder,
        models,
        guide,
        recent: Recent::new(content),
        distances: Distances::default(),
        hits: u32::MAX,
    };
    let mut carried = Carried::default();
    let mut at = 0;
    for number in 0.. {
        let known = given.and_then(|blocks| blocks.get(number));
        let block = run.block(at, content.len() - at, known)?;
        let mut bytes = Vec::new();
        let end = at + u64::from(block.size);
        match block.kind {
            2 => {
                let mut literals = Vec::new();
                let mut place = at;
                for sequence in &block.sequences {
                    run.read(place, sequence.literals, &mut literals)?;
                    place += u64::from(sequence.literals) + u64::from(sequence.length);
                }
                run.read(place, (end - place) as u32, &mut literals)?;
                bytes = block::put(&block.shape, &literals, &block.sequences, &mut carried)?;
            }
            1 => run.read(at, 1, &mut bytes)?,
            _ => run.read(at, block.size, &mut bytes)?,
        }
        let size = if block.kind == 2 {
            bytes.len() as u32
        } else {
            block.size
        };
        let head = u32::from(block.last) | u32::from(block.kind) << 1 | size << 3;
        out(&head.to_le_bytes()[..3])?;
        out(&bytes)?;
        at = end;
        run.coder.check().map_err(Error::Delta)?;
        if block.last {
            break;
        }
    }
    if at != content.len() {
        return Err(BAD);
    }
    Ok(())
}

struct Run<'a, C> {
    coder: &'a mut C,
    models: &'a mut Decisions,
    guide: &'a mut Guide,
    recent: Recent<'a>,
    distances: Distances,
    /// Whether the last sequences were as expected, newest lowest.
    hits: u32,
}

/// A distance that may be meant.
#[derive(Clone, Copy)]
struct Candidate {
    distance: u32,
    /// Bytes that stand there, too.
    common: u64,
    /// Where the proposal comes from.
    origin: u32,
}

fn bucket(number: u64) -> u32 {
    match number {
        0..=7 => number as u32,
        _ => 5 + number.ilog2().min(10),
    }
}

impl<C: BitCoder> Run<'_, C> {
    fn read(&mut self, from: u64, count: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        self.recent
            .read(from, count as usize, out)
            .map_err(Error::Write)
    }

    fn number(&mut self, kind: u32, context: u32, value: u64) -> u64 {
        self.models.numbers.code(self.coder, kind, context, value)
    }

    fn flag(&mut self, contexts: [u32; 4], set: u32, bit: bool) -> bool {
        let [a, b, c, d] = contexts;
        let contexts = [hash(1, a), hash(2, b), hash(3, c), hash(4, d)];
        let contexts = contexts.map(|c| hash(c, set));
        let set = set as usize % SETS;
        self.models
            .flags
            .bit(self.coder, &contexts, set, bit.into())
            == 1
    }

    fn block(&mut self, at: u64, left: u64, known: Option<&Block>) -> Result<Block, Error> {
        let of = |f: fn(&Block) -> u64| known.map_or(0, f);
        let kind = self.number(KIND, 0, of(|b| b.kind.into()));
        let last = self.number(LAST, 0, of(|b| b.last.into())) == 1;
        let size = self.number(SIZE, kind.min(3) as u32, of(|b| b.size.into()));
        if kind > 2 || size > left.min(BLOCK as u64) {
            return Err(BAD);
        }
        let mut block = Block {
            last,
            kind: kind as u8,
            size: size as u32,
            ..Block::default()
        };
        if kind < 2 {
            return Ok(block);
        }
        block.shape = self.shape(known.map(|b| &b.shape))?;
        let end = at + size;
        let mut place = at;
        while place < end {
            let next = known.and_then(|b| {
                let i = block.sequences.len();
                Some((*b.sequences.get(i)?, *b.distances.get(i)?))
            });
            let Some(sequence) = self.sequence(place, end, next)? else {
                break;
            };
            place += u64::from(sequence.literals) + u64::from(sequence.length);
            block.sequences.push(sequence);
        }
        Ok(block)
    }

    fn shape(&mut self, known: Option<&Shape>) -> Result<Shape, Error> {
        let empty = Shape::default();
        let known = known.unwrap_or(&empty);
        let mut shape = Shape {
            literals: (self.number(SHAPE, 0, known.literals.into()) & 3) as u8,
            format: (self.number(SHAPE, 1, known.format.into()) & 3) as u8,
            ..Shape::default()
        };
        if shape.literals == 2 {
            shape.tree = self.description(0, &known.tree)?;
        }
        for which in 0..TABLES {
            let mode = self.number(SHAPE, 2 + which as u32, known.modes[which].into());
            shape.modes[which] = (mode & 3) as u8;
            if matches!(shape.modes[which], 1 | 2) {
                shape.tables[which] = self.description(1 + which as u32, &known.tables[which])?;
            }
        }
        Ok(shape)
    }

    fn description(&mut self, which: u32, known: &[u8]) -> Result<Vec<u8>, Error> {
        let count = self.number(SHAPE, 8 + which, known.len() as u64);
        if count > 256 {
            return Err(BAD);
        }
        let mut bytes = Vec::new();
        let mut last = 0u32;
        for place in 0..count as usize {
            let contexts = [
                hash(hash(which, 1), last),
                hash(hash(which, 2), place as u32),
            ];
            let byte = known.get(place).copied().unwrap_or(0);
            last = self
                .models
                .bytes
                .tree(self.coder, &contexts, which as usize, 8, byte.into());
            bytes.push(last as u8);
        }
        Ok(bytes)
    }

    /// The next sequence of a block; none if only literals follow.
    fn sequence(
        &mut self,
        at: u64,
        end: u64,
        known: Option<(Sequence, u32)>,
    ) -> Result<Option<Sequence>, Error> {
        let left = end - at;
        let actual = known.map_or(left, |(s, _)| s.literals.into());
        let (literals, hit) = self.literals(at, left, actual)?;
        if literals == left {
            return Ok(None);
        }
        let begin = at + literals;
        self.recent.reach(begin).map_err(Error::Write)?;
        let literals = literals as u32;
        let room = end - begin;
        let wanted = known.map_or(0, |(_, distance)| distance);
        let (distance, proposed, sure) = self.distance(begin, room, literals, wanted, hit)?;
        let usual = self.distances.usual(literals, distance);
        let offset = known.map_or(usual, |(s, _)| s.offset);
        let contexts = [u32::from(literals == 0), self.hits & 0xff, 0, 0];
        let offset = if self.flag(contexts, 7, offset == usual) {
            usual
        } else {
            usual ^ self.number(UNUSUAL, 0, u64::from(offset ^ usual)) as u32
        };
        self.distances.take(literals, offset)?;
        let wanted = known.map_or(0, |(s, _)| s.length.into());
        let length = self.length(begin, room, distance, proposed, sure, wanted)?;
        Ok(Some(Sequence {
            literals,
            length: length as u32,
            offset,
        }))
    }

    fn literals(&mut self, at: u64, left: u64, actual: u64) -> Result<(u64, bool), Error> {
        let seen = self.guide.seen(at)?;
        let (kind, expected) = match seen {
            None => (0, 0),
            Some(s) if s.at >= s.of.begin => (3, 0),
            Some(s) if s.at == s.of.literals => (1, s.of.begin - s.at),
            Some(s) => (2, s.of.begin - s.at),
        };
        let expected = expected.min(left);
        let remains = seen.map_or(0, |s| bucket(s.of.end - s.at.max(s.of.begin)));
        let contexts = [
            kind << 8 | self.hits & 0xff,
            kind << 12 | expected.min(31) as u32 | (self.hits & 7) << 8,
            kind << 16 | self.hits & 0xfff,
            kind << 12 | remains << 4 | self.hits & 3,
        ];
        let hit = self.flag(contexts, kind, actual == expected);
        if hit {
            return Ok((expected, kind == 1));
        }
        let context = kind << 6 | expected.min(15) as u32;
        let found = self.number(LITERALS, context, actual);
        if found > left {
            return Err(BAD);
        }
        Ok((found, false))
    }

    /// The distance; what the old file proposes for the length, and how sure both are.
    fn distance(
        &mut self,
        begin: u64,
        room: u64,
        literals: u32,
        actual: u32,
        hit: bool,
    ) -> Result<(u32, Option<u64>, u32), Error> {
        let seen = self.guide.seen(begin)?.filter(|s| s.at >= s.of.begin);
        let mut candidates: Vec<Candidate> = Vec::with_capacity(4 + CANDIDATES);
        let mut sure = u32::from(hit);
        let proposed = seen.map(|s| (s.of.end - s.at).min(room));
        let mut propose = |recent: &mut Recent<'_>, distance: u32, origin| {
            if distance == 0 || candidates.iter().any(|c| c.distance == distance) {
                return Ok(());
            }
            let common = recent.common(begin, distance, room).map_err(Error::Write)?;
            if common >= 3 {
                candidates.push(Candidate {
                    distance,
                    common,
                    origin,
                });
            }
            Ok(())
        };
        if let Some(s) = seen {
            let mapped = self.guide.new_place(s.of.source + (s.at - s.of.begin));
            sure |= u32::from(s.at == s.of.begin) << 1 | u32::from(mapped.exact) << 2;
            let distance = begin
                .checked_sub(mapped.to)
                .and_then(|d| u32::try_from(d).ok());
            propose(&mut self.recent, distance.unwrap_or(0), 0)?;
        }
        for (i, distance) in self.distances.known(literals).into_iter().enumerate() {
            propose(&mut self.recent, distance, 1 + i as u32)?;
        }
        let recent = self.recent.candidates(begin).map_err(Error::Write)?;
        for (i, distance) in recent.into_iter().enumerate() {
            propose(&mut self.recent, distance, 4 + i as u32)?;
        }
        let longest = candidates.iter().map(|c| c.common).max().unwrap_or(0);
        for (i, candidate) in candidates.iter().enumerate() {
            let agrees = match proposed {
                None => 0,
                Some(p) if candidate.common < p => 1,
                Some(p) if candidate.common == p => 2,
                Some(_) => 3,
            };
            let best = u32::from(candidate.common == longest);
            let later = candidates[i + 1..]
                .iter()
                .filter(|c| c.common > candidate.common);
            let kind = candidate.origin << 3 | best << 2 | agrees;
            let contexts = [
                kind << 8 | sure << 4 | self.hits & 15,
                kind << 16 | bucket(candidate.common) << 8 | bucket(longest),
                kind << 8 | self.hits & 0xff,
                kind << 8 | (later.count().min(7) as u32) << 4 | (literals.min(7)),
            ];
            let set = 8 + candidate.origin * 8 + sure;
            if self.flag(contexts, set % SETS as u32, candidate.distance == actual) {
                let expected = if candidate.origin == 0 { sure | 8 } else { 0 };
                return Ok((candidate.distance, proposed, expected));
            }
        }
        let found = self.number(DISTANCE, bucket(longest), actual.into());
        let found = u32::try_from(found)
            .ok()
            .filter(|d| *d > 0 && u64::from(*d) <= begin);
        Ok((found.ok_or(BAD)?, proposed, 0))
    }

    fn length(
        &mut self,
        begin: u64,
        room: u64,
        distance: u32,
        proposed: Option<u64>,
        sure: u32,
        actual: u64,
    ) -> Result<u64, Error> {
        let common = self
            .recent
            .common(begin, distance, room)
            .map_err(Error::Write)?;
        if let Some(proposed) =
            proposed.filter(|p| *p <= common || common >= super::recent::COMPARED)
        {
            let full = u32::from(proposed == common);
            let contexts = [
                sure << 10 | full << 8 | self.hits & 0xff,
                sure << 12 | full << 8 | bucket(proposed),
                full << 12 | sure << 4 | self.hits & 7,
                bucket(common) << 8 | bucket(proposed),
            ];
            let hit = self.flag(contexts, 4 + full, actual == proposed);
            self.hits = self.hits << 1 | u32::from(hit && sure & 8 != 0);
            if hit {
                return Ok(proposed);
            }
        } else {
            self.hits <<= 1;
        }
        let contexts = [
            sure << 8 | self.hits & 15,
            bucket(common) << 8 | self.hits & 3,
            sure << 8 | bucket(common),
            u32::from(proposed == Some(common)),
        ];
        if proposed != Some(common) && self.flag(contexts, 6, actual == common) {
            return Ok(common);
        }
        let found = self.number(LENGTH, bucket(common), actual);
        if found > room || found < 3 {
            return Err(BAD);
        }
        Ok(found)
    }
}
