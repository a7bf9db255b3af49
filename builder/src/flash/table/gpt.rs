//! GUID partition tables, byte by byte (UEFI specification 5.3).

use super::{Entry, Kept, Kind, Table, PROTECTIVE};

const SIGNATURE: &[u8] = b"EFI PART";
const HEADER_SIZE: usize = 92;
/// Offsets in the header.
const SIZE: usize = 12;
const OWN_CRC: usize = 16;
const MY_LBA: usize = 24;
const OTHER_LBA: usize = 32;
const LAST_USABLE: usize = 48;
const DISK_GUID: usize = 56;
const ENTRIES_LBA: usize = 72;
const COUNT: usize = 80;
const ENTRY_SIZE: usize = 84;
const ENTRIES_CRC: usize = 88;
/// Offsets in an entry.
const FIRST: usize = 32;
const LAST: usize = 40;
const NAME: usize = 56;

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn guid(bytes: &[u8]) -> String {
    let text: String = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15]
        .iter()
        .map(|n| format!("{:02x}", bytes.get(*n).copied().unwrap_or_default()))
        .collect();
    format!(
        "{}-{}-{}-{}-{}",
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..]
    )
}

/// A checked header and where its entries stand.
struct Primary<'a> {
    header: &'a [u8],
    entries: &'a [u8],
    entry_size: usize,
    entries_lba: u64,
}

fn primary(head: &[u8], sector: usize) -> Option<Primary<'_>> {
    let header = head.get(sector..2 * sector)?;
    if !header.starts_with(SIGNATURE) {
        return None;
    }
    let length = usize::try_from(u32_at(header, SIZE)?).ok()?;
    if !(HEADER_SIZE..=sector).contains(&length) {
        return None;
    }
    if crc(header, length) != u32_at(header, OWN_CRC)? {
        return None;
    }
    let count = usize::try_from(u32_at(header, COUNT)?).ok()?;
    let entry_size = usize::try_from(u32_at(header, ENTRY_SIZE)?).ok()?;
    if !(128..=4096).contains(&entry_size) || count > 4096 {
        return None;
    }
    let entries_lba = u64_at(header, ENTRIES_LBA)?;
    let start = usize::try_from(entries_lba.checked_mul(sector as u64)?).ok()?;
    let entries = head.get(start..start.checked_add(count * entry_size)?)?;
    if crc32(entries) != u32_at(header, ENTRIES_CRC)? {
        return None;
    }
    Some(Primary {
        header: &header[..length],
        entries,
        entry_size,
        entries_lba,
    })
}

/// CRC of a header, whose own field counts as zero.
fn crc(header: &[u8], length: usize) -> u32 {
    let mut copy = header[..length].to_vec();
    copy[OWN_CRC..OWN_CRC + 4].fill(0);
    crc32(&copy)
}

fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

pub fn read(head: &[u8], sector: usize) -> Option<Table> {
    let primary = primary(head, sector)?;
    let mut entries = Vec::new();
    for (slot, number) in primary.entries.chunks_exact(primary.entry_size).zip(1..) {
        if slot[..16].iter().all(|byte| *byte == 0) {
            continue;
        }
        let (first, last) = (u64_at(slot, FIRST)?, u64_at(slot, LAST)?);
        let units = slot[NAME..128]
            .chunks_exact(2)
            .map(|unit| u16::from_le_bytes([unit[0], unit[1]]))
            .take_while(|unit| *unit != 0);
        entries.push(Entry {
            number,
            label: char::decode_utf16(units)
                .map(|c| c.unwrap_or('?'))
                .collect(),
            kind: guid(&slot[..16]),
            start: first.saturating_mul(sector as u64),
            size: (last.saturating_add(1).saturating_sub(first)).saturating_mul(sector as u64),
        });
    }
    Some(Table {
        kind: Kind::Gpt,
        sector: sector as u64,
        id: guid(&primary.header[DISK_GUID..DISK_GUID + 16]),
        entries,
    })
}

