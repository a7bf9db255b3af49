//! A compressed block (RFC 8878, section 3.1.1.3): taken apart into what the bytes say and how they say it, and put
//! together again bit by bit.

use super::bits::{Backward, Writer};
use super::codes::{coded, predefined, range, LOG_LIMITS, SYMBOLS};
use super::fse::{self, Counts};
use super::huffman::Tree;
use super::BAD;
use crate::Error;

/// Bytes that a block stands for at most.
pub(crate) const BLOCK: usize = 1 << 17;

/// So many literals, then so many bytes from elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sequence {
    pub literals: u32,
    pub length: u32,
    /// As it stands in the frame: 1 to 3 are the latest distances, others a distance plus 3.
    pub offset: u32,
}

/// How the numbers of sequences are coded, in the order of the frame: literals, offsets, lengths.
pub(crate) const TABLES: usize = 3;

/// All of a block but what it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Shape {
    /// How literals are stored: 0 plain, 1 one byte repeated, 2 with a new code, 3 with that of the block before.
    pub literals: u8,
    /// How long the literals' header is.
    pub format: u8,
    /// Description of the code, if it is new.
    pub tree: Vec<u8>,
    /// How each table is given: 0 predefined, 1 one symbol, 2 described, 3 as before.
    pub modes: [u8; TABLES],
    /// Descriptions.
    pub tables: [Vec<u8>; TABLES],
}

/// What blocks hand on to the next one.
#[derive(Default)]
pub(crate) struct Carried {
    tree: Option<Tree>,
    counts: [Option<Counts>; TABLES],
}

fn value(sequence: &Sequence, which: usize) -> u32 {
    [sequence.literals, sequence.offset, sequence.length][which]
}

/// A block taken apart.
pub(crate) struct Taken {
    pub shape: Shape,
    pub literals: Vec<u8>,
    pub sequences: Vec<Sequence>,
}

fn split(bytes: &[u8], at: usize) -> Result<(&[u8], &[u8]), Error> {
    if at > bytes.len() {
        return Err(BAD);
    }
    Ok(bytes.split_at(at))
}

/// Takes a block apart.
pub(crate) fn take(bytes: &[u8], carried: &mut Carried) -> Result<Taken, Error> {
    let mut shape = Shape::default();
    let (literals, rest) = take_literals(bytes, carried, &mut shape)?;
    let sequences = take_sequences(rest, carried, &mut shape)?;
    Ok(Taken {
        shape,
        literals,
        sequences,
    })
}

fn take_literals<'a>(
    bytes: &'a [u8],
    carried: &mut Carried,
    shape: &mut Shape,
) -> Result<(Vec<u8>, &'a [u8]), Error> {
    let first = *bytes.first().ok_or(BAD)?;
    (shape.literals, shape.format) = (first & 3, first >> 2 & 3);
    if shape.literals < 2 && shape.format & 1 == 0 {
        // The short form has one bit of format; the next belongs to the size.
        shape.format = 0;
    }
    let header = header_bytes(shape);
    let (head, rest) = split(bytes, header)?;
    let word = head
        .iter()
        .rev()
        .fold(0u64, |word, b| word << 8 | u64::from(*b));
    if shape.literals < 2 {
        let short = shape.format & 1 == 0;
        let count = (word >> if short { 3 } else { 4 }) as usize;
        let (stored, rest) = split(rest, if shape.literals == 0 { count } else { 1 })?;
        if count > BLOCK {
            return Err(BAD);
        }
        let literals = match shape.literals {
            0 => stored.to_vec(),
            _ => vec![stored[0]; count],
        };
        return Ok((literals, rest));
    }
    let width = size_bits(shape.format);
    let mask = (1u64 << width) - 1;
    let count = (word >> 4 & mask) as usize;
    let (mut packed, rest) = split(rest, (word >> (4 + width) & mask) as usize)?;
    if count > BLOCK {
        return Err(BAD);
    }
    if shape.literals == 2 {
        let (tree, used) = Tree::parse(packed)?;
        shape.tree = packed[..used].to_vec();
        carried.tree = Some(tree);
        packed = &packed[used..];
    }
    let tree = carried.tree.as_ref().ok_or(BAD)?;
    let mut literals = Vec::with_capacity(count);
    if shape.format == 0 {
        tree.decode(packed, count, &mut literals)?;
        return Ok((literals, rest));
    }
    let (jumps, mut packed) = split(packed, 6)?;
    let part = count.div_ceil(4);
    for i in 0..4 {
        let size = match i {
            3 => packed.len(),
            _ => usize::from(jumps[2 * i]) | usize::from(jumps[2 * i + 1]) << 8,
        };
        let (stream, after) = split(packed, size)?;
        let here = if i < 3 {
            part
        } else {
            count.checked_sub(3 * part).ok_or(BAD)?
        };
        tree.decode(stream, here, &mut literals)?;
        packed = after;
    }
    Ok((literals, rest))
}

