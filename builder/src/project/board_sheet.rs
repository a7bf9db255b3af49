//! All about a board on one sheet: its disk, where its parts come from, what is proven.

use std::fmt::Write as _;
use std::ops::Range;

use anyhow::{Context, Result};
use bsp::board::{Backend, Board, Medium, Reader, Source, Tier};
use bsp::disk::{self, Kind, Layout};
use serde::Serialize;

use super::disk_drawing::{column_bytes, draw};

/// A board in words.
#[derive(Debug, Clone, Serialize)]
pub struct Sheet {
    /// Identity.
    pub id: String,
    /// What it is.
    pub description: String,
    /// Debian architecture.
    pub arch: String,
    /// How far it is proven.
    pub tier: Tier,
    /// Who answers for it.
    pub maintainers: Vec<String>,
    /// Its disk with the sizes of the board file.
    pub disk: Disk,
    /// Packages in every tree for it.
    pub packages: Vec<String>,
    /// The kernel's device trees: the one that is booted, then others.
    pub device_trees: Vec<String>,
    /// The boot loader: each part and where it comes from.
    pub boot_loader: Vec<Part>,
    /// What is proven.
    pub proven: Vec<&'static str>,
    /// What is not.
    pub not_proven: Vec<&'static str>,
}

/// A disk.
#[derive(Debug, Clone, Serialize)]
pub struct Disk {
    /// Partition table: `gpt`, `hybrid`, `mbr`.
    pub table: bsp::board::Table,
    /// Bytes of an image; the smallest disk.
    pub bytes: u64,
    /// Where the first partition begins.
    pub first_partition: u64,
    /// Every byte range that belongs to somebody, in order.
    pub regions: Vec<Region>,
}

/// A byte range.
#[derive(Debug, Clone, Serialize)]
pub struct Region {
    /// `table`, `raw`, `environment`, `partition`.
    pub kind: &'static str,
    /// Owner.
    pub owner: String,
    /// First byte.
    pub start: u64,
    /// First byte behind it.
    pub end: u64,
}

/// A part of the boot loader.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    /// Where it goes: a raw area, a path on the firmware partition, QEMU.
    pub place: String,
    /// Where it comes from.
    pub from: String,
}

impl Sheet {
    /// The sheet of a board.
    pub fn of(board: &Board) -> Result<Self> {
        let layout = disk::plan(board, &Default::default())
            .with_context(|| format!("planning the disk of board {}", board.id))?;
        let trees = board.device_trees.iter().flat_map(|trees| trees.files());
        let (proven, not_proven) = proofs(board);
        Ok(Self {
            id: board.id.clone(),
            description: board.description.clone(),
            arch: board.arch.clone(),
            tier: board.tier,
            maintainers: board.maintainers.clone(),
            disk: Disk::of(&layout),
            packages: board.packages.clone(),
            device_trees: trees.map(str::to_string).collect(),
            boot_loader: parts(board),
            proven,
            not_proven,
        })
    }

    /// As text.
    pub fn render(&self) -> String {
        let tier = self.tier.as_str();
        let mut text = format!("{}: {}\n{}, {tier}\n", self.id, self.description, self.arch);
        text += &self.disk.render();
        let width = self.boot_loader.iter().map(|part| part.place.len()).max();
        let width = width.unwrap_or(0);
        let parts: Vec<String> = self
            .boot_loader
            .iter()
            .map(|part| format!("{:width$}  {}", part.place, part.from))
            .collect();
        let lines = |of: &[&'static str]| of.iter().map(|line| (*line).to_string()).collect();
        for (title, lines) in [
            ("Boot loader", parts),
            ("In every tree", self.packages.clone()),
            ("Device trees", self.device_trees.clone()),
            ("Proven", lines(&self.proven)),
            ("Not proven", lines(&self.not_proven)),
        ] {
            if !lines.is_empty() {
                let _ = write!(text, "\n{title}\n  {}\n", lines.join("\n  "));
            }
        }
        text
    }
}

impl Disk {
    /// The disk with this layout.
    pub fn of(layout: &Layout) -> Self {
        let regions = layout.regions.iter().map(|region| Region {
            kind: match region.kind {
                Kind::Table => "table",
                Kind::Raw => "raw",
                Kind::Environment => "environment",
                Kind::Partition => "partition",
            },
            owner: region.owner.clone(),
            start: region.bytes.start,
            end: region.bytes.end,
        });
        let first = layout.partitions.first();
        Self {
            table: layout.table,
            bytes: layout.disk_bytes,
            first_partition: first.map_or(0, |partition| partition.start),
            regions: regions.collect(),
        }
    }

