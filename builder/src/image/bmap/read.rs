//! Reading block maps: ours, and those of `bmaptool create` (format 2.x with SHA-256).

use std::ops::Range;

use anyhow::{bail, ensure, Context, Result};
use quick_xml::events::Event;
use quick_xml::Reader;
use sha2::{Digest, Sha256};

/// A block map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockMap {
    /// Size of the image, bytes.
    pub image_size: u64,
    /// What must be written, ascending and disjoint.
    pub ranges: Vec<Mapped>,
    /// What the image says of itself; maps of other programs have none.
    pub about: Option<About>,
}

/// A range that must be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// Bytes of the image.
    pub bytes: Range<u64>,
    /// SHA-256 of them; `None` in images without a map.
    pub sha256: Option<[u8; 32]>,
}

/// What an image is an image of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Product name.
    pub product: String,
    /// Product version.
    pub version: String,
    /// Board id.
    pub board: String,
}

impl About {
    /// The comment in a map that says so.
    pub(super) fn comment(&self) -> String {
        let text = format!(
            "image: product={} version={} board={}",
            self.product, self.version, self.board
        );
        // Two hyphens may not stand in a comment.
        format!("<!-- {} -->", text.replace("--", "-%2d"))
    }

    fn parse(comment: &str) -> Option<Self> {
        let text = comment.trim().strip_prefix("image:")?.replace("%2d", "-");
        let value = |name: &str| {
            let mut words = text.split_ascii_whitespace();
            let found = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            found.map(str::to_string)
        };
        Some(Self {
            product: value("product")?,
            version: value("version")?,
            board: value("board")?,
        })
    }
}

/// Larger maps are something else.
const LARGEST: usize = 64 << 20;

#[derive(Default)]
struct Fields {
    image_size: Option<u64>,
    block_size: Option<u64>,
    mapped: Option<u64>,
    checksum_type: String,
    own_sum: String,
    version: String,
    blocks: Vec<(u64, u64, String)>,
    about: Option<About>,
}

/// Reads a map and checks its own checksum and every number in it.
pub fn parse(text: &str) -> Result<BlockMap> {
    ensure!(text.len() <= LARGEST, "the file is far too large");
    let fields = collect(text)?;
    ensure!(
        fields.version.starts_with("2."),
        "version \"{}\" of the format is not understood; make the map with bmap-tools 3 or newer",
        fields.version
    );
    ensure!(
        fields.checksum_type == "sha256",
        "checksums of type \"{}\" are not understood; wanted is sha256",
        fields.checksum_type
    );
    check_own_sum(text, &fields.own_sum)?;
    let image_size = fields.image_size.context("ImageSize is missing")?;
    let block = fields.block_size.context("BlockSize is missing")?;
    ensure!(
        block.is_power_of_two() && (512..=1 << 20).contains(&block),
        "a block size of {block} bytes makes no sense"
    );
    let mut ranges: Vec<Mapped> = Vec::with_capacity(fields.blocks.len());
    let mut total = 0u64;
    for (first, last, sum) in &fields.blocks {
        let start = first.checked_mul(block);
        let end = last.checked_add(1).and_then(|n| n.checked_mul(block));
        let (Some(start), Some(end)) = (start, end) else {
            bail!("range {first}-{last} is beyond every disk");
        };
        let before = ranges.last().map_or(0, |range| range.bytes.end);
        ensure!(
            start < end && start >= before && start < image_size,
            "range {first}-{last} is out of order or outside the image"
        );
        total = total.saturating_add(last - first + 1);
        let mut sha256 = [0; 32];
        hex::decode_to_slice(sum, &mut sha256)
            .with_context(|| format!("the checksum of range {first}-{last} is none"))?;
        ranges.push(Mapped {
            bytes: start..end.min(image_size),
            sha256: Some(sha256),
        });
    }
    ensure!(
        fields.mapped.is_none_or(|mapped| mapped == total),
        "it has {total} mapped blocks but says {}",
        fields.mapped.unwrap_or_default()
    );
    Ok(BlockMap {
        image_size,
        ranges,
        about: fields.about,
    })
}

/// The file's own checksum is that of the file with zeros in its place.
fn check_own_sum(text: &str, sum: &str) -> Result<()> {
    ensure!(
        sum.len() == 64 && text.matches(sum).count() == 1,
        "it has no checksum of its own"
    );
    let blank = text.replace(sum, &"0".repeat(64));
    let is = hex::encode(Sha256::digest(blank));
    ensure!(
        is == sum.to_ascii_lowercase(),
        "its own checksum does not fit: the file was changed or is incomplete"
    );
    Ok(())
}

