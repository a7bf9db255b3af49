//! The programs that UEFI firmware starts, as devices that can replace them keep them.

use anyhow::{ensure, Context, Result};
use bsp::board::{Board, Role};
use bsp::disk::Layout;
use bsp::efi::{EfiSet, DIRS, RECORD};

use super::sources::Sources;

/// What a FAT file system needs for itself, generously: tables, directories, ends of clusters.
const OVERHEAD: u64 = 2 << 20;

impl Sources<'_> {
    /// The set of the board's UEFI programs and the content of each, in the set's order; `None` if devices do not
    /// replace them.
    pub fn efi_set(&self, board: &Board) -> Result<Option<(EfiSet, Vec<Vec<u8>>)>> {
        let Some(loader) = board.replaced_programs() else {
            return Ok(None);
        };
        let mut files = Vec::new();
        for (name, file) in board.efi_programs() {
            let source = file.source().map_err(anyhow::Error::msg)?;
            let content = self
                .read(source)
                .with_context(|| format!("reading {} for the devices' updates", file.path))?;
            files.push((name, content));
        }
        files.sort_by(|a, b| a.0.cmp(b.0));
        let named = files
            .iter()
            .map(|(name, content)| (*name, content.as_slice()));
        let set = EfiSet::of(loader.edition, named);
        set.check()
            .map_err(anyhow::Error::msg)
            .context("making the set of programs in EFI/BOOT")?;
        Ok(Some((
            set,
            files.into_iter().map(|(_, content)| content).collect(),
        )))
    }
}

/// The records on the firmware partition: what `EFI/BOOT` holds, and that the other two places are empty. The
/// directories are there from the beginning: so an update on a device makes none.
pub fn records(
    board: &Board,
    layout: &Layout,
    sources: &Sources<'_>,
) -> Result<Vec<(String, Vec<u8>)>> {
    let Some((set, _)) = sources.efi_set(board)? else {
        return Ok(Vec::new());
    };
    let firmware = layout
        .partition(Role::Firmware)
        .context("making room for two more copies of the programs in EFI/BOOT: the board has no firmware partition")?;
    let bytes: u64 = set.files.iter().map(|file| file.size).sum();
    let wanted = bytes.saturating_mul(DIRS.len() as u64) + OVERHEAD;
    ensure!(
        wanted <= firmware.size,
        "the partition \"{}\" has {} bytes; the programs in EFI/BOOT have {bytes}, and the two more copies with which devices replace them would need {wanted} in all: make it larger, or take efi-loader out of the board file",
        firmware.label,
        firmware.size
    );
    let empty = EfiSet::default();
    let mut files = Vec::new();
    for (dir, set) in DIRS.iter().zip([&set, &empty, &empty]) {
        files.push((format!("{dir}/{RECORD}"), set.render().into_bytes()));
    }
    Ok(files)
}