    /// Two drawings, of what stands before the partitions and of everything, and the list that explains them.
    pub fn render(&self) -> String {
        let lettered: Vec<(char, Range<u64>)> = ('a'..='z')
            .chain('A'..='Z')
            .zip(&self.regions)
            .map(|(letter, region)| (letter, region.start..region.end))
            .collect();
        let mut text = String::new();
        for (title, bytes) in [
            ("The first", self.first_partition),
            ("The whole disk, at least", self.bytes),
        ] {
            let column = size(column_bytes(bytes));
            let _ = write!(
                text,
                "\n{title} {} (a column is {column}, or less)\n  {}\n",
                size(bytes),
                draw(&lettered, bytes)
            );
        }
        text.push('\n');
        for ((letter, _), region) in lettered.iter().zip(&self.regions) {
            let _ = writeln!(
                text,
                "  {letter}  {:>11}  {:>8}  {}",
                region.start,
                size(region.end - region.start),
                region.owner
            );
        }
        text
    }
}

/// A size for people, to one digit after the point.
fn size(bytes: u64) -> String {
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let Some((unit, one)) = units.into_iter().find(|(_, one)| bytes >= *one) else {
        return format!("{bytes} B");
    };
    let tenths = u128::from(bytes) * 10 / u128::from(one);
    if bytes % one == 0 {
        format!("{} {unit}", bytes / one)
    } else {
        format!("{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

fn parts(board: &Board) -> Vec<Part> {
    let from = |source: Result<Source<'_>, String>| match source {
        Ok(Source::Package { package, file }) => format!("{package}: {file}"),
        Ok(Source::Text(_)) => "the board file".to_string(),
        Ok(Source::DeviceTree(file)) => format!("the kernel's device trees: {file}"),
        Ok(Source::User(file)) => format!("the product: {file}"),
        Err(problem) => problem,
    };
    let raw = board.disk.raw.iter().map(|area| Part {
        place: match area.place {
            Medium::Disk => format!("raw area \"{}\"", area.name),
            Medium::EmmcBoot => format!("both boot partitions of the eMMC: \"{}\"", area.name),
        },
        from: match area.edition {
            0 => from(area.source()),
            edition => format!(
                "{}; edition {edition}, replaced on devices: {}",
                from(area.source()),
                area.update.as_str()
            ),
        },
    });
    let files = board.firmware.iter().map(|file| Part {
        place: format!("firmware/{}", file.path),
        from: from(file.source()),
    });
    let core = board.boot.core.iter().map(|core| Part {
        place: "boot-loader partition".to_string(),
        from: format!(
            "{}: modules of {}, assembled by the suite's grub-mkimage",
            core.package,
            core.target.directory()
        ),
    });
    let rule = std::iter::once(Part {
        place: format!("firmware/{}", board.boot.config),
        from: "Treeline: the boot rule".to_string(),
    });
    let qemu = board
        .qemu
        .iter()
        .flat_map(|qemu| [&qemu.bios, &qemu.kernel]);
    let qemu = qemu.flatten().map(|file| Part {
        place: "QEMU".to_string(),
        from: format!("{}: {}", file.package, file.file),
    });
    raw.chain(core)
        .chain(files)
        .chain(rule)
        .chain(qemu)
        .collect()
}

/// What is proven of a board, and what is not.
fn proofs(board: &Board) -> (Vec<&'static str>, Vec<&'static str>) {
    if bsp::board::builtin(&board.id).ok().as_ref() != Some(board) {
        return (
            vec!["every byte of the disk has one owner"],
            vec!["all else: this board is the product's own; `builder build --until boot` makes its boot loader's disk, `builder test` plays what its [qemu] section can"],
        );
    }
    let mut proven = vec![
        "every byte of the disk has one owner; sgdisk and sfdisk find nothing wrong (golden layout)",
    ];
    let mut not_proven = Vec::new();
    match board.boot.backend {
        Backend::Uboot => proven.extend([
            "the files of the boot loader are there, fit, and stand where U-Boot's own configuration says",
            "that U-Boot has every command which the boot script uses; its environment stands apart from ours",
        ]),
        Backend::Grub if board.boot.reader == Reader::Petitboot => {
            proven.push("GRUB's own tools read rule and state, and GRUB decides by that rule as by its own; petitboot knows every word of it, by its source");
            not_proven.push("petitboot itself: it is in no package, and nobody has tried it here");
        }
        Backend::Grub => proven.extend([
            "the files of the boot loader are there and of the right machine; GRUB's own tools read rule and state",
            "the firmware, in QEMU, starts GRUB from the disk, and GRUB finds the boot rule",
        ]),
    }
    proven.push("the kernel package has every device tree and module that the board file names");
    match board.tier {
        Tier::Tested => {
            proven.push("`builder test` boots it, updates it and breaks it, in QEMU");
            not_proven.push("any real machine");
        }
        Tier::Built => {
            not_proven.push("that it boots: nobody has booted it here (the book, \"Boards\", has the list of what to look at)");
        }
    }
    (proven, not_proven)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bsp::board::builtin;

    #[test]
    fn every_board_has_a_sheet_that_fits_a_terminal() {
        for id in bsp::board::list() {
            let sheet = Sheet::of(&builtin(id).unwrap()).unwrap();
            let text = sheet.render();
            let drawings: Vec<_> = text.lines().filter(|l| l.contains('·')).collect();
            assert!(
                drawings.iter().all(|line| line.chars().count() == 74),
                "{text}"
            );
            for region in &sheet.disk.regions {
                assert!(text.contains(&region.owner), "{id}: {}", region.owner);
            }
        }
    }

    #[test]
    fn a_sheet_says_where_everything_comes_from() {
        let text = Sheet::of(&builtin("orangepi-pc").unwrap())
            .unwrap()
            .render();
        for part in [
            "raw area \"u-boot\"  u-boot-sunxi: usr/lib/u-boot/orangepi_pc_plus/u-boot-sunxi-with-spl.bin",
            "firmware/boot.scr  Treeline: the boot rule",
            "  c         8192  1016 KiB  raw area \"u-boot\"",
            "The first 16 MiB (a column is 227.5 KiB, or less)\n  abcc···",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }

    /// Whichever boards these are: the tier decides what is said.
    #[test]
    fn a_sheet_says_whether_anybody_has_booted_the_board() {
        for id in bsp::board::list() {
            let board = builtin(id).unwrap();
            let text = Sheet::of(&board).unwrap().render();
            assert_eq!(
                text.contains("nobody has booted it here"),
                board.tier == bsp::board::Tier::Built,
                "{text}"
            );
        }
    }

    #[test]
    fn nothing_is_claimed_of_a_board_that_nobody_has_judged() {
        let mut own = builtin("qemu-aarch64").unwrap();
        assert!(proofs(&own).0.len() > 1);
        own.kernel_args.push("quiet".into());
        assert_eq!(proofs(&own).0.len(), 1);
        own.id = "mine".into();
        assert_eq!(proofs(&own).0.len(), 1);
    }

    /// The list of the book, between two comments; `TREELINE_BLESS` writes it.
    #[test]
    fn the_book_lists_every_board() {
        let place = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/src/boards.md");
        let book = std::fs::read_to_string(place).unwrap();
        let (begin, end) = ("<!-- boards -->\n", "<!-- end of boards -->\n");
        let (before, rest) = book.split_once(begin).unwrap();
        let (listed, after) = rest.split_once(end).unwrap();
        let rows = bsp::board::list().into_iter().map(|id| {
            let board = builtin(id).unwrap();
            let raw = board
                .disk
                .raw
                .iter()
                .map(|area| format!(", {} at {}", area.name, area.offset));
            let table = serde_json::to_value(board.disk.table).unwrap();
            format!(
                "| `{id}` | {} | {} | {} | {}{} |\n",
                board.description,
                board.arch,
                board.tier.as_str(),
                table.as_str().unwrap(),
                raw.collect::<String>()
            )
        });
        let head = "| board | machines | architecture | tier | disk |\n|---|---|---|---|---|\n";
        let wanted = head.to_string() + &rows.collect::<String>();
        if std::env::var_os("TREELINE_BLESS").is_some() {
            std::fs::write(place, format!("{before}{begin}{wanted}{end}{after}")).unwrap();
            return;
        }
        assert!(
            listed == wanted,
            "run again with TREELINE_BLESS=1; it would be:\n{wanted}"
        );
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, want) in [
            (512, "512 B"),
            (1024, "1 KiB"),
            (17_408 - 512, "16.5 KiB"),
            (233_016, "227.5 KiB"),
            (5 << 29, "2.5 GiB"),
        ] {
            assert_eq!(size(bytes), want);
        }
    }
}
