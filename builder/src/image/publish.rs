//! Results appear whole: made in a scratch directory beside their place, then renamed.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::format::Format;

/// A scratch directory in the directory of results. What a killed build left in it is removed.
pub(super) struct Scratch {
    dir: PathBuf,
    scratch: PathBuf,
}

impl Scratch {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let scratch = dir.join(".making");
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        remove(&scratch)?;
        fs::create_dir(&scratch).with_context(|| format!("creating {}", scratch.display()))?;
        Ok(Self {
            dir: dir.to_path_buf(),
            scratch,
        })
    }

    /// A path for a file that is not ready.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.scratch.join(name)
    }

    /// Moves the finished file `name` to its place.
    pub(super) fn publish(&self, name: &str) -> Result<PathBuf> {
        let to = self.dir.join(name);
        fs::rename(self.path(name), &to).with_context(|| format!("moving to {}", to.display()))?;
        Ok(to)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error)
            .with_context(|| format!("removing {}, left by a killed build", path.display())),
        _ => Ok(()),
    }
}

/// The lines of `SHA256SUMS`, by file name.
pub(super) type Sums = BTreeMap<String, String>;

/// Name of the checksum file.
pub(super) const SUMS: &str = "SHA256SUMS";

/// Removes other formats of the same name that hold another image than the one just built, and returns
/// the sums of those that hold the same one.
pub(super) fn keep_or_remove(dir: &Path, stem: &str, same_image: bool) -> Result<Sums> {
    let listed = read_sums(&dir.join(SUMS));
    let mut kept = Sums::new();
    for format in Format::ALL {
        let name = format!("{stem}.{format}");
        match listed.get(&name) {
            Some(sum) if same_image && dir.join(&name).is_file() => {
                kept.insert(name, sum.clone());
            }
            _ => match fs::remove_file(dir.join(&name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("removing the outdated {name}"))
                }
                _ => {}
            },
        }
    }
    Ok(kept)
}

fn read_sums(path: &Path) -> Sums {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter_map(|line| line.split_once("  "));
    lines
        .map(|(sum, name)| (name.to_string(), sum.to_string()))
        .collect()
}

/// The text of `SHA256SUMS`.
pub(super) fn render(sums: &Sums) -> String {
    sums.iter()
        .map(|(name, sum)| format!("{sum}  {name}\n"))
        .collect()
}
