//! `tmpfiles.d` lines (format: tmpfiles.d(5)): those generated for `/var`, and those of the packages.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::Result;

use super::super::{join, relative_target, Kind, Node, Tree};

const DIRECTORIES: [&str; 2] = ["usr/lib/tmpfiles.d", "etc/tmpfiles.d"];
/// Types of line that bring a path into being.
const CREATING: [char; 9] = ['d', 'D', 'v', 'q', 'Q', 'C', 'L', 'f', 'F'];

/// Lines by path, so that parents come before children and no path twice.
#[derive(Debug, Default)]
pub(super) struct Lines(BTreeMap<String, String>);

impl Lines {
    /// A node of `/var`; a file is copied from the factory directory.
    pub fn node(&mut self, path: &str, node: &Node) {
        let (kind, source) = match &node.kind {
            Kind::Dir => ('d', "-".to_string()),
            Kind::File(_) => ('C', format!("/usr/share/factory/{}", escaped(path))),
            Kind::Symlink(target) => return self.link_text(path, target, false),
        };
        let line = format!(
            "{kind} /{} {:04o} {} {} - {source}",
            escaped(path),
            node.mode,
            node.uid,
            node.gid
        );
        self.0.insert(path.to_string(), line);
    }

    /// A link at `path` to the tree path `target`; `replace` takes the place of whatever is there.
    pub fn link(&mut self, path: &str, target: &str, replace: bool) {
        self.link_text(path, &relative_target(path, target), replace);
    }

    /// A link with this target text.
    pub fn link_text(&mut self, path: &str, target: &str, replace: bool) {
        let kind = if replace { "L+" } else { "L" };
        let line = format!("{kind} /{} - - - - {}", escaped(path), escaped(target));
        self.0.insert(path.to_string(), line);
    }

    pub fn render(&self) -> String {
        let mut text =
            String::from("# Generated: what the packages of this system expect in /var.\n");
        for line in self.0.values() {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// A path as one word of a line: specifiers and white space must not take effect.
fn escaped(path: &str) -> String {
    let mut word = String::new();
    for c in path.chars() {
        match c {
            '%' => word.push_str("%%"),
            ' ' | '\t' | '\n' | '\\' | '"' | '\'' => {
                let _ = write!(word, "\\x{:02x}", u32::from(c));
            }
            c => word.push(c),
        }
    }
    word
}

/// Paths that files in the tree's `tmpfiles.d` bring into being.
#[derive(Debug)]
pub(super) struct Declared(BTreeSet<String>);

impl Declared {
    pub fn contains(&self, path: &str) -> bool {
        self.0.contains(path)
    }
}

/// Collects them; lines with specifiers are nobody's.
pub(super) fn declared(tree: &Tree) -> Result<Declared> {
    let mut paths = BTreeSet::new();
    for file in files(tree) {
        for line in tree.read_text(&file)?.lines() {
            let mut words = line.split_whitespace();
            if let (Some(kind), Some(path)) = (words.next(), words.next()) {
                if kind.starts_with(CREATING) && !path.contains('%') {
                    paths.insert(path.trim_matches('/').to_string());
                }
            }
        }
    }
    Ok(Declared(paths))
}

/// Lines about `/root`, `/home`, … mean the directories these links lead to: systemd-tmpfiles does not
/// follow a link in place of a directory.
pub(super) fn readdress(tree: &mut Tree, moved: &[(&str, &str)]) -> Result<()> {
    for file in files(tree) {
        let text = tree.read_text(&file)?;
        let mut changed = String::with_capacity(text.len());
        for line in text.lines() {
            changed.push_str(&readdressed(line, moved));
            changed.push('\n');
        }
        if changed != text {
            if let Some(node) = tree.get_mut(&file) {
                node.kind = Node::file(changed, 0o644).kind;
            }
        }
    }
    Ok(())
}

fn readdressed(line: &str, moved: &[(&str, &str)]) -> String {
    let Some(path) = line.split_whitespace().nth(1) else {
        return line.to_string();
    };
    for (from, to) in moved {
        let rest = path.strip_prefix('/').and_then(|p| p.strip_prefix(from));
        if let Some(rest) = rest.filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            return line.replacen(path, &format!("/{to}{rest}"), 1);
        }
    }
    line.to_string()
}

fn files(tree: &Tree) -> Vec<String> {
    DIRECTORIES
        .iter()
        .flat_map(|dir| {
            tree.children(dir)
                .map(move |(name, node)| (join(dir, name), node))
        })
        .filter(|(path, node)| path.ends_with(".conf") && node.is_file())
        .map(|(path, _)| path)
        .collect()
}
