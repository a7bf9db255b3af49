//! The GRUB image that firmware without a file system of its own starts: `core.img` of a PC's BIOS, `core.elf`
//! of Open Firmware. It is assembled when the image is built and stands in a partition of its own.

use serde::{Deserialize, Serialize};

use super::check::Checked;
use super::{Backend, Board, Role, Table};

/// Name of the file that GRUB looks for in the directory that it is given.
const CONFIG: &str = "/grub.cfg";

/// A GRUB image and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Core {
    /// The firmware that starts it.
    pub target: CoreTarget,
    /// Debian package with GRUB's modules for it (product's suite, board's architecture, resolved and locked
    /// like the tree).
    pub package: String,
}

/// Kinds of firmware, in GRUB's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CoreTarget {
    /// A PC's BIOS: the code of the first sector loads the image from the BIOS boot partition.
    I386Pc,
    /// Open Firmware of POWER machines: loads the image from the PReP partition.
    PowerpcIeee1275,
}

impl CoreTarget {
    /// GRUB's name for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::I386Pc => "i386-pc",
            Self::PowerpcIeee1275 => "powerpc-ieee1275",
        }
    }

    /// Where Debian's package has the modules, without leading slash.
    pub fn directory(self) -> String {
        format!("usr/lib/grub/{}", self.as_str())
    }

    /// Debian architecture of the machines.
    pub fn arch(self) -> &'static str {
        match self {
            Self::I386Pc => "amd64",
            Self::PowerpcIeee1275 => "ppc64el",
        }
    }
}

impl Board {
    /// The directory on the firmware partition in which GRUB finds its configuration.
    pub fn config_directory(&self) -> &str {
        let config = &self.boot.config;
        config.strip_suffix(CONFIG).unwrap_or_default()
    }
}

/// A partition for the image and the image belong together.
pub(super) fn check(board: &Board) -> Checked {
    let partitions = board.disk.partitions.iter();
    let places = partitions.filter(|p| p.role == Role::BootLoader).count();
    let Some(core) = &board.boot.core else {
        return match places {
            0 => Ok(()),
            _ => Err("there is a partition with role \"boot-loader\", but no boot.core that would stand in it".into()),
        };
    };
    if board.boot.backend != Backend::Grub {
        return Err("boot.core is for the backend \"grub\"".into());
    }
    if places != 1 {
        return Err(format!(
            "boot.core needs exactly one partition with role \"boot-loader\"; there are {places}"
        ));
    }
    if board.arch != core.target.arch() {
        return Err(format!(
            "boot.core.target \"{}\" is for {}, and the board is {}",
            core.target.as_str(),
            core.target.arch(),
            board.arch
        ));
    }
    if board.disk.table != Table::Gpt {
        return Err(
            "boot.core needs disk.table = \"gpt\": its partition is known by its type".into(),
        );
    }
    if board.config_directory().is_empty() {
        return Err(format!(
            "boot.config \"{}\" must end in {CONFIG}, in a directory: there the image of boot.core looks for it",
            board.boot.config
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::board::{builtin, from_toml};

    #[test]
    fn an_image_without_its_place_is_refused_and_the_other_way_round() {
        let good = "id = \"b\"\ndescription = \"d\"\nextends = \"x86_64-bios\"\n";
        let read = |more: &str| from_toml(&format!("{good}{more}"), Path::new("boards/b.toml"));
        read("").unwrap();
        let parts =
            "[[disk.partitions]]\nlabel = \"firmware\"\nrole = \"firmware\"\nsize = \"64MiB\"\n\
             [[disk.partitions]]\nlabel = \"root\"\nrole = \"root\"\nsize = \"2GiB\"\n\
             [[disk.partitions]]\nlabel = \"data\"\nrole = \"data\"\nsize = \"1GiB\"\n";
        let loader =
            "[[disk.partitions]]\nlabel = \"x\"\nrole = \"boot-loader\"\nsize = \"1MiB\"\n";
        let uboot = "[boot]\nbackend = \"uboot\"\n[boot.environment]\noffset = \"900MiB\"\n\
             redundant-offset = \"901MiB\"\nsize = \"16KiB\"\n";
        for (more, says) in [
            (parts.to_owned(), "there are 0"),
            (
                format!("{parts}{loader}{loader}").replacen("\"x\"", "\"y\"", 1),
                "there are 2",
            ),
            ("arch = \"arm64\"\n".into(), "is for amd64"),
            ("[disk]\ntable = \"hybrid\"\n".into(), "known by its type"),
            ("[boot]\nconfig = \"grub.cfg\"\n".into(), "in a directory"),
            (uboot.into(), "boot.core is for the backend \"grub\""),
        ] {
            let error = read(&more).unwrap_err().to_string();
            assert!(error.contains(says), "{more}: {error}");
        }
        let without =
            format!("id = \"b\"\ndescription = \"d\"\nextends = \"x86_64-uefi\"\n{parts}{loader}");
        let error = from_toml(&without, Path::new("boards/b.toml")).unwrap_err();
        assert!(error.to_string().contains("no boot.core"), "{error}");
    }

    #[test]
    fn its_modules_are_locked_like_every_other_part_of_the_boot_loader() {
        let board = builtin("x86_64-bios").unwrap();
        assert!(board.firmware_packages().contains("grub-pc-bin"));
        assert_eq!(board.config_directory(), "grub");
    }
}
