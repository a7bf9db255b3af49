//! How a boot loader outside every partition may be replaced on a device: its edition, its places, and the one
//! write that switches between them.

use serde::{Deserialize, Serialize};

use super::{Board, RawArea, Size};

/// Boot partitions of an eMMC have a multiple of this many bytes: `BOOT_SIZE_MULT` of the extended CSD counts in
/// it (JEDEC JESD84-B51, 7.4.45).
pub const EMMC_BOOT_UNIT: u64 = 128 * 1024;
/// The largest boot partition: `BOOT_SIZE_MULT` has eight bits.
pub const EMMC_BOOT_MAX: u64 = 255 * EMMC_BOOT_UNIT;
/// Bytes at the end of every copy of a boot loader that can be replaced: which edition it is, and its first
/// sector once more (see `crate::loader`).
pub const RECORD_BYTES: u64 = 1024;

/// Which memory a raw area is in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Medium {
    /// The disk itself; on an eMMC its user area.
    #[default]
    Disk,
    /// The two boot partitions of an eMMC (`/dev/mmcblkNboot0` and `…boot1`), in the same place of each.
    EmmcBoot,
}

impl Medium {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The safe ways to replace a boot loader. In each, the old one stays whole until one write makes the machine take
/// the new one, and stays kept afterwards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "host", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum UpdateWay {
    /// There is no safe way: devices refuse.
    #[default]
    None,
    /// Two copies on the disk. Whoever reads them takes the first that has its magic in its first sector, so
    /// that writing or clearing that one sector switches.
    TwoPlaces,
    /// One copy in each boot partition of an eMMC; the switch is `PARTITION_CONFIG` of the extended CSD
    /// (JESD84-B51, 7.4.69).
    EmmcBoot,
}

impl UpdateWay {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The word for it in board files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::TwoPlaces => "two-places",
            Self::EmmcBoot => "emmc-boot",
        }
    }
}

/// Where the copies of a raw area stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Copies {
    /// First byte of each: on the disk, or in its boot partition.
    pub offsets: [u64; 2],
    /// Bytes that each has for itself, [`RECORD_BYTES`] included.
    pub slot: u64,
}

impl RawArea {
    /// Where its copies stand, if it can be replaced.
    pub fn copies(&self) -> Option<Copies> {
        let (offset, size) = (self.offset.0, self.size.0);
        match self.update {
            UpdateWay::None => None,
            UpdateWay::EmmcBoot => Some(Copies {
                offsets: [offset, offset],
                slot: size,
            }),
            UpdateWay::TwoPlaces => {
                let spare = self.spare_offset?.0;
                let first = spare.checked_sub(offset)?;
                let second = offset.checked_add(size)?.checked_sub(spare)?;
                Some(Copies {
                    offsets: [offset, spare],
                    slot: first.min(second),
                })
            }
        }
    }

    /// The most that its file may have.
    pub fn room(&self) -> Size {
        let copies = self.copies();
        Size(copies.map_or(self.size.0, |copies| {
            copies.slot.saturating_sub(RECORD_BYTES)
        }))
    }
}

pub(super) fn check(board: &Board) -> Result<(), String> {
    for area in &board.disk.raw {
        check_area(area).map_err(|problem| format!("raw area \"{}\": {problem}", area.name))?;
    }
    let in_boot = |area: &&RawArea| area.place == Medium::EmmcBoot;
    let areas: Vec<&RawArea> = board.disk.raw.iter().filter(in_boot).collect();
    match areas.iter().find(|area| area.update == UpdateWay::EmmcBoot) {
        Some(area) if areas.len() > 1 => Err(format!(
            "raw area \"{}\" has update = \"emmc-boot\", but there are {} raw areas in the boot partitions: one switch is for one file",
            area.name,
            areas.len()
        )),
        _ => Ok(()),
    }
}

fn check_area(area: &RawArea) -> Result<(), String> {
    if area.spare_offset.is_some() != (area.update == UpdateWay::TwoPlaces) {
        return Err("spare-offset goes with update = \"two-places\", and that with it".into());
    }
    if area.update != UpdateWay::None && area.edition == 0 {
        return Err(format!(
            "update = \"{}\" needs an edition: a number that rises with every content that devices shall take over, from 1 on",
            area.update.as_str()
        ));
    }
    if area.place == Medium::EmmcBoot {
        check_boot_partition(area)?;
    }
    match area.update {
        UpdateWay::None => Ok(()),
        UpdateWay::TwoPlaces => check_two_places(area),
        UpdateWay::EmmcBoot if area.place != Medium::EmmcBoot => {
            Err("update = \"emmc-boot\" needs place = \"emmc-boot\"".into())
        }
        UpdateWay::EmmcBoot => check_room(area),
    }
}

fn check_boot_partition(area: &RawArea) -> Result<(), String> {
    let end = area.offset.0.checked_add(area.size.0);
    let Some(end) = end.filter(|end| *end <= EMMC_BOOT_MAX) else {
        return Err(format!(
            "it ends beyond the largest boot partition that an eMMC can have ({})",
            Size(EMMC_BOOT_MAX)
        ));
    };
    if end % EMMC_BOOT_UNIT != 0 {
        return Err(format!(
            "in a boot partition of an eMMC it must end at a multiple of 128KiB, in which those are measured; it ends at byte {end}"
        ));
    }
    Ok(())
}

