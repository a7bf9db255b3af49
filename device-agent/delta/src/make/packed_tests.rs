//! Frames as the reference encoder writes them.

use super::*;
use crate::source::Source;

/// Content as files have it: words that come again, numbers that count, some noise.
pub(crate) fn content(bytes: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761) | 1;
    let mut out = Vec::with_capacity(bytes + 64);
    while out.len() < bytes {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        match state >> 29 {
            0 => out.extend(state.to_le_bytes()),
            1 => out.extend(std::iter::repeat_n(
                state as u8,
                (state >> 20) as usize & 63,
            )),
            n => out.extend(format!("entry {} of {:>6}; ", n, (state >> 12) & 0x3ff).into_bytes()),
        }
    }
    out.truncate(bytes);
    out
}

#[test]
fn what_the_reference_encoder_writes_comes_out_again() {
    let mut compressed = 0;
    for level in [-5, 1, 3, 6, 9, 13, 16, 19, 22] {
        let samples = [
            content(400_000, 7),
            vec![0; 300_000],
            content(70_000, 3).repeat(4),
            (0..1u32 << 17)
                .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
                .collect(),
        ];
        for sample in samples {
            let mut file = b"before".to_vec();
            file.extend(::zstd::encode_all(&sample[..], level).unwrap());
            file.extend(b"behind");
            let found = frame(&file).unwrap();
            assert_eq!(found.content, sample, "level {level}");
            assert!(file[..found.begin].starts_with(b"before"));
            assert!(file[found.end..].ends_with(b"behind"));
            assert!(comes_out_again(&found, &file), "level {level}");
            compressed += found.blocks.iter().filter(|b| b.kind == 2).count();
        }
    }
    assert!(compressed > 50, "{compressed}");
}

#[test]
fn what_is_changed_does_not_come_out_as_if_it_were_not() {
    let sample = content(90_000, 1);
    let file = ::zstd::encode_all(&sample[..], 19).unwrap();
    for at in (0..file.len()).step_by(97) {
        let mut changed = file.clone();
        changed[at] ^= 1 << (at % 8);
        if let Some(found) = frame(&changed) {
            let same = comes_out_again(&found, &changed);
            // A stored byte may change and still be whole; nothing else may.
            assert!(
                !same || found.content != sample || found.end < changed.len(),
                "{at}"
            );
        }
        if let Some(cut) = frame(&changed[..at]) {
            assert!(Source::len(&cut.content) <= sample.len() as u64);
        }
    }
}
