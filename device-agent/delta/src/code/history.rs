//! What a context has seen, in one byte: how many zeros and ones, roughly, and which came last.

use std::sync::LazyLock;

/// Counts that a state can hold: with so many of the rarer bit (the place in this list), at most so many of the other.
const MOST: [u8; 6] = [40, 24, 12, 8, 6, 5];

/// All states: the one after a zero, and the one after a one. State 0 has seen nothing; states that have seen more come
/// later.
pub(crate) static NEXT: LazyLock<Box<[[u8; 2]; 256]>> = LazyLock::new(|| {
    let mut states: Vec<(u8, u8, u8)> = Vec::new();
    for zeros in 0..=MOST[0] {
        for ones in 0..=MOST[0] {
            if !holds(zeros, ones) {
                continue;
            }
            for last in 0..2 {
                if [zeros, ones][usize::from(last)] > 0 || zeros + ones == 0 && last == 0 {
                    states.push((zeros, ones, last));
                }
            }
        }
    }
    states.sort_by_key(|s| (s.0 + s.1, s.0, s.1, s.2));
    let mut next = Box::new([[0; 2]; 256]);
    for (place, state) in states.iter().enumerate().take(256) {
        for bit in 0..2 {
            let after = after(*state, bit);
            next[place][usize::from(bit)] =
                states.iter().position(|s| *s == after).unwrap_or(0) as u8;
        }
    }
    next
});

fn holds(zeros: u8, ones: u8) -> bool {
    MOST.get(usize::from(zeros.min(ones)))
        .is_some_and(|most| zeros.max(ones) <= *most)
}

/// One more of `bit`; of many of the other kind some are forgotten.
fn after((zeros, ones, _): (u8, u8, u8), bit: u8) -> (u8, u8, u8) {
    let mut counts = [zeros, ones];
    let (same, other) = (usize::from(bit), usize::from(1 - bit));
    counts[same] += 1;
    if counts[other] > 2 {
        counts[other] = counts[other].ilog2() as u8 + 1;
    }
    while !holds(counts[0], counts[1]) {
        if counts[other] > 0 && counts[same] <= MOST[0] && counts[other] > counts[same] / 4 {
            counts[other] -= 1;
        } else {
            counts[same] -= 1;
        }
    }
    (counts[0], counts[1], bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_leads_to_states() {
        let mut reached = vec![0u8];
        let mut seen = [false; 256];
        while let Some(state) = reached.pop() {
            for after in NEXT[usize::from(state)] {
                assert_ne!(after, 0);
                if !std::mem::replace(&mut seen[usize::from(after)], true) {
                    reached.push(after);
                }
            }
        }
        assert!(seen.iter().filter(|s| **s).count() > 150);
    }
}
