//! Fields of 32-bit ARM code, most of which is Thumb (encodings: Arm Architecture Reference Manual, A- and R-profile, F3 "T32 and A32
//! Instruction Set Encoding").

use super::field::Field;
use super::{instruction, plain, Meaning, Site};

/// Bytes before a piece in which loads of what stands in it are looked for: as far as the short form reaches.
pub(super) const LEAD: u64 = 1088;
/// Instructions between a load and what is done with it.
const APART: usize = 24;

/// A register that was loaded from near the code: where that stands, and how many instructions ago.
#[derive(Clone, Copy, Default)]
struct Loaded {
    place: Option<usize>,
    since: usize,
}

/// The fields in `code`, which stands at `base` in the file.
pub(super) fn scan(code: &[u8], base: u64, out: &mut Vec<Site>) {
    let mut loaded = [Loaded::default(); 16];
    let mut literals = Vec::new();
    let mut at = 0;
    let mut count = 0;
    while at + 4 <= code.len() {
        let word = u32::from_le_bytes([code[at], code[at + 1], code[at + 2], code[at + 3]]);
        let (high, low) = (word & 0xffff, word >> 16);
        let place = base + at as u64;
        count += 1;
        // bl, blx and b.w are told by their halves' highest bits.
        if high & 0xf800 == 0xf000 && low & 0x9000 == 0x9000 {
            out.push(instruction(place, Field::Thumb, Meaning::Relative(4), 17));
            at += 4;
        } else if high & 0xf800 == 0xf000 && low & 0xd001 == 0xc000 {
            out.push(instruction(place, Field::Thumb, Meaning::Aligned(4), 32));
            at += 4;
        } else if at % 4 == 0 && word & 0x0e00_0000 == 0x0a00_0000 && word >> 28 == 14 {
            let field = Field::Signed {
                from: 0,
                bits: 24,
                unit: 2,
            };
            out.push(instruction(place, field, Meaning::Relative(8), 33));
            at += 4;
        } else if high & 0xff7f == 0xf85f {
            // ldr.w from near, up or down.
            let offset = (low & 0xfff) as usize;
            let from = (at + 4) & !3;
            let place = if high & 0x80 == 0 {
                from.checked_sub(offset)
            } else {
                Some(from + offset)
            };
            loaded[(low >> 12) as usize] = Loaded {
                place,
                since: count,
            };
            at += 4;
        } else if high & 0xf800 == 0x4800 {
            let place = ((at + 4) & !3) + 4 * (high & 0xff) as usize;
            loaded[(high >> 8 & 7) as usize] = Loaded {
                place: Some(place),
                since: count,
            };
            at += 2;
        } else if high & 0xff78 == 0x4478 {
            // add with the program counter: what was loaded counts from here.
            let register = &mut loaded[(high & 7 | high >> 4 & 8) as usize];
            if let Some(place) = register.place.take() {
                if count - register.since <= APART && place + 4 <= code.len() && place % 4 == 0 {
                    literals.push((place, at + 4));
                }
            }
            at += 2;
        } else if high & 0xe000 == 0xe000 && high & 0x1800 != 0 {
            at += 4;
        } else {
            at += 2;
        }
    }
    // What is loaded is no code.
    literals.sort_unstable();
    out.retain(|site| {
        let place = (site.at - base) as usize;
        let after = literals.partition_point(|l| l.0 + 4 <= place);
        literals.get(after).is_none_or(|l| place + 4 <= l.0)
    });
    for (place, from) in literals {
        if let Ok(distance) = i16::try_from(from as i64 - place as i64) {
            let at = base + place as u64;
            out.push(plain(at, 4, Meaning::Relative(distance), 34));
        }
    }
    out.sort_by_key(|site| site.at);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(halves: &[u16]) -> Vec<Site> {
        let code: Vec<u8> = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
        let mut found = Vec::new();
        scan(&code, 0x500, &mut found);
        found
    }

    #[test]
    fn calls_into_the_other_state_count_from_a_multiple_of_four() {
        // 8b922: blx 80718
        let found = scanned(&[0xf7f4, 0xeefa]);
        assert_eq!(found[0].meaning, Meaning::Aligned(4));
        let word = 0xeefa_f7f4;
        assert_eq!(found[0].form.get(word, 4), 0x80718 - 0x8b924);
        assert_eq!(found[0].form.set(word, 0x80718 - 0x8b924), word);
    }

    #[test]
    fn what_is_loaded_and_added_to_the_counter_is_no_code() {
        // ldr r3, [pc, #4]; add r3, pc; bx lr; nop; what looks like a call
        let found = scanned(&[0x4b01, 0x447b, 0x4770, 0xbf00, 0xf7f4, 0xfefa]);
        let meanings: Vec<(u64, Meaning)> = found.iter().map(|s| (s.at, s.meaning)).collect();
        assert_eq!(meanings, [(0x508, Meaning::Relative(-2))]);
        // Another register: the same bytes are a call.
        let found = scanned(&[0x4b01, 0x447a, 0x4770, 0xbf00, 0xf7f4, 0xfefa]);
        let meanings: Vec<(u64, Meaning)> = found.iter().map(|s| (s.at, s.meaning)).collect();
        assert_eq!(meanings, [(0x508, Meaning::Relative(4))]);
    }
}