fn collect(text: &str) -> Result<Fields> {
    let mut reader = Reader::from_str(text);
    let mut fields = Fields::default();
    let mut element = String::new();
    let mut sum = String::new();
    let mut content = String::new();
    loop {
        match reader.read_event().context("it is not well-formed XML")? {
            Event::Start(start) => {
                element = String::from_utf8_lossy(start.name().as_ref()).into_owned();
                content.clear();
                sum.clear();
                for attribute in start.attributes() {
                    let attribute = attribute.context("an attribute is not well-formed")?;
                    let value = String::from_utf8_lossy(&attribute.value).into_owned();
                    match (element.as_str(), attribute.key.as_ref()) {
                        ("bmap", b"version") => fields.version = value,
                        ("Range", b"chksum") => sum = value,
                        _ => {}
                    }
                }
            }
            Event::Text(part) => content += &String::from_utf8_lossy(&part),
            Event::Comment(comment) => {
                let found = About::parse(&String::from_utf8_lossy(&comment));
                fields.about = fields.about.or(found);
            }
            Event::End(_) => {
                fields.take(&element, content.trim(), &sum)?;
                element.clear();
            }
            Event::Eof => return Ok(fields),
            _ => {}
        }
    }
}

impl Fields {
    fn take(&mut self, element: &str, text: &str, sum: &str) -> Result<()> {
        let number = |text: &str| -> Result<u64> {
            let number = text.trim().parse();
            number.with_context(|| format!("{element}: \"{}\" is no number", text.trim()))
        };
        match element {
            "ImageSize" => self.image_size = Some(number(text)?),
            "BlockSize" => self.block_size = Some(number(text)?),
            "MappedBlocksCount" => self.mapped = Some(number(text)?),
            "ChecksumType" => self.checksum_type = text.to_string(),
            "BmapFileChecksum" => self.own_sum = text.to_string(),
            "Range" => {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                self.blocks
                    .push((number(first)?, number(last)?, sum.to_string()));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::ranges::Ranges;
    use super::*;
    use crate::command::Command;
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    fn ours() -> String {
        let file = tempfile::tempfile().unwrap();
        file.set_len(40960).unwrap();
        file.write_all_at(b"something", 8192).unwrap();
        let about = About {
            product: "demo".into(),
            version: "1.0---x".into(),
            board: "rpi4".into(),
        };
        let ranges = Ranges::of(vec![0..512, 8192..8201]);
        super::super::describe(&file, &ranges, Some(&about)).unwrap()
    }

    #[test]
    fn our_own_maps_are_read() {
        let map = parse(&ours()).unwrap();
        assert_eq!(map.image_size, 40960);
        let ranges: Vec<_> = map.ranges.iter().map(|m| m.bytes.clone()).collect();
        assert_eq!(ranges, [0..4096, 8192..12288]);
        let mut block = vec![0; 4096];
        block[..9].copy_from_slice(b"something");
        let sum: [u8; 32] = Sha256::digest(&block).into();
        assert_eq!(map.ranges[1].sha256, Some(sum));
        let about = map.about.unwrap();
        assert_eq!(
            (about.board.as_str(), about.version.as_str()),
            ("rpi4", "1.0---x")
        );
    }

    #[test]
    fn maps_of_bmaptool_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("image");
        let file = File::create(&image).unwrap();
        file.set_len(3 << 20).unwrap();
        file.write_all_at(&[7; 5000], 1 << 20).unwrap();
        file.sync_all().unwrap();
        let text = Command::new("bmaptool", "bmap-tools")
            .arg("create")
            .arg(&image)
            .output()
            .unwrap();
        let map = parse(&String::from_utf8(text).unwrap()).unwrap();
        assert_eq!(map.image_size, 3 << 20);
        let here =
            |m: &Mapped| m.bytes.contains(&(1 << 20)) && m.bytes.contains(&((1 << 20) + 4999));
        assert!(map.ranges.iter().any(here), "{map:?}");
        assert_eq!(map.about, None);
    }

    #[test]
    fn a_changed_map_is_refused() {
        let good = ours();
        let sum = parse(&good).unwrap();
        drop(sum);
        for (from, to, says) in [
            ("2-2", "3-3", "own checksum"),
            ("version=\"2.0\"", "version=\"1.3\"", "version"),
            (">sha256<", ">sha1<", "sha1"),
            ("<BmapFileChecksum>", "<Other>", "well-formed"),
        ] {
            let text = good.replacen(from, to, 1);
            assert_ne!(text, good, "{from}");
            let error = format!("{:#}", parse(&text).unwrap_err());
            assert!(error.contains(says), "{from}: {error}");
        }
        for text in ["", "<bmap>", "not a map", &good[..good.len() / 2]] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
