//! Where the files of a FAT file system stand on the disk, found without mounting it.
//!
//! Nothing here ever writes: the reader below refuses it. The boot state is written by
//! [`crate::boot::store`], sector by sector, at the places found here.

use std::cell::RefCell;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::rc::Rc;

use crate::boot::grubenv::SECTOR_SIZE;

/// A run of a file's bytes that stand together on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte, from the start of the partition (or of the image file of one).
    pub offset: u64,
    /// Bytes.
    pub length: u64,
}

/// A file that could not be located.
#[derive(Debug, thiserror::Error)]
pub enum FatError {
    /// Not a FAT file system, or one that cannot be read.
    #[error("reading the FAT file system: {0}")]
    Unreadable(io::Error),
    /// The file is missing, or a directory.
    #[error("opening {path} on the FAT file system: {source}")]
    File {
        /// Path on the file system.
        path: String,
        /// What is wrong.
        source: io::Error,
    },
    /// What stands at the place found is not what the file system returned.
    #[error("locating {path} on the FAT file system: the sectors found hold something else")]
    Misplaced {
        /// Path on the file system.
        path: String,
    },
}

/// The extents of each of `paths`, sector by sector as the file system's chains have them, adjoining ones
/// joined. Only whole sectors are returned; the tail of a file that ends within one belongs to the last.
pub fn extents(
    device: &mut (impl Read + Seek),
    paths: &[&str],
) -> Result<Vec<Vec<Extent>>, FatError> {
    device.rewind().map_err(FatError::Unreadable)?;
    let position = Rc::new(RefCell::new(0));
    let found = {
        let recorder = Recorder {
            inner: &mut *device,
            last_read: Rc::clone(&position),
            reads_left: READ_LIMIT,
        };
        locate(recorder, &position, paths)?
    };
    let mut all = Vec::new();
    for (path, sectors) in paths.iter().zip(found) {
        all.push(joined(device, path, &sectors)?);
    }
    Ok(all)
}

/// The offsets of the first sectors of `paths`, from the start of the partition; each file must have one.
pub fn first_sectors(
    device: &mut (impl Read + Seek),
    paths: &[&str],
) -> Result<Vec<u64>, FatError> {
    let all = extents(device, paths)?;
    paths
        .iter()
        .zip(all)
        .map(|(path, extents)| match extents.first() {
            Some(first) if first.length >= SECTOR_SIZE as u64 => Ok(first.offset),
            _ => Err(FatError::File {
                path: (*path).into(),
                source: io::Error::other("the file is shorter than one sector"),
            }),
        })
        .collect()
}

/// A sector of a file: where it stands and what the file system says is in it.
struct Sector {
    offset: u64,
    content: Vec<u8>,
}

fn locate<T: Read + Seek>(
    recorder: Recorder<T>,
    position: &RefCell<u64>,
    paths: &[&str],
) -> Result<Vec<Vec<Sector>>, FatError> {
    let options = fatfs::FsOptions::new().update_accessed_date(false);
    // One type for all that is read and written: the device carries the file system's code once.
    let medium: Box<dyn fatfs::ReadWriteSeek + '_> = Box::new(recorder);
    let fs = fatfs::FileSystem::new(medium, options).map_err(FatError::Unreadable)?;
    let mut all = Vec::new();
    for path in paths {
        let error = |source| FatError::File {
            path: (*path).into(),
            source,
        };
        let mut file = fs.root_dir().open_file(path).map_err(error)?;
        let mut sectors = Vec::new();
        loop {
            let mut content = vec![0; SECTOR_SIZE];
            // The last thing that a read of file content does to the disk is to read that content.
            let length = file.read(&mut content).map_err(error)?;
            if length == 0 {
                break;
            }
            content.truncate(length);
            sectors.push(Sector {
                offset: *position.borrow(),
                content,
            });
        }
        all.push(sectors);
    }
    Ok(all)
}

/// Joins neighbouring sectors, and makes sure that they are where they seem to be.
fn joined(
    device: &mut (impl Read + Seek),
    path: &str,
    sectors: &[Sector],
) -> Result<Vec<Extent>, FatError> {
    let mut extents: Vec<Extent> = Vec::new();
    for sector in sectors {
        let mut raw = vec![0; sector.content.len()];
        device
            .seek(SeekFrom::Start(sector.offset))
            .and_then(|_| device.read_exact(&mut raw))
            .map_err(FatError::Unreadable)?;
        if raw != sector.content || sector.offset % SECTOR_SIZE as u64 != 0 {
            return Err(FatError::Misplaced { path: path.into() });
        }
        let length = sector.content.len() as u64;
        match extents.last_mut() {
            Some(last) if last.offset + last.length == sector.offset => last.length += length,
            _ => extents.push(Extent {
                offset: sector.offset,
                length,
            }),
        }
    }
    Ok(extents)
}

/// Reads that finding a few small files may take. A damaged file system can lead in circles.
const READ_LIMIT: u32 = 1_000_000;

/// Passes reads through, remembers where the last one began, and refuses writes.
struct Recorder<T> {
    inner: T,
    last_read: Rc<RefCell<u64>>,
    reads_left: u32,
}

impl<T: Read + Seek> Read for Recorder<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads_left = self
            .reads_left
            .checked_sub(1)
            .ok_or_else(|| io::Error::other("the file system is damaged: it has no end"))?;
        *self.last_read.borrow_mut() = self.inner.stream_position()?;
        self.inner.read(buffer)
    }
}

