//! What the last build of a board left: which inputs, which commit, which images. A stamp that cannot
//! be read, or whose results are gone or changed, only costs a build.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::image::{Format, ImageFiles};

const NAME: &str = ".stamp.json";

/// The stamp in `out/<board>/`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    committed: Option<Committed>,
    image: Option<Images>,
}

/// The commit of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Hash of everything that went in.
    pub key: String,
    /// Checksum.
    pub checksum: String,
    /// Kernel version.
    pub kernel_version: String,
}

/// The images made of that commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Images {
    files: ImageFiles,
    /// Every file with what tells that nobody has written to it since.
    marks: Vec<(PathBuf, Mark)>,
}

/// Length and time of change (seconds, nanoseconds) of a file.
type Mark = (u64, i64, i64);

impl Stamp {
    /// The stamp in `dir`; an empty one if there is none that can be read.
    pub fn read(dir: &Path) -> Self {
        fs::read(dir.join(NAME))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// A stamp for a new commit, without images.
    pub fn of(committed: Committed) -> Self {
        Self {
            committed: Some(committed),
            image: None,
        }
    }

    /// The commit that was made from the inputs `key`, if the repository still has it under its ref.
    pub fn committed(&self, key: &str, repo: &Path, reference: &str) -> Option<Committed> {
        let found = self.committed.as_ref().filter(|found| found.key == key)?;
        let (head, tail) = found.checksum.split_at_checked(2)?;
        let object = repo.join("objects").join(head).join(tail);
        let named = fs::read_to_string(repo.join("refs/heads").join(reference)).ok()?;
        let whole = object.with_extension("commit").is_file()
            && object.with_extension("commitmeta").is_file()
            && named.trim() == found.checksum;
        whole.then(|| found.clone())
    }

    /// The images, if all these formats are there and nobody has touched any file.
    pub fn images(&self, formats: &[Format]) -> Option<ImageFiles> {
        let image = self.image.as_ref()?;
        let has = |format: &Format| image.files.images.iter().any(|made| made.format == *format);
        let untouched = |(path, before): &(PathBuf, Mark)| mark(path).ok().as_ref() == Some(before);
        (formats.iter().all(has) && image.marks.iter().all(untouched)).then(|| image.files.clone())
    }

    /// Drops the images from the stamp.
    pub fn forget_images(&mut self, dir: &Path) -> Result<()> {
        self.image = None;
        self.write(dir)
    }

    /// Notes new images.
    pub fn set_images(&mut self, files: &ImageFiles, dir: &Path) -> Result<()> {
        let paths = files.images.iter().map(|image| &image.path);
        let marks = paths
            .chain([&files.bmap, &files.sums])
            .chain(&files.emmc_boot)
            .map(|path| Ok((path.clone(), mark(path)?)))
            .collect::<Result<_>>()?;
        self.image = Some(Images {
            files: files.clone(),
            marks,
        });
        self.write(dir)
    }

    /// Writes the stamp by one rename.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let path = dir.join(NAME);
        let write = || -> Result<()> {
            let mut file = tempfile::NamedTempFile::new_in(dir)?;
            serde_json::to_writer(&mut file, self)?;
            file.persist(&path)?;
            Ok(())
        };
        write().with_context(|| format!("writing {}", path.display()))
    }
}

fn mark(path: &Path) -> Result<Mark> {
    let meta = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?;
    Ok((meta.len(), meta.mtime(), meta.mtime_nsec()))
}
