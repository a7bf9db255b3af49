//! Block maps (`.bmap`, version 2.0 of bmap-tools' format): which blocks of an image must be written,
//! with a SHA-256 for each range.

mod read;

use std::fmt::Write as _;
use std::fs::File;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

pub use read::{parse, About, BlockMap, Mapped};

use super::ranges::Ranges;

/// Block size of the maps, bytes.
const BLOCK: u64 = 4096;

/// The map of `image`, whose meaningful bytes stand in `mapped`. All else must be taken as undefined.
/// `about` goes into a comment: what the image is an image of, so that nobody writes it for another board.
pub(crate) fn describe(image: &File, mapped: &Ranges, about: Option<&About>) -> Result<String> {
    let size = image.metadata().context("measuring the image")?.len();
    let blocks = mapped.blocks(BLOCK);
    let mut ranges = String::new();
    for range in blocks.iter() {
        let sum = hash(image, range.start, range.end.min(size))?;
        let (first, last) = (range.start / BLOCK, range.end / BLOCK - 1);
        let _ = writeln!(ranges, "    <Range chksum=\"{sum}\">{first}-{last}</Range>");
    }
    let comment = about.map_or_else(String::new, |about| format!("  {}\n", about.comment()));
    let text = |own_sum: &str| {
        format!(
            "<?xml version=\"1.0\" ?>\n<bmap version=\"2.0\">\n{comment}  \
             <ImageSize>{size}</ImageSize>\n  \
             <BlockSize>{BLOCK}</BlockSize>\n  \
             <BlocksCount>{}</BlocksCount>\n  \
             <MappedBlocksCount>{}</MappedBlocksCount>\n  \
             <ChecksumType>sha256</ChecksumType>\n  \
             <BmapFileChecksum>{own_sum}</BmapFileChecksum>\n  \
             <BlockMap>\n{ranges}  </BlockMap>\n</bmap>\n",
            size.div_ceil(BLOCK),
            blocks.bytes() / BLOCK,
        )
    };
    // The file's own checksum is that of the file with zeros in its place.
    let own_sum = hex::encode(Sha256::digest(text(&"0".repeat(64))));
    Ok(text(&own_sum))
}

fn hash(image: &File, start: u64, end: u64) -> Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut at = start;
    while at < end {
        let count = usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        image
            .read_exact_at(&mut buffer[..count], at)
            .with_context(|| format!("reading the image at byte {at}"))?;
        hash.update(&buffer[..count]);
        at += count as u64;
    }
    Ok(hex::encode(hash.finalize()))
}
