//! The small grammars of a product description, as predicates.

fn all(text: &str, allowed: impl Fn(char) -> bool) -> bool {
    text.chars().all(allowed)
}

fn is_lower_or_digit(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

/// A product name: stateroot, ref, file name and host name at once.
pub fn is_product_name(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !text.ends_with('-')
        && !text.contains("--")
        && all(text, |c| is_lower_or_digit(c) || c == '-')
}

/// A version: part of file names and of metadata names.
pub fn is_version(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_digit())
        && all(text, |c| c.is_ascii_alphanumeric() || ".-+~".contains(c))
}

/// A channel name: part of metadata names.
pub fn is_channel(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.starts_with(is_lower_or_digit)
        && all(text, |c| is_lower_or_digit(c) || ".-_".contains(c))
}

/// A suite or component of a Debian archive.
pub fn is_archive_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && all(text, |c| c.is_ascii_alphanumeric() || "-_./".contains(c))
}

/// A Debian package name (Debian Policy 5.6.7).
pub fn is_package(text: &str) -> bool {
    text.len() >= 2
        && text.starts_with(is_lower_or_digit)
        && all(text, |c| is_lower_or_digit(c) || "+-.".contains(c))
}

/// A user or group name as Debian's `useradd` takes it.
pub fn is_user(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && all(text, |c| is_lower_or_digit(c) || c == '-' || c == '_')
}

/// A user name or a numeric id.
pub fn is_user_or_id(text: &str) -> bool {
    is_user(text) || text.parse::<u32>().is_ok()
}

/// An octal mode of at most four digits.
pub fn is_mode(text: &str) -> bool {
    (3..=4).contains(&text.len()) && all(text, |c| ('0'..='7').contains(&c))
}

/// An absolute path without `.`, `..` or doubled slashes, on one line of a `:`-separated file.
pub fn is_absolute_path(text: &str) -> bool {
    text.strip_prefix('/').is_some_and(|rest| {
        rest.is_empty()
            || rest
                .trim_end_matches('/')
                .split('/')
                .all(|part| !matches!(part, "" | "." | ".."))
    }) && !text.contains([':', '\n', '\0'])
}

/// A path inside the product's directory: relative, never leaving it.
pub fn is_inner_path(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('/')
        && text.split('/').all(|part| part != "..")
        && !text.contains('\0')
}

/// A password hash as in crypt(5): `$id$…$hash`; never a plain password.
pub fn is_password_hash(text: &str) -> bool {
    let mut parts = text.split('$');
    let is_field = |field: &str| !field.is_empty() && all(field, is_hash_char);
    parts.next() == Some("")
        && parts
            .next()
            .is_some_and(|id| matches!(id, "y" | "gy" | "7" | "6" | "5" | "2a" | "2b" | "2y"))
        && {
            let rest: Vec<&str> = parts.collect();
            rest.len() >= 2
                && rest.iter().all(|field| is_field(field))
                && rest.last().is_some_and(|hash| hash.len() >= 20)
        }
}

fn is_hash_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "./=,+-".contains(c)
}

/// A public ssh key line: type, base64, optional comment.
pub fn is_ssh_key(text: &str) -> bool {
    let mut words = text.split(' ');
    let kind = words.next().unwrap_or_default();
    let known = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"]
        .iter()
        .any(|prefix| kind.starts_with(prefix));
    known
        && !text.contains(['\n', '\r', '\0'])
        && words.next().is_some_and(|key| {
            // Every key blob begins with the length of its type, so with three zero bytes.
            key.starts_with("AAAA") && key.len() > 60 && all(key, is_base64)
        })
}

fn is_base64(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+/=".contains(c)
}

/// The unit types of systemd.
pub const UNIT_SUFFIXES: [&str; 11] = [
    "service",
    "socket",
    "target",
    "timer",
    "path",
    "mount",
    "automount",
    "swap",
    "slice",
    "scope",
    "device",
];

/// A unit name without its suffix.
pub fn is_unit_stem(text: &str) -> bool {
    !text.is_empty() && all(text, |c| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c))
}

/// A host name pattern: one label, `?` stands for a hexadecimal digit that each device fills in.
pub fn is_hostname(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && !text.starts_with('-')
        && !text.ends_with('-')
        && all(text, |c| is_lower_or_digit(c) || c == '-' || c == '?')
}

/// A time zone name such as `Europe/Berlin` or `UTC`.
pub fn is_timezone(text: &str) -> bool {
    text.len() <= 64
        && text.split('/').all(|part| {
            part.starts_with(|c: char| c.is_ascii_uppercase())
                && all(part, |c| c.is_ascii_alphanumeric() || "_+-".contains(c))
        })
}

