//! Order of version strings: Debian's rules, as people on Debian expect them.

use std::cmp::Ordering;

/// Compares two versions: digits by value, letters before other signs, `~` before everything, even the end.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let (text_a, rest_a) = split(a, |c| !c.is_ascii_digit());
        let (text_b, rest_b) = split(b, |c| !c.is_ascii_digit());
        let (number_a, rest_a) = split(rest_a, |c| c.is_ascii_digit());
        let (number_b, rest_b) = split(rest_b, |c| c.is_ascii_digit());
        let order = compare_text(text_a, text_b).then_with(|| compare_number(number_a, number_b));
        if order != Ordering::Equal || (rest_a.is_empty() && rest_b.is_empty()) {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

fn split(text: &[u8], belongs: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    let end = text.iter().position(|c| !belongs(c)).unwrap_or(text.len());
    text.split_at(end)
}

fn compare_text(a: &[u8], b: &[u8]) -> Ordering {
    let weight = |c: Option<&u8>| match c {
        Some(b'~') => -1,
        None => 0,
        Some(c) if c.is_ascii_alphabetic() => i32::from(*c),
        Some(c) => i32::from(*c) + 256,
    };
    (0..a.len().max(b.len()))
        .map(|i| weight(a.get(i)).cmp(&weight(b.get(i))))
        .find(|order| *order != Ordering::Equal)
        .unwrap_or(Ordering::Equal)
}

fn compare_number(a: &[u8], b: &[u8]) -> Ordering {
    fn strip(n: &[u8]) -> &[u8] {
        &n[n.iter().position(|c| *c != b'0').unwrap_or(n.len())..]
    }
    let (a, b) = (strip(a), strip(b));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_dpkg() {
        let rising = [
            "~~",
            "~",
            "",
            "0.9",
            "1.0~rc1",
            "1.0",
            "1.0a",
            "1.0+b",
            "1.0.1",
            "1.2",
            "1.10",
            "2",
            "10",
            "99999999999999999999999999",
        ];
        for (i, a) in rising.iter().enumerate() {
            for (j, b) in rising.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} and {b}");
                // The judge: dpkg itself (it refuses versions that do not begin with a digit).
                if [a, b]
                    .iter()
                    .all(|v| v.starts_with(|c: char| c.is_ascii_digit()))
                {
                    let lt = std::process::Command::new("dpkg")
                        .args(["--compare-versions", a, "lt", b])
                        .status()
                        .expect("dpkg (Debian package dpkg)");
                    assert_eq!(lt.success(), i < j, "{a} and {b}");
                }
            }
        }
        assert_eq!(compare("1.00", "1.0"), Ordering::Equal);
    }
}
