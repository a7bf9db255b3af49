//! What does not go into a tree made from packages: traces of the run that made it, and, unless kept,
//! documentation and translations.

use crate::project::Merged;

/// What a product keeps.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    docs: bool,
    man: bool,
    locales: bool,
    /// Language of the chosen locale, e.g. `de`.
    language: String,
}

/// Traces: whole paths.
const TRACES: &[&str] = &[
    "etc/.pwd.lock",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/apt/sources.list",
    "etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "etc/group-",
    "etc/gshadow-",
    "etc/hostname",
    "etc/machine-id",
    "etc/passwd-",
    "etc/resolv.conf",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    // Links of the kernel's package to a boot directory that stays empty.
    "initrd.img",
    "initrd.img.old",
    "vmlinuz",
    "vmlinuz.old",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd/credential.secret",
    "var/lib/systemd/random-seed",
];

/// Traces: everything below.
const TRACE_DIRS: &[&str] = &[
    "var/backups/",
    "var/cache/apt/",
    "var/lib/apt/",
    "var/lib/dpkg/updates/",
    "var/log/",
    "var/tmp/",
];

const DOCS: &[&str] = &[
    "usr/share/bug/",
    "usr/share/doc-base/",
    "usr/share/doc/",
    "usr/share/gtk-doc/",
    "usr/share/info/",
    "usr/share/lintian/",
];

impl Rules {
    /// What `merged` keeps.
    pub fn of(merged: &Merged) -> Self {
        let keep = &merged.product.keep;
        let locale = &merged.product.system.locale;
        Self {
            docs: keep.docs,
            man: keep.man,
            locales: keep.locales,
            language: locale
                .split(['_', '.', '@'])
                .next()
                .unwrap_or_default()
                .to_string(),
        }
    }

    /// Whether a path stays.
    pub fn keeps(&self, path: &str) -> bool {
        !is_trace(path)
            && (self.docs || !is_doc(path))
            && (self.man || !is_man(path))
            && (self.locales || !self.is_foreign_locale(path))
    }

    fn is_foreign_locale(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix("usr/share/locale/") else {
            return false;
        };
        let name = rest.split('/').next().unwrap_or_default();
        let language = name.split(['_', '.', '@']).next().unwrap_or_default();
        // `locale.alias` is a file that says which names mean the same.
        !(language == self.language || name == "locale.alias")
    }
}

fn is_trace(path: &str) -> bool {
    TRACES.contains(&path)
        || TRACE_DIRS.iter().any(|dir| path.starts_with(dir))
        || (path.starts_with("var/lib/dpkg/") && path.ends_with("-old"))
        || (path.starts_with("var/cache/debconf/") && path.ends_with("-old"))
        || (path.starts_with("etc/ssh/ssh_host_") && path.contains("_key"))
        || path.starts_with("boot/initrd.img")
}

/// Licences stay: their owners ask for it.
fn is_doc(path: &str) -> bool {
    let Some(dir) = DOCS.iter().find(|dir| path.starts_with(**dir)) else {
        return false;
    };
    let rest = &path[dir.len()..];
    // `doc/<package>/` itself, or a link to another package's.
    let licence = *dir == "usr/share/doc/" && (!rest.contains('/') || rest.ends_with("/copyright"));
    !licence
}

fn is_man(path: &str) -> bool {
    path.starts_with("usr/share/man/") || path.starts_with("var/cache/man/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(keep: bool, language: &str) -> Rules {
        Rules {
            docs: keep,
            man: keep,
            locales: keep,
            language: language.into(),
        }
    }

    #[test]
    fn a_minimal_tree_has_licences_and_its_own_language() {
        let minimal = rules(false, "de");
        for (path, stays) in [
            ("usr/bin/env", true),
            ("usr/share/doc", true),
            ("usr/share/doc/bash", true),
            ("usr/share/doc/bash/copyright", true),
            ("usr/share/doc/bash/README", false),
            ("usr/share/doc/bash/examples/copyright.txt", false),
            ("usr/share/man/man1/ls.1.gz", false),
            ("usr/share/locale/de/LC_MESSAGES/x.mo", true),
            ("usr/share/locale/de_AT/LC_MESSAGES/x.mo", true),
            ("usr/share/locale/den/LC_MESSAGES/x.mo", false),
            ("usr/share/locale/locale.alias", true),
            ("usr/lib/locale/C.utf8/LC_TIME", true),
        ] {
            assert_eq!(minimal.keeps(path), stays, "{path}");
            assert!(rules(true, "C").keeps(path), "{path}");
        }
    }

    #[test]
    fn traces_go_whatever_is_kept() {
        for path in [
            "etc/machine-id",
            "etc/ssh/ssh_host_ed25519_key",
            "etc/ssh/ssh_host_rsa_key.pub",
            "var/log/dpkg.log",
            "var/lib/dpkg/status-old",
            "boot/initrd.img-6.12",
            "vmlinuz",
        ] {
            assert!(!rules(true, "C").keeps(path), "{path}");
        }
        assert!(rules(false, "C").keeps("etc/ssh/ssh_config"));
        assert!(rules(false, "C").keeps("var/lib/dpkg/status"));
    }
}
