//! Images to write: found by what is in them, never by their name, and read through once before the first
//! byte is written, so that a truncated or altered one is refused while nothing is lost yet.

mod feed;
pub mod sides;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use sha2::{Digest, Sha256};

use super::buffer::{Chunk, Stock};
use super::target::BOOT_AREA;
use crate::image::bmap::{About, Mapped};
use feed::Feed;

/// Bytes handled at once.
pub const CHUNK: usize = 4 << 20;

/// How an image is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// The bytes of the disk.
    Raw,
    /// Zstandard.
    Zstd,
    /// xz.
    Xz,
    /// QEMU's format, version 2 or 3.
    Qcow2,
}

impl Packing {
    /// By the first bytes of a file.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A skippable frame of Zstandard.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [b'Q', b'F', b'I', 0xfb, ..] => Self::Qcow2,
            _ => Self::Raw,
        }
    }
}

/// An image that has been read through and found whole.
#[derive(Debug)]
pub struct Image {
    /// Where it is, for people.
    pub name: String,
    /// Size of the disk in it, bytes.
    pub size: u64,
    /// What must be written; all of it if there is no map.
    pub ranges: Vec<Mapped>,
    /// Whether a block map came with it.
    pub mapped: bool,
    /// What it is an image of, if its map says so.
    pub about: Option<About>,
    /// Who vouches for it.
    pub trust: Trust,
    /// The first MiB (shorter if the image is), as it will be written; zero where nothing is mapped.
    pub head: Vec<u8>,
    path: PathBuf,
    packing: Packing,
    /// Keeps a converted image until it is written.
    _converted: Option<tempfile::TempPath>,
}

/// Who vouches for an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// Nobody.
    Nothing,
    /// A checksum file beside it, which an attacker could have changed too.
    Checksums,
    /// A signature by one of the keys given.
    Signature,
}

/// What becomes of the rest after a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// More, please.
    On,
    /// Enough.
    Stop,
}

impl Image {
    /// Opens an image file and reads it through. `keys` are base64 ed25519 public keys that may sign
    /// `SHA256SUMS`.
    pub fn open(path: &Path, keys: &[String]) -> Result<Self> {
        Self::prepare(path, keys).with_context(|| format!("reading the image {}", path.display()))
    }

    fn prepare(path: &Path, keys: &[String]) -> Result<Self> {
        let mut file = File::open(path)?;
        ensure!(file.metadata()?.is_file(), "it is not a file");
        let mut magic = [0; 6];
        let got = file.read(&mut magic)?;
        ensure!(got > 0, "it is empty");
        let sides = sides::Sides::find(path, keys)?;
        let mut packing = Packing::of(&magic[..got]);
        let mut converted = None;
        let mut source = path.to_path_buf();
        if packing == Packing::Qcow2 {
            let raw = feed::convert(path)?;
            source = raw.to_path_buf();
            converted = Some(raw);
            packing = Packing::Raw;
        }
        let mut image = Self {
            name: path.display().to_string(),
            size: 0,
            ranges: Vec::new(),
            mapped: sides.map.is_some(),
            about: None,
            trust: sides.trust(),
            head: Vec::new(),
            path: source,
            packing,
            _converted: converted,
        };
        match sides.map {
            Some(map) => {
                image.size = map.image_size;
                image.ranges = map.ranges;
                image.about = map.about;
                image.check_size()?;
            }
            None => {
                image.size = image.feed()?.measure()?;
                image.ranges = vec![Mapped {
                    bytes: 0..image.size,
                    sha256: None,
                }];
            }
        }
        ensure!(
            image.size > 0 && image.size % 512 == 0,
            "{} bytes make no disk: the size is not a multiple of 512",
            image.size
        );
        image.read_through()?;
        Ok(image)
    }

    /// Bytes that must be written.
    pub fn mapped_bytes(&self) -> u64 {
        let lengths = self.ranges.iter().map(|r| r.bytes.end - r.bytes.start);
        lengths.sum()
    }

    fn feed(&self) -> Result<Feed> {
        Feed::open(&self.path, self.packing)
    }

    fn check_size(&self) -> Result<()> {
        if self.packing == Packing::Raw {
            let is = std::fs::metadata(&self.path)?.len();
            ensure!(
                is == self.size,
                "it has {is} bytes, but its block map was made for {}; it is truncated, or the map is another image's",
                self.size
            );
        }
        Ok(())
    }

    /// Checks every range, and that the file goes on to the end of the disk.
    fn read_through(&mut self) -> Result<()> {
        let stock = Stock::new(2, CHUNK);
        let boot_area = usize::try_from(BOOT_AREA.min(self.size)).unwrap_or_default();
        let mut head = vec![0; boot_area];
        let mut feed = self.feed()?;
        self.play_from(&mut feed, &stock, true, &mut |chunk| {
            if let Some(part) = usize::try_from(chunk.at)
                .ok()
                .and_then(|at| head.get_mut(at..at + chunk.length))
            {
                part.copy_from_slice(chunk.data());
            }
            Flow::On
        })?;
        let is = feed.measure()?;
        ensure!(
            is == self.size,
            "the disk in it has {is} bytes, but should have {}; the file is truncated or not what its block map describes",
            self.size
        );
        self.head = head;
        Ok(())
    }

    /// Hands out all that must be written, in order, in chunks that never cross the end of the boot area.
    /// With `check` every range is compared with its checksum; a wrong one is an error, after its bytes
    /// were handed out.
    pub fn play(
        &self,
        stock: &Stock,
        check: bool,
        each: &mut dyn FnMut(Chunk) -> Flow,
    ) -> Result<()> {
        let mut feed = self.feed()?;
        self.play_from(&mut feed, stock, check, each)
            .with_context(|| format!("reading the image {}", self.name))
    }

    fn play_from(
        &self,
        feed: &mut Feed,
        stock: &Stock,
        check: bool,
        each: &mut dyn FnMut(Chunk) -> Flow,
    ) -> Result<()> {
        for range in &self.ranges {
            let mut hash = (check && range.sha256.is_some()).then(Sha256::new);
            let mut at = range.bytes.start;
            while at < range.bytes.end {
                let mut end = range.bytes.end.min(at + CHUNK as u64);
                if at < BOOT_AREA {
                    end = end.min(BOOT_AREA);
                }
                let length = usize::try_from(end - at).context("a chunk beyond memory")?;
                let chunk = stock.chunk(at, length, |bytes| feed.fill(at, bytes))?;
                if let Some(hash) = &mut hash {
                    hash.update(chunk.data());
                }
                if each(chunk) == Flow::Stop {
                    return Ok(());
                }
                at = end;
            }
            if let (Some(hash), Some(wanted)) = (hash, range.sha256) {
                if hash.finalize()[..] != wanted {
                    bail!(
                        "bytes {}–{} do not have the checksum of the block map: the image was altered or damaged",
                        range.bytes.start,
                        range.bytes.end
                    );
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "ranges are meant")]
pub(crate) mod tests;
