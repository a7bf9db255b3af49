//! Partition tables as they stand on disks: read to show what is there, and changed in one way only, for
//! partitions that are kept. GPT as in the UEFI specification 5.3, MBR as everybody has it.

mod gpt;

use std::ops::Range;

/// A partition table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Table {
    /// Its kind.
    pub kind: Kind,
    /// Logical sector of the disk as the table counts, bytes.
    pub sector: u64,
    /// GPT: the disk's GUID, lower case; MBR: its signature, eight digits.
    pub id: String,
    /// The partitions.
    pub entries: Vec<Entry>,
}

/// Kinds of tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// GUID partition table.
    Gpt,
    /// Master boot record.
    Mbr,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Entry {
    /// Number, from 1.
    pub number: u32,
    /// Name in a GPT; empty in an MBR.
    pub label: String,
    /// Type: a GUID in lower case, or two hexadecimal digits.
    pub kind: String,
    /// First byte.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

impl Entry {
    /// Its bytes.
    pub fn bytes(&self) -> Range<u64> {
        self.start..self.start.saturating_add(self.size)
    }
}

const MBR_ENTRIES: usize = 446;
const MBR_DISK_ID: usize = 440;
const PROTECTIVE: u8 = 0xee;

/// The table in the first MiB of a disk (less will do), if there is one.
pub fn read(head: &[u8]) -> Option<Table> {
    gpt::read(head, 512)
        .or_else(|| gpt::read(head, 4096))
        .or_else(|| mbr(head))
}

fn mbr(head: &[u8]) -> Option<Table> {
    if head.get(510..512)? != [0x55, 0xaa] {
        return None;
    }
    let mut entries = Vec::new();
    for (slot, number) in head[MBR_ENTRIES..510].chunks_exact(16).zip(1..) {
        let (status, kind) = (slot[0], slot[4]);
        if kind == PROTECTIVE || status & 0x7f != 0 {
            // A protective MBR without its GPT, or a boot sector without table.
            return None;
        }
        if kind != 0 {
            entries.push(Entry {
                number,
                label: String::new(),
                kind: format!("{kind:02x}"),
                start: u64::from(u32_at(slot, 8)) * 512,
                size: u64::from(u32_at(slot, 12)) * 512,
            });
        }
    }
    Some(Table {
        kind: Kind::Mbr,
        sector: 512,
        id: format!("{:08x}", u32_at(head, MBR_DISK_ID)),
        entries,
    })
    .filter(|table| !table.entries.is_empty())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    if let Some(part) = bytes.get(at..at + 4) {
        value.copy_from_slice(part);
    }
    u32::from_le_bytes(value)
}

impl Table {
    /// Where the firmware file system is: the partition of that type, or in an MBR the first FAT.
    pub fn firmware(&self) -> Option<&Entry> {
        const FAT: [&str; 6] = ["01", "04", "06", "0b", "0c", "0e"];
        let is = |entry: &&Entry| match self.kind {
            Kind::Gpt => entry.kind == bsp::disk::FIRMWARE_TYPE,
            Kind::Mbr => entry.kind == "ef" || FAT.contains(&entry.kind.as_str()),
        };
        self.entries.iter().find(is)
    }

    /// Architecture of the root partition (Debian's name), if its type tells
    /// (Discoverable Partitions Specification).
    pub fn arch(&self) -> Option<&'static str> {
        self.entries.iter().find_map(|entry| {
            Some(match entry.kind.as_str() {
                "4f68bce3-e8cd-4db1-96e7-fbcaf984b709" => "amd64",
                "b921b045-1df0-41c3-af44-4c6f280d3fae" => "arm64",
                "69dad710-2ce4-4e3c-b16c-21a1d49abed3" => "armhf",
                "c31c45e6-3f39-412e-80fb-4809c4980599" => "ppc64el",
                _ => return None,
            })
        })
    }
}

/// What keeping partitions does to the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The first MiB of the finished disk: the image's, with the sizes that the kept partitions have.
    pub boot_area: Vec<u8>,
    /// The first MiB while writing: a table of the kept partitions only; boots nowhere.
    pub closed_area: Vec<u8>,
    /// The spare table: place and content.
    pub tail: Option<(u64, Vec<u8>)>,
    /// What must not be touched.
    pub ranges: Vec<Range<u64>>,
}

/// Works out how to keep the partitions called `labels` of a disk of `size` bytes with the table `now`
/// (in `head_now`) under the image whose first MiB is `head`. All checks are made here, before anything
/// is written.
pub fn keep(head_now: &[u8], head: &[u8], labels: &[String], size: u64) -> Result<Kept, String> {
    let now =
        read(head_now).ok_or("there is no partition table on the disk to keep partitions of")?;
    let new = read(head).ok_or("the image has no partition table")?;
    if now.kind != Kind::Gpt || new.kind != Kind::Gpt {
        return Err("partitions can be kept by label in GUID partition tables only".into());
    }
    if now.sector != new.sector {
        return Err("the disk and the image count in sectors of different size".into());
    }
    let mut pairs = Vec::new();
    for label in labels {
        let of = |table: &Table| {
            let mut found = table.entries.iter().filter(|e| e.label == *label);
            match (found.next().cloned(), found.next()) {
                (Some(one), None) => Ok(one),
                (None, _) => Err("is missing"),
                _ => Err("is there more than once"),
            }
        };
        let old = of(&now).map_err(|why| format!("the partition \"{label}\" {why} on the disk"))?;
        let next =
            of(&new).map_err(|why| format!("the partition \"{label}\" {why} in the image"))?;
        check_place(label, &old, &next, &new, size)?;
        pairs.push((old, next));
    }
    gpt::keep(head_now, head, new.sector, &pairs, size)
}

fn check_place(
    label: &str,
    old: &Entry,
    next: &Entry,
    new: &Table,
    size: u64,
) -> Result<(), String> {
    if old.start != next.start {
        return Err(format!(
            "the partition \"{label}\" begins at byte {} on the disk and at byte {} in the image; it cannot be kept",
            old.start, next.start
        ));
    }
    if old.size < next.size {
        return Err(format!(
            "the partition \"{label}\" has {} bytes on the disk and needs {} in the image; it cannot be kept",
            old.size, next.size
        ));
    }
    let clash = new.entries.iter().find(|e| {
        e.number != next.number && e.start < old.bytes().end && old.start < e.bytes().end
    });
    if let Some(other) = clash {
        return Err(format!(
            "the partition \"{label}\" of the disk reaches into \"{}\" of the image; it cannot be kept",
            other.label
        ));
    }
    if old.start < super::target::BOOT_AREA || old.start % 4096 != 0 || old.bytes().end > size {
        return Err(format!(
            "the partition \"{label}\" lies in the first MiB, at an odd place, or beyond the end of the disk; it cannot be kept"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
