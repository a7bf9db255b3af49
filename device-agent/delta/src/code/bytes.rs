//! Bytes predicted by bit histories in several contexts at once.

use super::history::NEXT;
use super::mix::{hash, squash, STEPS, STRETCH};
use super::range::BitCoder;

/// Lines of the table, as a power of two: 4 MiB.
const LINES: u32 = 19;
/// Kinds of expectation that have weights of their own.
const KINDS: usize = 16;
/// Lengths of a copy that are told apart.
const LENGTHS: usize = 32;

/// One nibble in one context: the states of 15 nodes, and what tells it from others.
type Line = [u8; 16];

/// Predicts bytes from `N` contexts.
pub(crate) struct History<const N: usize> {
    lines: Box<[Line]>,
    /// By context and state: the probability of a one in the upper 22 bits, times seen in the lower 10.
    maps: Box<[[u32; 256]]>,
    copies: Box<[u32]>,
    weights: Box<[[i32; 10]]>,
    lengths: Box<[[i32; 10]]>,
    next: &'static [[u8; 2]; 256],
    stretch: &'static [i16; 4096],
    steps: &'static [u32; 1024],
    /// By what stands before and the probability in steps of a logit: what became of it.
    finals: Box<[[u32; 33]]>,
}

fn moved(slot: u32, bit: u32, limit: u32, steps: &[u32; 1024]) -> u32 {
    let count = slot & 1023;
    let old = i64::from(slot >> 10);
    let target = if bit == 1 { (1 << 22) - 1 } else { 0 };
    let new = old + (((target - old) * i64::from(steps[count as usize])) >> 16);
    ((new as u32) << 10) | if count < limit { count + 1 } else { count }
}

fn finals() -> Box<[[u32; 33]]> {
    let row = std::array::from_fn(|i| ((squash((i as i32 - 16) * 128) as u32) << 16) | 6);
    vec![row; 1 << 14].into_boxed_slice()
}

impl<const N: usize> History<N> {
    pub(crate) fn new() -> Self {
        Self {
            lines: vec![[0; 16]; 1 << LINES].into_boxed_slice(),
            maps: vec![[1 << 31; 256]; N].into_boxed_slice(),
            copies: vec![1 << 31; LENGTHS * 2].into_boxed_slice(),
            weights: vec![[1 << 14; 10]; 256 * KINDS].into_boxed_slice(),
            lengths: vec![[1 << 14; 10]; LENGTHS * KINDS].into_boxed_slice(),
            next: &NEXT,
            stretch: &STRETCH,
            steps: &STEPS,
            finals: finals(),
        }
    }

    /// The line of a context, made anew if there is none.
    fn line(&mut self, context: u32) -> usize {
        let mask = (1 << LINES) - 1;
        let check = ((context >> 24) as u8).max(1);
        let first = (context & mask) as usize;
        let mut worst = first;
        for place in [first, first ^ 1, first ^ 2] {
            if self.lines[place][0] == check {
                return place;
            }
            if self.lines[place][1] < self.lines[worst][1] {
                worst = place;
            }
        }
        self.lines[worst] = [0; 16];
        self.lines[worst][0] = check;
        worst
    }

    /// Codes a byte. `copy`: what followed when the same bytes were last seen, and how many were the same.
    pub(crate) fn byte<C: BitCoder>(
        &mut self,
        coder: &mut C,
        contexts: &[u32; N],
        copy: Option<(u8, u32)>,
        kind: u32,
        actual: u8,
    ) -> u8 {
        let kind = (kind as usize).min(KINDS - 1);
        let mut found = 1usize;
        let mut lines = [0; N];
        let mut inputs = [0i32; 10];
        for left in (0..8u32).rev() {
            if left % 4 == 3 {
                for (line, context) in lines.iter_mut().zip(contexts) {
                    *line = self.line(hash(*context, found as u32));
                }
            }
            let node = if left >= 4 {
                found
            } else {
                found & ((1 << (3 - left)) - 1) | 1 << (3 - left)
            };
            let mut states = [0u8; N];
            for i in 0..N {
                let state = self.lines[lines[i]][node];
                states[i] = state;
                inputs[i] = if state == 0 {
                    0
                } else {
                    i32::from(self.stretch[(self.maps[i][usize::from(state)] >> 20) as usize])
                };
            }
            // What the copy says, as long as it was right.
            let copied = copy.filter(|(byte, _)| (usize::from(*byte) | 256) >> (left + 1) == found);
            let (place, length) = match copied {
                Some((byte, length)) => {
                    let length = if length < 16 {
                        length
                    } else {
                        (12 + length / 4).min(31)
                    } as usize;
                    (length * 2 + usize::from(byte >> left & 1), length)
                }
                None => (0, 0),
            };
            inputs[8] = if length == 0 {
                0
            } else {
                i32::from(self.stretch[(self.copies[place] >> 20) as usize])
            };
            inputs[9] = 256;
            let weights = &mut self.weights[kind << 8 | found];
            let others = &mut self.lengths[kind * LENGTHS + length];
            let mut sum = 0i64;
            for i in 0..10 {
                sum += i64::from(inputs[i]) * i64::from(weights[i] + others[i]);
            }
            let logit = ((sum >> 16).clamp(-2047, 2047)) as i32;
            let p = squash(logit).clamp(16, 65520);
            let (low, part) = (((logit + 2048) >> 7) as usize, (logit + 2048) & 127);
            let row = &mut self.finals[(hash(contexts[0], found as u32) & 0x3fff) as usize];
            let refined =
                ((row[low] >> 16) as i32 * (128 - part) + (row[low + 1] >> 16) as i32 * part) >> 7;
            let said = ((p + refined) / 2).clamp(16, 65520);
            let bit = coder.bit(u32::from(actual) >> left & 1, said as u32);
            let near = low + usize::from(part >= 64);
            row[near] = moved(row[near], bit, 255, self.steps);
            let error = ((bit << 16) as i32) - p;
            for i in 0..10 {
                let by = (inputs[i] * (error >> 4) * 6 + 0x8000) >> 16;
                weights[i] = (weights[i] + by).clamp(-(1 << 20), 1 << 20);
                others[i] = (others[i] + by).clamp(-(1 << 20), 1 << 20);
            }
            for i in 0..N {
                let map = &mut self.maps[i][usize::from(states[i])];
                *map = moved(*map, bit, 255, self.steps);
                self.lines[lines[i]][node] = self.next[usize::from(states[i])][bit as usize];
            }
            if length > 0 {
                self.copies[place] = moved(self.copies[place], bit, 1023, self.steps);
            }
            found = found << 1 | bit as usize;
        }
        found as u8
    }
}
