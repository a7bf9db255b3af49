//! Whole files on a FAT file system, read and replaced without mounting it.
//!
//! A file is replaced in two steps, each on the medium before the next: first every changed sector of the data
//! region (contents and directories), then those of the tables. Both steps write only what is free, what belonged
//! to the replaced file, or a directory's entry of it; sectors of tables keep the chains of all other files as they
//! were. So whatever part of the sectors is written when the power goes, every other file is as it was, and doing
//! it again replaces the file.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::rc::Rc;

use crate::block::BlockDevice;

/// Bytes of a sector, the unit in which media write.
const SECTOR: usize = 512;
/// Bytes read, and at most written, at once.
const CHUNK: usize = 64 * 1024;
/// Reads and writes that replacing a file may take: a damaged file system can lead in circles.
const STEPS: u32 = 20_000_000;

/// A medium with a FAT file system from its first byte on.
pub trait Medium {
    /// Bytes.
    fn bytes(&self) -> io::Result<u64>;
    /// `length` bytes at `offset`.
    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>>;
    /// Writes; it is on the medium when this returns.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
}

impl Medium for BlockDevice {
    fn bytes(&self) -> io::Result<u64> {
        BlockDevice::bytes(self).map_err(io::Error::other)
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        BlockDevice::read(self, offset, length).map_err(io::Error::other)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        BlockDevice::write(self, offset, bytes).map_err(io::Error::other)
    }
}

/// The content of `path`; `None` if it is not there, an error if it has more than `most` bytes.
///
/// # Errors
/// The medium cannot be read, or holds no FAT file system.
pub fn read(medium: &dyn Medium, path: &str, most: u64) -> io::Result<Option<Vec<u8>>> {
    let staged = Staged::new(medium)?;
    let fs = open(staged)?;
    let root = fs.root_dir();
    let file = match root.open_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut content = Vec::new();
    file.take(most.saturating_add(1))
        .read_to_end(&mut content)?;
    if content.len() as u64 > most {
        return Err(io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(Some(content))
}

/// Replaces `path`, whose directory is there, by a file with this content.
///
/// # Errors
/// The medium cannot be read or written, holds no FAT file system, or has no room. Before the first write nothing
/// was changed; after it, see the module.
pub fn replace(medium: &mut dyn Medium, path: &str, content: &[u8]) -> io::Result<()> {
    let staged = Staged::new(&*medium)?;
    let dirty = Rc::clone(&staged.dirty);
    {
        let fs = open(staged)?;
        {
            let root = fs.root_dir();
            match root.remove(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = root.create_file(path)?;
            file.write_all(content)?;
            file.flush()?;
        }
        fs.unmount()?;
    }
    let dirty = dirty.take();
    let data = data_region(&medium.read(0, SECTOR)?)?;
    let (content, tables): (Sectors, Sectors) = dirty
        .into_iter()
        .partition(|(sector, _)| sector * SECTOR as u64 >= data);
    write_changed(medium, &content)?;
    write_changed(medium, &tables)
}

/// One type for all that is read and written: the device carries the file system's code once.
type FileSystem<'a> = fatfs::FileSystem<Box<dyn fatfs::ReadWriteSeek + 'a>>;

fn open(staged: Staged<'_>) -> io::Result<FileSystem<'_>> {
    let options = fatfs::FsOptions::new().update_accessed_date(false);
    fatfs::FileSystem::new(Box::new(staged), options)
}

/// Sectors by number.
type Sectors = BTreeMap<u64, [u8; SECTOR]>;

/// First byte behind the tables, and the root directory where that is no file: what a boot sector says (Microsoft,
/// "FAT32 File System Specification" 1.03, "Boot Sector and BPB Structure").
fn data_region(boot: &[u8]) -> io::Result<u64> {
    let number = |at: usize, bytes: usize| {
        let le = boot.get(at..at + bytes).unwrap_or_default();
        le.iter()
            .rev()
            .fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte))
    };
    let sector = number(11, 2);
    let (reserved, tables) = (number(14, 2), number(16, 1));
    let table = match number(22, 2) {
        0 => number(36, 4),
        small => small,
    };
    if sector != SECTOR as u64 {
        return Err(io::Error::other(format!(
            "its sectors have {sector} bytes; {SECTOR} are expected"
        )));
    }
    Ok((reserved + tables * table) * sector)
}

/// Writes what differs from what is there, neighbours together.
fn write_changed(medium: &mut dyn Medium, sectors: &Sectors) -> io::Result<()> {
    let mut run: Vec<u8> = Vec::new();
    let mut start = 0;
    for (sector, bytes) in sectors {
        let at = sector * SECTOR as u64;
        if medium.read(at, SECTOR)? == bytes {
            continue;
        }
        if start + run.len() as u64 != at || run.len() >= CHUNK {
            flush(medium, start, &run)?;
            run.clear();
            start = at;
        }
        run.extend(bytes);
    }
    flush(medium, start, &run)
}

fn flush(medium: &mut dyn Medium, at: u64, run: &[u8]) -> io::Result<()> {
    match run {
        [] => Ok(()),
        run => medium.write(at, run),
    }
}

/// A medium as it will be: reads see what was written, which stays in memory.
struct Staged<'a> {
    medium: &'a dyn Medium,
    bytes: u64,
    position: u64,
    dirty: Rc<RefCell<Sectors>>,
    /// The piece that was read last, and where it begins.
    cached: (u64, Vec<u8>),
    steps: u32,
}

impl<'a> Staged<'a> {
    fn new(medium: &'a dyn Medium) -> io::Result<Self> {
        Ok(Self {
            medium,
            bytes: medium.bytes()?,
            position: 0,
            dirty: Rc::default(),
            cached: (0, Vec::new()),
            steps: STEPS,
        })
    }

    fn step(&mut self) -> io::Result<()> {
        let left = self.steps.checked_sub(1);
        self.steps =
            left.ok_or_else(|| io::Error::other("the file system is damaged: it has no end"))?;
        Ok(())
    }

    /// Sector and place in it of the position; `None` at the end.
    fn place(&self) -> Option<(u64, usize)> {
        let within = (self.position % SECTOR as u64) as usize;
        (self.position < self.bytes).then_some((self.position / SECTOR as u64, within))
    }

    fn sector(&mut self, sector: u64) -> io::Result<[u8; SECTOR]> {
        if let Some(bytes) = self.dirty.borrow().get(&sector) {
            return Ok(*bytes);
        }
        let at = sector * SECTOR as u64;
        let first = at - at % CHUNK as u64;
        if self.cached.0 != first || self.cached.1.is_empty() {
            let length = CHUNK.min(usize::try_from(self.bytes - first).unwrap_or(CHUNK));
            self.cached = (first, self.medium.read(first, length)?);
        }
        let within = (at - first) as usize;
        let bytes = self.cached.1.get(within..within + SECTOR);
        bytes
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

impl Read for Staged<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.step()?;
        let Some((sector, within)) = self.place() else {
            return Ok(0);
        };
        let bytes = self.sector(sector)?;
        let length = buffer.len().min(SECTOR - within);
        buffer[..length].copy_from_slice(&bytes[within..within + length]);
        self.position += length as u64;
        Ok(length)
    }
}

impl Write for Staged<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.step()?;
        let Some((sector, within)) = self.place() else {
            return Ok(0);
        };
        let length = bytes.len().min(SECTOR - within);
        let mut content = self.sector(sector)?;
        content[within..within + length].copy_from_slice(&bytes[..length]);
        self.dirty.borrow_mut().insert(sector, content);
        self.position += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Staged<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.bytes.checked_add_signed(by),
        };
        self.position = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests;
