//! Bytes predicted from what was seen in several contexts at once.
//!
//! A context keeps of each bit a history in one byte ([`super::history`]); how likely a one is after such a history is
//! learnt, and a mixer weighs what the contexts say.

use super::history::NEXT;
use super::mix::{hash, moved, squash, table, STEPS, STRETCH};
use super::range::BitCoder;

/// Contexts of a byte.
pub(crate) const CONTEXTS: usize = 8;
/// What is mixed: a prediction of each context, what followed the same bytes before, and a constant; the rest is nothing,
/// and makes it as many as processors take at once.
const INPUTS: usize = 16;
/// The constant, a logit in 1/256: one.
const BIAS: i16 = 256;
/// Lines of the table, as a power of two: 8 MiB.
const LINES: u32 = table(19);
/// Lines of a page of memory, as a power of two.
const PAGE: u32 = 8;
/// Kinds of bytes that have weights of their own.
const KINDS: usize = 16;
/// Lengths of a copy that are told apart.
const LENGTHS: usize = 32;
/// How slowly a row moves, as a power of two.
const SLOW: i32 = 6;
/// How slowly weights move, as a power of two.
const HEAVY: i16 = 3;
/// Rows of the last stage, as a power of two: 512 KiB. Those of four bits stand together.
const ROWS: u32 = table(14);

/// Four bits in one context: what tells it from others, and the histories of 15 nodes.
type Line = [u8; 16];

/// Lines among which a context chooses: they share a line of a processor's cache.
#[derive(Clone)]
#[repr(align(64))]
struct Group([Line; 4]);

/// Weights of the inputs, [`ONE`] = 1.
#[derive(Clone)]
#[repr(align(32))]
struct Weights([i16; INPUTS]);
/// One, as a power of two.
const ONE: u32 = 13;

/// What became of predictions, at [`KNOTS`] steps of the logit: a probability in 1/65536 each.
#[derive(Clone)]
#[repr(align(32))]
struct Row([u16; KNOTS]);
/// The first stands for a logit of -2048, the last for 2048.
const KNOTS: usize = 16;

/// What is known of a byte besides its contexts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    /// Which kind of byte it is.
    pub(crate) kind: u32,
    /// The byte before it.
    pub(crate) last: u8,
    /// What followed when the same bytes were last seen, and how many were the same.
    pub(crate) copy: Option<(u8, u32)>,
}

impl Known {
    /// What the copy says of the bit after those `found`, as long as it was right: the bit and the length's class.
    fn copied(&self, found: usize, left: u32) -> Option<(usize, usize)> {
        let (byte, length) = self.copy?;
        if (usize::from(byte) | 256) >> (left + 1) != found {
            return None;
        }
        let class = if length < 16 {
            length
        } else {
            (12 + length / 4).min(LENGTHS as u32 - 1)
        };
        Some((usize::from(byte >> left & 1), class as usize))
    }
}

/// Predicts bytes.
pub(crate) struct ByteModel {
    groups: Box<[Group]>,
    /// By context and history: the probability of a one in the upper 22 bits, times seen in the lower 10.
    maps: Box<[[u32; 256]; CONTEXTS]>,
    /// The same, by length of the copy and what it says.
    copies: Box<[[u32; 2]; LENGTHS]>,
    /// Weights by kind and the bits before; by kind and the copy's length; by kind and the byte before. They are added.
    by_bits: Box<[Weights]>,
    by_length: Box<[Weights]>,
    by_last: Box<[Weights]>,
    /// By the byte before and the bits before in this one.
    rows: Box<[Row]>,
    next: &'static [[u8; 2]; 256],
    stretch: &'static [i16; 4096],
    steps: &'static [u32; 1024],
}

