//! What apt prints: stanzas of `apt-cache show`, lines of `--print-uris`, dates of Release files.

use std::collections::BTreeMap;

use anyhow::{bail, Context, Result};

/// One `Field: value` block; continuation lines are joined.
pub(super) type Stanza = BTreeMap<String, String>;

/// The blocks of a control file.
pub(super) fn stanzas(text: &str) -> Vec<Stanza> {
    let mut all = Vec::new();
    let mut stanza = Stanza::new();
    let mut last = String::new();
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            if !stanza.is_empty() {
                all.push(std::mem::take(&mut stanza));
            }
        } else if line.starts_with([' ', '\t']) {
            if let Some(value) = stanza.get_mut(&last) {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            last = name.to_string();
            stanza.insert(last.clone(), value.trim().to_string());
        }
    }
    all
}

/// One line of `--print-uris`: an address and what stands at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uri {
    /// Percent-decoded address.
    pub uri: String,
    /// Package name.
    pub name: String,
    /// Version, with epoch if it has one.
    pub version: String,
}

/// The lines `'address' name_version_arch.deb size hash`.
pub(super) fn uris(text: &str) -> Result<Vec<Uri>> {
    text.lines()
        .filter(|line| line.starts_with('\''))
        .map(|line| parse_uri(line).with_context(|| format!("reading apt's line {line:?}")))
        .collect()
}

fn parse_uri(line: &str) -> Result<Uri> {
    let mut words = line.split_ascii_whitespace();
    let (Some(uri), Some(file)) = (words.next(), words.next()) else {
        bail!("it has no file name");
    };
    let file = percent_decode(file)?;
    let mut parts = file.split('_');
    let (Some(name), Some(version)) = (parts.next(), parts.next()) else {
        bail!("its file name is not name_version_architecture.deb");
    };
    Ok(Uri {
        uri: percent_decode(uri.trim_matches('\''))?,
        name: name.to_string(),
        version: version.to_string(),
    })
}

pub(super) fn percent_decode(text: &str) -> Result<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = tail.get(..2).and_then(|d| std::str::from_utf8(d).ok());
        let value = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let value = value.with_context(|| format!("{text:?} has a broken % escape"))?;
        bytes.push(value);
        rest = &tail[2..];
    }
    Ok(String::from_utf8(bytes)?)
}

/// The `Date:` of a Release file, in seconds since 1970.
pub(super) fn release_date(text: &str) -> Result<u64> {
    let date = text
        .lines()
        .find_map(|line| line.strip_prefix("Date:"))
        .context("it has no Date")?
        .trim();
    // Debian writes `UTC`, RFC 2822 knows `GMT` and offsets.
    let date = date.replace("UTC", "+0000");
    let time = jiff::fmt::rfc2822::DateTimeParser::new()
        .parse_timestamp(&date)
        .with_context(|| format!("its date {date:?}"))?;
    u64::try_from(time.as_second()).context("its date is before 1970")
}

/// Names in a relation field such as `Depends: a (>= 1) | b, c:any`.
pub(super) fn relation_names(field: &str) -> impl Iterator<Item = &str> {
    field
        .split([',', '|'])
        .filter_map(|part| part.split_ascii_whitespace().next())
        .map(|name| name.split(':').next().unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_print_uris() {
        let text = "noise\n'http://x/pool/updates/main/z/zlib/zlib1g_1.3.dfsg%2breally1.3.1-1_amd64.deb' zlib1g_1%3a1.3.dfsg+really1.3.1-1_amd64.deb 88720 \n\
                    'file:/srv/a%20b/tzdata_2025b_all.deb' tzdata_2025b_all.deb 5 MD5Sum:00\n";
        let found = uris(text).unwrap();
        assert_eq!(
            found[0],
            Uri {
                uri: "http://x/pool/updates/main/z/zlib/zlib1g_1.3.dfsg+really1.3.1-1_amd64.deb"
                    .into(),
                name: "zlib1g".into(),
                version: "1:1.3.dfsg+really1.3.1-1".into(),
            }
        );
        assert_eq!(found[1].uri, "file:/srv/a b/tzdata_2025b_all.deb");
        for bad in ["'x'", "'x' y", "'%zz' a_b_c.deb", "'%e' a_b_c.deb"] {
            assert!(uris(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn blocks_of_show() {
        let text = "Package: a\nDescription: one\n two\n .\nDepends: b (>= 1) | c, d:any\n\n\nPackage: b\n";
        let found = stanzas(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0]["Description"], "one\ntwo\n.");
        let names: Vec<_> = relation_names(&found[0]["Depends"]).collect();
        assert_eq!(names, ["b", "c", "d"]);
        assert_eq!(found[1]["Package"], "b");
    }

    #[test]
    fn dates() {
        let text = "Origin: Debian\nDate: Sat, 06 Sep 2025 09:13:21 UTC\nValid-Until: x\n";
        assert_eq!(release_date(text).unwrap(), 1_757_150_001);
        assert!(release_date("Origin: x\n").is_err());
        assert!(release_date("Date: yesterday\n").is_err());
    }
}
