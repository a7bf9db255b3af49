//! One package, unpacked in the cache: for boot-loader files and tools, never for the tree.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::{sha256_file, Cache, Inputs};
use crate::command::Command;

/// Unpacks a `.deb` into the cache and returns the directory; its maintainer scripts do not run.
pub fn unpack(deb: &Path, cache: &Cache) -> Result<PathBuf> {
    // Files in the cache carry their hash as their name.
    let hash = match deb.file_stem().and_then(|stem| stem.to_str()) {
        Some(stem) if stem.len() == 64 && deb.starts_with(cache.root()) => stem.to_string(),
        _ => sha256_file(deb)?,
    };
    let key = Inputs::new("unpack", 1).add(hash).key();
    cache
        .get_or_make("unpacked", &key, |dir| {
            Command::new("dpkg-deb", "dpkg")
                .arg("--extract")
                .arg(deb)
                .arg(dir)
                .run()
        })
        .with_context(|| format!("unpacking {}", deb.display()))
}
