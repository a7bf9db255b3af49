//! The public key as U-Boot keeps it in its own device tree.

use std::fmt::Write;

use super::sealed::{ALGORITHM, CONFIGURATION_KEY, IMAGE_KEY};

/// Source of the nodes (`/signature`) for a U-Boot that starts only what this RSA key has signed: modulus and exponent,
/// big-endian, without leading zeros. Numbers as U-Boot's `rsa_mod_exp` takes them: of 32 bits each, the highest
/// first, with what a Montgomery multiplication needs computed beforehand.
///
/// `None` if it is no RSA key: the modulus is even or shorter than 64 bits, or the exponent longer.
pub fn source(modulus: &[u8], exponent: &[u8]) -> Option<String> {
    let words = words(modulus)?;
    let lowest = *words.last()?;
    if lowest & 1 == 0 || words.len() < 2 || exponent.len() > 8 {
        return None;
    }
    let exponent = exponent
        .iter()
        .fold(0u64, |number, byte| number << 8 | u64::from(*byte));
    let mut text = String::from("/ {\n\tsignature {\n");
    for (name, required) in [(CONFIGURATION_KEY, "conf"), (IMAGE_KEY, "image")] {
        // Writing into a string does not fail.
        let _ = write!(
            text,
            "\t\tkey-{name} {{
\t\t\trequired = \"{required}\";
\t\t\talgo = \"{ALGORITHM}\";
\t\t\tkey-name-hint = \"{name}\";
\t\t\trsa,num-bits = <{}>;
\t\t\trsa,exponent = <{:#x} {:#x}>;
\t\t\trsa,n0-inverse = <{:#x}>;
\t\t\trsa,modulus = <{}>;
\t\t\trsa,r-squared = <{}>;
\t\t}};\n",
            words.len() * 32,
            exponent >> 32,
            exponent & 0xffff_ffff,
            minus_inverse(lowest),
            list(&words),
            list(&r_squared(&words)),
        );
    }
    text.push_str("\t};\n};\n");
    Some(text)
}

fn words(number: &[u8]) -> Option<Vec<u32>> {
    let chunks = number.chunks_exact(4);
    if !chunks.remainder().is_empty() {
        return None;
    }
    let word = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0, |word, byte| word << 8 | u32::from(*byte))
    };
    Some(chunks.map(word).collect())
}

fn list(words: &[u32]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:#x}")).collect();
    words.join(" ")
}

/// −1 / `odd` modulo 2³². Each step doubles the number of bits that are right (five at first).
fn minus_inverse(odd: u32) -> u32 {
    let mut inverse = odd.wrapping_mul(3) ^ 2;
    for _ in 0..3 {
        inverse = inverse.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(inverse)));
    }
    inverse.wrapping_neg()
}

/// (2^bits)² modulo the modulus, by doubling one as often.
fn r_squared(modulus: &[u32]) -> Vec<u32> {
    let mut number = vec![0; modulus.len()];
    if let Some(last) = number.last_mut() {
        *last = 1;
    }
    for _ in 0..2 * 32 * modulus.len() {
        let mut carry = 0;
        for word in number.iter_mut().rev() {
            let doubled = u64::from(*word) << 1 | carry;
            *word = doubled as u32;
            carry = doubled >> 32;
        }
        if carry == 1 || number.as_slice() >= modulus {
            let mut borrow = false;
            for (word, less) in number.iter_mut().zip(modulus).rev() {
                let (first, a) = word.overflowing_sub(*less);
                let (second, b) = first.overflowing_sub(u32::from(borrow));
                *word = second;
                borrow = a || b;
            }
        }
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_montgomery() {
        // 2^64 and the modulus 2^64 - 59: what is left is 59, squared.
        let modulus = [u32::MAX, u32::MAX - 58];
        assert_eq!(r_squared(&modulus), [0, 59 * 59]);
        for odd in [1, 3, 0x1234_5679, u32::MAX] {
            assert_eq!(odd.wrapping_mul(minus_inverse(odd)), u32::MAX);
        }
    }

    #[test]
    fn what_is_no_key_gives_no_source() {
        assert!(source(&[0xff; 256], &[1, 0, 1]).is_some());
        for (modulus, exponent) in [
            (vec![], vec![3]),
            (vec![0xff; 5], vec![3]),
            (vec![0xfe; 256], vec![3]),
            (vec![0xff; 256], vec![1; 9]),
        ] {
            assert_eq!(source(&modulus, &exponent), None);
        }
    }
}
