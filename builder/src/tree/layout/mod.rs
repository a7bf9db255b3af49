//! Turns a Debian root into what OSTree deploys: all that is shipped stands in `/usr`, `/etc` becomes
//! its default `/usr/etc`, and `/var` ships empty. What packages left in `/var` comes back on the
//! device by `tmpfiles.d`: directories and links as such, files as copies from `/usr/share/factory`.

use anyhow::{Context, Result};

use super::integrity::PREPARE_ROOT_CONF;
use super::{join, Node, Tree};

mod tmpfiles;

use tmpfiles::Lines;

/// Generated `tmpfiles.d` file, in the tree.
pub const TMPFILES: &str = "usr/lib/tmpfiles.d/treeline-var.conf";
/// Where the package database stands in a deployment.
pub const DPKG: &str = "usr/lib/sysimage/dpkg";

const FACTORY: &str = "usr/share/factory";
/// Top-level directories that belong to `/usr`.
const MERGED: [&str; 6] = ["bin", "lib", "lib32", "lib64", "libx32", "sbin"];
/// Directories whose content belongs to the device, and where it lives.
const MOVED: [(&str, &str); 5] = [
    ("home", "var/home"),
    ("mnt", "var/mnt"),
    ("opt", "var/opt"),
    ("root", "var/roothome"),
    ("srv", "var/srv"),
];
/// Links and mount points of the root directory.
const LINKS: [(&str, &str); 2] = [("media", "run/media"), ("ostree", "sysroot/ostree")];
const MOUNT_POINTS: [(&str, u32); 8] = [
    ("boot", 0o755),
    ("dev", 0o755),
    ("proc", 0o755),
    ("run", 0o755),
    ("sys", 0o755),
    ("sysroot", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
];

/// Applies the layout. The kernel must have been moved out of `/boot` before.
pub fn apply(tree: &mut Tree) -> Result<()> {
    merge_usr(tree)?;
    let mut lines = Lines::default();
    ship_opt(tree, &mut lines)?;
    ship_local(tree, &mut lines)?;
    for (from, to) in MOVED {
        move_to_var(tree, from, to)?;
    }
    if tree.contains("var/lib/dpkg") {
        tree.rename("var/lib/dpkg", DPKG)
            .context("moving the package database")?;
        lines.link("var/lib/dpkg", DPKG, false);
    }
    tmpfiles::readdress(tree, &MOVED)?;
    let declared = tmpfiles::declared(tree)?;
    var_to_factory(tree, &declared, &mut lines)?;
    for (name, mode) in MOUNT_POINTS {
        tree.remove(name);
        tree.insert(name, Node::dir(mode))?;
    }
    for (name, target) in LINKS {
        tree.remove(name);
        tree.insert(name, Node::symlink(target))?;
    }
    if tree.contains("etc") {
        tree.rename("etc", "usr/etc")?;
    }
    tree.insert(TMPFILES, Node::file(lines.render(), 0o644))?;
    tree.insert(
        PREPARE_ROOT_CONF,
        Node::file("[sysroot]\nreadonly=true\n", 0o644),
    )
}

/// `/bin`, `/lib`, … become links into `/usr`; a base that still has them apart is merged.
pub fn merge_usr(tree: &mut Tree) -> Result<()> {
    for name in MERGED {
        let merged = join("usr", name);
        if tree.get(name).is_some_and(Node::is_dir) {
            tree.merge(name, &merged)
                .with_context(|| format!("merging /{name} into /{merged}"))?;
        }
        if tree.contains(&merged) && !tree.contains(name) {
            tree.insert(name, Node::symlink(merged))?;
        }
    }
    Ok(())
}

/// What packages or the overlay put into `/opt` is shipped (so that updates replace it): it stands in
/// `/usr/lib/opt`, and links in the device's `/var/opt` lead to it.
fn ship_opt(tree: &mut Tree, lines: &mut Lines) -> Result<()> {
    let names: Vec<String> = tree.children("opt").map(|(name, _)| name.into()).collect();
    for name in names {
        let shipped = join("usr/lib/opt", &name);
        tree.rename(&join("opt", &name), &shipped)?;
        lines.link(&join("var/opt", &name), &shipped, true);
    }
    Ok(())
}

/// The same for `/usr/local`, file by file, because its directories belong to the device.
fn ship_local(tree: &mut Tree, lines: &mut Lines) -> Result<()> {
    let below: Vec<String> = tree
        .below("usr/local")
        .map(|(path, _)| path.into())
        .collect();
    for path in below {
        let Some(node) = tree.get(&path).cloned() else {
            continue;
        };
        let rest = path.trim_start_matches("usr/local/");
        let there = join("var/usrlocal", rest);
        if node.is_dir() {
            lines.node(&there, &node);
        } else if let Some(target) = node.link_target() {
            lines.link_text(&there, target, true);
        } else {
            let shipped = join("usr/lib/usrlocal", rest);
            tree.insert(&shipped, node)?;
            lines.link(&there, &shipped, true);
        }
    }
    tree.remove("usr/local");
    lines.node("var/usrlocal", &Node::dir(0o755));
    tree.insert("usr/local", Node::symlink("../var/usrlocal"))
}

fn move_to_var(tree: &mut Tree, from: &str, to: &str) -> Result<()> {
    if tree.get(from).is_some_and(Node::is_dir) {
        tree.merge(from, to)?;
    } else if !tree.contains(to) {
        tree.insert(to, Node::dir(0o755))?;
    }
    tree.remove(from);
    tree.insert(from, Node::symlink(to))
}

fn var_to_factory(tree: &mut Tree, declared: &tmpfiles::Declared, lines: &mut Lines) -> Result<()> {
    let paths: Vec<String> = tree.below("var").map(|(path, _)| path.into()).collect();
    for path in paths {
        let Some(node) = tree.get(&path).cloned() else {
            continue;
        };
        if !declared.contains(&path) {
            lines.node(&path, &node);
        }
        if node.is_file() {
            tree.insert(&join(FACTORY, &path), node)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(paths: &[(&str, Node)]) -> Tree {
        let mut tree = Tree::new();
        for (path, node) in paths {
            tree.insert(path, node.clone()).unwrap();
        }
        apply(&mut tree).unwrap();
        tree
    }

    #[test]
    fn what_is_shipped_stands_in_usr_and_var_is_empty() {
        let tree = laid_out(&[
            ("etc/fstab", Node::file("", 0o644)),
            ("var/lib/dpkg/status", Node::file("Package: a\n", 0o644)),
            ("var/lib/thing/state", Node::file("s", 0o640).owned(5, 6)),
            ("var/lib/thing", Node::dir(0o750).owned(5, 6)),
            ("opt/app/run", Node::file("#", 0o755)),
            ("usr/local/bin/tool", Node::file("#", 0o755)),
            ("root/.profile", Node::file("p", 0o644)),
            ("root", Node::dir(0o700)),
            ("lib/modules/x", Node::file("m", 0o644)),
            ("usr/bin/sh", Node::file("#", 0o755)),
        ]);
        assert_eq!(tree.below("var").count(), 0);
        for path in [
            "usr/etc/fstab",
            "usr/lib/sysimage/dpkg/status",
            "usr/share/factory/var/lib/thing/state",
            "usr/lib/opt/app/run",
            "usr/lib/usrlocal/bin/tool",
            "usr/share/factory/var/roothome/.profile",
            "usr/lib/modules/x",
        ] {
            assert!(tree.get(path).is_some_and(Node::is_file), "{path}");
        }
        for (link, target) in [
            ("home", "var/home"),
            ("root", "var/roothome"),
            ("lib", "usr/lib"),
            ("bin", "usr/bin"),
            ("usr/local", "../var/usrlocal"),
            ("media", "run/media"),
            ("ostree", "sysroot/ostree"),
        ] {
            assert_eq!(
                tree.get(link).unwrap().link_target(),
                Some(target),
                "{link}"
            );
        }
        assert!(!tree.contains("etc"));
        assert_eq!(tree.get("tmp").unwrap().mode, 0o1777);
        let lines = tree.read_text(TMPFILES).unwrap();
        for line in [
            "d /var/lib/thing 0750 5 6 - -",
            "C /var/lib/thing/state 0640 5 6 - /usr/share/factory/var/lib/thing/state",
            "L /var/lib/dpkg - - - - ../../usr/lib/sysimage/dpkg",
            "L+ /var/opt/app - - - - ../../usr/lib/opt/app",
            "L+ /var/usrlocal/bin/tool - - - - ../../../usr/lib/usrlocal/bin/tool",
            "d /var/roothome 0700 0 0 - -",
            "d /var/home 0755 0 0 - -",
        ] {
            assert!(lines.lines().any(|l| l == line), "{line}\nnot in\n{lines}");
        }
    }

    #[test]
    fn lines_that_packages_have_are_left_to_them_and_follow_the_moved_directories() {
        let tree = laid_out(&[
            ("var/log", Node::dir(0o755)),
            ("var/spool", Node::dir(0o755)),
            (
                "usr/lib/tmpfiles.d/p.conf",
                Node::file(
                    "# x\nd /var/log 0755 - - -\nd- /root/.ssh :0700 root :root -\n",
                    0o644,
                ),
            ),
        ]);
        let lines = tree.read_text(TMPFILES).unwrap();
        assert!(
            !lines.contains("/var/log") && lines.contains("d /var/spool"),
            "{lines}"
        );
        let packaged = tree.read_text("usr/lib/tmpfiles.d/p.conf").unwrap();
        assert!(
            packaged.contains("d- /var/roothome/.ssh :0700"),
            "{packaged}"
        );
    }
}
