//! Stretches of the old file, each with its place in the new one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A range of the old file and where it has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub old: u64,
    pub length: u64,
    pub new: u64,
}

/// Where several pieces come from the same old bytes, the longest says where they have gone.
pub(crate) fn disjoint(mut pieces: Vec<Piece>) -> Vec<Piece> {
    pieces.sort_unstable_by_key(|p| (p.old, p.new));
    let mut out: Vec<Piece> = Vec::with_capacity(pieces.len());
    // Pieces that reach over `at`, the longest on top; equal ones in the order of the new file.
    let mut open: BinaryHeap<(u64, Reverse<u64>, u64)> = BinaryHeap::new();
    let mut next = 0;
    let mut at = 0;
    while next < pieces.len() || !open.is_empty() {
        while open
            .peek()
            .is_some_and(|&(length, _, old)| old + length <= at)
        {
            open.pop();
        }
        let Some(&(length, Reverse(new), old)) = open.peek() else {
            let Some(piece) = pieces.get(next) else {
                break;
            };
            at = at.max(piece.old);
            open.push((piece.length, Reverse(piece.new), piece.old));
            next += 1;
            continue;
        };
        // Up to the end of this piece, unless a longer one begins before.
        let mut end = old + length;
        while let Some(piece) = pieces.get(next).filter(|p| p.old < end) {
            open.push((piece.length, Reverse(piece.new), piece.old));
            next += 1;
            if piece.length > length {
                end = piece.old.max(at);
                break;
            }
        }
        if end > at {
            out.push(Piece {
                old: at,
                length: end - at,
                new: new.wrapping_add(at - old),
            });
            at = end;
        }
    }
    out.shrink_to_fit();
    out
}
