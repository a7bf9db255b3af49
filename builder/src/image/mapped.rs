//! A raw image read with its map: what is not mapped is zero and need not be fetched from the file.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use super::ranges::Ranges;

/// Reads an image from its beginning to its end.
pub struct MappedImage {
    file: File,
    size: u64,
    position: u64,
    /// Mapped ranges that end after `position`, the last one first.
    ahead: Vec<Range<u64>>,
}

impl MappedImage {
    /// The image `path`, of which everything outside `mapped` must be zero.
    pub fn open(path: &Path, mapped: &Ranges) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let size = file.metadata().context("measuring the image")?.len();
        let mut ahead: Vec<_> = mapped.iter().collect();
        ahead.reverse();
        Ok(Self {
            file,
            size,
            position: 0,
            ahead,
        })
    }

    /// Size of the image, bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// SHA-256 of all of it, 64 hex digits.
    pub fn sha256(mut self) -> Result<String> {
        let mut hash = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = self.read(&mut buffer).context("reading the image")?;
            if count == 0 {
                return Ok(hex::encode(hash.finalize()));
            }
            hash.update(&buffer[..count]);
        }
    }
}

impl Read for MappedImage {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self
            .ahead
            .last()
            .is_some_and(|next| next.end <= self.position)
        {
            self.ahead.pop();
        }
        let (mapped, end) = match self.ahead.last() {
            Some(next) if next.start <= self.position => (true, next.end),
            Some(next) => (false, next.start),
            None => (false, self.size),
        };
        let left = end.min(self.size).saturating_sub(self.position);
        let count = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let part = &mut buffer[..count];
        if mapped {
            self.file.read_exact_at(part, self.position)?;
        } else {
            part.fill(0);
        }
        self.position += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_what_the_file_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let mut content = vec![0u8; 5000];
        content[10..20].fill(1);
        content[4000..4100].fill(2);
        std::fs::write(&path, &content).unwrap();
        let mapped = Ranges::of(vec![10..20, 3900..4100, 4999..5000]);
        let mut read = Vec::new();
        let mut image = MappedImage::open(&path, &mapped).unwrap();
        image.read_to_end(&mut read).unwrap();
        assert!(read == content);
        let sum = MappedImage::open(&path, &mapped).unwrap().sha256().unwrap();
        assert_eq!(sum, crate::cache::sha256_file(&path).unwrap());
    }
}
