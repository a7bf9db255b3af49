//! Where the files of the boot loader come from.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Board, RawArea};

/// A file of a Debian package (product's suite, board's architecture, resolved and locked like the tree).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PackageFile {
    /// The package.
    pub package: String,
    /// Path inside it, without leading slash.
    pub file: String,
}

/// A file on the firmware partition. Exactly one source is named: `package` with `file`, `text`,
/// `device-tree` or `user-file`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FirmwareFile {
    /// Path on the firmware partition, e.g. `EFI/BOOT/BOOTX64.EFI`.
    pub path: String,
    /// Debian package it comes from (product's suite, resolved and locked like the tree).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub package: Option<String>,
    /// Path inside the package, without leading slash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The content itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A device tree of the board's kernel, as in `device-trees`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_tree: Option<String>,
    /// A file of the product, relative to its directory; its hash stands in the lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_file: Option<String>,
}

/// Where a file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source<'a> {
    /// A package of the suite.
    Package {
        /// Its name.
        package: &'a str,
        /// Path inside it.
        file: &'a str,
    },
    /// The board file itself.
    Text(&'a str),
    /// The kernel's device trees.
    DeviceTree(&'a str),
    /// The product's directory.
    User(&'a str),
}

/// Words for a file that does not say where it comes from, or says it twice.
const ONE_SOURCE: &str =
    "must name exactly one source: package and file, text, device-tree, or user-file";

impl FirmwareFile {
    /// Its source; `Err` says in words what is wrong. Boards that have been read have one.
    pub fn source(&self) -> Result<Source<'_>, String> {
        let text = self.text.as_deref().map(Source::Text);
        let tree = self.device_tree.as_deref().map(Source::DeviceTree);
        only(
            [packaged(&self.package, &self.file), user(&self.user_file)]
                .into_iter()
                .chain([text, tree]),
            [&self.package, &self.file],
        )
        .ok_or_else(|| format!("firmware path \"{}\" {ONE_SOURCE}", self.path))
    }
}

impl RawArea {
    /// Its source; `Err` says in words what is wrong. Boards that have been read have one.
    pub fn source(&self) -> Result<Source<'_>, String> {
        only(
            [packaged(&self.package, &self.file), user(&self.user_file)],
            [&self.package, &self.file],
        )
        .ok_or_else(|| {
            format!(
                "raw area \"{}\" must name exactly one source: package and file, or user-file",
                self.name
            )
        })
    }
}

fn packaged<'a>(package: &'a Option<String>, file: &'a Option<String>) -> Option<Source<'a>> {
    let (package, file) = (package.as_deref()?, file.as_deref()?);
    Some(Source::Package { package, file })
}

fn user(path: &Option<String>) -> Option<Source<'_>> {
    path.as_deref().map(Source::User)
}

/// The only source there is; a package goes with a file.
fn only<'a>(
    sources: impl IntoIterator<Item = Option<Source<'a>>>,
    pair: [&Option<String>; 2],
) -> Option<Source<'a>> {
    let mut named = sources.into_iter().flatten();
    let first = named.next()?;
    let whole = pair[0].is_some() == pair[1].is_some();
    (named.next().is_none() && whole).then_some(first)
}

impl Board {
    /// Everything that the boot loader is made of.
    fn sources(&self) -> impl Iterator<Item = Source<'_>> {
        let files = self.firmware_files().filter_map(|file| file.source().ok());
        let raw = self.disk.raw.iter().filter_map(|area| area.source().ok());
        let qemu = self.qemu.iter().flat_map(|qemu| [&qemu.bios, &qemu.kernel]);
        let qemu = qemu.flatten().map(|from| Source::Package {
            package: &from.package,
            file: &from.file,
        });
        files.chain(raw).chain(qemu)
    }

    /// Packages of which only files are taken: for the firmware partition, the raw areas,
    /// the GRUB image and QEMU. Sorted.
    pub fn firmware_packages(&self) -> BTreeSet<&str> {
        let packages = self.sources().filter_map(|source| match source {
            Source::Package { package, .. } => Some(package),
            _ => None,
        });
        let core = self.boot.core.iter().map(|core| core.package.as_str());
        let own = self.own_grub().map(|grub| grub.package);
        packages.chain(core).chain(own).collect()
    }

    /// Files of the product that become part of the boot loader, relative to its directory. Sorted.
    pub fn user_files(&self) -> BTreeSet<&str> {
        let files = self.sources().filter_map(|source| match source {
            Source::User(path) => Some(path),
            _ => None,
        });
        files.collect()
    }
}
