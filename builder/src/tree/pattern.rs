//! Path patterns of overlay rules: `*` and `?` within a path component, `**` over any number of them.

/// Whether the absolute path `path` matches `pattern`.
pub fn matches(pattern: &str, path: &str) -> bool {
    let split = |text: &str| -> Vec<Vec<char>> {
        text.split('/')
            .filter(|part| !part.is_empty())
            .map(|part| part.chars().collect())
            .collect()
    };
    components(&split(pattern), &split(path))
}

fn components(pattern: &[Vec<char>], path: &[Vec<char>]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        ([any, rest @ ..], _) if any == &['*', '*'] => {
            // At the end it stands for at least one: `/etc/x/**` is not `/etc/x` itself.
            let least = usize::from(rest.is_empty());
            (least..=path.len()).any(|count| components(rest, &path[count..]))
        }
        ([first, rest @ ..], [name, names @ ..]) => {
            component(first, name) && components(rest, names)
        }
        _ => false,
    }
}

fn component(pattern: &[char], name: &[char]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=name.len()).any(|count| component(rest, &name[count..])),
        (['?', rest @ ..], [_, names @ ..]) => component(rest, names),
        ([c, rest @ ..], [n, names @ ..]) => c == n && component(rest, names),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("/etc/secret/**", "/etc/secret/a/b", true),
            ("/etc/secret/**", "/etc/secret", false),
            ("/etc/secret", "/etc/secret", true),
            ("/etc/*", "/etc/a/b", false),
            ("/etc/*.key", "/etc/a.key", true),
            ("/etc/?", "/etc/ab", false),
            ("/**/x", "/x", true),
            ("/**/x", "/a/b/x", true),
            ("/**", "/a", true),
            ("/a/**/c/*", "/a/b/b/c/d", true),
            ("/a/**/c/*", "/a/b/b/c", false),
            ("/ä?", "/äö", true),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }
}
