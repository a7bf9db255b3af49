//! Bits predicted in several contexts at once; a small neural mixer weighs the predictions.

use std::sync::LazyLock;

use super::range::BitCoder;

/// The logistic function at -8, -7.5, … 8, in 1/65536.
const LOGISTIC: [i32; 33] = [
    22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768,
    40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438,
    65476, 65500, 65514,
];

/// Probability in 1/65536 of a logit in 1/256, which lies within ±2047.
pub(super) fn squash(logit: i32) -> i32 {
    let x = logit.clamp(-2047, 2047) + 2048;
    let (index, rest) = ((x >> 7) as usize, x & 127);
    (LOGISTIC[index] * (128 - rest) + LOGISTIC[index + 1] * rest) >> 7
}

/// The inverse of [`squash`], by probabilities in 1/4096.
pub(super) static STRETCH: LazyLock<Box<[i16; 4096]>> = LazyLock::new(|| {
    let mut table = Box::new([0i16; 4096]);
    let mut next = 0;
    for logit in -2047..=2047 {
        let reaches = (squash(logit) >> 4) as usize;
        while next <= reaches.min(4095) {
            table[next] = logit as i16;
            next += 1;
        }
    }
    for entry in &mut table[next..] {
        *entry = 2047;
    }
    table
});

/// Steps of a counter's adaptation: 65536 / (n + 1.5).
pub(super) static STEPS: LazyLock<[u32; 1024]> =
    LazyLock::new(|| std::array::from_fn(|n| 131_072 / (2 * n as u32 + 3)));

/// Counters of a table that stand together: a line of a processor's cache.
const LINE: u32 = 16;

/// Sets of weights for the bits of one value: by the place of a bit in it.
const STEPS_OF_TREE: usize = 8;

/// The size of a table, as a power of two; a fuzzer, which has many small deltas applied, takes small ones.
pub(crate) const fn table(bits: u32) -> u32 {
    if cfg!(fuzzing) && bits > 10 {
        10
    } else {
        bits
    }
}

/// A hash of a context's parts.
pub(crate) fn hash(seed: u32, value: u32) -> u32 {
    let mixed = (seed ^ value.wrapping_mul(0x9E37_79B1)).wrapping_mul(0x85EB_CA6B);
    mixed ^ (mixed >> 15)
}

/// A probability (22 bits, then 10 of times seen, up to `limit`) after one more bit.
#[inline]
pub(super) fn moved(slot: u32, bit: u32, limit: u32, steps: &[u32; 1024]) -> u32 {
    let count = slot & 1023;
    let old = i64::from(slot >> 10);
    let target = if bit == 1 { (1 << 22) - 1 } else { 0 };
    let new = old + (((target - old) * i64::from(steps[count as usize])) >> 16);
    ((new as u32) << 10) | if count < limit { count + 1 } else { count }
}

/// Predicts bits from `N` contexts.
pub(crate) struct Model<const N: usize> {
    /// Probability of a one in the upper 22 bits, times seen in the lower 10.
    slots: Box<[u32]>,
    mask: u32,
    weights: Box<[[i32; N]]>,
    /// Times seen at most: how far back a context remembers.
    limit: u32,
    stretch: &'static [i16; 4096],
    steps: &'static [u32; 1024],
}

impl<const N: usize> Model<N> {
    /// `bits`: size of the table, as a power of two; `sets`: number of sets of weights.
    pub(crate) fn new(bits: u32, sets: usize, limit: u32) -> Self {
        let bits = table(bits);
        let start = (65536 * 10 / (10 * N.min(3) as i32)).max(1);
        Self {
            slots: vec![1 << 31; 1 << bits].into_boxed_slice(),
            mask: (1 << bits) - 1,
            weights: vec![[start; N]; sets * STEPS_OF_TREE].into_boxed_slice(),
            limit,
            stretch: &STRETCH,
            steps: &STEPS,
        }
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> u64 {
        (size_of_val(&*self.slots) + size_of_val(&*self.weights)) as u64
    }

    /// Codes one bit.
    #[inline]
    pub(crate) fn bit<C: BitCoder>(
        &mut self,
        coder: &mut C,
        contexts: &[u32; N],
        set: usize,
        bit: u32,
    ) -> u32 {
        self.weighed(coder, contexts, set * STEPS_OF_TREE, bit)
    }

    #[inline]
    fn weighed<C: BitCoder>(
        &mut self,
        coder: &mut C,
        contexts: &[u32; N],
        set: usize,
        bit: u32,
    ) -> u32 {
        let weights = &mut self.weights[set];
        let mut inputs = [0i32; N];
        let mut sum = 0i64;
        for i in 0..N {
            let slot = self.slots[(contexts[i] & self.mask) as usize];
            let count = slot & 1023;
            let logit = i32::from(self.stretch[(slot >> 20) as usize]);
            // What has seldom been seen speaks with a low voice.
            inputs[i] = if count == 0 { 0 } else { logit };
            sum += i64::from(inputs[i]) * i64::from(weights[i]);
        }
        let p = squash(((sum >> 16).clamp(-2047, 2047)) as i32).clamp(16, 65520);
        let bit = coder.bit(bit, p as u32);
        let error = ((bit << 16) as i32) - p;
        for i in 0..N {
            weights[i] = (weights[i] + ((inputs[i] * (error >> 4) * 6 + 0x8000) >> 16))
                .clamp(-(1 << 20), 1 << 20);
            let slot = &mut self.slots[(contexts[i] & self.mask) as usize];
            *slot = moved(*slot, bit, self.limit, self.steps);
        }
        bit
    }

    /// Codes the lowest `bits` bits of a value, highest first. Four of them share a line of the table in each context:
    /// memory is what takes the time.
    pub(crate) fn tree<C: BitCoder>(
        &mut self,
        coder: &mut C,
        contexts: &[u32; N],
        set: usize,
        bits: u32,
        value: u32,
    ) -> u32 {
        let mut found = 1u32;
        let mut left = bits;
        while left > 0 {
            let lines = contexts.map(|c| hash(c, found) & !(LINE - 1));
            let now = left.min(LINE.ilog2());
            let mut node = 1u32;
            for _ in 0..now {
                left -= 1;
                let at = lines.map(|line| line | node);
                let bit = self.weighed(
                    coder,
                    &at,
                    set * STEPS_OF_TREE + (bits - left - 1) as usize,
                    (value >> left) & 1,
                );
                node = (node << 1) | bit;
            }
            found = (found << now) | (node & ((1 << now) - 1));
        }
        found & ((1u64 << bits) - 1) as u32
    }
}
