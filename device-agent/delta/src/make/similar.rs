//! Files that share content whatever their names are, found by samples of short windows.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Bytes hashed together.
const WINDOW: usize = 16;
/// Of so many windows one is kept, by its hash: so the same ones are kept wherever they stand.
const RATE: u32 = 128;
/// A window that so many files have says nothing about any.
const COMMON: usize = 24;
/// Windows that a file must share with another.
const LEAST: u32 = 4;

/// Hashes of a file's windows, each once.
fn sample(file: &[u8]) -> Vec<u32> {
    let mut kept = Vec::new();
    for window in file.windows(WINDOW) {
        let half = |at: usize| {
            window[at..at + 8]
                .iter()
                .rev()
                .fold(0u64, |n, b| n << 8 | u64::from(*b))
        };
        let (a, b) = (half(0), half(8));
        let mixed = (a ^ b.rotate_left(29)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let hash = ((mixed ^ (mixed >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32) as u32;
        if hash < u32::MAX / RATE && (a != b || a != a.rotate_left(8)) {
            kept.push(hash);
        }
    }
    kept.sort_unstable();
    kept.dedup();
    kept
}

/// Content of files, and how it is shared.
pub(super) struct Shared {
    samples: Vec<Vec<u32>>,
    /// Hash and place in the list of candidates, sorted.
    index: Vec<(u32, u32)>,
}

impl Shared {
    /// Reads all candidates, side by side.
    pub(super) fn read<T: Sync>(
        candidates: &[T],
        threads: usize,
        content: &(dyn Fn(&T) -> io::Result<Vec<u8>> + Sync),
    ) -> io::Result<Self> {
        let next = AtomicUsize::new(0);
        let samples = Mutex::new(vec![Vec::new(); candidates.len()]);
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..threads.clamp(1, candidates.len().max(1)) {
                scope.spawn(|| loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(candidate) = candidates.get(i) else {
                        break;
                    };
                    match content(candidate) {
                        Ok(bytes) => {
                            let found = sample(&bytes);
                            samples.lock().unwrap_or_else(PoisonError::into_inner)[i] = found;
                        }
                        Err(error) => {
                            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                            break;
                        }
                    }
                });
            }
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
        let samples = samples.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut index: Vec<(u32, u32)> = samples
            .iter()
            .enumerate()
            .flat_map(|(i, all)| all.iter().map(move |hash| (*hash, i as u32)))
            .collect();
        index.sort_unstable();
        Ok(Self { samples, index })
    }

    /// The candidate that shares most with the one at `place`, if that is clearly more than what `present` shares.
    /// `usable` says which may be taken.
    pub(super) fn best(
        &self,
        place: usize,
        present: Option<usize>,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let mut shared: HashMap<usize, u32> = HashMap::new();
        for hash in &self.samples[place] {
            let first = self.index.partition_point(|(h, _)| h < hash);
            let same = self.index[first..].iter().take_while(|(h, _)| h == hash);
            if same.clone().nth(COMMON).is_some() {
                continue;
            }
            for (_, other) in same {
                *shared.entry(*other as usize).or_default() += 1;
            }
        }
        let have = present.and_then(|p| shared.get(&p)).copied().unwrap_or(0);
        let best = shared
            .into_iter()
            .filter(|(other, _)| *other != place && usable(*other))
            .max_by_key(|(other, count)| (*count, usize::MAX - other))?;
        // What has the same name is aligned better than windows tell.
        (best.1 >= LEAST && best.1 > have + have / 4 + LEAST).then_some(best.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed;
        (0..length)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect()
    }

    #[test]
    fn a_file_is_found_by_what_it_holds() {
        let shared = noise(1, 30_000);
        let mut renamed = noise(2, 5000);
        renamed.extend(&shared);
        let files = [noise(3, 40_000), shared, renamed, vec![0; 40_000]];
        let found = Shared::read(&files, 2, &|file| Ok(file.clone())).unwrap();
        assert_eq!(found.best(2, None, |_| true), Some(1));
        assert_eq!(found.best(2, Some(0), |_| true), Some(1));
        // What it has already is as good; what may not be used; what shares nothing.
        assert_eq!(found.best(2, Some(1), |_| true), None);
        assert_eq!(found.best(2, None, |i| i != 1), None);
        assert_eq!(found.best(0, None, |_| true), None);
        assert_eq!(found.best(3, None, |_| true), None);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        assert!(Shared::read(&[0], 2, &|_| Err(io::ErrorKind::NotFound.into())).is_err());
    }
}
