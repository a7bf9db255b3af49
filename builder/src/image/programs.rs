//! Programs of the product's own suite, run from unpacked packages through their own dynamic loader: what they
//! write does not depend on this machine's versions.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use crate::command::Command;

/// Where Debian's libc packages keep the dynamic loader.
const LOADERS: [&str; 4] = [
    "usr/lib64/ld-linux-x86-64.so.2",
    "usr/lib/ld-linux-aarch64.so.1",
    "usr/lib64/ld64.so.2",
    "usr/lib/ld-linux-armhf.so.3",
];

/// Unpacked packages with programs, and all that those need.
#[derive(Debug, Clone)]
pub struct Programs {
    dirs: Vec<PathBuf>,
    loader: PathBuf,
    libraries: OsString,
}

impl Programs {
    /// `dirs` are the unpacked packages.
    pub fn from_unpacked(dirs: &[PathBuf]) -> Result<Self> {
        Ok(Self {
            dirs: dirs.to_vec(),
            loader: find(dirs, &LOADERS)?,
            libraries: library_path(dirs)?,
        })
    }

    /// The first of the packages' files that has one of these paths.
    pub fn find(&self, paths: &[&str]) -> Result<PathBuf> {
        find(&self.dirs, paths)
    }

    /// A command that runs `program`, a file of the packages.
    pub fn command(&self, program: &Path) -> Command {
        Command::new(&self.loader, "libc6")
            .arg("--library-path")
            .arg(&self.libraries)
            .arg(program)
    }
}

fn find(dirs: &[PathBuf], paths: &[&str]) -> Result<PathBuf> {
    let candidates = dirs
        .iter()
        .flat_map(|dir| paths.iter().map(move |path| dir.join(path)));
    let mut candidates = candidates.filter(|path| path.exists());
    candidates.next().with_context(|| {
        format!(
            "looking for {} in the unpacked tools: not found; run `builder update-lock` to lock the tools again",
            paths.join(" or ")
        )
    })
}

/// All `usr/lib/<triplet>` directories of the packages, joined by colons.
fn library_path(dirs: &[PathBuf]) -> Result<OsString> {
    let mut path = OsString::new();
    for dir in dirs {
        let lib = dir.join("usr/lib");
        if !lib.is_dir() {
            continue;
        }
        let entries = fs::read_dir(&lib).with_context(|| format!("reading {}", lib.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("reading {}", lib.display()))?;
            if entry.file_name().to_string_lossy().contains("-linux-gnu") {
                if !path.is_empty() {
                    path.push(":");
                }
                path.push(entry.path());
            }
        }
    }
    if path.is_empty() {
        bail!("looking for the libraries of the tools: the unpacked packages have no usr/lib/<triplet>");
    }
    Ok(path)
}
