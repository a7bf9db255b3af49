//! What would be written where, worked out and checked before the first byte.

use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::choose::Chosen;
use super::problem::{Kind, Problem};
use super::source::{Image, Trust};
use super::table::{self, Table};
use super::target::BOOT_AREA;

/// The plan for one target.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The target.
    pub chosen: Chosen,
    /// The partition table on it now.
    pub now: Option<Table>,
    /// Bytes that will be written, if nothing stands there already.
    pub bytes: u64,
    /// The first MiB in the end.
    pub boot_area: Vec<u8>,
    /// The first MiB until then.
    pub closed_area: Vec<u8>,
    /// The spare partition table, if it is not the image's.
    pub tail: Option<(u64, Vec<u8>)>,
    /// What stays.
    pub kept: Vec<Range<u64>>,
}

/// What an image must be an image of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Board id.
    pub board: String,
    /// Debian architecture of the board.
    pub arch: String,
    /// Product, where a product's directory says which.
    pub product: Option<String>,
}

/// Refuses an image for another board or product, as far as it tells what it is.
pub fn check_board(image: &Image, expected: &Expected) -> Result<()> {
    let other =
        |text: String| Problem::error(Kind::Image, format!("the image {}: {text}", image.name));
    if let Some(about) = &image.about {
        if about.board != expected.board {
            return Err(other(format!(
                "it is for the board {}, not for {}",
                about.board, expected.board
            )));
        }
        if let Some(product) = expected.product.as_ref().filter(|p| **p != about.product) {
            return Err(other(format!(
                "it is the product {}, not {product}",
                about.product
            )));
        }
    }
    let arch = table::read(&image.head).and_then(|table| table.arch());
    match arch {
        Some(arch) if arch != expected.arch => Err(other(format!(
            "it is for the architecture {arch}; the board {} has {}",
            expected.board, expected.arch
        ))),
        _ => Ok(()),
    }
}

/// Refuses a disk at `path` whose sectors have another size than the image's partition table counts in: nobody would
/// find a partition on it.
pub fn check_sectors(image: &Image, path: &Path, sector: Option<u64>) -> Result<()> {
    let Some((table, sector)) = table::read(&image.head).zip(sector) else {
        return Ok(());
    };
    if table.kind != table::Kind::Gpt || table.sector == sector {
        return Ok(());
    }
    Err(Problem::refused(format!(
        "{} has sectors of {sector} bytes, and the image {} is for disks with sectors of {}; set sector-size = {sector} under [disk] in the board file and build again",
        path.display(),
        image.name,
        table.sector
    )))
}

/// Plans to write `image` to `chosen`, keeping the partitions called `keep`.
pub fn plan(image: &Image, chosen: Chosen, keep: &[String]) -> Result<Plan> {
    let head = head_of(&chosen.path)
        .with_context(|| format!("reading what is on {}", chosen.path.display()));
    let mut plan = Plan {
        now: head.as_ref().ok().and_then(|head| table::read(head)),
        bytes: image.mapped_bytes(),
        boot_area: image.head.clone(),
        closed_area: vec![0; image.head.len()],
        tail: None,
        kept: Vec::new(),
        chosen,
    };
    if keep.is_empty() {
        return Ok(plan);
    }
    let kept = table::keep(&head?, &image.head, keep, plan.chosen.size)
        .map_err(|text| Problem::refused(format!("{}: {text}", plan.chosen.path.display())))?;
    plan.boot_area = kept.boot_area;
    plan.closed_area = kept.closed_area;
    plan.tail = kept.tail;
    plan.kept = kept.ranges;
    let lost: u64 = image
        .ranges
        .iter()
        .flat_map(|range| plan.kept.iter().map(|kept| overlap(&range.bytes, kept)))
        .sum();
    plan.bytes -= lost.min(plan.bytes);
    Ok(plan)
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> u64 {
    a.end.min(b.end).saturating_sub(a.start.max(b.start))
}

fn head_of(path: &Path) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(BOOT_AREA).read_to_end(&mut head)?;
    Ok(head)
}

/// A partition of the target, as the plan shows it.
#[derive(Debug, Serialize)]
struct Present<'a> {
    number: u32,
    label: &'a str,
    kind: &'a str,
    bytes: u64,
    kept: bool,
}

impl Plan {
    /// For programs.
    pub fn json(&self, image: &Image) -> serde_json::Value {
        let entries = self.now.iter().flat_map(|table| &table.entries);
        let present: Vec<Present<'_>> = entries
            .map(|entry| Present {
                number: entry.number,
                label: &entry.label,
                kind: &entry.kind,
                bytes: entry.size,
                kept: self.kept.contains(&entry.bytes()),
            })
            .collect();
        serde_json::json!({
            "target": self.chosen.path,
            "device": self.chosen.device,
            "size": self.chosen.size,
            "table": self.now.as_ref().map(|table| table.kind),
            "present": present,
            "overruled": self.chosen.overruled,
            "image": image.name,
            "image_bytes": image.size,
            "write_bytes": self.bytes,
            "mapped": image.mapped,
            "trust": image.trust,
        })
    }