/// The tables of a disk on which `pairs` (on the disk, in the image) are kept.
pub fn keep(
    head_now: &[u8],
    head: &[u8],
    sector: u64,
    pairs: &[(Entry, Entry)],
    size: u64,
) -> Result<Kept, String> {
    let unit = usize::try_from(sector).unwrap_or(512);
    let broken = "the partition table cannot be read";
    let new = primary(head, unit).ok_or(broken)?;
    let now = primary(head_now, unit).ok_or(broken)?;
    let table_sectors = (new.entries.len() as u64).div_ceil(sector);
    let last_lba = (size / sector).checked_sub(1).ok_or(broken)?;
    let last_usable = last_lba.checked_sub(table_sectors + 1).ok_or(broken)?;
    for (old, _) in pairs {
        if old.bytes().end > (last_usable + 1) * sector {
            return Err(format!(
                "the partition \"{}\" leaves no room for the spare partition table at the end of the disk",
                old.label
            ));
        }
    }
    // The image's entries with the disk's sizes, and the kept entries alone.
    let mut entries = new.entries.to_vec();
    let mut alone = vec![0; new.entries.len()];
    for (old, next) in pairs {
        let slot = |number: u32, step: usize| {
            let start = (number as usize - 1) * step;
            start..start + 128
        };
        let to = slot(next.number, new.entry_size);
        let last = (old.bytes().end / sector) - 1;
        entries[to.start + LAST..to.start + LAST + 8].copy_from_slice(&last.to_le_bytes());
        let from = slot(old.number, now.entry_size);
        alone[to].copy_from_slice(&now.entries[from]);
    }
    let write = |area: &mut Vec<u8>, entries: &[u8]| -> Option<Vec<u8>> {
        let mut header = new.header.to_vec();
        put(&mut header, MY_LBA, 1);
        put(&mut header, OTHER_LBA, last_lba);
        put(&mut header, LAST_USABLE, last_usable);
        header[ENTRIES_CRC..ENTRIES_CRC + 4].copy_from_slice(&crc32(entries).to_le_bytes());
        seal(&mut header);
        area.get_mut(unit..unit + header.len())?
            .copy_from_slice(&header);
        let at = usize::try_from(new.entries_lba).ok()? * unit;
        area.get_mut(at..at + entries.len())?
            .copy_from_slice(entries);
        // The spare one: entries, then the header in the last sector.
        put(&mut header, MY_LBA, last_lba);
        put(&mut header, OTHER_LBA, 1);
        put(&mut header, ENTRIES_LBA, last_lba - table_sectors);
        seal(&mut header);
        let mut tail = entries.to_vec();
        tail.resize(usize::try_from(table_sectors).ok()? * unit, 0);
        tail.extend(&header);
        tail.resize(tail.len().next_multiple_of(unit), 0);
        Some(tail)
    };
    let mut boot_area = head.to_vec();
    let tail = write(&mut boot_area, &entries).ok_or(broken)?;
    protect(&mut boot_area, last_lba);
    let mut closed_area = vec![0; head.len()];
    write(&mut closed_area, &alone).ok_or(broken)?;
    shield(&mut closed_area, last_lba).ok_or(broken)?;
    Ok(Kept {
        boot_area,
        closed_area,
        tail: Some(((last_lba - table_sectors) * sector, tail)),
        ranges: pairs.iter().map(|(old, _)| old.bytes()).collect(),
    })
}

fn put(header: &mut [u8], at: usize, value: u64) {
    header[at..at + 8].copy_from_slice(&value.to_le_bytes());
}

fn seal(header: &mut [u8]) {
    let sum = crc(header, header.len());
    header[OWN_CRC..OWN_CRC + 4].copy_from_slice(&sum.to_le_bytes());
}

/// The protective MBR of the image spans the whole disk. One that shows partitions to boot ROMs stays.
fn protect(area: &mut [u8], last_lba: u64) {
    if area.get(450) == Some(&PROTECTIVE) {
        let sectors = u32::try_from(last_lba).unwrap_or(u32::MAX);
        area[458..462].copy_from_slice(&sectors.to_le_bytes());
    }
}

/// A protective MBR and nothing else, whatever the image's shows: no boot ROM finds anything in it.
fn shield(area: &mut [u8], last_lba: u64) -> Option<()> {
    let entry = area.get_mut(446..462)?;
    entry.copy_from_slice(&[
        0, 0, 2, 0, PROTECTIVE, 255, 255, 255, 1, 0, 0, 0, 0, 0, 0, 0,
    ]);
    area.get_mut(510..512)?.copy_from_slice(&[0x55, 0xaa]);
    protect(area, last_lba);
    Some(())
}
