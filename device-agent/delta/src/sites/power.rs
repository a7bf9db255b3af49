//! Fields of POWER code (encodings: Power ISA, book I; how addresses are made: ELF V2 ABI for OpenPOWER, "Code Models").

use super::field::Field;
use super::{instruction, Base, Meaning, Site};

/// Bytes before a piece in which the upper half of an address is looked for.
pub(super) const LEAD: u64 = 96;

/// What is known of a register: the upper half of a number, what it counts from, and by which field it came.
#[derive(Clone, Copy, Default)]
struct Register {
    upper: Option<(i16, Base)>,
    /// Where the instruction stands, and the place of its field in the list.
    at: u64,
    field: usize,
}

/// The fields in `code`, which stands at `base` in the file. `toc`: the address that register 2 holds, if it is known.
pub(super) fn scan(code: &[u8], base: u64, toc: Option<u64>, out: &mut Vec<Site>) {
    let mut registers = [Register::default(); 32];
    let half = Field::Signed {
        from: 0,
        bits: 16,
        unit: 0,
    };
    for (i, bytes) in code.chunks_exact(4).enumerate() {
        let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let at = base + 4 * i as u64;
        let (to, from) = ((word >> 21 & 31) as usize, (word >> 16 & 31) as usize);
        let number = word as u16 as i16;
        match word >> 26 {
            18 if word & 2 == 0 => {
                out.push(instruction(at, signed(2, 24), Meaning::Relative(0), 17));
            }
            16 if word & 2 == 0 => {
                out.push(instruction(at, signed(2, 14), Meaning::Relative(0), 18));
            }
            // A function's beginning: from its own address, which register 12 holds, to that in register 2.
            15 if (to, from) == (2, 12) && toc.is_some() => {
                registers[2] = Register {
                    upper: Some((number, Base::Own(0))),
                    at,
                    field: out.len(),
                };
                out.push(instruction(at, half, Meaning::Upper(Base::Own(0), 0), 32));
            }
            15 if from == 2 => {
                registers[to].upper = toc.map(|toc| (number, Base::Toc(toc)));
                registers[to].at = at;
                registers[to].field = out.len();
                if let Some(toc) = toc {
                    out.push(instruction(at, half, Meaning::Upper(Base::Toc(toc), 0), 33));
                }
            }
            code @ (14 | 32..=55 | 58 | 62) => {
                let of = registers[from];
                // Register 0 stands for no register.
                if let Some((upper, base)) = of.upper.filter(|_| from != 0) {
                    let scaled = matches!(code, 58 | 62);
                    let field = if scaled { signed(2, 14) } else { half };
                    let lower = field.get(word.into()) as i16;
                    if let Some(site) = out.get_mut(of.field) {
                        if site.meaning == Meaning::Upper(base, 0) {
                            site.meaning = Meaning::Upper(base, lower);
                        }
                    }
                    let base = match base {
                        Base::Own(_) => Base::Own((of.at as i64 - at as i64) as i16),
                        toc => toc,
                    };
                    out.push(instruction(at, field, Meaning::Lower(base, upper), 34));
                }
                // Stores read what they name, the others write it.
                if !matches!(code, 36..=39 | 44 | 45 | 47 | 52..=55 | 62) {
                    registers[to].upper = None;
                }
            }
            // Others write, mostly, what they name first or second.
            _ => {
                registers[to].upper = None;
                registers[from].upper = None;
            }
        }
    }
}

fn signed(from: u8, bits: u8) -> Field {
    let unit = 2;
    Field::Signed { from, bits, unit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_of_an_address_are_known_together() {
        let words = [
            0x3c4c_0010u32, // addis r2, r12, 16
            0x3842_8000,    // addi r2, r2, -32768
            0x3d22_0001,    // addis r9, r2, 1
            0xe929_0020,    // ld r9, 32(r9)
            0xe929_0020,    // of what was loaded
            0x3860_0005,    // li r3, 5
        ];
        let code: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut found = Vec::new();
        scan(&code, 0x500, Some(0x9000), &mut found);
        let meanings: Vec<(u64, Meaning)> = found.iter().map(|s| (s.at, s.meaning)).collect();
        let expected = [
            (0x500, Meaning::Upper(Base::Own(0), -32768)),
            (0x504, Meaning::Lower(Base::Own(-4), 16)),
            (0x508, Meaning::Upper(Base::Toc(0x9000), 32)),
            (0x50c, Meaning::Lower(Base::Toc(0x9000), 1)),
        ];
        assert_eq!(meanings, expected);
        // The lowest bits of a load of eight bytes belong to the instruction.
        assert_eq!(found[3].form.set(0xe929_0021, 0x48), 0xe929_0049);
        found.clear();
        scan(&code, 0x500, None, &mut found);
        assert!(found.is_empty());
    }
}
