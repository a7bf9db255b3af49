//! What reads GRUB's configuration on a board.

use serde::{Deserialize, Serialize};

use super::check::Checked;
use super::{Backend, Board, Role};
use crate::boot::grub::PETITBOOT_CONFIG;

/// Readers of GRUB's configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Reader {
    /// GRUB itself.
    #[default]
    Grub,
    /// petitboot, the firmware of OpenPOWER machines: it has a parser of its own, which knows less, and looks for
    /// `grub.cfg` at the top of the partition. The root partition must stand before the firmware partition.
    Petitboot,
}

impl Reader {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

pub(super) fn check(board: &Board) -> Checked {
    if board.boot.reader == Reader::Grub {
        return Ok(());
    }
    if board.boot.backend != Backend::Grub || board.boot.core.is_some() {
        return Err("boot.reader = \"petitboot\" is for the backend \"grub\" without boot.core: petitboot reads GRUB's configuration and starts no GRUB".into());
    }
    if board.boot.config != PETITBOOT_CONFIG {
        return Err(format!(
            "boot.config is \"{}\": petitboot finds the boot state only if its configuration is \"{PETITBOOT_CONFIG}\"",
            board.boot.config
        ));
    }
    let partitions = &board.disk.partitions;
    let place = |role| partitions.iter().position(|p| p.role == role);
    if place(Role::Root) > place(Role::Firmware) {
        return Err("with boot.reader = \"petitboot\" the root partition must stand before the firmware partition: petitboot reads partitions in order, and needs the menu on the first when it reads the second".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{builtin, from_toml};

    #[test]
    fn petitboot_is_a_reader_with_conditions() {
        let good = builtin("openpower").unwrap();
        assert_eq!(check(&good), Ok(()));
        let refused = |change: &dyn Fn(&mut Board), want: &str| {
            let mut board = good.clone();
            change(&mut board);
            let text = check(&board).unwrap_err();
            assert!(text.contains(want), "{text}");
        };
        refused(
            &|board| board.boot.config = "grub/grub.cfg".into(),
            "\"grub/grub.cfg\"",
        );
        refused(
            &|board| board.boot.backend = Backend::Uboot,
            "without boot.core",
        );
        refused(
            &|board| board.boot.core = builtin("qemu-pseries").unwrap().boot.core,
            "starts no GRUB",
        );
        refused(
            &|board| board.disk.partitions.swap(0, 1),
            "must stand before",
        );
    }

    #[test]
    fn the_check_is_made_when_a_file_is_read() {
        let text = include_str!("../../../boards/openpower.toml");
        let path = std::path::Path::new("openpower.toml");
        from_toml(text, path).unwrap();
        let changed = text.replacen("config = \"grub.cfg\"", "config = \"x.cfg\"", 1);
        assert_ne!(text, changed);
        let text = from_toml(&changed, path).unwrap_err().to_string();
        assert!(text.contains("boot.config is \"x.cfg\""), "{text}");
    }
}
