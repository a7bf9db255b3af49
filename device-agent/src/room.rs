//! Room is proven before the first byte: a device that is too full says so and changes nothing.

use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::statvfs::statvfs;

use crate::problem::{Kind, Problem};

/// Kept free beyond the plain need: directories of the new deployment, metadata, somebody else's files.
pub const MARGIN: u64 = 32 << 20;

/// Bytes that may still be written on the file system of `path`.
pub fn free(path: &Path) -> Result<u64> {
    // The path itself may not exist yet; its file system does.
    let existing = path
        .ancestors()
        .find(|p| p.exists())
        .unwrap_or(Path::new("/"));
    let stat =
        statvfs(existing).with_context(|| format!("asking for the room on {}", path.display()))?;
    // The types differ between architectures.
    #[allow(clippy::useless_conversion)]
    let (blocks, size) = (
        u64::from(stat.blocks_available()),
        u64::from(stat.fragment_size()),
    );
    Ok(blocks.saturating_mul(size))
}

/// An error that names need and have, unless `need` bytes and the margin fit.
pub fn require(path: &Path, need: u64, what: &str) -> Result<()> {
    let have = free(path)?;
    let need = need.saturating_add(MARGIN);
    if have >= need {
        return Ok(());
    }
    Err(Problem::new(
        Kind::Room,
        format!(
            "{what} needs {} on {}, {} are free",
            people(need),
            path.display(),
            people(have)
        ),
    )
    .hint("delete what is not needed there; nothing has been changed")
    .into())
}

/// A number of bytes for people.
pub fn people(bytes: u64) -> String {
    match bytes {
        0..=9_999 => format!("{bytes} bytes"),
        10_000..=9_999_999 => format!("{} kB", bytes / 1000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_little_room_is_named_with_need_and_have() {
        let dir = tempfile::tempdir().unwrap();
        require(dir.path(), 1, "a test").unwrap();
        let error = require(&dir.path().join("not/yet"), u64::MAX / 2, "the update").unwrap_err();
        assert_eq!(crate::problem::kind_of(&error), Kind::Room);
        let text = format!("{error:#}");
        assert!(
            text.contains("the update needs") && text.contains("are free"),
            "{text}"
        );
    }
}