fn header_bytes(shape: &Shape) -> usize {
    match (shape.literals, shape.format) {
        (0 | 1, 1) => 2,
        (0 | 1, 3) => 3,
        (0 | 1, _) => 1,
        (_, 0 | 1) => 3,
        (_, 2) => 4,
        _ => 5,
    }
}

/// Bits of each of the two sizes of packed literals.
fn size_bits(format: u8) -> u32 {
    match format {
        0 | 1 => 10,
        2 => 14,
        _ => 18,
    }
}

fn take_sequences(
    bytes: &[u8],
    carried: &mut Carried,
    shape: &mut Shape,
) -> Result<Vec<Sequence>, Error> {
    let byte = |i: usize| bytes.get(i).map(|b| usize::from(*b)).ok_or(BAD);
    let (count, used) = match byte(0)? {
        0 => {
            return if bytes.len() == 1 {
                Ok(Vec::new())
            } else {
                Err(BAD)
            };
        }
        short @ 1..=127 => (short, 1),
        255 => ((byte(1)? | byte(2)? << 8) + 0x7f00, 3),
        first => ((first - 128) << 8 | byte(1)?, 2),
    };
    let modes = byte(used)? as u8;
    if modes & 3 != 0 {
        return Err(BAD);
    }
    shape.modes = [modes >> 6, modes >> 4 & 3, modes >> 2 & 3];
    let mut rest = &bytes[used + 1..];
    for which in 0..TABLES {
        let length = match shape.modes[which] {
            1 => 1,
            2 => Counts::parse(rest, LOG_LIMITS[which], SYMBOLS[which])?.1,
            _ => 0,
        };
        let (description, after) = split(rest, length)?;
        shape.tables[which] = description.to_vec();
        rest = after;
    }
    carried.tables(shape)?;
    let mut decoders = Vec::with_capacity(TABLES);
    for counts in &carried.counts {
        decoders.push(counts.as_ref().ok_or(BAD)?.decoder()?);
    }
    read_sequences(rest, count, &decoders)
}

fn read_sequences(
    stream: &[u8],
    count: usize,
    decoders: &[fse::Decoder],
) -> Result<Vec<Sequence>, Error> {
    let mut bits = Backward::new(stream)?;
    let mut states = [0usize; TABLES];
    for which in 0..TABLES {
        states[which] = decoders[which].begin(&mut bits);
    }
    let mut sequences = Vec::with_capacity(count);
    for i in 0..count {
        let mut values = [0u32; TABLES];
        for which in [1, 2, 0] {
            let code = decoders[which].symbol(states[which]);
            let (from, width) = range(which, code)?;
            values[which] = from + bits.take(width);
        }
        sequences.push(Sequence {
            literals: values[0],
            offset: values[1],
            length: values[2],
        });
        if i + 1 < count {
            for which in [0, 2, 1] {
                states[which] = decoders[which].next(states[which], &mut bits);
            }
        }
    }
    if bits.left() != 0 {
        return Err(BAD);
    }
    Ok(sequences)
}

impl Carried {
    /// Takes over the tables that a block describes.
    fn tables(&mut self, shape: &Shape) -> Result<(), Error> {
        for which in 0..TABLES {
            let description = &shape.tables[which];
            let counts = match shape.modes[which] {
                0 => predefined(which),
                1 => Counts::one(*description.first().ok_or(BAD)?),
                2 => Counts::parse(description, LOG_LIMITS[which], SYMBOLS[which])?.0,
                _ => continue,
            };
            self.counts[which] = Some(counts);
        }
        Ok(())
    }
}

