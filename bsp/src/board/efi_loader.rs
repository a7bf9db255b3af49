//! The programs that UEFI firmware starts from the firmware partition, as one set that devices can replace.

use serde::{Deserialize, Serialize};

use super::{Board, FirmwareFile, Role, Table};

/// Where firmware that was told nothing else looks for a program (UEFI specification 2.10, 3.5.1.1), with a slash
/// behind it.
const DEFAULT_DIR: &str = "EFI/BOOT/";

/// What a board file says of them. With this section devices replace them, by the firmware's own list of what it
/// starts: a second copy is tried first, once (`BootNext`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EfiLoader {
    /// Edition of all files in `EFI/BOOT` together: rises with every content that devices shall take over.
    pub edition: u32,
}

impl Board {
    /// The edition of the programs that devices replace; none if they do not. A GRUB that is signed with the
    /// product's own keys is made with the image, and stays what it is.
    pub fn replaced_programs(&self) -> Option<EfiLoader> {
        self.efi_loader.filter(|_| self.own_grub().is_none())
    }

    /// The files in `EFI/BOOT`, by name.
    pub fn efi_programs(&self) -> impl Iterator<Item = (&str, &FirmwareFile)> {
        self.firmware
            .iter()
            .filter_map(|file| Some((file.path.strip_prefix(DEFAULT_DIR)?, file)))
    }
}

pub(super) fn check(board: &Board) -> Result<(), String> {
    let Some(loader) = &board.efi_loader else {
        return Ok(());
    };
    if loader.edition == 0 {
        return Err(
            "efi-loader.edition must be 1 or more: 0 stands for a place that is empty".into(),
        );
    }
    let role = |role| board.disk.partitions.iter().any(|part| part.role == role);
    if board.disk.table != Table::Gpt || !role(Role::Firmware) {
        return Err("efi-loader needs table = \"gpt\" and a firmware partition: firmware's list names programs by the identity of their partition".into());
    }
    let names: Vec<&str> = board.efi_programs().map(|(name, _)| name).collect();
    if let Some(name) = names.iter().find(|name| !is_name(name)) {
        return Err(format!(
            "efi-loader: \"{name}\" in EFI/BOOT may have letters, digits, _, - and . only, and no directory"
        ));
    }
    if !names.iter().any(|name| is_first(name)) {
        return Err("efi-loader needs a program that firmware starts: EFI/BOOT/BOOTX64.EFI or the like among the firmware files".into());
    }
    Ok(())
}

/// Whether a name can stand in the manifest and on a FAT file system.
pub(crate) fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    !name.is_empty() && name.len() < 64 && !name.starts_with('.') && name.chars().all(plain)
}

/// Whether firmware starts a program of this name (UEFI specification 2.10, table 3.2).
pub(crate) fn is_first(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    name.strip_prefix("BOOT")
        .and_then(|rest| rest.strip_suffix(".EFI"))
        .is_some_and(|arch| !arch.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{builtin, from_toml};
    use std::path::Path;

    fn with(lines: &str) -> Result<Board, String> {
        let text =
            format!("id = \"mine\"\ndescription = \"Mine\"\nextends = \"x86_64-uefi\"\n{lines}\n");
        from_toml(&text, Path::new("boards/mine.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_set_is_what_stands_beside_the_program_that_starts() {
        let board = builtin("x86_64-uefi").unwrap();
        let names: Vec<&str> = board.efi_programs().map(|(name, _)| name).collect();
        assert_eq!(names, ["BOOTX64.EFI", "grubx64.efi", "mmx64.efi"]);
        assert_eq!(builtin("rpi4").unwrap().efi_programs().count(), 0);
        let mut own = board.clone();
        own.boot.secure_boot = crate::board::SecureBoot::Own;
        assert!(board.replaced_programs().is_some() && own.replaced_programs().is_none());
        let raised = with("[efi-loader]\nedition = 7").unwrap();
        assert_eq!(raised.efi_loader, Some(EfiLoader { edition: 7 }));
    }

    #[test]
    fn what_could_not_be_replaced_is_refused() {
        let file = |path: &str| format!("[[firmware]]\npath = \"{path}\"\ntext = \"x\"\n");
        for (lines, wanted) in [
            ("[efi-loader]\nedition = 0".to_string(), "1 or more"),
            (file("EFI/BOOT/grubx64.efi"), "firmware starts"),
            (file("EFI/BOOT/BOOT.EFI"), "firmware starts"),
            (
                format!(
                    "{}{}",
                    file("EFI/BOOT/BOOTX64.EFI"),
                    file("EFI/BOOT/a/b.efi")
                ),
                "no directory",
            ),
        ] {
            let said = with(&lines).unwrap_err();
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
    }
}
