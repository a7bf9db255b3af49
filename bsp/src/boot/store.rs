//! Reading and writing the boot state on a device.

mod disk;

use std::path::{Path, PathBuf};

pub(crate) use disk::Disk;

use super::grubenv::{self, GrubenvError, BLOCK_SIZE, SECTOR_SIZE};
use super::state::BootState;
use super::uboot::env::EnvError;
use super::{GOOD_PATH, STATE_PATH};
use crate::fat::{self, Extent, FatError};

/// A boot state that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The firmware partition or disk could not be opened, read or written.
    #[error("{doing} the boot state on {}: {source}", device.display())]
    Io {
        /// `opening`, `reading` or `writing`.
        doing: &'static str,
        /// The block device or image.
        device: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The files of the boot state are not where they should be.
    #[error("looking for the boot state on {}: {source}", device.display())]
    Locate {
        /// The block device or image.
        device: PathBuf,
        /// What is missing.
        source: FatError,
    },
    /// A file of the boot state has the wrong size.
    #[error("looking for the boot state on {}: {path} has {bytes} bytes, not {BLOCK_SIZE}", device.display())]
    Size {
        /// The block device or image.
        device: PathBuf,
        /// Path on the firmware partition.
        path: &'static str,
        /// Its size.
        bytes: u64,
    },
    /// The device is not the one that the configuration means.
    #[error("looking for the boot state on {}: {size} bytes at {offset} would be beyond its end ({bytes} bytes); is it the whole disk?", device.display())]
    Outside {
        /// The block device or image.
        device: PathBuf,
        /// Where a copy of the environment should be.
        offset: u64,
        /// Its size.
        size: u64,
        /// Size of the device.
        bytes: u64,
    },
    /// The new content cannot be written in one go.
    #[error("writing the boot state: {0}")]
    Content(#[from] GrubenvError),
    /// The new content cannot be written at all.
    #[error("writing the boot state: {0}")]
    Environment(#[from] EnvError),
    /// The device took the write and returned something else.
    #[error("writing the boot state on {}: reading it back gave something else; the device may be failing or write-protected", device.display())]
    Lost {
        /// The block device or image.
        device: PathBuf,
    },
}

/// A place for the boot state.
pub trait BootStore {
    /// The state; `None` if what is there is torn or foreign. Does not write.
    fn read_state(&self) -> Result<Option<BootState>, StoreError>;
    /// Replaces the state: one atomic write to the disk, done when this returns.
    fn write_state(&mut self, state: &BootState) -> Result<(), StoreError>;
    /// The spare record of the confirmed identity; `None` if it is torn or foreign. Does not write.
    fn read_good(&self) -> Result<Option<String>, StoreError>;
    /// Replaces the spare record: one atomic write to the disk, done when this returns.
    fn write_good(&mut self, good: &str) -> Result<(), StoreError>;
}

/// The boot state of the GRUB backend, on the block device of a firmware partition (or in an image of
/// one) that nobody has mounted.
#[derive(Debug)]
pub struct GrubStore {
    disk: Disk,
    state: Place,
    good: Place,
}

/// Where the two sectors of a block stand, from the start of the partition.
#[derive(Debug, Clone, Copy)]
struct Place {
    first: u64,
    second: u64,
}

impl GrubStore {
    /// Finds the boot state on `device`: byte 0 is the start of the FAT partition. Reads only.
    pub fn open(device: &Path) -> Result<Self, StoreError> {
        let disk = Disk::new(device);
        let found =
            fat::extents(&mut disk.open()?, &[STATE_PATH, GOOD_PATH]).map_err(|source| {
                StoreError::Locate {
                    device: device.into(),
                    source,
                }
            })?;
        let place = |path, extents: &[Extent]| {
            Place::of(extents).ok_or_else(|| StoreError::Size {
                device: device.into(),
                path,
                bytes: extents.iter().map(|e| e.length).sum(),
            })
        };
        let (state, good) = (place(STATE_PATH, &found[0])?, place(GOOD_PATH, &found[1])?);
        Ok(Self { disk, state, good })
    }

    fn read(&self, place: Place) -> Result<Vec<u8>, StoreError> {
        let mut block = self.disk.read(place.first, SECTOR_SIZE)?;
        block.extend(self.disk.read(place.second, SECTOR_SIZE)?);
        Ok(block)
    }

    fn write(&self, place: Place, block: &[u8; BLOCK_SIZE]) -> Result<(), StoreError> {
        let (first, second) = block.split_at(SECTOR_SIZE);
        self.disk.write(place.first, first)?;
        // Everything that means something is written by now. The second sector only ever holds filling;
        // if a foreign tool left variables there, GRUB would go on reading them.
        if self.read(place)?[SECTOR_SIZE..] != *second {
            self.disk.write(place.second, second)?;
        }
        Ok(())
    }
}

impl Place {
    fn of(extents: &[Extent]) -> Option<Self> {
        const SECTOR: u64 = SECTOR_SIZE as u64;
        match extents {
            [whole] if whole.length == 2 * SECTOR => Some(Self {
                first: whole.offset,
                second: whole.offset + SECTOR,
            }),
            [first, second] if first.length == SECTOR && second.length == SECTOR => Some(Self {
                first: first.offset,
                second: second.offset,
            }),
            _ => None,
        }
    }
}

impl BootStore for GrubStore {
    fn read_state(&self) -> Result<Option<BootState>, StoreError> {
        Ok(grubenv::to_state(&self.read(self.state)?))
    }

    fn write_state(&mut self, state: &BootState) -> Result<(), StoreError> {
        self.write(self.state, &grubenv::from_state(state)?)
    }

    fn read_good(&self) -> Result<Option<String>, StoreError> {
        Ok(grubenv::to_good(&self.read(self.good)?))
    }

    fn write_good(&mut self, good: &str) -> Result<(), StoreError> {
        self.write(self.good, &grubenv::from_good(good)?)
    }
}

/// A boot state in memory, for tests: as strict about its content as the real one.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    /// The state; `None` is a torn one.
    pub state: Option<BootState>,
    /// The spare record; `None` is a torn one.
    pub good: Option<String>,
    /// Writes so far, in order and in words: `state good=a trial=b tries=3`, `good a`.
    pub writes: Vec<String>,
    /// Writes that still succeed; `None` is all of them. A write beyond that changes nothing and fails,
    /// like a power cut before it.
    pub writes_left: Option<usize>,
}

impl MemoryStore {
    /// A store that holds this state and its spare record.
    pub fn new(state: BootState) -> Self {
        Self {
            good: Some(state.good.clone()),
            state: Some(state),
            ..Self::default()
        }
    }

    fn record(&mut self, write: String) -> Result<(), StoreError> {
        if let Some(left) = &mut self.writes_left {
            *left = left.checked_sub(1).ok_or_else(|| StoreError::Io {
                doing: "writing",
                device: PathBuf::from("memory"),
                source: std::io::Error::other("no more writes allowed"),
            })?;
        }
        self.writes.push(write);
        Ok(())
    }
}

impl BootStore for MemoryStore {
    fn read_state(&self) -> Result<Option<BootState>, StoreError> {
        Ok(self.state.clone())
    }

    fn write_state(&mut self, state: &BootState) -> Result<(), StoreError> {
        grubenv::from_state(state)?;
        let trial = state.trial.as_deref().unwrap_or_default();
        self.record(format!(
            "state good={} trial={trial} tries={}",
            state.good, state.tries
        ))?;
        self.state = Some(state.clone());
        Ok(())
    }

    fn read_good(&self) -> Result<Option<String>, StoreError> {
        Ok(self.good.clone())
    }

    fn write_good(&mut self, good: &str) -> Result<(), StoreError> {
        grubenv::from_good(good)?;
        self.record(format!("good {good}"))?;
        self.good = Some(good.into());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// A FAT image by mkfs.fat and mtools with the two files of the boot state.
    fn image(dir: &Path, state: &[u8], good: &[u8]) -> PathBuf {
        let image = dir.join("firmware.img");
        let (state_file, good_file) = (dir.join("state.env"), dir.join("good.env"));
        std::fs::write(&state_file, state).unwrap();
        std::fs::write(&good_file, good).unwrap();
        let run = |program: &str, package: &str, args: &[&str]| {
            let output = Command::new(program)
                .args(args)
                .output()
                .unwrap_or_else(|e| panic!("{program}: {e}; install {package}"));
            assert!(output.status.success(), "{output:?}");
        };
        let path = image.to_str().unwrap();
        run(
            "mkfs.fat",
            "dosfstools",
            &["-F", "32", "-s", "1", "-C", path, "65536"],
        );
        run("mmd", "mtools", &["-i", path, "::treeline"]);
        for file in [&state_file, &good_file] {
            let source = file.to_str().unwrap();
            run("mcopy", "mtools", &["-i", path, source, "::treeline/"]);
        }
        image
    }

    fn blank() -> [u8; BLOCK_SIZE] {
        grubenv::render(&Default::default()).unwrap()
    }

    /// What differs between two images: (offset, length) of the span of changed bytes.
    fn changed_sectors(before: &[u8], after: &[u8]) -> Vec<usize> {
        let sectors = before.chunks(SECTOR_SIZE).zip(after.chunks(SECTOR_SIZE));
        sectors
            .enumerate()
            .filter(|(_, (a, b))| a != b)
            .map(|(index, _)| index)
            .collect()
    }

    #[test]
    fn every_write_changes_one_sector_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(dir.path(), &blank(), &blank());
        let mut store = GrubStore::open(&path).unwrap();
        assert_eq!(store.read_state().unwrap(), None);
        assert_eq!(store.read_good().unwrap(), None);

        let state = BootState::confirmed("a1").armed("b2", 3);
        let before = std::fs::read(&path).unwrap();
        store.write_state(&state).unwrap();
        let after = std::fs::read(&path).unwrap();
        assert_eq!(changed_sectors(&before, &after).len(), 1);
        store.write_good("a1").unwrap();
        assert_eq!(
            changed_sectors(&after, &std::fs::read(&path).unwrap()).len(),
            1
        );

        let again = GrubStore::open(&path).unwrap();
        assert_eq!(again.read_state().unwrap(), Some(state));
        assert_eq!(again.read_good().unwrap().as_deref(), Some("a1"));
        let text = Command::new("mtype")
            .args(["-i", path.to_str().unwrap(), "::treeline/state.env"])
            .output()
            .unwrap();
        assert!(
            String::from_utf8_lossy(&text.stdout).contains("trial=b2\n"),
            "{text:?}"
        );
    }

    #[test]
    fn what_a_foreign_tool_left_in_the_second_sector_goes() {
        let dir = tempfile::tempdir().unwrap();
        let mut foreign = blank().to_vec();
        foreign[25] = b'x';
        foreign[26] = b'=';
        let tail = b"y\ntries=9\n";
        foreign[600..600 + tail.len()].copy_from_slice(tail);
        let path = image(dir.path(), &foreign, &blank());
        let mut store = GrubStore::open(&path).unwrap();
        let state = BootState::confirmed("a");
        store.write_state(&state).unwrap();
        assert_eq!(store.read_state().unwrap(), Some(state));
    }

    #[test]
    fn refuses_what_it_could_not_write_in_one_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(dir.path(), &blank(), &blank());
        let before = std::fs::read(&path).unwrap();
        let mut store = GrubStore::open(&path).unwrap();
        let long = "a".repeat(SECTOR_SIZE);
        assert!(store.write_state(&BootState::confirmed(long)).is_err());
        assert!(store.write_good("a b").is_err());
        assert_eq!(before, std::fs::read(&path).unwrap());
    }

    #[test]
    fn names_what_is_wrong_with_the_partition() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(dir.path(), b"short", &blank());
        let text = GrubStore::open(&path).unwrap_err().to_string();
        assert!(text.contains("treeline/state.env has 5 bytes"), "{text}");
        let text = GrubStore::open(&dir.path().join("none"))
            .unwrap_err()
            .to_string();
        assert!(text.contains("opening the boot state on"), "{text}");
    }

    #[test]
    fn the_store_in_memory_can_run_dry() {
        let mut store = MemoryStore::new(BootState::confirmed("a"));
        store.writes_left = Some(1);
        store
            .write_state(&BootState::confirmed("a").armed("b", 1))
            .unwrap();
        assert!(store.write_good("b").is_err());
        assert_eq!(store.writes, ["state good=a trial=b tries=1"]);
        assert_eq!(store.good.as_deref(), Some("a"));
    }
}
