//! Boot entries as libostree writes them into `/boot/loader/entries/*.conf`.
//!
//! The format is that of the UAPI group's Boot Loader Specification, type 1; libostree writes one
//! entry a deployment and gives the default one the highest `version`.

use std::fs;
use std::path::{Path, PathBuf};

use super::state::is_valid_id;
use crate::device::ID_KARG;

/// One boot entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BootEntry {
    /// What people see.
    pub title: String,
    /// libostree's order: the highest one is the default.
    pub version: u32,
    /// Kernel, as written: libostree gives it with or without the `/boot` prefix.
    pub linux: String,
    /// Initial RAM file systems, in order.
    pub initrd: Vec<String>,
    /// Kernel arguments, as written.
    pub options: String,
    /// Device tree, if the entry names one.
    pub devicetree: Option<String>,
}

/// A boot entry that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// A file or directory could not be read.
    #[error("reading the boot entries in {}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file lacks something or holds nonsense.
    #[error("reading the boot entry {}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl BootEntry {
    /// The deployment's identity, from the kernel argument `treeline.id`; `None` if it has none, or
    /// one that no boot state could hold.
    pub fn id(&self) -> Option<&str> {
        self.options
            .split_ascii_whitespace()
            .filter_map(|arg| arg.strip_prefix(ID_KARG)?.strip_prefix('='))
            .next_back()
            .filter(|id| is_valid_id(id))
    }

    /// The identity that the boot menu gives this entry: its [`id`](Self::id), or `unnamed-<version>`
    /// for a deployment that was made without one, which no state ever calls good or on trial.
    pub fn identity(&self) -> String {
        match self.id() {
            Some(id) => id.to_owned(),
            None => format!("unnamed-{}", self.version),
        }
    }
}

/// The identities of `entries`, in their order: what [`super::state::decide`] and
/// [`super::state::judge`] want.
pub fn identities(entries: &[BootEntry]) -> Vec<String> {
    entries.iter().map(BootEntry::identity).collect()
}

/// Reads one entry; `path` is named in errors.
pub fn parse(text: &str, path: &Path) -> Result<BootEntry, EntryError> {
    let invalid = |problem: String| EntryError::Invalid {
        path: path.to_owned(),
        problem,
    };
    let mut entry = BootEntry::default();
    let mut options = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if line.starts_with('#') {
            continue;
        }
        let (key, value) = match line.split_once([' ', '\t']) {
            Some((key, value)) => (key, value.trim()),
            None => (line, ""),
        };
        match key {
            "title" => entry.title = value.into(),
            "version" => {
                entry.version = value.parse().map_err(|_| {
                    invalid(format!("version \"{value}\" is not a number; libostree writes the place in the boot order there"))
                })?;
            }
            "linux" => entry.linux = value.into(),
            "initrd" => entry.initrd.push(value.into()),
            "options" => options.push(value),
            "devicetree" => entry.devicetree = Some(value.into()),
            // The specification asks readers to pass over keys that they do not know.
            _ => {}
        }
    }
    entry.options = options.join(" ");
    if !entry.linux.starts_with('/') {
        return Err(invalid(format!(
            "the kernel (key \"linux\") must be an absolute path, but is \"{}\"",
            entry.linux
        )));
    }
    Ok(entry)
}

/// Reads all entries of a loader directory (`/boot/loader`, `/boot/loader.0`), the default one first.
///
/// The order is that of the `version` key, never of the file names. A directory without entries gives
/// an empty list; a broken entry is an error, for a menu without it would be a wrong menu.
pub fn load_dir(loader: &Path) -> Result<Vec<BootEntry>, EntryError> {
    let dir = loader.join("entries");
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| EntryError::Io { path, source }
    };
    let mut entries = Vec::new();
    for file in fs::read_dir(&dir).map_err(io(&dir))? {
        let path = file.map_err(io(&dir))?.path();
        if path.extension().is_some_and(|e| e == "conf") {
            let text = fs::read_to_string(&path).map_err(io(&path))?;
            entries.push((parse(&text, &path)?, path));
        }
    }
    // File names only decide between equal versions, so that the order is always the same.
    entries.sort_by(|(a, a_path), (b, b_path)| {
        b.version.cmp(&a.version).then_with(|| a_path.cmp(b_path))
    });
    Ok(entries.into_iter().map(|(entry, _)| entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "title Shop 1.0 (ostree:0)\nversion 2\noptions root=UUID=1 rw treeline.id=abc ostree=/ostree/boot.1/shop/0/0\nlinux /ostree/shop-12/vmlinuz-6.12\ninitrd /ostree/shop-12/initramfs-6.12.img\naboot x\n";

    #[test]
    fn reads_what_libostree_writes() {
        let entry = parse(TEXT, Path::new("x.conf")).unwrap();
        assert_eq!(entry.title, "Shop 1.0 (ostree:0)");
        assert_eq!(entry.version, 2);
        assert_eq!(entry.id(), Some("abc"));
        assert_eq!(entry.identity(), "abc");
        assert_eq!(entry.linux, "/ostree/shop-12/vmlinuz-6.12");
        assert_eq!(entry.initrd, ["/ostree/shop-12/initramfs-6.12.img"]);
        assert_eq!(entry.devicetree, None);
    }

    #[test]
    fn an_entry_without_a_sound_identity_has_a_name_of_its_own() {
        for options in ["rw", "treeline.id=", "treeline.id='x'", "xtreeline.id=a"] {
            let entry = BootEntry {
                version: 7,
                options: options.into(),
                ..BootEntry::default()
            };
            assert_eq!(entry.id(), None, "{options}");
            assert_eq!(entry.identity(), "unnamed-7");
        }
    }

    #[test]
    fn says_what_is_wrong_with_an_entry() {
        for (from, to, want) in [
            (
                "version 2",
                "version two",
                "version \"two\" is not a number",
            ),
            ("linux /", "linux ", "absolute path"),
        ] {
            let error = parse(&TEXT.replace(from, to), Path::new("/b/x.conf")).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(want) && text.contains("/b/x.conf"), "{text}");
        }
    }

    #[test]
    fn the_highest_version_comes_first_whatever_the_files_are_called() {
        let dir = tempfile::tempdir().unwrap();
        let entries = dir.path().join("entries");
        fs::create_dir(&entries).unwrap();
        for (name, version) in [
            ("ostree-1.conf", 1),
            ("ostree-9.conf", 2),
            ("ostree-2-shop.conf", 10),
        ] {
            let text = TEXT.replace("version 2", &format!("version {version}"));
            fs::write(entries.join(name), text).unwrap();
        }
        fs::write(entries.join("notes.txt"), "x").unwrap();
        let versions: Vec<_> = load_dir(dir.path())
            .unwrap()
            .iter()
            .map(|e| e.version)
            .collect();
        assert_eq!(versions, [10, 2, 1]);
        let missing = load_dir(&dir.path().join("gone")).unwrap_err().to_string();
        assert!(missing.contains("gone/entries"), "{missing}");
    }

    proptest! {
        #[test]
        fn no_input_panics(text in "(title|linux|options|version|initrd|#|\n| |/|\\PC){0,60}") {
            if let Ok(entry) = parse(&text, Path::new("x")) {
                let _ = (entry.id(), entry.identity());
            }
        }
    }
}
