//! The product's own files, laid over the tree.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{bail, Context, Result};

use super::accounts::{id, Table};
use super::pattern::matches;
use super::{join, Content, Kind, Node, Tree};
use crate::manifest::{Overlay, OverlayRule};

/// A rule with its words turned into numbers.
#[derive(Debug)]
struct Rule<'a> {
    pattern: &'a str,
    uid: Option<u32>,
    gid: Option<u32>,
    mode: Option<u32>,
}

/// Lays the overlays over the tree, in order; a later one wins. Paths in them are relative to `dir`.
pub fn apply(tree: &mut Tree, overlays: &[Overlay], dir: &Path) -> Result<()> {
    for overlay in overlays {
        let host = dir.join(&overlay.path);
        let lay = |tree: &mut Tree| -> Result<()> {
            let rules = rules(tree, &overlay.rules)?;
            lay_dir(tree, &host, "", &rules)
        };
        lay(tree)
            .with_context(|| format!("laying the overlay {} over the tree", host.display()))?;
    }
    Ok(())
}

fn rules<'a>(tree: &Tree, rules: &'a [OverlayRule]) -> Result<Vec<Rule<'a>>> {
    let passwd = Table::passwd(tree)?;
    let group = Table::group(tree)?;
    let turn = |rule: &'a OverlayRule| -> Result<Rule<'a>> {
        Ok(Rule {
            pattern: &rule.path,
            uid: rule
                .user
                .as_deref()
                .map(|word| id(&passwd, word))
                .transpose()?,
            gid: rule
                .group
                .as_deref()
                .map(|word| id(&group, word))
                .transpose()?,
            mode: rule.mode.as_deref().map(octal).transpose()?,
        })
    };
    rules
        .iter()
        .map(|rule| turn(rule).with_context(|| format!("reading the rule for {}", rule.path)))
        .collect()
}

fn octal(text: &str) -> Result<u32> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => bail!("mode \"{text}\" is no octal mode; try \"0644\""),
    }
}

fn lay_dir(tree: &mut Tree, host: &Path, path: &str, rules: &[Rule<'_>]) -> Result<()> {
    let reading = || format!("reading {}", host.display());
    let mut entries: Vec<fs::DirEntry> = fs::read_dir(host)
        .with_context(reading)?
        .collect::<Result<_, _>>()
        .with_context(reading)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let from = entry.path();
        let name = entry.file_name();
        let name = name.to_str().with_context(|| {
            format!(
                "the file name of {} is not UTF-8; rename it",
                from.display()
            )
        })?;
        let to = join(path, name);
        // Keeps an otherwise empty directory in version control.
        if name == ".gitkeep" {
            continue;
        }
        let Some(mut node) = node_of(&from)? else {
            bail!("{} is neither file, directory nor link", from.display());
        };
        let ruled = rule(&mut node, &to, rules);
        let is_dir = node.is_dir();
        // A directory that is there, perhaps behind a link such as /bin, stays, and keeps its owner and
        // mode unless a rule speaks of it.
        let there = tree
            .resolve(&to)
            .filter(|at| tree.get(at).is_some_and(Node::is_dir));
        match there.filter(|_| is_dir) {
            Some(at) if ruled => tree.insert(&at, node)?,
            Some(_) => {}
            None => tree.insert(&to, node)?,
        }
        if is_dir {
            lay_dir(tree, &from, &to, rules)?;
        }
    }
    Ok(())
}

fn node_of(host: &Path) -> Result<Option<Node>> {
    let reading = || format!("reading {}", host.display());
    let meta = fs::symlink_metadata(host).with_context(reading)?;
    if meta.is_symlink() {
        let target = fs::read_link(host).with_context(reading)?;
        let target = target
            .to_str()
            .with_context(|| format!("the target of {} is not UTF-8", host.display()))?;
        return Ok(Some(Node::symlink(target)));
    }
    if meta.is_dir() {
        return Ok(Some(Node::dir(0o755)));
    }
    if !meta.is_file() {
        return Ok(None);
    }
    // Only the executable bit is the author's word; the rest is whatever the checkout's umask was.
    let executable = meta.permissions().mode() & 0o100 != 0;
    let mut node = Node::file("", if executable { 0o755 } else { 0o644 });
    node.kind = Kind::File(Content::Host {
        path: host.to_path_buf(),
        len: meta.len(),
    });
    Ok(Some(node))
}

