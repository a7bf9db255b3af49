//! Stretches of two files that resemble each other, found by hashes of short windows.

use super::Alike;

/// Bytes hashed.
const WINDOW: usize = 12;
/// Places with the same hash that are tried.
const TRIES: usize = 48;
/// Bytes by which another place must be better.
const BETTER: usize = 6;
/// How far another place may be without having to be so much better still: telling where it is costs more.
const CLOSE: usize = 4096;
const FAR: usize = 64;
/// Equal bytes that a differing one must be worth when a stretch is made longer.
const MISMATCH: i64 = 2;

struct Index<'a> {
    old: &'a [u8],
    heads: Vec<u32>,
    next: Vec<u32>,
    stride: usize,
    bits: u32,
}

fn key(bytes: &[u8], bits: u32) -> usize {
    let a = u64::from_le_bytes([
        bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
    ]);
    let b = u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]);
    let mixed = (a ^ u64::from(b).rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> (64 - bits)) as usize
}

impl<'a> Index<'a> {
    fn new(old: &'a [u8]) -> Self {
        let stride = if old.len() > 32 << 20 {
            4
        } else if old.len() > 8 << 20 {
            2
        } else {
            1
        };
        let bits = (usize::BITS - (old.len() / stride).leading_zeros()).clamp(10, 24);
        let mut index = Self {
            old,
            heads: vec![0; 1 << bits],
            next: vec![0; old.len() / stride + 1],
            stride,
            bits,
        };
        let last = old.len().saturating_sub(WINDOW - 1);
        // Backwards, so that the first places come first in the chains.
        for place in (0..last).step_by(stride).rev() {
            let window = &old[place..place + WINDOW];
            if window.iter().all(|b| *b == window[0]) {
                continue;
            }
            let head = &mut index.heads[key(window, bits)];
            index.next[place / stride] = *head;
            *head = (place / stride) as u32 + 1;
        }
        index
    }

    /// The longest match for `new[at..]`: old place and length; among equals the nearest to `near`.
    fn longest(&self, new: &[u8], at: usize, end: usize, near: usize) -> Option<(usize, usize)> {
        let window = new.get(at..at + WINDOW)?;
        let mut next = self.heads[key(window, self.bits)];
        let mut best: Option<(usize, usize)> = None;
        for _ in 0..TRIES {
            let Some(place) = (next as usize).checked_sub(1) else {
                break;
            };
            next = self.next[place];
            let place = place * self.stride;
            let length = common(&self.old[place..], &new[at..end]);
            if length < WINDOW {
                continue;
            }
            let better = best.is_none_or(|(p, l)| {
                length > l || length == l && place.abs_diff(near) < p.abs_diff(near)
            });
            if better {
                best = Some((place, length));
            }
        }
        best
    }
}

fn common(a: &[u8], b: &[u8]) -> usize {
    let n = a.len().min(b.len());
    let mut i = 0;
    while i + 8 <= n && a[i..i + 8] == b[i..i + 8] {
        i += 8;
    }
    while i < n && a[i] == b[i] {
        i += 1;
    }
    i
}

fn equal(old: &[u8], new: &[u8], shift: isize, from: usize, to: usize) -> usize {
    (from..to)
        .filter(|&i| {
            let place = i.checked_add_signed(shift);
            place.is_some_and(|p| old.get(p) == Some(&new[i]))
        })
        .count()
}

/// A run on one diagonal: where it certainly begins and ends.
struct Run {
    shift: isize,
    begin: usize,
    end: usize,
}

/// Finds stretches everywhere but in the ranges `without` (sorted).
pub(super) fn find(old: &[u8], new: &[u8], without: &[(usize, usize)]) -> Vec<Alike> {
    let mut found = Vec::new();
    if old.len() < WINDOW {
        return found;
    }
    let index = Index::new(old);
    let mut at = 0;
    let ends = without.iter().copied().chain([(new.len(), new.len())]);
    for (begin, end) in ends {
        if at < begin {
            let runs = runs(&index, new, at, begin);
            stretch(old, new, at, begin, &runs, &mut found);
        }
        at = at.max(end);
    }
    found
}

