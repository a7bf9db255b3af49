//! Image formats, each made from the raw image.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use anyhow::{Context, Result};
use liblzma::stream::{Check, MtStreamBuilder};
use liblzma::write::XzEncoder;

use super::mapped::MappedImage;
use super::ranges::Ranges;
use crate::command::Command;

/// An image format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Format {
    /// The bytes of the disk, with holes.
    Raw,
    /// Raw, compressed by Zstandard.
    RawZst,
    /// Raw, compressed by xz: about a sixth smaller, some twenty times slower.
    RawXz,
    /// For QEMU.
    Qcow2,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 4] = [Self::Raw, Self::RawZst, Self::RawXz, Self::Qcow2];

    /// Its name, which is the ending of the file name too.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::RawZst => "raw.zst",
            Self::RawXz => "raw.xz",
            Self::Qcow2 => "qcow2",
        }
    }

    /// Writes the raw image `from`, meaningful where `mapped` and zero elsewhere, as the new file `to`.
    pub(super) fn convert(self, from: &Path, mapped: &Ranges, to: &Path) -> Result<()> {
        let image = || MappedImage::open(from, mapped);
        let result = match self {
            Self::Raw => std::fs::rename(from, to).context("renaming"),
            Self::RawZst => image().and_then(|image| zstd(image, to)),
            Self::RawXz => image().and_then(|image| xz(image, to)),
            Self::Qcow2 => qcow2(from, to),
        };
        result.with_context(|| format!("writing {}", to.display()))
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.ending())
    }
}

impl std::str::FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|format| format.ending() == text);
        found.ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|format| format.ending()).collect();
            format!(
                "image format \"{text}\" is unknown; try {}",
                known.join(", ")
            )
        })
    }
}

impl serde::Serialize for Format {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Format {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

fn threads() -> u32 {
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(count).unwrap_or(1)
}

/// The bytes do not depend on the number of threads (as long as threads are used at all).
fn zstd(image: MappedImage, to: &Path) -> Result<()> {
    let mut encoder = zstd::Encoder::new(create(to)?, 9)?;
    encoder.multithread(threads())?;
    encoder.include_checksum(true)?;
    encoder.set_pledged_src_size(Some(image.size()))?;
    copy(image, &mut encoder)?;
    encoder.finish()?.flush().context("flushing")
}

/// Blocks of fixed size: the bytes do not depend on the number of threads.
fn xz(image: MappedImage, to: &Path) -> Result<()> {
    let stream = MtStreamBuilder::new()
        .preset(6)
        .threads(threads())
        .block_size(24 << 20)
        .check(Check::Crc64)
        .encoder()
        .context("starting the xz encoder")?;
    let mut encoder = XzEncoder::new_stream(create(to)?, stream);
    copy(image, &mut encoder)?;
    encoder.finish()?.flush().context("flushing")
}

/// One request at a time, in order: otherwise the clusters come in the order of the disk's answers.
fn qcow2(from: &Path, to: &Path) -> Result<()> {
    Command::new("qemu-img", "qemu-utils")
        .args(["convert", "-m", "1", "-f", "raw", "-O", "qcow2"])
        .arg(from)
        .arg(to)
        .run()
}

fn create(path: &Path) -> Result<BufWriter<File>> {
    let file = File::create_new(path).context("creating the file")?;
    Ok(BufWriter::with_capacity(1 << 20, file))
}

fn copy(mut from: impl Read, to: &mut impl Write) -> Result<()> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count]).context("compressing")?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("reading the raw image"),
        }
    }
}