impl ByteModel {
    pub(crate) fn new() -> Self {
        let row = Row(std::array::from_fn(|i| {
            squash((i as i32 * 4096 / (KNOTS as i32 - 1)) - 2048) as u16
        }));
        let weights = |count, start| vec![Weights([start; INPUTS]); count].into_boxed_slice();
        Self {
            groups: vec![Group([[0; 16]; 4]); 1 << (LINES - 2)].into_boxed_slice(),
            maps: Box::new([[1 << 31; 256]; CONTEXTS]),
            copies: Box::new([[1 << 31; 2]; LENGTHS]),
            by_bits: weights(256 * KINDS, 1 << (ONE - 2)),
            by_length: weights(LENGTHS * KINDS, 1 << (ONE - 2)),
            by_last: weights(256 * KINDS, 0),
            rows: vec![row; 1 << ROWS].into_boxed_slice(),
            next: &NEXT,
            stretch: &STRETCH,
            steps: &STEPS,
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> u64 {
        let tables = size_of_val(&*self.groups) + size_of_val(&*self.rows);
        let weights = [&self.by_bits, &self.by_length, &self.by_last];
        let weights: usize = weights.iter().map(|w| size_of_val(&***w)).sum();
        (tables + weights + size_of_val(&*self.maps)) as u64
    }

    /// The lines of contexts (hashes): group and place in it. Where there is none, the one that has seen least is taken.
    fn lines(&mut self, contexts: &[u32; CONTEXTS], found: u32) -> [(usize, usize); CONTEXTS] {
        let hashes = contexts.map(|context| hash(context, found));
        // Both halves of a byte are in the same page of memory.
        let at: [usize; CONTEXTS] = std::array::from_fn(|i| {
            let page = contexts[i] >> 8 & ((1 << (LINES - PAGE)) - 1);
            (page << PAGE | hashes[i] & ((1 << PAGE) - 1)) as usize
        });
        // All are touched first: what comes from far away comes together.
        let near: u32 = at
            .iter()
            .map(|at| u32::from(self.groups[at >> 2].0[0][0]))
            .sum();
        std::hint::black_box(near);
        std::array::from_fn(|i| {
            let check = ((hashes[i] >> 24) as u8).max(1);
            let (group, first) = (at[i] >> 2, at[i] & 3);
            let lines = &mut self.groups[group].0;
            let mut least = first;
            for place in [first, first ^ 1, first ^ 2] {
                if lines[place][0] == check {
                    return (group, place);
                }
                if lines[place][1] < lines[least][1] {
                    least = place;
                }
            }
            lines[least] = [0; 16];
            lines[least][0] = check;
            (group, least)
        })
    }

    fn logit(&self, probability: u32) -> i16 {
        self.stretch[(probability >> 20) as usize]
    }

    /// Codes a byte.
    pub(crate) fn code<C: BitCoder>(
        &mut self,
        coder: &mut C,
        contexts: &[u32; CONTEXTS],
        known: &Known,
        actual: u8,
    ) -> u8 {
        let mut found = 1usize;
        let mut rows = 0;
        let mut places = [(0, 0); CONTEXTS];
        let mut lines = [[0; 16]; CONTEXTS];
        for left in (0..8u32).rev() {
            if left % 4 == 3 {
                if left == 3 {
                    self.keep(&places, &lines);
                }
                // Comes from far away as well.
                rows = hash(contexts[0], found as u32) & ((1 << ROWS) - 1) & !15;
                std::hint::black_box(self.rows[rows as usize].0[0]);
                places = self.lines(contexts, found as u32);
                for (line, (group, place)) in lines.iter_mut().zip(places) {
                    *line = self.groups[group].0[place];
                }
            }
            let node = if left >= 4 {
                found
            } else {
                found & ((1 << (3 - left)) - 1) | 1 << (3 - left)
            };
            let row = rows | node as u32 & 15;
            let bit = u32::from(actual) >> left & 1;
            let bit = self.bit(coder, known, found, left, &mut lines, node & 15, row, bit);
            found = found << 1 | bit as usize;
        }
        self.keep(&places, &lines);
        found as u8
    }

    /// Puts lines back.
    #[inline]
    fn keep(&mut self, places: &[(usize, usize); CONTEXTS], lines: &[Line; CONTEXTS]) {
        for (line, (group, place)) in lines.iter().zip(places) {
            self.groups[*group].0[*place] = *line;
        }
    }

    #[inline]
    #[expect(clippy::too_many_arguments, reason = "all that predicts one bit")]
    fn bit<C: BitCoder>(
        &mut self,
        coder: &mut C,
        known: &Known,
        found: usize,
        left: u32,
        lines: &mut [Line; CONTEXTS],
        node: usize,
        row: u32,
        bit: u32,
    ) -> u32 {
        let states: [usize; CONTEXTS] = std::array::from_fn(|i| usize::from(lines[i][node]));
        let mut inputs = [0i16; INPUTS];
        for (i, state) in states.iter().enumerate().filter(|(_, state)| **state > 0) {
            inputs[i] = self.logit(self.maps[i][*state]);
        }
        let copied = known.copied(found, left);
        if let Some((says, class)) = copied {
            inputs[CONTEXTS] = self.logit(self.copies[class][says]);
        }
        inputs[CONTEXTS + 1] = BIAS;

        let kind = (known.kind as usize).min(KINDS - 1);
        let class = copied.map_or(0, |(_, class)| class);
        let by_bits = &mut self.by_bits[kind << 8 | found].0;
        let by_length = &mut self.by_length[kind * LENGTHS + class].0;
        let by_last = &mut self.by_last[kind << 8 | usize::from(known.last)].0;
        let mut sum = 0i32;
        for i in 0..INPUTS {
            let weight = by_bits[i]
                .saturating_add(by_length[i])
                .saturating_add(by_last[i]);
            sum += i32::from(inputs[i]) * i32::from(weight);
        }
        let logit = (sum >> ONE).clamp(-2047, 2047);
        let p = squash(logit);
        // What came of such predictions before, between two knots.
        let row = &mut self.rows[row as usize].0;
        let place = (logit + 2048) as usize * (KNOTS - 1);
        let (step, part) = (place >> 12, (place >> 5 & 127) as i32);
        let (low, high) = (i32::from(row[step]), i32::from(row[step + 1]));
        let refined = (low * (128 - part) + high * part) >> 7;
        let said = ((p + refined) / 2).clamp(16, 65520);
        let bit = coder.bit(bit, said as u32);

        let nearer = &mut row[step + usize::from(part >= 64)];
        let target = if bit == 1 { 65535 } else { 0 };
        *nearer = (i32::from(*nearer) + ((target - i32::from(*nearer)) >> SLOW)) as u16;
        let error = ((((bit << 16) as i32) - p) >> 1) as i16;
        for i in 0..INPUTS {
            let by = ((i32::from(inputs[i] * 2) * i32::from(error)) >> 16) as i16;
            let by = (by + (1 << (HEAVY - 1))) >> HEAVY;
            by_bits[i] = by_bits[i].saturating_add(by);
            by_length[i] = by_length[i].saturating_add(by);
            by_last[i] = by_last[i].saturating_add(by);
        }
        for (i, (state, line)) in states.iter().zip(lines).enumerate() {
            let map = &mut self.maps[i][*state];
            *map = moved(*map, bit, 255, self.steps);
            line[node] = self.next[*state][bit as usize];
        }
        if let Some((says, class)) = copied {
            let copy = &mut self.copies[class][says];
            *copy = moved(*copy, bit, 1023, self.steps);
        }
        bit
    }
}
