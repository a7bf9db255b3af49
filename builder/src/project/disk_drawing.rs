//! A disk drawn in a line of text, to scale.

use std::ops::Range;

/// Columns of a drawing.
const WIDTH: u64 = 72;
/// What nobody owns.
const FREE: char = '·';

/// Draws `regions` (a letter and its bytes, in order, none overlapping) as they stand in the first `bytes` bytes.
/// Every region has at least one column, so that nothing is left out; the next ones give way.
pub fn draw(regions: &[(char, Range<u64>)], bytes: u64) -> String {
    let column = |byte: u64| u128::from(byte) * u128::from(WIDTH) / u128::from(bytes.max(1));
    let mut line = String::new();
    let mut next = 0;
    for (letter, range) in regions {
        if range.start >= bytes || next >= u128::from(WIDTH) {
            break;
        }
        let start = column(range.start).max(next);
        let end = column(range.end.min(bytes)).max(start + 1);
        line.extend((next..start).map(|_| FREE));
        line.extend((start..end).map(|_| *letter));
        next = end;
    }
    line.extend((next..u128::from(WIDTH)).map(|_| FREE));
    line
}

/// Bytes that a column stands for.
pub fn column_bytes(bytes: u64) -> u64 {
    bytes / WIDTH
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1024;

    #[test]
    fn lengths_are_to_scale_and_nothing_is_left_out() {
        let regions = [
            ('a', 0..512),
            ('b', 512..KIB),
            ('c', 8 * KIB..9 * KIB),
            ('d', 36 * KIB..72 * KIB),
            ('e', 100 * KIB..101 * KIB),
        ];
        let line = draw(&regions, 72 * KIB);
        assert_eq!(line.chars().count(), 72);
        assert!(line.starts_with("ab······c···"), "{line}");
        assert_eq!(line.matches('d').count(), 36);
        assert!(line.ends_with("ddd"), "{line}");
        assert!(!line.contains('e'), "{line}");
        assert_eq!(column_bytes(72 * KIB), KIB);
        assert_eq!(draw(&[], 0).chars().count(), 72);
    }

    #[test]
    fn more_regions_than_columns_do_not_run_over() {
        let regions: Vec<_> = (0..200).map(|n| ('x', n..n + 1)).collect();
        assert_eq!(draw(&regions, 1 << 40).chars().count(), 72);
    }
}
