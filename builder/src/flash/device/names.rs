//! Names that a device gives itself, made fit for a terminal.

/// Longest name shown, characters.
const LONGEST: usize = 64;

/// `raw` without control characters, invisible characters and surplus white space. A device may call itself
/// anything, escape sequences included.
pub fn clean(raw: &str) -> String {
    let visible: String = raw
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !c.is_control() && !invisible(*c))
        .collect();
    let words: Vec<&str> = visible.split_whitespace().collect();
    words.join(" ").chars().take(LONGEST).collect()
}

/// Characters that show nothing or turn the direction of the text.
fn invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffd}'
        | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_device_says_reaches_the_terminal_as_a_command() {
        for (raw, shown) in [
            ("SanDisk  \t", "SanDisk"),
            ("\u{1b}[2J\u{1b}]0;x\u{7}Nice", "[2J]0;xNice"),
            ("a\nb\r\0c", "a b c"),
            ("gpj.\u{202e}exe\u{200b}", "gpj.exe"),
            ("\u{9b}31mred", "31mred"),
            ("Übergröße", "Übergröße"),
        ] {
            assert_eq!(clean(raw), shown, "{raw:?}");
        }
        assert_eq!(clean(&"x".repeat(1000)).len(), LONGEST);
    }
}
