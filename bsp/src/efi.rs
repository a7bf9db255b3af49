//! The programs that UEFI firmware starts, as a device keeps them: in three directories of the firmware partition,
//! each with a record of what it holds. The builder writes the first; the agent writes the others in turn.
//!
//! A record counts only where every file has the hash that it names: so no torn directory is ever taken for a whole
//! one.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::board::efi_loader::{is_first, is_name};

/// The directories: the first is what firmware starts when it was told nothing; it is written when a device is
/// flashed and never again.
pub const DIRS: [&str; 3] = ["EFI/BOOT", "EFI/treeline/a", "EFI/treeline/b"];
/// Name of the record in each.
pub const RECORD: &str = "edition.toml";
/// Directory of the files in a tree.
pub const TREE_DIR: &str = "usr/lib/device-agent/loader/efi";
/// The most that all files of a set may have: a device reads them whole, one after another.
pub const MAX_BYTES: u64 = 32 << 20;

/// The programs of one edition. In a tree's manifest: what it brings; in a record: what the directory holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EfiSet {
    /// The edition; 0 in a directory that holds nothing yet.
    pub edition: u32,
    /// The files, sorted by name.
    #[serde(default, rename = "file", skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<EfiFile>,
}

/// A file of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EfiFile {
    /// Its name, in whichever directory the set is.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, 64 hex digits.
    pub sha256: String,
}

impl EfiFile {
    /// Describes a file.
    pub fn of(name: &str, content: &[u8]) -> Self {
        Self {
            name: name.into(),
            size: content.len() as u64,
            sha256: hash(content),
        }
    }

    /// Whether `content` is that of this file.
    pub fn is(&self, content: &[u8]) -> bool {
        content.len() as u64 == self.size && hash(content) == self.sha256
    }

    /// Where it stands in a tree.
    pub fn tree_path(&self) -> String {
        format!("{TREE_DIR}/{}", self.name)
    }
}

impl EfiSet {
    /// The set of these files.
    pub fn of<'a>(edition: u32, files: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Self {
        let mut files: Vec<EfiFile> = files
            .into_iter()
            .map(|(name, content)| EfiFile::of(name, content))
            .collect();
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Self { edition, files }
    }

    /// The file that firmware starts.
    pub fn first(&self) -> Option<&EfiFile> {
        self.files.iter().find(|file| is_first(&file.name))
    }

    /// The record of it: TOML, written by hand, which keeps the device small. Names have no character that would
    /// need to be escaped ([`EfiSet::check`]).
    pub fn render(&self) -> String {
        let mut text = format!("edition = {}\n", self.edition);
        for EfiFile { name, size, sha256 } in &self.files {
            text.push_str(&format!(
                "\n[[file]]\nname = \"{name}\"\nsize = {size}\nsha256 = \"{sha256}\"\n"
            ));
        }
        text
    }

    /// Reads a record; `None` if it is none, or names what no set has.
    pub fn parse(text: &str) -> Option<Self> {
        let set: Self = toml::from_str(text).ok()?;
        (set.edition == 0 || set.check().is_ok()).then_some(set)
    }

    /// Whether it can be a set; `Err` says in words why not.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.edition == 0 {
            return Err("its edition is 0");
        }
        if !self.files.iter().all(|file| is_name(&file.name)) {
            return Err("a file's name is not one");
        }
        let lower: std::collections::BTreeSet<String> = self
            .files
            .iter()
            .map(|f| f.name.to_ascii_lowercase())
            .collect();
        if lower.len() != self.files.len() || lower.contains(RECORD) {
            return Err("two files have the same name");
        }
        let sum = self
            .files
            .iter()
            .try_fold(0_u64, |sum, f| sum.checked_add(f.size));
        if sum.is_none_or(|sum| sum > MAX_BYTES) || self.files.iter().any(|f| f.size == 0) {
            return Err("its files are empty or too large");
        }
        match self.first() {
            None => Err("firmware starts none of its files"),
            Some(_) => Ok(()),
        }
    }
}

fn hash(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set() -> EfiSet {
        EfiSet::of(
            2,
            [
                ("grubx64.efi", b"grub".as_slice()),
                ("BOOTX64.EFI", b"shim"),
            ],
        )
    }

    #[test]
    fn a_record_is_read_back() {
        let set = set();
        assert_eq!(set.check(), Ok(()));
        assert_eq!(set.first().unwrap().name, "BOOTX64.EFI");
        assert_eq!(EfiSet::parse(&set.render()), Some(set.clone()));
        assert!(set.files[0].is(b"shim") && !set.files[0].is(b"shin"));
        assert_eq!(
            set.files[1].tree_path(),
            "usr/lib/device-agent/loader/efi/grubx64.efi"
        );
        let empty = EfiSet::default();
        assert_eq!(EfiSet::parse(&empty.render()), Some(empty));
    }

    #[test]
    fn what_is_no_set_is_none() {
        let said = |change: fn(&mut EfiSet)| {
            let mut bad = set();
            change(&mut bad);
            let text = bad.render();
            assert!(bad.edition == 0 || EfiSet::parse(&text).is_none(), "{text}");
            bad.check().unwrap_err()
        };
        assert!(said(|s| s.edition = 0).contains("is 0"));
        assert!(said(|s| s.files[1].name = "../x".into()).contains("not one"));
        assert!(said(|s| s.files[1].name = "bootx64.efi".into()).contains("same name"));
        assert!(said(|s| s.files[1].name = "edition.toml".into()).contains("same name"));
        assert!(said(|s| s.files[0].size = 0).contains("empty"));
        assert!(said(|s| s.files[0].size = 1 << 40).contains("too large"));
        assert!(said(|s| drop(s.files.remove(0))).contains("starts none"));
        assert_eq!(EfiSet::parse("edition = \"x\""), None);
    }
}