fn runs(index: &Index<'_>, new: &[u8], from: usize, to: usize) -> Vec<Run> {
    let old = index.old;
    let mut runs: Vec<Run> = Vec::new();
    let mut at = from;
    while at < to {
        let here = runs.last().map(|r| r.shift);
        if let Some(place) = here
            .and_then(|s| at.checked_add_signed(s))
            .filter(|p| *p < old.len())
        {
            let same = common(&old[place..], &new[at..to]);
            if same > 0 {
                if let Some(run) = runs.last_mut() {
                    // A chance match of few bytes far off is no proof.
                    if same >= 8 || at - run.end < 16 {
                        run.end = at + same;
                    }
                }
                at += same;
                if same >= 32 {
                    continue;
                }
            }
            if at >= to {
                break;
            }
        }
        let near = here.and_then(|s| at.checked_add_signed(s)).unwrap_or(at);
        if let Some((place, length)) = index.longest(new, at, to, near) {
            let shift = place as isize - at as isize;
            let present = here.map_or(0, |s| equal(old, new, s, at, at + length));
            let close = here.is_none_or(|s| s.abs_diff(shift) < CLOSE);
            let better = if close { BETTER } else { BETTER + FAR };
            if here != Some(shift) && length >= present + better {
                let floor = runs.last().map_or(from, |r| r.end);
                let mut begin = at;
                while begin > floor
                    && begin
                        .checked_add_signed(shift)
                        .is_some_and(|p| p > 0 && old.get(p - 1) == Some(&new[begin - 1]))
                {
                    begin -= 1;
                }
                runs.push(Run {
                    shift,
                    begin,
                    end: at + length,
                });
                at += length;
                continue;
            }
        }
        at += 1;
    }
    runs
}

/// Widens the runs over bytes that mostly agree, and settles where neighbours meet.
fn stretch(old: &[u8], new: &[u8], from: usize, to: usize, runs: &[Run], found: &mut Vec<Alike>) {
    let fits = |shift: isize, i: usize| i.checked_add_signed(shift).is_some_and(|p| p < old.len());
    let same = |shift: isize, i: usize| {
        i.checked_add_signed(shift)
            .is_some_and(|p| old.get(p) == Some(&new[i]))
    };
    let mut begin: Vec<usize> = runs.iter().map(|r| r.begin).collect();
    let mut end: Vec<usize> = runs.iter().map(|r| r.end).collect();
    for i in 0..=runs.len() {
        let low = if i == 0 {
            from
        } else {
            end[i - 1].min(runs[i - 1].end)
        };
        let high = if i == runs.len() { to } else { begin[i] };
        let (low, high) = (low.min(high), high);
        // How far the left run goes on, how far the right one reaches back.
        let mut forward = low;
        if i > 0 {
            let (mut score, mut best) = (0i64, 0i64);
            for at in low..high {
                if !fits(runs[i - 1].shift, at) {
                    break;
                }
                score += if same(runs[i - 1].shift, at) {
                    1
                } else {
                    -MISMATCH
                };
                if score >= best {
                    (best, forward) = (score, at + 1);
                }
                if score < best - 64 {
                    break;
                }
            }
        }
        let mut backward = high;
        if i < runs.len() {
            let (mut score, mut best) = (0i64, 0i64);
            for at in (low..high).rev() {
                if !fits(runs[i].shift, at) {
                    break;
                }
                score += if same(runs[i].shift, at) {
                    1
                } else {
                    -MISMATCH
                };
                if score >= best {
                    (best, backward) = (score, at);
                }
                if score < best - 64 {
                    break;
                }
            }
        }
        if forward > backward && i > 0 && i < runs.len() {
            // Both want these: the split that agrees most.
            let (mut score, mut best, mut at_best) = (0i64, 0i64, backward);
            for at in backward..forward {
                score +=
                    i64::from(same(runs[i - 1].shift, at)) - i64::from(same(runs[i].shift, at));
                if score > best {
                    (best, at_best) = (score, at + 1);
                }
            }
            (forward, backward) = (at_best, at_best);
        }
        if i > 0 {
            end[i - 1] = forward;
        }
        if i < runs.len() {
            begin[i] = backward;
        }
    }
    for (i, run) in runs.iter().enumerate() {
        if begin[i] < end[i] {
            found.push(Alike {
                new: begin[i],
                length: end[i] - begin[i],
                old: begin[i].wrapping_add_signed(run.shift),
            });
        }
    }
}