/// Applies the rules that match, the last word counting; says whether one did.
fn rule(node: &mut Node, path: &str, rules: &[Rule<'_>]) -> bool {
    let mut any = false;
    for rule in rules {
        if matches(rule.pattern, path) {
            any = true;
            node.uid = rule.uid.unwrap_or(node.uid);
            node.gid = rule.gid.unwrap_or(node.gid);
            if let (Some(mode), None) = (rule.mode, node.link_target()) {
                node.mode = mode;
            }
        }
    }
    any
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn base() -> Tree {
        let mut tree = Tree::new();
        tree.insert("etc/passwd", Node::file("app:x:70:71::/:/bin/sh\n", 0o644))
            .unwrap();
        tree.insert("etc/group", Node::file("app:x:71:\n", 0o644))
            .unwrap();
        tree.insert("etc/ssl/private", Node::dir(0o700)).unwrap();
        tree.insert("usr/bin/tool", Node::file("old", 0o755))
            .unwrap();
        tree.insert("bin", Node::symlink("usr/bin")).unwrap();
        tree
    }

    fn overlay(path: &str, rules: &str) -> Overlay {
        toml::from_str(&format!("path = \"{path}\"\n{rules}")).unwrap()
    }

    #[test]
    fn files_land_with_owner_and_mode_and_the_later_overlay_wins() {
        let dir = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str, mode: u32| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("a/bin/tool", "a", 0o700);
        write("a/etc/app/conf", "a", 0o664);
        write("a/etc/app/key", "k", 0o644);
        write("a/etc/ssl/private/x", "x", 0o644);
        write("b/etc/app/conf", "b", 0o644);
        write("b/srv/.gitkeep", "", 0o644);
        symlink("conf", dir.path().join("a/etc/app/link")).unwrap();
        let rules = "[[rules]]\npath = \"/etc/app/**\"\nuser = \"app\"\ngroup = \"app\"\n\
                     [[rules]]\npath = \"/etc/app/key\"\nmode = \"0600\"\nuser = \"0\"\n";
        let mut tree = base();
        apply(
            &mut tree,
            &[overlay("a", rules), overlay("b", "")],
            dir.path(),
        )
        .unwrap();
        let of = |path: &str| {
            let node = tree.get(path).unwrap();
            (node.uid, node.gid, node.mode)
        };
        assert_eq!(tree.read("usr/bin/tool").unwrap(), b"a");
        assert_eq!(of("usr/bin/tool"), (0, 0, 0o755));
        assert_eq!(tree.read("etc/app/conf").unwrap(), b"b");
        assert_eq!(of("etc/app/conf"), (0, 0, 0o644));
        assert_eq!(of("etc/app/key"), (0, 71, 0o600));
        assert_eq!(of("etc/app/link"), (70, 71, 0o777));
        assert_eq!(of("etc/ssl/private"), (0, 0, 0o700));
        assert!(tree.contains("srv") && !tree.contains("srv/.gitkeep"));
    }

    #[test]
    fn mistakes_name_the_rule_or_the_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("a")).unwrap();
        let wrong = overlay("a", "[[rules]]\npath = \"/x\"\nuser = \"ap\"\n");
        let error = format!(
            "{:#}",
            apply(&mut base(), &[wrong], dir.path()).unwrap_err()
        );
        assert!(
            error.contains("/x") && error.contains("did you mean `app`?"),
            "{error}"
        );
        let error = format!(
            "{:#}",
            apply(&mut base(), &[overlay("none", "")], dir.path()).unwrap_err()
        );
        assert!(error.contains("none"), "{error}");
    }
}
