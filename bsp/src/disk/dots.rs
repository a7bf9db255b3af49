//! Mends the `.` and `..` entries of directories that fatfs 0.3 made.
//!
//! It puts a long-name entry before each of the two, and lets `..` point at the root directory by its
//! cluster; the format wants them as the first two entries, and cluster 0 for the root. fsck.fat
//! reports both, and firmware may be as strict.

use std::io::{self, Read, Seek, SeekFrom, Write};

/// Bytes in a directory entry.
const SLOT: usize = 32;
/// First byte of an entry that was deleted.
const DELETED: u8 = 0xe5;
const LONG_NAME: u8 = 0x0f;
const VOLUME: u8 = 0x08;
const DIRECTORY: u8 = 0x10;

/// What must be known of a FAT to walk its directories: the fields of its first sector.
struct Geometry {
    fat32: bool,
    fat_start: u64,
    /// FAT16 keeps its root directory before the clusters: first byte and length.
    fixed_root: (u64, u64),
    root_cluster: u32,
    data_start: u64,
    cluster_bytes: u64,
}

/// A directory: its clusters, or the place of FAT16's root.
enum Place {
    Clusters(u32),
    Fixed,
}

/// Mends every directory of the FAT in `disk`.
pub(super) fn mend(disk: &mut (impl Read + Write + Seek)) -> io::Result<()> {
    let geometry = Geometry::read(disk)?;
    let root = if geometry.fat32 {
        Place::Clusters(geometry.root_cluster)
    } else {
        Place::Fixed
    };
    let mut waiting: Vec<u32> = subdirectories(&geometry.content(disk, &root)?);
    for cluster in &waiting {
        mend_directory(&geometry, disk, *cluster, true)?;
    }
    while let Some(parent) = waiting.pop() {
        for cluster in subdirectories(&geometry.content(disk, &Place::Clusters(parent))?) {
            mend_directory(&geometry, disk, cluster, false)?;
            waiting.push(cluster);
        }
    }
    Ok(())
}

/// First clusters of the directories in a directory's content.
fn subdirectories(content: &[u8]) -> Vec<u32> {
    content
        .chunks_exact(SLOT)
        .take_while(|slot| slot[0] != 0)
        .filter(|slot| slot[0] != DELETED && slot[0] != b'.')
        .filter(|slot| slot[11] & LONG_NAME != LONG_NAME && slot[11] & VOLUME == 0)
        .filter(|slot| slot[11] & DIRECTORY != 0)
        .map(|slot| u32::from(u16_at(slot, 20)) << 16 | u32::from(u16_at(slot, 26)))
        .collect()
}

/// The first four entries are: long name, `.`, long name, `..`. Makes them: `.`, `..`, deleted, deleted.
fn mend_directory(
    geometry: &Geometry,
    disk: &mut (impl Read + Write + Seek),
    cluster: u32,
    in_root: bool,
) -> io::Result<()> {
    let offset = geometry.offset(cluster)?;
    let mut slots = [0; 4 * SLOT];
    disk.seek(SeekFrom::Start(offset))?;
    disk.read_exact(&mut slots)?;
    let long = |index: usize| slots[index * SLOT + 11] == LONG_NAME;
    let named = |index: usize, name: &[u8; 3]| slots[index * SLOT..].starts_with(name);
    if !(long(0) && named(1, b".  ") && long(2) && named(3, b".. ")) {
        return Ok(());
    }
    let mut mended = [0; 4 * SLOT];
    mended[..SLOT].copy_from_slice(&slots[SLOT..2 * SLOT]);
    mended[SLOT..2 * SLOT].copy_from_slice(&slots[3 * SLOT..]);
    if in_root {
        for field in [20, 26] {
            mended[SLOT + field..SLOT + field + 2].fill(0);
        }
    }
    mended[2 * SLOT] = DELETED;
    mended[3 * SLOT] = DELETED;
    disk.seek(SeekFrom::Start(offset))?;
    disk.write_all(&mended)
}

impl Geometry {
    fn read(disk: &mut (impl Read + Seek)) -> io::Result<Self> {
        let mut boot = [0; 512];
        disk.rewind()?;
        disk.read_exact(&mut boot)?;
        let sector = u64::from(u16_at(&boot, 11));
        let reserved = u64::from(u16_at(&boot, 14));
        let (small, large) = (u16_at(&boot, 22), u32_at(&boot, 36));
        let fat_sectors = if small == 0 { large } else { u32::from(small) };
        let fat_start = reserved * sector;
        let root_start = fat_start + u64::from(boot[16]) * u64::from(fat_sectors) * sector;
        let root_bytes = u64::from(u16_at(&boot, 17)) * SLOT as u64;
        Ok(Self {
            fat32: small == 0,
            fat_start,
            fixed_root: (root_start, root_bytes),
            root_cluster: u32_at(&boot, 44),
            data_start: root_start + root_bytes,
            cluster_bytes: u64::from(boot[13]) * sector,
        })
    }

    /// First byte of a cluster.
    fn offset(&self, cluster: u32) -> io::Result<u64> {
        let index = cluster.checked_sub(2).ok_or_else(broken)?;
        Ok(self.data_start + u64::from(index) * self.cluster_bytes)
    }

    /// The cluster after this one, if the chain goes on.
    fn next(&self, disk: &mut (impl Read + Seek), cluster: u32) -> io::Result<Option<u32>> {
        let width = if self.fat32 { 4 } else { 2 };
        let mut entry = [0; 4];
        disk.seek(SeekFrom::Start(self.fat_start + u64::from(cluster) * width))?;
        disk.read_exact(&mut entry[..width as usize])?;
        let (value, end) = if self.fat32 {
            (u32_at(&entry, 0) & 0x0fff_ffff, 0x0fff_fff8)
        } else {
            (u32_at(&entry, 0), 0xfff8)
        };
        Ok((value < end).then_some(value))
    }

    fn content(&self, disk: &mut (impl Read + Seek), place: &Place) -> io::Result<Vec<u8>> {
        let Place::Clusters(first) = place else {
            let (offset, length) = self.fixed_root;
            return bytes_at(disk, offset, length);
        };
        let mut content = Vec::new();
        let mut cluster = Some(*first);
        while let Some(this) = cluster {
            content.extend(bytes_at(disk, self.offset(this)?, self.cluster_bytes)?);
            cluster = self.next(disk, this)?;
        }
        Ok(content)
    }
}

fn bytes_at(disk: &mut (impl Read + Seek), offset: u64, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    disk.seek(SeekFrom::Start(offset))?;
    disk.by_ref().take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn broken() -> io::Error {
    io::Error::other("a directory points at a cluster that does not exist")
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}
