//! Takes out what belongs to the making of a base or to one machine, not to a product: logs, caches,
//! identities, lock files; and documentation, manual pages and translations unless the product keeps
//! them. `compose` does some of it while it unpacks packages; a foreign base comes here as it is.

use anyhow::Result;

use super::{file_name, join, Node, Tree};
use crate::manifest::Keep;

/// Emptied, the directory stays.
const EMPTIED: [&str; 15] = [
    "dev",
    "proc",
    "run",
    "sys",
    "tmp",
    "var/backups",
    "var/cache/apt",
    "var/cache/debconf",
    "var/cache/ldconfig",
    "var/cache/man",
    "var/lib/apt",
    "var/lib/dpkg/updates",
    "var/log",
    "var/spool/cron",
    "var/tmp",
];
/// Taken away. Host keys and identities would be the same on every device, and known to everybody who
/// has the image; the rest are traces of package scripts and of systemd's package helpers.
const REMOVED: [&str; 24] = [
    ".dockerenv",
    "etc/.pwd.lock",
    "etc/.updated",
    "etc/adjtime",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/group-",
    "etc/gshadow-",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "root/.bash_history",
    "root/.cache",
    "var/.updated",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd/catalog/database",
    "var/lib/systemd/credential.secret",
    "var/lib/systemd/deb-systemd-helper-enabled",
    "var/lib/systemd/deb-systemd-user-helper-enabled",
];
const RANDOM_SEEDS: [&str; 2] = ["var/lib/systemd/random-seed", "var/lib/urandom/random-seed"];
const DOCS: [&str; 6] = [
    "usr/share/bug",
    "usr/share/doc-base",
    "usr/share/gtk-doc",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/groff",
];
const RESOLVED: &str = "usr/lib/systemd/systemd-resolved";

/// Cleans the tree. `language` is that of the product's locale, e.g. `de`; its translations stay.
pub fn apply(tree: &mut Tree, keep: &Keep, language: &str) -> Result<()> {
    for dir in EMPTIED {
        tree.empty(dir);
    }
    for path in REMOVED.iter().chain(&RANDOM_SEEDS) {
        tree.remove(path);
    }
    let traces: Vec<String> = tree
        .iter()
        .filter(|(path, node)| node.is_file() && is_trace(path))
        .map(|(path, _)| path.to_string())
        .collect();
    for path in traces {
        tree.remove(&path);
    }
    if !keep.docs {
        DOCS.iter().for_each(|dir| {
            tree.remove(dir);
        });
        drop_docs(tree);
    }
    if !keep.man {
        tree.remove("usr/share/man");
    }
    if !keep.locales {
        drop_translations(tree, language);
    }
    identity(tree)
}

fn is_trace(path: &str) -> bool {
    let name = file_name(path);
    let host_key = path.starts_with("etc/ssh/ssh_host_")
        && (name.ends_with("_key") || name.ends_with("_key.pub"));
    let leftover = path.starts_with("etc/")
        && [
            ".dpkg-old",
            ".dpkg-new",
            ".dpkg-dist",
            ".ucf-old",
            ".ucf-dist",
        ]
        .iter()
        .any(|end| name.ends_with(end));
    let database = path.starts_with("var/lib/dpkg/") && name.ends_with("-old");
    let compiled = name.ends_with(".pyc") && path.contains("/__pycache__/");
    host_key || leftover || database || compiled
}

/// Licences stay.
fn drop_docs(tree: &mut Tree) {
    let gone: Vec<String> = tree
        .below("usr/share/doc")
        .filter(|(path, node)| !node.is_dir() && file_name(path) != "copyright")
        // A package's directory may be a link to another's, where its licence stands.
        .filter(|(path, node)| node.is_file() || path.matches('/').count() > 3)
        .map(|(path, _)| path.to_string())
        .collect();
    for path in gone {
        tree.remove(&path);
    }
}

fn drop_translations(tree: &mut Tree, language: &str) {
    let gone: Vec<String> = tree
        .children("usr/share/locale")
        .filter(|(name, node)| node.is_dir() && !(is_of(name, language) || is_of(name, "C")))
        .map(|(name, _)| join("usr/share/locale", name))
        .collect();
    for path in gone {
        tree.remove(&path);
    }
}

fn is_of(locale: &str, language: &str) -> bool {
    !language.is_empty() && locale.split(['_', '.', '@']).next() == Some(language)
}

/// An empty machine id is filled in on the device, once, before anything else runs.
fn identity(tree: &mut Tree) -> Result<()> {
    tree.insert("etc/machine-id", Node::file("", 0o444))?;
    let resolv = if tree.contains(RESOLVED) {
        Node::symlink("../run/systemd/resolve/stub-resolv.conf")
    } else {
        Node::file("", 0o644)
    };
    tree.insert("etc/resolv.conf", resolv)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cleaned(paths: &[&str], keep: &Keep) -> Vec<String> {
        let mut tree = Tree::new();
        for path in paths {
            tree.insert(path, Node::file("x", 0o644)).unwrap();
        }
        apply(&mut tree, keep, "de").unwrap();
        tree.iter()
            .filter(|(_, node)| node.is_file())
            .map(|(path, _)| path.to_string())
            .filter(|path| paths.contains(&path.as_str()))
            .collect()
    }

    #[test]
    fn traces_and_identities_go_and_the_rest_stays() {
        let paths = [
            "etc/machine-id",
            "etc/passwd-",
            "etc/ssh/ssh_config",
            "etc/ssh/ssh_host_ed25519_key",
            "etc/ssh/ssh_host_ed25519_key.pub",
            "usr/lib/x/__pycache__/m.pyc",
            "usr/share/doc/a/README",
            "usr/share/doc/a/copyright",
            "usr/share/locale/de/x.mo",
            "usr/share/locale/fr/x.mo",
            "usr/share/man/man1/a.1",
            "var/lib/app/state",
            "var/log/dpkg.log",
        ];
        assert_eq!(
            cleaned(&paths, &Keep::default()),
            [
                "etc/machine-id",
                "etc/ssh/ssh_config",
                "usr/share/doc/a/copyright",
                "usr/share/locale/de/x.mo",
                "var/lib/app/state",
            ]
        );
        let all = Keep {
            docs: true,
            man: true,
            locales: true,
        };
        let kept = cleaned(&paths, &all);
        for path in [
            "usr/share/doc/a/README",
            "usr/share/man/man1/a.1",
            "usr/share/locale/fr/x.mo",
        ] {
            assert!(kept.contains(&path.to_string()), "{path}");
        }
    }

    #[test]
    fn name_resolution_follows_what_is_installed() {
        let mut tree = Tree::new();
        apply(&mut tree, &Keep::default(), "C").unwrap();
        assert!(tree.get("etc/resolv.conf").unwrap().is_file());
        tree.insert(RESOLVED, Node::file("", 0o755)).unwrap();
        apply(&mut tree, &Keep::default(), "C").unwrap();
        assert_eq!(
            tree.get("etc/resolv.conf").unwrap().link_target(),
            Some("../run/systemd/resolve/stub-resolv.conf")
        );
        assert!(tree.read("etc/machine-id").unwrap().is_empty());
    }
}