/// A UTF-8 locale: `C.UTF-8`, `en_GB.UTF-8`, `sr_RS.UTF-8@latin`.
pub fn is_locale(text: &str) -> bool {
    let (name, modifier) = text.split_once('@').unwrap_or((text, "latin"));
    let Some(name) = name.strip_suffix(".UTF-8") else {
        return false;
    };
    let named = name == "C"
        || name.split_once('_').is_some_and(|(language, country)| {
            (2..=3).contains(&language.len())
                && all(language, |c| c.is_ascii_lowercase())
                && country.len() == 2
                && all(country, |c| c.is_ascii_uppercase())
        });
    named && !modifier.is_empty() && all(modifier, |c| c.is_ascii_lowercase())
}

/// A timer's interval: a time span such as `1h 30min`, or a calendar expression such as `daily`,
/// `Mon *-*-* 03:00`. Only the alphabet and a span's units are judged; systemd has the last word.
pub fn is_interval(text: &str) -> bool {
    let span = !text.is_empty() && text.split_whitespace().all(is_time_span);
    let calendar = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '*')
        || text.contains(':')
        || text.matches('-').count() == 2;
    span || (calendar
        && all(text, |c| {
            c.is_ascii_alphanumeric() || " *-:.,/~_+".contains(c)
        }))
}

fn is_time_span(word: &str) -> bool {
    let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    const UNITS: [&str; 15] = [
        "s", "sec", "second", "seconds", "m", "min", "minute", "minutes", "h", "hr", "hour",
        "hours", "d", "day", "days",
    ];
    digits.parse::<u32>().is_ok_and(|n| n > 0) && UNITS.contains(&&word[digits.len()..])
}

/// Whether `text` is an address with one of these schemes, a host (except for `file`) and no spaces.
pub fn is_url(text: &str, schemes: &[&str]) -> bool {
    url::Url::parse(text).is_ok_and(|url| {
        schemes.contains(&url.scheme())
            && !url.cannot_be_a_base()
            && (url.scheme() == "file" || url.has_host())
    }) && !text.contains(char::is_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_and_what_is_not() {
        type Case = (
            fn(&str) -> bool,
            &'static [&'static str],
            &'static [&'static str],
        );
        let cases: &[Case] = &[
            (is_product_name, &["a", "my-gateway", "x9"], &["", "9x", "A", "a-", "a--b", "a/b", "a_b"]),
            (is_version, &["1", "1.0.0", "2026.11~rc1+x"], &["", "v1", "1/2", "1 2", "../1"]),
            (is_channel, &["stable", "1.x"], &["", "Stable", "a/b", "-a"]),
            (is_package, &["curl", "libstdc++6", "7zip"], &["c", "Curl", "curl=1", "curl:amd64", "a b"]),
            (is_user, &["_a", "operator", "a-b"], &["", "Root", "a:b", "1a"]),
            (is_user_or_id, &["root", "1000"], &["-1", "a b"]),
            (is_mode, &["600", "0755", "4755"], &["", "9", "0888", "00755", "rwx"]),
            (is_absolute_path, &["/", "/home/a", "/bin/sh"], &["", "a", "/a/../b", "/a:b", "/a//b"]),
            (is_inner_path, &["overlay", "./a/b"], &["", "/a", "../a", "a/../../b"]),
            (
                is_password_hash,
                &["$6$abc$0123456789012345678901234567", "$y$j9T$salt$0123456789012345678901234567"],
                &["", "secret", "$6$abc$short", "$1$a$0123456789012345678901234567", "$6$a:b$0123456789012345678901", "x$6$a$01234567890123456789"],
            ),
            (
                is_ssh_key,
                &["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2Zf0Qm0b0d0b7mYd9v0000000000000000000000000000 me@here"],
                &["", "ssh-ed25519", "ssh-ed25519 QUJD", "-----BEGIN OPENSSH PRIVATE KEY-----"],
            ),
            (is_hostname, &["gw", "gw-????"], &["", "-a", "a.b", "a b", "A"]),
            (is_timezone, &["UTC", "Europe/Berlin", "Etc/GMT+1", "America/Argentina/Buenos_Aires"], &["", "europe/berlin", "/UTC", "UTC/", "../x"]),
            (is_locale, &["C.UTF-8", "en_GB.UTF-8", "sr_RS.UTF-8@latin"], &["", "C", "en_GB", "en.UTF-8", "en_gb.UTF-8", "en_GB.ISO-8859-1"]),
            (is_interval, &["1h", "90s", "1h 30min", "daily", "*-*-* 03:00:00", "Mon 04:00"], &["", "1 fortnight", "0h", "h1;"]),
            (|t| is_url(t, &["https", "file"]), &["https://10.0.2.2:8443/", "file:///media/usb/"], &["", "http://a/", "https://", "a/b", "mailto:a@b"]),
        ];
        for (index, (predicate, good, bad)) in cases.iter().enumerate() {
            for text in *good {
                assert!(predicate(text), "case {index}: \"{text}\" refused");
            }
            for text in *bad {
                assert!(!predicate(text), "case {index}: \"{text}\" taken");
            }
        }
    }
}