/// Puts a block together.
pub(crate) fn put(
    shape: &Shape,
    literals: &[u8],
    sequences: &[Sequence],
    carried: &mut Carried,
) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    put_literals(shape, literals, carried, &mut out)?;
    put_sequences(shape, sequences, carried, &mut out)?;
    Ok(out)
}

fn put_literals(
    shape: &Shape,
    literals: &[u8],
    carried: &mut Carried,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let header = header_bytes(shape);
    let kind = u64::from(shape.literals | shape.format << 2);
    let count = literals.len() as u64;
    if shape.literals < 2 {
        let shift = if shape.format == 0 { 3 } else { 4 };
        out.extend_from_slice(&(kind | count << shift).to_le_bytes()[..header]);
        match (shape.literals, literals) {
            (0, all) => out.extend_from_slice(all),
            (_, [first, ..]) => out.push(*first),
            (_, []) => return Err(BAD),
        }
        return Ok(());
    }
    if shape.literals == 2 {
        carried.tree = Some(Tree::parse(&shape.tree)?.0);
    }
    let tree = carried.tree.as_ref().ok_or(BAD)?;
    let mut packed = match shape.literals {
        2 => shape.tree.clone(),
        _ => Vec::new(),
    };
    if shape.format == 0 {
        packed.extend(tree.encode(literals)?);
    } else {
        let part = literals.len().div_ceil(4).max(1);
        let mut streams = literals.chunks(part);
        let jumps = packed.len();
        packed.extend([0; 6]);
        for i in 0..4 {
            let stream = tree.encode(streams.next().unwrap_or_default())?;
            if i < 3 {
                let size = u16::try_from(stream.len()).map_err(|_| BAD)?;
                packed[jumps + 2 * i..jumps + 2 * i + 2].copy_from_slice(&size.to_le_bytes());
            }
            packed.extend(stream);
        }
    }
    let width = size_bits(shape.format);
    let size = packed.len() as u64;
    if size >> width != 0 || count >> width != 0 {
        return Err(BAD);
    }
    let word = kind | count << 4 | size << (4 + width);
    out.extend_from_slice(&word.to_le_bytes()[..header]);
    out.extend(packed);
    Ok(())
}

fn put_sequences(
    shape: &Shape,
    sequences: &[Sequence],
    carried: &mut Carried,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let count = sequences.len();
    match count {
        0 => {
            out.push(0);
            return Ok(());
        }
        1..=127 => out.push(count as u8),
        128..=0x7eff => out.extend([(count >> 8) as u8 | 0x80, count as u8]),
        _ => {
            let rest = u16::try_from(count - 0x7f00).map_err(|_| BAD)?;
            out.push(255);
            out.extend_from_slice(&rest.to_le_bytes());
        }
    }
    out.push(shape.modes[0] << 6 | shape.modes[1] << 4 | shape.modes[2] << 2);
    for description in &shape.tables {
        out.extend_from_slice(description);
    }
    carried.tables(shape)?;
    let mut encoders = Vec::with_capacity(TABLES);
    for counts in &carried.counts {
        encoders.push(counts.as_ref().ok_or(BAD)?.encoder()?);
    }
    let mut bits = Writer::default();
    let mut states = [0u32; TABLES];
    for (i, sequence) in sequences.iter().rev().enumerate() {
        let mut extra = [(0u32, 0u32); TABLES];
        for which in [1, 2, 0] {
            let (code, rest, width) = coded(which, value(sequence, which))?;
            extra[which] = (rest, width);
            states[which] = match i {
                0 => encoders[which].begin(code)?,
                _ => encoders[which].add(states[which], code, &mut bits)?,
            };
        }
        for which in [0, 2, 1] {
            bits.add(extra[which].0, extra[which].1);
        }
    }
    for which in [2, 1, 0] {
        encoders[which].end(states[which], &mut bits);
    }
    out.extend(bits.finish());
    Ok(())
}
