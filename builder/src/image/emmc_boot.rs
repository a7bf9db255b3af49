//! What stands in the boot partitions of an eMMC: a file beside the disk image, the same for both of them.

use anyhow::{Context, Result};
use bsp::board::Board;
use bsp::disk::Layout;

use super::sources::Sources;

/// Ending of the file's name.
pub const ENDING: &str = "emmc-boot.bin";

/// The bytes of each boot partition; `None` if the board has nothing there.
pub fn content(board: &Board, layout: &Layout, sources: &Sources<'_>) -> Result<Option<Vec<u8>>> {
    let bytes = usize::try_from(layout.emmc_boot_bytes()).context("sizing the boot partitions")?;
    if bytes == 0 {
        return Ok(None);
    }
    let mut content = vec![0; bytes];
    for (offset, part) in sources.emmc_boot_areas(board)? {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let place = content.get_mut(start..start.saturating_add(part.len()));
        place
            .with_context(|| {
                format!(
                    "writing {} bytes at byte {offset} of the boot partitions: the layout keeps no place for them there",
                    part.len()
                )
            })?
            .copy_from_slice(&part);
    }
    Ok(Some(content))
}
