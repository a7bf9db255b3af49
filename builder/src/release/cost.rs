//! What an update costs, file by file: for whoever wants the next one smaller.

use std::path::Path;
use std::{fmt, fs};

use anyhow::{Context, Result};
use serde::Serialize;

use super::diff::Side;
use super::table::size;
use super::{compact, contents};
use crate::cache::Cache;

/// Files that the table shows.
const SHOWN: usize = 30;
/// Ends of names of compressed files, of which a delta finds little in the old one.
const COMPRESSED: [&str; 6] = [".gz", ".xz", ".zst", ".bz2", ".lz4", "/vmlinuz"];

/// The compact delta between two commits.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// Bytes of the delta.
    pub bytes: u64,
    /// Bytes of all objects that it makes.
    pub output_bytes: u64,
    /// Bytes on disk that applying it needs besides, for a while.
    pub scratch_bytes: u64,
    /// Bytes of memory that applying it takes.
    pub memory_bytes: u64,
    /// How long that takes.
    pub time: bsp::device::DeltaTime,
    /// Files, the dearest first.
    pub files: Vec<FileCost>,
}

/// A file's share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileCost {
    /// Path in the newer commit.
    pub path: String,
    /// The older file that it is made from.
    pub from: Option<String>,
    /// Bytes of the file.
    pub length: u64,
    /// Bytes of the delta.
    pub cost: u64,
    /// Why it costs that much, where that can be changed.
    pub advice: Option<String>,
}

/// Makes the delta and applies it on trial; writes it to the file `keep`.
pub fn cost(from: &Side, to: &Side, keep: Option<&Path>, cache: &Cache) -> Result<Cost> {
    // One repository must have both: that of the newer one has what it was released after.
    let repo = contents::open(&to.repo)?;
    for side in [from, to] {
        repo.load_commit(&side.commit)
            .with_context(|| format!("looking for {} in {}", side.commit, to.repo.display()))?;
    }
    let proven = compact::between(&to.repo, &from.commit, &to.commit, cache)?;
    if let Some(file) = keep {
        fs::write(file, &proven.made.bytes)
            .with_context(|| format!("writing the delta to {}", file.display()))?;
    }
    let mut files: Vec<FileCost> = proven
        .made
        .files
        .into_iter()
        .map(|file| FileCost {
            advice: advice(&file.path, file.cost, file.length),
            path: file.path,
            from: file.from,
            length: file.length,
            cost: file.cost,
        })
        .collect();
    files.sort_by(|a, b| b.cost.cmp(&a.cost).then_with(|| a.path.cmp(&b.path)));
    Ok(Cost {
        bytes: proven.made.bytes.len() as u64,
        output_bytes: proven.need.output_bytes,
        scratch_bytes: proven.need.scratch_bytes,
        memory_bytes: proven.need.memory_bytes,
        time: bsp::device::DeltaTime::of(proven.need.decisions),
        files,
    })
}

fn advice(path: &str, cost: u64, length: u64) -> Option<String> {
    let compressed = COMPRESSED.iter().any(|end| path.ends_with(end));
    (compressed && cost * 2 > length)
        .then(|| "compressed: stored plain it would cost a fraction".to_string())
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} in {} files, which take {}; a device needs {} of memory and {} of disk besides for it (time: {})",
            size(self.bytes),
            self.files.len(),
            size(self.output_bytes),
            size(self.memory_bytes),
            size(self.scratch_bytes),
            self.time
        )?;
        for file in self.files.iter().take(SHOWN) {
            writeln!(
                f,
                "  {:>9} of {:>9}  {}{}",
                size(file.cost),
                size(file.length),
                file.path,
                file.advice
                    .as_deref()
                    .map_or_else(String::new, |a| format!("  ({a})"))
            )?;
        }
        let rest: u64 = self.files.iter().skip(SHOWN).map(|f| f.cost).sum();
        if rest > 0 {
            writeln!(
                f,
                "  {:>9} for {} more",
                size(rest),
                self.files.len() - SHOWN
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_compressed_and_dear_is_advised_on() {
        assert!(advice("/usr/lib/modules/6/vmlinuz", 900, 1000).is_some());
        assert!(advice("/usr/share/doc/a.gz", 900, 1000).is_some());
        assert!(advice("/usr/share/doc/a.gz", 9, 1000).is_none());
        assert!(advice("/usr/bin/a", 900, 1000).is_none());
    }
}