fn check_two_places(area: &RawArea) -> Result<(), String> {
    if area.place != Medium::Disk {
        return Err("update = \"two-places\" is for the disk itself; boot partitions of an eMMC have update = \"emmc-boot\"".into());
    }
    let spare = area.spare_offset.unwrap_or(area.offset).0;
    let end = area.offset.0.saturating_add(area.size.0);
    if spare % 512 != 0 || spare <= area.offset.0 || spare >= end {
        return Err(format!(
            "spare-offset {} must be a multiple of 512 within the area (bytes {} to {end}), behind its beginning",
            Size(spare),
            area.offset.0
        ));
    }
    let last = area.magic.as_ref().and_then(|magic| {
        let bytes = u64::try_from(magic.bytes()?.len()).ok()?;
        magic.offset.checked_add(bytes)
    });
    if last.is_none_or(|last| last > 512) {
        return Err(
            "update = \"two-places\" needs the magic by which a copy is taken, within its first 512 bytes: one write of them switches"
                .into(),
        );
    }
    check_room(area)
}

fn check_room(area: &RawArea) -> Result<(), String> {
    // A sector that switches, one behind it, and the record.
    match area.copies() {
        Some(copies) if copies.slot >= 1024 + RECORD_BYTES => Ok(()),
        _ => Err("its copies have less than 2KiB each".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::from_toml;
    use std::path::Path;

    /// A board with one raw area of its own; `lines` are added to it.
    fn with(lines: &str) -> Result<Board, String> {
        let text = format!(
            "id = \"mine\"\ndescription = \"Mine\"\nextends = \"firefly-rk3399\"\n[[disk.raw]]\nname = \"spl\"\nuser-file = \"spl\"\n{lines}\n"
        );
        from_toml(&text, Path::new("boards/mine.toml")).map_err(|error| error.to_string())
    }

    const TWO: &str = "offset = \"32KiB\"\nsize = \"3MiB\"\nedition = 3\nupdate = \"two-places\"\nspare-offset = \"1056KiB\"\nmagic = { hex = \"3b8cdcfc\" }";
    const EMMC: &str = "offset = \"0\"\nsize = \"4MiB\"\nplace = \"emmc-boot\"\nedition = 1\nupdate = \"emmc-boot\"";

    #[test]
    fn both_ways_know_their_places() {
        let two = with(TWO).unwrap();
        let area = &two.disk.raw[0];
        let copies = area.copies().unwrap();
        assert_eq!(copies.offsets, [32 << 10, 1056 << 10]);
        assert_eq!(copies.slot, 1 << 20);
        assert_eq!(area.room().0, (1 << 20) - RECORD_BYTES);
        let emmc = with(EMMC).unwrap();
        let copies = emmc.disk.raw[0].copies().unwrap();
        assert_eq!((copies.offsets, copies.slot), ([0, 0], 4 << 20));
        let none = with("offset = \"32KiB\"\nsize = \"3MiB\"\nedition = 3").unwrap();
        assert_eq!(none.disk.raw[0].copies(), None);
        assert_eq!(none.disk.raw[0].room().0, 3 << 20);
    }

    #[test]
    fn what_would_not_be_safe_is_refused() {
        let cases = [
            (TWO.replace("edition = 3\n", ""), "needs an edition"),
            (TWO.replace("spare-offset = \"1056KiB\"\n", ""), "goes with update"),
            (TWO.replace("1056KiB", "32KiB"), "within the area (bytes 32768 to"),
            (TWO.replace("1056KiB", "8MiB"), "within the area"),
            (TWO.replace("1056KiB", "1048700"), "multiple of 512"),
            (TWO.replace("1056KiB", "33KiB"), "less than 2KiB"),
            (TWO.replace("magic = { hex = \"3b8cdcfc\" }", ""), "needs the magic"),
            (TWO.replace("{ hex", "{ offset = 510, hex"), "first 512 bytes"),
            (format!("place = \"emmc-boot\"\n{TWO}").replace("3MiB", "3040KiB"), "is for the disk itself"),
            (EMMC.replace("place = \"emmc-boot\"\n", ""), "needs place"),
            (EMMC.replace("4MiB", "4000KiB"), "multiple of 128KiB"),
            (EMMC.replace("4MiB", "32MiB"), "beyond the largest boot partition"),
            (
                format!("{EMMC}\n[[disk.raw]]\nname = \"second\"\nuser-file = \"x\"\noffset = \"4MiB\"\nsize = \"1MiB\"\nplace = \"emmc-boot\""),
                "one switch is for one file",
            ),
        ];
        for (lines, wanted) in cases {
            let said = with(&lines).unwrap_err();
            assert!(said.contains(wanted), "{wanted}: {said}\n{lines}");
        }
    }
}
