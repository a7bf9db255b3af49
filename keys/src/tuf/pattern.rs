//! Which targets a delegated role may sign for.

use sha2::{Digest as _, Sha256};

use super::metadata::{DelegatedRole, Delegations, SuccinctRoles};
use super::signed::Signers;

/// Names that the top-level roles have.
const TOP_LEVEL: [&str; 4] = ["root", "timestamp", "snapshot", "targets"];

/// A role to look for a target in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) name: String,
    pub(crate) terminating: bool,
}

impl Delegations {
    /// The roles that may sign for this target, in order.
    pub(crate) fn candidates(&self, target: &str) -> Vec<Candidate> {
        if let Some(bins) = &self.succinct_roles {
            return bins
                .role_for(target)
                .map(|name| Candidate {
                    name,
                    terminating: true,
                })
                .into_iter()
                .collect();
        }
        self.roles
            .iter()
            .filter(|role| !TOP_LEVEL.contains(&role.name.as_str()) && role.may_sign(target))
            .map(|role| Candidate {
                name: role.name.clone(),
                terminating: role.terminating,
            })
            .collect()
    }

    /// Who signs a role's metadata.
    pub(crate) fn signers(&self, role: &str) -> Option<Signers<'_>> {
        let (keyids, threshold) = match &self.succinct_roles {
            Some(bins) => (&bins.keyids, bins.threshold),
            None => {
                let role = self.roles.iter().find(|known| known.name == role)?;
                (&role.keyids, role.threshold)
            }
        };
        Some(Signers {
            keys: &self.keys,
            keyids,
            threshold,
        })
    }
}

impl DelegatedRole {
    fn may_sign(&self, target: &str) -> bool {
        if let Some(prefixes) = &self.path_hash_prefixes {
            let hash = hex::encode(Sha256::digest(target.as_bytes()));
            return prefixes.iter().any(|prefix| hash.starts_with(prefix));
        }
        let patterns = self.paths.as_deref().unwrap_or_default();
        patterns.iter().any(|pattern| matches(pattern, target))
    }
}

impl SuccinctRoles {
    /// The bin of a target: the first bits of the hash of its name.
    fn role_for(&self, target: &str) -> Option<String> {
        let bits = u32::from(self.bit_length);
        if !(1..=32).contains(&bits) {
            return None;
        }
        let hash = Sha256::digest(target.as_bytes());
        let head = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
        let bin = head >> (32 - bits);
        let highest = u32::MAX >> (32 - bits);
        let digits = format!("{highest:x}").len();
        Some(format!("{}-{bin:0digits$x}", self.name_prefix))
    }
}

/// Whether a path pattern fits a target's name: part for part between the `/`, each a shell pattern.
pub(crate) fn matches(pattern: &str, target: &str) -> bool {
    let patterns: Vec<&str> = pattern.split('/').collect();
    let parts: Vec<&str> = target.split('/').collect();
    patterns.len() == parts.len()
        && patterns.iter().zip(&parts).all(|(pattern, part)| {
            let pattern: Vec<char> = pattern.chars().collect();
            let part: Vec<char> = part.chars().collect();
            part_matches(&pattern, &part)
        })
}

/// `*`, `?` and `[…]` as in a shell. On a mismatch only the last `*` takes one more character, so the
/// work is at most length times length.
fn part_matches(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&'*') {
            star = Some((p, t));
            p += 1;
            continue;
        }
        if let Some(used) = one(&pattern[p..], text[t]) {
            p += used;
            t += 1;
            continue;
        }
        let Some((at, from)) = star else {
            return false;
        };
        star = Some((at, from + 1));
        p = at + 1;
        t = from + 1;
    }
    pattern[p..].iter().all(|&c| c == '*')
}

/// How many characters of the pattern stand for this one character; `None` if it does not fit.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => match class(pattern) {
            Some((len, negated, set)) => (in_set(set, c) != negated).then_some(len),
            // Without an end it is an ordinary character.
            None => (c == '[').then_some(1),
        },
        &literal => (literal == c).then_some(1),
    }
}

/// A class `[…]` at the start: its length, whether it is negated, and what is in it.
fn class(pattern: &[char]) -> Option<(usize, bool, &[char])> {
    let negated = matches!(pattern.get(1), Some('!'));
    let start = if negated { 2 } else { 1 };
    // A `]` in the first place is an ordinary character.
    let end = (start + 1..pattern.len()).find(|&i| pattern[i] == ']')?;
    Some((end + 1, negated, &pattern[start..end]))
}

fn in_set(set: &[char], c: char) -> bool {
    let mut i = 0;
    while i < set.len() {
        if i + 2 < set.len() && set[i + 1] == '-' {
            if (set[i]..=set[i + 2]).contains(&c) {
                return true;
            }
            i += 3;
        } else {
            if set[i] == c {
                return true;
            }
            i += 1;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU32;

    #[test]
    fn patterns_fit_as_in_a_shell() {
        for (pattern, target, expected) in [
            ("*", "a", true),
            ("*", "", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("targets/*.tgz", "targets/foo.tgz", true),
            ("targets/*.tgz", "targets/foo.txt", false),
            ("foo-version-?.tgz", "foo-version-2.tgz", true),
            ("foo-version-?.tgz", "foo-version-alpha.tgz", false),
            ("*.tgz", "targets/foo.tgz", false),
            ("release.pc.*.json", "release.pc.1.2.json", true),
            ("release.pc.*.json", "release.pc2.1.json", false),
            ("*a*b*c*", "xxaxxbxxcxx", true),
            ("*a*b*c*", "xxaxxcxxbxx", false),
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[!a-c]x", "dx", true),
            ("[]]x", "]x", true),
            ("[x", "[x", true),
            ("\u{e4}?", "\u{e4}\u{f6}", true),
            ("", "", true),
            ("", "a", false),
        ] {
            assert_eq!(matches(pattern, target), expected, "{pattern} {target}");
        }
        let stars = "*a".repeat(2000);
        assert!(!matches(&stars, &"a".repeat(1999)));
    }

    #[test]
    fn a_target_falls_into_one_bin() {
        // Names and bins computed with python-tuf's SuccinctRoles.
        for (bits, target, expected) in [
            (1, "boo", Some("bin-0")),
            (2, "too", Some("bin-2")),
            (8, "bar", Some("bin-fc")),
            (10, "foo", Some("bin-0b0")),
            (32, "foo", Some("bin-2c26b46b")),
            (0, "bar", None),
            (33, "bar", None),
        ] {
            let bins = SuccinctRoles {
                keyids: vec![],
                threshold: NonZeroU32::MIN,
                bit_length: bits,
                name_prefix: "bin".to_owned(),
            };
            assert_eq!(bins.role_for(target).as_deref(), expected, "{target}");
        }
    }
}
