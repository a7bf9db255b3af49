//! Room is proven before the first byte: a device that is too full says so and changes nothing.

use std::path::Path;

use anyhow::{Context, Result};
use nix::sys::statvfs::statvfs;

use crate::problem::{Kind, Problem};

/// Kept free beyond the plain need: directories of the new deployment, metadata, somebody else's files.
pub const MARGIN: u64 = 32 << 20;

/// Memory kept free beyond the plain need: for what runs beside.
const MEMORY_MARGIN: u64 = 8 << 20;

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

/// An error that names need and have, unless `need` bytes of memory and the margin can be had. Where the kernel does not
/// say how much that is, nothing is asked.
pub fn require_memory(need: u64, what: &str) -> Result<()> {
    let Ok(text) = std::fs::read_to_string("/proc/meminfo") else {
        return Ok(());
    };
    let need = need.saturating_add(MEMORY_MARGIN);
    match available(&text) {
        Some(have) if have < need => Err(Problem::new(
            Kind::Room,
            format!(
                "{what} needs {} of memory, {} are available",
                people(need),
                people(have)
            ),
        )
        .into()),
        _ => Ok(()),
    }
}

/// `MemAvailable` of `/proc/meminfo` (proc(5)), in bytes.
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
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

    #[test]
    fn memory_is_read_from_the_kernels_table() {
        let table = "MemTotal:        1000 kB\nMemFree:  1 kB\nMemAvailable:     512 kB\n";
        assert_eq!(available(table), Some(512 << 10));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        assert_eq!(available("MemAvailable: much\n"), None);
        require_memory(1, "a test").unwrap();
        let error = require_memory(u64::MAX / 2, "the delta").unwrap_err();
        assert_eq!(crate::problem::kind_of(&error), Kind::Room);
        assert!(format!("{error:#}").contains("of memory"), "{error:#}");
    }
}