    /// For people.
    pub fn text(&self, image: &Image) -> String {
        let title = match &self.chosen.device {
            Some(device) => format!("{}, {:?}", device.title(), device.bus).to_string(),
            None => "a file".into(),
        };
        let mut text = format!(
            "{}  {}  {title}\n",
            self.chosen.path.display(),
            size(self.chosen.size)
        );
        match &self.now {
            None => text += "  on it now: no partition table\n",
            Some(table) => {
                text += "  on it now:\n";
                for entry in &table.entries {
                    let label = super::plan::label(&entry.label, &entry.kind);
                    let fate = match self.kept.contains(&entry.bytes()) {
                        true => "kept",
                        false => "lost",
                    };
                    text += &format!(
                        "    {:>2}  {label:<16} {:>10}  {fate}\n",
                        entry.number,
                        size(entry.size)
                    );
                }
            }
        }
        for what in &self.chosen.overruled {
            text += &format!("  FORCED although {what}\n");
        }
        let how = match image.mapped {
            true => "mapped blocks",
            false => "all of it; there is no block map",
        };
        text += &format!("  to write: {} ({how})\n", size(self.bytes));
        text += match image.trust {
            Trust::Nothing => "  nobody vouches for the image: no checksums, no signature\n",
            Trust::Checksums => {
                "  the image has the checksums beside it; no signature was checked\n"
            }
            Trust::Signature => "  the image is signed\n",
        };
        text
    }
}

fn label(name: &str, kind: &str) -> String {
    match name.is_empty() {
        true => format!("type {kind}"),
        false => name.chars().filter(|c| !c.is_control()).collect(),
    }
}

/// A size for people.
pub fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::source::tests::image;
    use super::*;

    fn expected(board: &str, product: Option<&str>, arch: &str) -> Expected {
        Expected {
            board: board.into(),
            arch: arch.into(),
            product: product.map(str::to_string),
        }
    }

    /// A GUID partition table with one root partition for arm64, as sfdisk writes it.
    fn arm64_image(dir: &Path) -> Image {
        let raw = dir.join("bare.img");
        std::fs::File::create(&raw)
            .unwrap()
            .set_len(8 << 20)
            .unwrap();
        let script = dir.join("script");
        std::fs::write(
            &script,
            "label: gpt\nsize=1MiB, type=B921B045-1DF0-41C3-AF44-4C6F280D3FAE\n",
        )
        .unwrap();
        crate::command::Command::new("sfdisk", "fdisk")
            .arg("-q")
            .arg(&raw)
            .stdin(File::open(script).unwrap())
            .run()
            .unwrap();
        Image::open(&raw, &[]).unwrap()
    }

    #[test]
    fn a_disk_with_other_sectors_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let image = arm64_image(dir.path());
        let disk = Path::new("/dev/sdx");
        for fits in [None, Some(512)] {
            check_sectors(&image, disk, fits).unwrap();
        }
        let said = check_sectors(&image, disk, Some(4096))
            .unwrap_err()
            .to_string();
        assert!(
            said.contains("/dev/sdx has sectors of 4096 bytes"),
            "{said}"
        );
        assert!(said.contains("sector-size = 4096"), "{said}");
        // What the kernel says of a disk.
        let sysfs = dir.path().join("sys/class/block/sdx/queue");
        std::fs::create_dir_all(&sysfs).unwrap();
        std::fs::write(sysfs.join("logical_block_size"), "4096\n").unwrap();
        let system = super::super::device::System::below(dir.path());
        assert_eq!(system.sector_size(disk), Some(4096));
        assert_eq!(system.sector_size(Path::new("/dev/sdy")), None);
    }

    #[test]
    fn an_image_for_another_board_product_or_architecture_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let ranges = [0..4096, 1 << 20..2 << 20];
        let image = image(dir.path(), 4 << 20, &ranges);
        let says = |expected| check_board(&image, &expected).map_err(|e| e.to_string());
        assert_eq!(says(expected("rpi4", Some("demo"), "arm64")), Ok(()));
        assert_eq!(says(expected("rpi4", None, "arm64")), Ok(()));
        let error = says(expected("rpi3", None, "arm64")).unwrap_err();
        assert!(
            error.contains("for the board rpi4, not for rpi3"),
            "{error}"
        );
        let error = says(expected("rpi4", Some("other"), "arm64")).unwrap_err();
        assert!(error.contains("product demo"), "{error}");
        let bare = arm64_image(dir.path());
        assert!(check_board(&bare, &expected("rpi4", None, "arm64")).is_ok());
        let error = check_board(&bare, &expected("x86_64-uefi", None, "amd64")).unwrap_err();
        assert!(error.to_string().contains("architecture arm64"), "{error}");
    }

    #[test]
    fn the_plan_says_what_is_lost_and_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let image = arm64_image(dir.path());
        let disk = dir.path().join("disk");
        std::fs::copy(dir.path().join("bare.img"), &disk).unwrap();
        let chosen = Chosen {
            path: disk,
            device: None,
            size: 8 << 20,
            overruled: vec!["it is on fire".into()],
            unmount: Vec::new(),
        };
        let plan = plan(&image, chosen, &[]).unwrap();
        let text = plan.text(&image);
        for part in [
            "1.00 MiB  lost",
            "FORCED although it is on fire",
            "8.00 MiB (all of it",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let json = plan.json(&image);
        assert_eq!(json["write_bytes"], 8 << 20);
        assert_eq!(json["present"][0]["bytes"], 1 << 20);
        let error = super::plan(&image, plan.chosen, &["data".into()]).unwrap_err();
        assert!(error.is::<Problem>(), "{error}");
    }
}
