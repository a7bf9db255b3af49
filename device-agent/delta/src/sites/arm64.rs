//! Fields of AArch64 code (encodings: Arm Architecture Reference Manual A-profile, C4 "A64 Instruction Set Encoding").

use super::field::Field;
use super::{instruction, Meaning, Site};

/// Bytes before a piece in which `adrp` is looked for.
pub(super) const LEAD: u64 = 96;

/// What is known of a register: a page, and by which field it came.
#[derive(Clone, Copy, Default)]
struct Register {
    /// The page's first address.
    page: Option<u64>,
    /// Place of the field in the list.
    field: usize,
}

/// The fields in `code`, which stands at `base` in the file and at the address `address` in memory (0 if that is not
/// known: in object files).
pub(super) fn scan(code: &[u8], base: u64, address: u64, out: &mut Vec<Site>) {
    let mut registers = [Register::default(); 32];
    for (i, bytes) in code.chunks_exact(4).enumerate() {
        let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let at = base + 4 * i as u64;
        let (to, from) = ((word & 31) as usize, (word >> 5 & 31) as usize);
        if let Some((field, meaning, class)) = branch(word) {
            out.push(instruction(at, field, meaning, class));
            continue;
        }
        if word & 0x9f00_0000 == 0x9000_0000 {
            let pages = Field::Adrp.get(word.into()) << 12;
            let here = address.wrapping_add(4 * i as u64) & !0xfff;
            registers[to] = Register {
                page: (address != 0).then_some(here.wrapping_add_signed(pages)),
                field: out.len(),
            };
            out.push(instruction(at, Field::Adrp, Meaning::Page(0x800), 20));
            continue;
        }
        let low = lowest(word);
        if let (Some((field, class)), Some(page)) = (low, registers[from].page) {
            let inside = field.get(word.into()) as u16;
            if let Some(site) = out.get_mut(registers[from].field) {
                // The first use tells where in the page it aims.
                if site.meaning == Meaning::Page(0x800) {
                    site.meaning = Meaning::Page(inside);
                }
            }
            out.push(instruction(at, field, Meaning::Low(page), class));
        }
        if !is_store(word) {
            registers[to].page = None;
        }
    }
}

fn signed(from: u8, bits: u8) -> Field {
    let unit = 2;
    Field::Signed { from, bits, unit }
}

/// Branches, and loads of what stands near.
fn branch(word: u32) -> Option<(Field, Meaning, u8)> {
    let near = Meaning::Relative(0);
    match word >> 24 {
        _ if (word >> 26) & 0x1f == 5 => Some((signed(0, 26), near, 17)),
        0x54 | 0x34 | 0x35 | 0xb4 | 0xb5 => Some((signed(5, 19), near, 18)),
        0x36 | 0x37 | 0xb6 | 0xb7 => Some((signed(5, 14), near, 19)),
        0x18 | 0x58 | 0x1c | 0x5c | 0x9c | 0x98 => Some((signed(5, 19), near, 18)),
        _ => None,
    }
}

/// The lowest bits of an address: `add` with a number, loads and stores with an unsigned one.
fn lowest(word: u32) -> Option<(Field, u8)> {
    let (unit, class) = if word & 0xffc0_0000 == 0x9100_0000 {
        (0, 32)
    } else if word & 0x3b00_0000 == 0x3900_0000 {
        let wide = word & 0x0480_0000 == 0x0480_0000;
        (if wide { 4 } else { (word >> 30) as u8 }, 33)
    } else {
        return None;
    };
    let (from, bits) = (10, 12 - unit);
    Some((Field::Low { from, bits, unit }, class))
}

/// Whether the register in the lowest bits is read, not written: stores, as far as they are common.
fn is_store(word: u32) -> bool {
    let one = word & 0x3a00_0000 == 0x3800_0000 && word & 0x00c0_0000 == 0;
    let two = word & 0x3a40_0000 == 0x2800_0000;
    one || two
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_two_parts_is_one_aim() {
        let words = [
            0xd000_0000u32, // adrp x0, two pages on
            0x9100_4000,    // add x0, x0, #0x10
            0xf940_0401,    // ldr x1, [x0, #8]: no longer a page
            0xd000_0003,    // adrp x3
            0xf900_0c61,    // str x1, [x3, #0x18]
            0xf940_0463,    // ldr x3, [x3, #8]
            0xf940_0463,    // once more: of what was loaded
        ];
        let code: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut found = Vec::new();
        scan(&code, 0x500, 0x1_0000, &mut found);
        let meanings: Vec<(u64, Meaning)> = found.iter().map(|s| (s.at, s.meaning)).collect();
        let expected = [
            (0x500, Meaning::Page(0x10)),
            (0x504, Meaning::Low(0x1_2000)),
            (0x50c, Meaning::Page(0x18)),
            (0x510, Meaning::Low(0x1_2000)),
            (0x514, Meaning::Low(0x1_2000)),
        ];
        assert_eq!(meanings, expected);
        let numbers = [(1, 0x9100_4000u64, 0x10), (3, 0xf900_0c61, 0x18)];
        for (place, word, number) in numbers {
            assert_eq!(found[place].form.get(word, 4), number);
            assert_eq!(found[place].form.set(word, number), word);
            // Only the lowest bits are the field's.
            assert_eq!(found[place].form.set(word, number + 0x7000), word);
        }
        // Where addresses are not known, only the parts that need none.
        found.clear();
        scan(&code, 0x500, 0, &mut found);
        assert_eq!(found.len(), 2);
    }
}
