//! First-boot settings at flash time: checked, rendered, and put on the firmware partition of the target
//! when the image on it is verified. The image itself is never changed.

mod nocloud;

use std::ops::Range;

use anyhow::{Context, Result};
use bsp::disk::{add_file, Window};
use bsp::first_boot;

use super::engine::Finish;
use super::table;
use super::target::Bytes;

pub use nocloud::{allow, read as read_nocloud};

/// Where the firmware file system of the image stands, by its first MiB.
pub fn firmware(head: &[u8]) -> Result<Range<u64>> {
    let table = table::read(head)
        .context("finding the firmware partition: the image has no partition table")?;
    let entry = table
        .firmware()
        .context("finding the firmware partition: the image has none, so it takes no settings")?;
    Ok(entry.bytes())
}

/// Puts `content` on the firmware partition of an image whose first MiB is `head`.
pub fn finish(head: &[u8], content: &[u8]) -> Result<Finish> {
    let place = firmware(head)?;
    let content = content.to_vec();
    Ok(Box::new(move |bytes: &mut Bytes<'_>| {
        let mut window = Window::new(bytes, place);
        add_file(&mut window, first_boot::PATH, &content)
            .with_context(|| format!("adding {} to the firmware partition", first_boot::PATH))
    }))
}

#[cfg(test)]
mod tests;
