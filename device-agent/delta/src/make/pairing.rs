//! Which old file a new one is made from: the one of the same path, else one of a similar name.

use std::collections::HashMap;

/// A file of the old commit.
pub(super) struct OldName<'a> {
    pub path: &'a str,
    pub bytes: u64,
    /// Whether it is in the old commit only.
    pub gone: bool,
}

/// A path in which numbers count for nothing: those of versions change with each.
pub(super) fn normal(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for c in path.chars() {
        if c.is_ascii_digit() {
            if !out.ends_with('0') {
                out.push('0');
            }
        } else {
            out.push(c);
        }
    }
    // 6.12.107 and 6.12, 1.2 and 1.2.3: as many parts as there may be.
    while out.contains("0.0") {
        out = out.replace("0.0", "0");
    }
    out
}

fn last(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// For each new file (path, bytes) the place of an old one.
pub(super) fn choose(old: &[OldName<'_>], new: &[(&str, u64)]) -> Vec<Option<usize>> {
    let mut by_path = HashMap::new();
    let mut by_normal: HashMap<String, Vec<usize>> = HashMap::new();
    let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
    for (i, file) in old.iter().enumerate() {
        by_path.insert(file.path, i);
        by_normal.entry(normal(file.path)).or_default().push(i);
        by_name.entry(normal(last(file.path))).or_default().push(i);
    }
    new.iter()
        .map(|(path, bytes)| {
            if *bytes == 0 {
                return None;
            }
            let nearest = |places: Option<&Vec<usize>>| {
                let same = |i: &usize| old[*i].bytes > 0;
                places?.iter().copied().filter(same).min_by_key(|i| {
                    let file = &old[*i];
                    // One that has gone is more probably the same thing than one that is still there.
                    (!file.gone, file.bytes.abs_diff(*bytes), *i)
                })
            };
            by_path
                .get(path)
                .copied()
                .filter(|i| old[*i].bytes > 0)
                .or_else(|| nearest(by_normal.get(&normal(path))))
                .or_else(|| nearest(by_name.get(&normal(last(path)))))
        })
        .collect()
}
