//! Where the firmware partition is, in the words of firmware's list.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::{Context, Result};

use super::boot_option::{guid, Partition};
use crate::boot_place;
use crate::paths::Paths;

/// The firmware partition as the kernel knows it: sysfs counts in 512 bytes, firmware in the disk's blocks.
pub fn partition(paths: &Paths, link: &Path, uuid: &str) -> Result<Partition> {
    let disk = boot_place::whole_disk(paths, link)?;
    let device = std::fs::canonicalize(link)
        .with_context(|| format!("looking for the partition {}", link.display()))?;
    let number = |name: Option<&OsStr>, file: &str| {
        let dir = paths.at("sys/class/block").join(name.unwrap_or_default());
        let file = dir.join(file);
        let text = std::fs::read_to_string(&file).ok();
        let number = text.and_then(|text| text.trim().parse::<u64>().ok());
        number.with_context(|| format!("reading a number from {}", file.display()))
    };
    let block = number(disk.file_name(), "queue/logical_block_size")?;
    let per_block = (block / 512).max(1);
    let own = |file: &str| number(device.file_name(), file);
    Ok(Partition {
        number: u32::try_from(own("partition")?).context("the partition's number")?,
        start: own("start")? / per_block,
        blocks: own("size")? / per_block,
        guid: guid(uuid).with_context(|| {
            format!("\"{uuid}\" is no identity of a partition in a GUID partition table")
        })?,
    })
}
