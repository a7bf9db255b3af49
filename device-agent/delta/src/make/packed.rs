//! Finding compressed parts that can be taken apart and put together again.

use crate::packed::{Packed, AROUND, CONTENT};
use crate::plan::Plan;
use crate::zstd::block::{self, Carried};
use crate::zstd::frame::{self, Block, MAGIC};

/// Content that is worth the trouble, in bytes.
const LEAST: usize = 1 << 16;
/// Places that are tried in a file.
const TRIES: usize = 16;

/// A frame in a file.
struct Found {
    at: u64,
    /// Where its blocks begin and end.
    begin: usize,
    end: usize,
    content: Vec<u8>,
    blocks: Vec<Block>,
}

/// Makes the plan of one of the parts: its number, from which bytes to which, whether they may be ELF files.
pub(crate) type Planner<'a> = dyn Fn(u8, &[u8], &[u8], bool) -> Plan + 'a;

/// What is needed to code `new` by its content, if both files have a compressed part. `plan` is asked for the plan of
/// each of the three parts (from 1 on): from which bytes to which, and whether they may be ELF files.
pub(crate) fn find(old: &[u8], new: &[u8], plan: &Planner<'_>) -> Option<Packed> {
    let (before, after) = (frame(old)?, frame(new)?);
    if !comes_out_again(&after, new) {
        return None;
    }
    let (head, tail) = (&new[..after.begin], &new[after.end..]);
    let plans = [
        plan(1, &old[..before.begin], head, false),
        plan(2, &old[before.end..], tail, false),
        plan(3, &before.content, &after.content, true),
    ];
    Some(Packed {
        old_at: before.at,
        head: head.to_vec(),
        tail: tail.to_vec(),
        content: after.content,
        blocks: after.blocks,
        plans,
    })
}

/// The first frame of a file that is not small.
fn frame(file: &[u8]) -> Option<Found> {
    let places = file.windows(4).enumerate().filter(|(_, w)| **w == MAGIC);
    for (at, _) in places.take(TRIES) {
        let mut content = Vec::new();
        let mut blocks = Vec::new();
        let unpacked = frame::unpack(&file, at as u64, CONTENT, &mut content, &mut |block| {
            blocks.push(block);
            Ok(())
        });
        let Ok((begin, end)) = unpacked else {
            continue;
        };
        let around = begin.max(file.len() as u64 - end);
        if content.len() >= LEAST && around <= AROUND {
            return Some(Found {
                at: at as u64,
                begin: begin as usize,
                end: end as usize,
                content,
                blocks,
            });
        }
    }
    None
}

/// Whether the blocks give the same bytes again.
fn comes_out_again(found: &Found, file: &[u8]) -> bool {
    let mut carried = Carried::default();
    let mut rest = &file[found.begin..found.end];
    let mut place = 0usize;
    for block in &found.blocks {
        let Some((_, after)) = rest.split_at_checked(3) else {
            return false;
        };
        let end = place + block.size as usize;
        let content = &found.content[place..end];
        let bytes = match block.kind {
            0 => Ok(content.to_vec()),
            1 => Ok(content.iter().take(1).copied().collect()),
            _ => {
                let mut literals = Vec::new();
                let mut at = 0;
                for sequence in &block.sequences {
                    let after = at + sequence.literals as usize;
                    literals.extend_from_slice(&content[at..after]);
                    at = after + sequence.length as usize;
                }
                literals.extend_from_slice(&content[at..]);
                block::put(&block.shape, &literals, &block.sequences, &mut carried)
            }
        };
        match bytes {
            Ok(bytes) if after.starts_with(&bytes) => rest = &after[bytes.len()..],
            _ => return false,
        }
        place = end;
    }
    rest.is_empty()
}

#[cfg(test)]
#[path = "packed_tests.rs"]
pub(crate) mod tests;
