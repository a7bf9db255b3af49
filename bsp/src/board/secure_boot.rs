//! Whose signatures start a board with UEFI firmware.

use serde::{Deserialize, Serialize};

use super::{Backend, Board, FirmwareFile, LoadAddresses};
use crate::boot::uboot::FIT_ROOM;

/// Directory on the firmware partition from which UEFI starts programs.
const EFI: &str = "EFI/";

/// Whose keys Secure Boot trusts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SecureBoot {
    /// Those that the suite's boot loader and kernel are signed for (Debian: Microsoft's, by way of shim).
    #[default]
    Suite,
    /// The product's own (`builder keys secureboot`), and no others.
    Own,
}

impl SecureBoot {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The GRUB that is assembled and signed for a board with keys of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnGrub {
    /// Debian architecture of the machines.
    pub arch: &'static str,
    /// GRUB's name for it.
    pub target: &'static str,
    /// Debian package with its modules.
    pub package: &'static str,
    /// Where the firmware looks for it.
    pub path: &'static str,
}

impl OwnGrub {
    /// Where the package has the modules, without leading slash.
    pub fn directory(&self) -> String {
        format!("usr/lib/grub/{}", self.target)
    }
}

/// The architectures with UEFI. Paths: UEFI specification, 3.5.1.1.
const GRUBS: [OwnGrub; 2] = [
    OwnGrub {
        arch: "amd64",
        target: "x86_64-efi",
        package: "grub-efi-amd64-bin",
        path: "EFI/BOOT/BOOTX64.EFI",
    },
    OwnGrub {
        arch: "arm64",
        target: "arm64-efi",
        package: "grub-efi-arm64-bin",
        path: "EFI/BOOT/BOOTAA64.EFI",
    },
];

impl Board {
    /// The GRUB of a board that starts what is signed with the product's keys; none if it starts the suite's.
    pub fn own_grub(&self) -> Option<&'static OwnGrub> {
        match self.boot.secure_boot {
            SecureBoot::Suite => None,
            SecureBoot::Own if self.boot.backend == Backend::Uboot => None,
            SecureBoot::Own => GRUBS.iter().find(|grub| grub.arch == self.arch),
        }
    }

    /// Files of the firmware partition, without the suite's programs where one's own takes their place.
    pub fn firmware_files(&self) -> impl Iterator<Item = &FirmwareFile> {
        let own = self.starts_own();
        let files = self.firmware.iter();
        files.filter(move |file| !(own && file.path.starts_with(EFI)))
    }

    /// Whether the board can start what is signed with the product's keys, if it is to; `Err` says in words why not.
    pub fn check_secure_boot(&self) -> Result<(), String> {
        if !self.starts_own() {
            return Ok(());
        }
        if self.boot.backend == Backend::Uboot {
            return self.check_signed_fit();
        }
        let refused = |problem: &str| {
            Err(format!(
                "secure-boot = \"own\" is for UEFI and U-Boot: {problem}"
            ))
        };
        let starts = |grub: &&OwnGrub| self.firmware.iter().any(|file| file.path == grub.path);
        if self.own_grub().filter(starts).is_none() {
            return refused("this board's firmware starts no program from EFI/BOOT");
        }
        if self.boot.core.is_some() {
            return refused("a GRUB that a BIOS starts, as this board has, is checked by nobody");
        }
        Ok(())
    }

    /// Whether what starts is signed with the product's keys.
    pub fn starts_own(&self) -> bool {
        self.boot.secure_boot == SecureBoot::Own
    }

    /// Whether the script can name everything that U-Boot has to check.
    fn check_signed_fit(&self) -> Result<(), String> {
        let refused = |problem: &str| Err(format!("secure-boot = \"own\" with U-Boot: {problem}"));
        let Some(LoadAddresses {
            kernel,
            ramdisk,
            device_tree,
            fit: Some(fit),
        }) = self.boot.load_addresses
        else {
            return refused(
                "boot.load-addresses with kernel, ramdisk, device-tree and fit must say where things are loaded",
            );
        };
        let end = fit.saturating_add(FIT_ROOM);
        if [kernel, ramdisk, device_tree].iter().any(|at| *at < end) {
            return refused(
                "load-addresses.fit and the 80 KiB from there must be below the other addresses",
            );
        }
        let trees = self.device_trees.as_ref();
        if trees.is_some_and(|trees| trees.detect || !trees.overlays.is_empty()) {
            return refused(
                "device-trees.detect and overlays would have to be signed one by one, which is not built; name one device \
                 tree without them",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{builtin, DeviceTrees};

    fn own(id: &str) -> Board {
        let mut board = builtin(id).unwrap();
        board.boot.secure_boot = SecureBoot::Own;
        board
    }

    #[test]
    fn ones_own_grub_takes_the_place_of_the_suites() {
        for (id, package) in [
            ("x86_64-uefi", "grub-efi-amd64-bin"),
            ("aarch64-uefi", "grub-efi-arm64-bin"),
        ] {
            let board = own(id);
            board.check_secure_boot().unwrap();
            let packages: Vec<_> = board.firmware_packages().into_iter().collect();
            assert_eq!(packages, [package], "{id}");
            assert_eq!(board.firmware_files().count(), 0);
            assert!(builtin(id).unwrap().own_grub().is_none());
        }
    }

    #[test]
    fn u_boot_is_told_where_everything_stands() {
        let good = own("qemu-aarch64");
        good.check_secure_boot().unwrap();
        assert!(good.own_grub().is_none() && good.starts_own());
        let addresses = good.boot.load_addresses.unwrap();
        let with = |addresses: Option<LoadAddresses>| {
            let mut board = good.clone();
            board.boot.load_addresses = addresses;
            board.check_secure_boot()
        };
        let fit = addresses.fit;
        for wrong in [
            None,
            Some(LoadAddresses {
                fit: None,
                ..addresses
            }),
            Some(LoadAddresses {
                kernel: fit.unwrap() + FIT_ROOM - 1,
                ..addresses
            }),
            Some(LoadAddresses {
                fit: Some(u64::MAX),
                ..addresses
            }),
        ] {
            assert!(with(wrong).unwrap_err().contains("fit"), "{wrong:?}");
        }
        for (detect, overlay) in [(true, None), (false, Some("x.dtbo"))] {
            let mut board = good.clone();
            board.device_trees = Some(DeviceTrees {
                default: "x.dtb".into(),
                others: Vec::new(),
                detect,
                overlays: overlay.map(String::from).into_iter().collect(),
            });
            let error = board.check_secure_boot().unwrap_err();
            assert!(error.contains("overlays"), "{error}");
        }
    }

    #[test]
    fn boards_that_nobody_checks_are_refused() {
        for (id, says) in [
            ("x86_64", "BIOS"),
            ("x86_64-bios", "EFI/BOOT"),
            ("qemu-pseries", "EFI/BOOT"),
            ("rpi4", "fit"),
        ] {
            let error = own(id).check_secure_boot().unwrap_err();
            assert!(error.contains(says), "{id}: {error}");
        }
    }
}
