//! Accounts that outlive an update. On a device where somebody changed a password or added a user,
//! OSTree keeps that `/etc/passwd`, and users that a later release brings are not in it. So every account
//! of the tree also stands in `sysusers.d`, with its ids, and systemd-sysusers adds what is missing.

use std::collections::BTreeSet;
use std::fmt::Write;

use anyhow::Result;

use super::accounts::Table;
use super::{join, Node, Tree};

const PROGRAM: &str = "usr/bin/systemd-sysusers";
const GENERATED: &str = "usr/lib/sysusers.d/treeline.conf";
const DIRECTORIES: [&str; 2] = ["usr/lib/sysusers.d", "etc/sysusers.d"];
/// Its own condition looks at times, which OSTree does not keep: it would run on a device's first boot
/// and never again. An empty condition takes back all of them.
const EVERY_BOOT: &str = "[Unit]\nConditionNeedsUpdate=\n";
const DROPIN: &str = "usr/lib/systemd/system/systemd-sysusers.service.d/50-treeline.conf";

/// Writes the files, if the tree has systemd-sysusers.
pub fn apply(tree: &mut Tree) -> Result<()> {
    if !tree.contains(PROGRAM) {
        return Ok(());
    }
    tree.remove(GENERATED);
    let text = lines(tree)?;
    tree.insert(GENERATED, Node::file(text, 0o644))?;
    tree.insert(DROPIN, Node::file(EVERY_BOOT, 0o644))
}

fn lines(tree: &Tree) -> Result<String> {
    let declared = declared(tree)?;
    let (passwd, group) = (Table::passwd(tree)?, Table::group(tree)?);
    let mut text = String::from(
        "# Generated: the accounts of this system, for devices that changed theirs.\n",
    );
    for name in group.names() {
        if let (Some(gid), false) = (group.id_of(name), declared.contains(&('g', name.into()))) {
            writeln!(text, "g {name} {gid}")?;
        }
    }
    for name in passwd.names() {
        let Some([_, _, uid, gid, comment, home, shell]) = passwd.row(name).map(Vec::as_slice)
        else {
            continue;
        };
        if !declared.contains(&('u', name.into())) {
            let comment = comment.replace(['"', '\\', '%'], " ");
            writeln!(text, "u {name} {uid}:{gid} \"{comment}\" {home} {shell}")?;
        }
    }
    for name in group.names() {
        let members = group
            .row(name)
            .and_then(|row| row.get(3))
            .map_or("", String::as_str);
        for member in members.split(',').filter(|member| !member.is_empty()) {
            writeln!(text, "m {member} {name}")?;
        }
    }
    Ok(text)
}

/// Type and name of the lines that packages and the overlay bring; a user line declares its group too.
fn declared(tree: &Tree) -> Result<BTreeSet<(char, String)>> {
    let mut found = BTreeSet::new();
    for dir in DIRECTORIES {
        for (name, node) in tree.children(dir) {
            if !(name.ends_with(".conf") && node.is_file()) {
                continue;
            }
            for line in tree.read_text(&join(dir, name))?.lines() {
                let mut words = line.split_whitespace();
                if let (Some(kind), Some(account)) = (words.next(), words.next()) {
                    if let Some(kind @ ('g' | 'u')) = kind.chars().next() {
                        found.insert((kind, account.to_string()));
                    }
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;

    fn tree() -> Tree {
        let mut tree = Tree::new();
        for (path, text) in [
            (PROGRAM, ""),
            (
                "etc/passwd",
                "root:x:0:0:root:/root:/bin/bash\nop:x:1000:1000:The \"Op\":/home/op:/bin/sh\n",
            ),
            ("etc/group", "root:x:0:\nsudo:x:27:op\nop:x:1000:\n"),
            (
                "usr/lib/sysusers.d/basic.conf",
                "g sudo 27 -\nu root 0 - /root /bin/bash\n",
            ),
        ] {
            tree.insert(path, Node::file(text, 0o644)).unwrap();
        }
        tree
    }

    #[test]
    fn what_packages_declare_is_left_to_them() {
        let text = lines(&tree()).unwrap();
        let body: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(
            body,
            [
                "g root 0",
                "g op 1000",
                "u op 1000:1000 \"The  Op \" /home/op /bin/sh",
                "m op sudo"
            ]
        );
    }

    #[test]
    fn systemd_sysusers_makes_the_same_accounts_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("usr/lib/sysusers.d");
        std::fs::create_dir_all(&conf).unwrap();
        std::fs::create_dir_all(dir.path().join("etc")).unwrap();
        std::fs::write(conf.join("t.conf"), lines(&tree()).unwrap()).unwrap();
        std::fs::write(
            conf.join("basic.conf"),
            "g sudo 27 -\nu root 0 - /root /bin/bash\n",
        )
        .unwrap();
        Command::new("systemd-sysusers", "systemd")
            .arg(format!("--root={}", dir.path().display()))
            .run()
            .unwrap();
        let passwd = std::fs::read_to_string(dir.path().join("etc/passwd")).unwrap();
        let group = std::fs::read_to_string(dir.path().join("etc/group")).unwrap();
        assert!(
            passwd.contains("op:x:1000:1000:The  Op :/home/op:/bin/sh"),
            "{passwd}"
        );
        assert!(
            group.contains("sudo:x:27:op") && group.contains("op:x:1000:"),
            "{group}"
        );
    }
}
