//! How far an interrupted write came, for `--resume`. What stands here is only a hint: everything is read
//! back and compared in the end, whoever wrote it.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::device::Device;
use super::source::Image;

/// The note about one image on one device.
#[derive(Debug, Clone)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// The note about `image` on `device`, in the directory `dir`; none for images without checksums, which
    /// cannot be recognised.
    pub fn of(dir: &Path, image: &Image, device: &Device) -> Option<Self> {
        let mut hash = Sha256::new();
        hash.update(image.size.to_le_bytes());
        for range in &image.ranges {
            hash.update(range.bytes.start.to_le_bytes());
            hash.update(range.sha256?);
        }
        let card = [&device.vendor, &device.model, &device.serial];
        for text in card {
            hash.update(text);
            hash.update([0]);
        }
        if device.serial.is_empty() {
            hash.update(&device.name);
        }
        hash.update(device.size.to_le_bytes());
        let key = hex::encode(hash.finalize());
        Some(Self {
            path: dir.join(format!("{key}.resume")),
        })
    }

    /// Everything before this byte was on the medium.
    pub fn position(&self) -> Option<u64> {
        std::fs::read_to_string(&self.path)
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Notes how far it is.
    pub fn note(&self, position: u64) {
        // Without a note nothing can be resumed; that is all.
        if let Some(dir) = self.path.parent() {
            let _ = std::fs::create_dir_all(dir);
        }
        let new = self.path.with_extension("new");
        let _ = std::fs::write(&new, position.to_string())
            .and_then(|()| std::fs::rename(&new, &self.path));
    }

    /// It is done, or begun anew.
    pub fn forget(&self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
