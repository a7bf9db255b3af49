//! Entries of tables, and which of them belong together.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use super::Alike;

/// An entry: its offset in the file, its length, what it is known by (in terms of the new file).
pub(super) struct Record {
    pub at: usize,
    pub length: usize,
    pub key: u64,
}

/// Entries after one that must be the same.
const NEIGHBOURS: usize = 2;

pub(super) fn number(file: &[u8], at: usize, width: usize) -> u64 {
    let mut bytes = [0u8; 8];
    if let Some(found) = file.get(at..at + width) {
        bytes[..width].copy_from_slice(found);
    }
    u64::from_le_bytes(bytes)
}

pub(super) fn key(parts: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

pub(super) fn pair_up(old: &[Record], new: &[Record], found: &mut Vec<Alike>) {
    let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
    for (i, record) in old.iter().enumerate() {
        places.entry(record.key).or_default().push(i);
    }
    let wanted: HashSet<u64> = new.iter().map(|r| r.key).collect();
    let mut next = 0;
    for record in new {
        let place = if old.get(next).is_some_and(|r| r.key == record.key) {
            Some(next)
        } else {
            places
                .get(&record.key)
                .and_then(|all| all.iter().copied().min_by_key(|p| p.abs_diff(next)))
        };
        // An entry that has no like takes the place of one that has gone.
        let gone = || (next < old.len() && !wanted.contains(&old[next].key)).then_some(next);
        let Some(place) = place.or_else(gone) else {
            continue;
        };
        found.push(Alike {
            new: record.at,
            length: record.length.min(old[place].length),
            old: old[place].at,
        });
        next = place + 1;
    }
}

/// Pairs small entries whose order hardly changes, and of which not all are known by their keys: only those that have
/// neighbours in common are taken from elsewhere.
pub(super) fn pair_in_order(old: &[Record], new: &[Record], found: &mut Vec<Alike>) {
    let mut places: HashMap<u64, Vec<usize>> = HashMap::new();
    for (i, record) in old.iter().enumerate() {
        places.entry(record.key).or_default().push(i);
    }
    let same = |i: usize, place: usize| match (new.get(i), old.get(place)) {
        (Some(a), Some(b)) => a.key == b.key,
        (None, None) => true,
        _ => false,
    };
    let mut next = 0;
    for (i, record) in new.iter().enumerate() {
        let confirmed = |place: &usize| (1..=NEIGHBOURS).all(|k| same(i + k, place + k));
        let elsewhere = || {
            let all = places.get(&record.key)?;
            let confirmed = all.iter().copied().filter(confirmed);
            confirmed.min_by_key(|p| p.abs_diff(next))
        };
        let place = if same(i, next) {
            Some(next)
        } else {
            elsewhere().or_else(|| same(i + 1, next + 1).then_some(next))
        };
        let Some((place, like)) = place.and_then(|place| Some((place, old.get(place)?))) else {
            continue;
        };
        found.push(Alike {
            new: record.at,
            length: record.length.min(like.length),
            old: like.at,
        });
        next = place + 1;
    }
}
