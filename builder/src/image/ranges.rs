//! Byte ranges that hold something: what must be written to a disk, and nothing else.

use std::ops::Range;

/// Sorted, disjoint, not touching byte ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ranges(Vec<Range<u64>>);

impl Ranges {
    /// Ranges in any order, overlapping or not.
    pub fn of(mut parts: Vec<Range<u64>>) -> Self {
        parts.retain(|range| range.start < range.end);
        parts.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<u64>> = Vec::with_capacity(parts.len());
        for part in parts {
            match merged.last_mut() {
                Some(last) if part.start <= last.end => last.end = last.end.max(part.end),
                _ => merged.push(part),
            }
        }
        Self(merged)
    }

    /// In ascending order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().cloned()
    }

    /// Bytes in all ranges.
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|range| range.end - range.start).sum()
    }

    /// The same ranges `offset` bytes further on.
    pub fn shifted(&self, offset: u64) -> Vec<Range<u64>> {
        self.iter()
            .map(|range| range.start + offset..range.end + offset)
            .collect()
    }

    /// Widened to whole blocks of `block` bytes.
    pub fn blocks(&self, block: u64) -> Self {
        Self::of(
            self.iter()
                .map(|range| range.start / block * block..range.end.div_ceil(block) * block)
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_sorted_merged_and_widened() {
        let ranges = Ranges::of(vec![10..12, 0..4, 3..5, 5..6, 20..20]);
        assert_eq!(ranges.iter().collect::<Vec<_>>(), [0..6, 10..12]);
        assert_eq!(ranges.bytes(), 8);
        assert_eq!(ranges.shifted(1), [1..7, 11..13]);
        assert_eq!(
            ranges.blocks(8),
            Ranges::of(vec![Range { start: 0, end: 16 }])
        );
    }
}