impl<T: Seek> Seek for Recorder<T> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.inner.seek(to)
    }
}

impl<T> Write for Recorder<T> {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the firmware partition is never written through its file system",
        ))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A FAT made by mkfs.fat and filled by mtools: their idea of the format, not ours.
    fn foreign_fat(
        kib: u32,
        args: &[&str],
        files: &[(&str, &[u8])],
    ) -> (tempfile::TempDir, std::fs::File) {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("fat.img");
        let run = |program: &str, package: &str, args: &[&std::ffi::OsStr]| {
            let output = Command::new(program)
                .args(args)
                .output()
                .unwrap_or_else(|e| panic!("{program}: {e}; install {package}"));
            assert!(output.status.success(), "{output:?}");
        };
        let size = kib.to_string();
        let mut words = vec!["-C".as_ref(), image.as_os_str(), size.as_ref()];
        words.extend(args.iter().map(std::ffi::OsStr::new));
        run("mkfs.fat", "dosfstools", &words);
        for (name, content) in files {
            let source = dir.path().join("source");
            std::fs::write(&source, content).unwrap();
            let target = format!("::{name}");
            run(
                "mcopy",
                "mtools",
                &[
                    "-i".as_ref(),
                    image.as_os_str(),
                    source.as_os_str(),
                    target.as_ref(),
                ],
            );
        }
        let file = std::fs::File::open(image).unwrap();
        (dir, file)
    }

    #[test]
    fn finds_files_on_every_kind_of_fat() {
        let content: Vec<u8> = (0..5000u32).map(|n| (n % 251) as u8).collect();
        for (kib, args) in [
            (1024, &["-F", "12"][..]),
            (16384, &["-F", "16"]),
            (65536, &["-F", "32", "-s", "1"]),
            (65536, &["-F", "32", "-s", "1", "-f", "1"]),
        ] {
            let (_dir, mut file) = foreign_fat(
                kib,
                args,
                &[("first.bin", b"x"), ("A Long Name.bin", &content)],
            );
            let all = extents(&mut file, &["a long name.bin"]).unwrap();
            let mut read = Vec::new();
            for extent in &all[0] {
                let mut part = vec![0; extent.length as usize];
                file.seek(SeekFrom::Start(extent.offset)).unwrap();
                file.read_exact(&mut part).unwrap();
                read.extend(part);
            }
            assert_eq!(read, content, "{args:?}");
            let first = first_sectors(&mut file, &["A Long Name.bin"]).unwrap();
            assert_eq!(first, [all[0][0].offset]);
        }
    }

    #[test]
    fn says_what_is_missing() {
        let (_dir, mut file) = foreign_fat(1024, &[], &[("short.bin", b"x")]);
        let text = first_sectors(&mut file, &["treeline/state.env"])
            .unwrap_err()
            .to_string();
        assert!(text.contains("treeline/state.env"), "{text}");
        let text = first_sectors(&mut file, &["short.bin"])
            .unwrap_err()
            .to_string();
        assert!(text.contains("shorter than one sector"), "{text}");
        let text = first_sectors(&mut io::Cursor::new(vec![0; 4096]), &["x"])
            .unwrap_err()
            .to_string();
        assert!(text.contains("reading the FAT"), "{text}");
    }

    /// A FAT with one file, and the byte ranges of its boot sector, tables and root directory.
    struct Victim {
        image: Vec<u8>,
        vital: Vec<std::ops::Range<usize>>,
    }

    fn victim(kib: u32, args: &[&str]) -> std::sync::Mutex<Victim> {
        let (_dir, mut file) = foreign_fat(kib, args, &[("a file.bin", &[7; 3000])]);
        let mut image = Vec::new();
        file.read_to_end(&mut image).unwrap();
        let name = image.windows(11).position(|w| w == b"AFILE~1 BIN").unwrap();
        let fat = usize::from(u16::from_le_bytes([image[14], image[15]])) * SECTOR_SIZE;
        let vital = vec![11..90, 512..1024, fat..fat + 64, name - 64..name + 64];
        std::sync::Mutex::new(Victim { image, vital })
    }

    proptest::proptest! {
        #[test]
        fn a_damaged_file_system_is_an_error_at_worst(
            large: bool,
            damage in proptest::collection::vec((0usize..4, 0usize..1024, proptest::prelude::any::<u8>()), 1..8),
        ) {
            use std::sync::{LazyLock, Mutex};
            static SMALL: LazyLock<Mutex<Victim>> = LazyLock::new(|| victim(1024, &["-F", "12"]));
            static LARGE: LazyLock<Mutex<Victim>> =
                LazyLock::new(|| victim(35000, &["-F", "32", "-s", "1"]));
            let victim = &mut *if large { &LARGE } else { &SMALL }.lock().unwrap();
            let mut undo = Vec::new();
            for (range, offset, byte) in damage {
                let range = &victim.vital[range];
                let at = range.start + offset % range.len();
                undo.push((at, std::mem::replace(&mut victim.image[at], byte)));
            }
            let _ = extents(&mut io::Cursor::new(&victim.image[..]), &["a file.bin"]);
            for (at, byte) in undo.into_iter().rev() {
                victim.image[at] = byte;
            }
        }
    }

    #[test]
    fn never_writes() {
        let mut recorder = Recorder {
            inner: io::Cursor::new(vec![0u8; 4]),
            last_read: Rc::default(),
            reads_left: 1,
        };
        assert!(recorder.write(&[1]).is_err());
    }
}
