//! The boot state in a redundant U-Boot environment on a whole disk.

use std::io::{Seek, SeekFrom};
use std::path::Path;

use crate::board::Environment;
use crate::boot::state::BootState;
use crate::boot::store::{BootStore, Disk, StoreError};
use crate::boot::variables::{self, Variables};

use super::env::{self, Copy, EnvError};

/// The boot state of the U-Boot backend.
///
/// Every write goes to the copy that does not count; only its flag, once all of it stands on the disk,
/// makes it the one that does. A write that is cut anywhere leaves the other copy as it was. The spare
/// record of the confirmed identity is the copy that does not count.
#[derive(Debug)]
pub struct UbootStore {
    disk: Disk,
    offsets: [u64; 2],
    size: u64,
}

impl UbootStore {
    /// Opens the environment on `disk`: byte 0 is the start of the whole disk (or of its image). Reads only.
    pub fn open(disk: &Path, environment: &Environment) -> Result<Self, StoreError> {
        let store = Self {
            disk: Disk::new(disk),
            offsets: [environment.offset.0, environment.redundant_offset.0],
            size: environment.size.0,
        };
        let end = store
            .disk
            .open()?
            .seek(SeekFrom::End(0))
            .map_err(|source| StoreError::Io {
                doing: "opening",
                device: disk.into(),
                source,
            })?;
        let outside = |offset: &u64| offset.checked_add(store.size).is_none_or(|last| last > end);
        if let Some(offset) = store.offsets.iter().copied().find(outside) {
            return Err(StoreError::Outside {
                device: disk.into(),
                offset,
                size: store.size,
                bytes: end,
            });
        }
        Ok(store)
    }

    fn copies(&self) -> Result<Copies, StoreError> {
        let mut copies = [None, None];
        for (copy, offset) in copies.iter_mut().zip(self.offsets) {
            let size = usize::try_from(self.size).map_err(|_| EnvError::TooShort(self.size))?;
            *copy = env::parse_copy(&self.disk.read(offset, size)?).ok();
        }
        Ok(Copies { copies })
    }

    fn write_copy(&self, index: usize, flag: u8, variables: &Variables) -> Result<(), StoreError> {
        let copy = env::render_copy(flag, variables, self.size)?;
        self.disk.write(self.offsets[index], &copy)
    }
}

/// What was read.
struct Copies {
    copies: [Option<Copy>; 2],
}

impl Copies {
    /// Index of the copy that counts.
    fn current(&self) -> Option<usize> {
        env::newest(self.copies.each_ref().map(Option::as_ref))
    }

    fn variables(&self, index: usize) -> Option<&Variables> {
        Some(&self.copies[index].as_ref()?.variables)
    }

    fn state(&self) -> Option<BootState> {
        variables::to_state(self.variables(self.current()?)?)
    }

    fn good(&self, index: usize) -> Option<String> {
        variables::to_good(self.variables(index)?)
    }

    /// What stands in the copy that counts, to be changed; the flag it has; and the index of the other.
    fn next(&self) -> (Variables, Option<u8>, usize) {
        let current = self.current();
        let copy = current.and_then(|index| self.copies[index].as_ref());
        (
            copy.map(|copy| copy.variables.clone()).unwrap_or_default(),
            copy.map(|copy| copy.flag),
            current.map_or(0, |index| 1 - index),
        )
    }
}

impl BootStore for UbootStore {
    fn read_state(&self) -> Result<Option<BootState>, StoreError> {
        Ok(self.copies()?.state())
    }

    fn write_state(&mut self, state: &BootState) -> Result<(), StoreError> {
        let (mut variables, flag, other) = self.copies()?.next();
        env::set_state(&mut variables, state)?;
        self.write_copy(
            other,
            flag.map_or(1, |flag| flag.wrapping_add(1)),
            &variables,
        )
    }

    fn read_good(&self) -> Result<Option<String>, StoreError> {
        let copies = self.copies()?;
        let Some(current) = copies.current() else {
            return Ok(None);
        };
        let other = copies.good(1 - current);
        Ok(match copies.state() {
            Some(_) => other,
            None => copies.good(current).or(other),
        })
    }

    /// The copy that does not count becomes the spare record, and goes on not counting. Without any valid
    /// copy there is nothing to be spare for: the record is all there is.
    fn write_good(&mut self, good: &str) -> Result<(), StoreError> {
        let (mut variables, flag, other) = self.copies()?.next();
        env::set_good(&mut variables, good)?;
        self.write_copy(
            other,
            flag.map_or(1, |flag| flag.wrapping_sub(1)),
            &variables,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::{environment_area, fw_env_config};
    use super::*;
    use crate::board::Size;
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;
    use std::process::Command;

    const ENVIRONMENT: Environment = Environment {
        offset: Size(0x1_0000),
        redundant_offset: Size(0x9_0000),
        size: Size(0x4000),
    };

    /// A disk image with both copies as from the factory.
    struct Image {
        dir: tempfile::TempDir,
    }

    impl Image {
        fn new() -> Self {
            let image = Self {
                dir: tempfile::tempdir().unwrap(),
            };
            let file = std::fs::File::create(image.path()).unwrap();
            file.set_len(1 << 20).unwrap();
            for (offset, copy) in
                environment_area(&ENVIRONMENT, &BootState::confirmed("a")).unwrap()
            {
                file.write_all_at(&copy, offset).unwrap();
            }
            let config = fw_env_config(image.path().to_str().unwrap(), &ENVIRONMENT);
            std::fs::write(image.config(), config).unwrap();
            image
        }

        fn path(&self) -> PathBuf {
            self.dir.path().join("disk")
        }

        fn config(&self) -> PathBuf {
            self.dir.path().join("fw_env.config")
        }

        fn store(&self) -> UbootStore {
            UbootStore::open(&self.path(), &ENVIRONMENT).unwrap()
        }

        fn bytes(&self) -> Vec<u8> {
            std::fs::read(self.path()).unwrap()
        }

        fn put(&self, index: usize, bytes: &[u8]) {
            let offset = [ENVIRONMENT.offset, ENVIRONMENT.redundant_offset][index];
            let file = std::fs::File::options()
                .write(true)
                .open(self.path())
                .unwrap();
            file.write_all_at(bytes, offset.0).unwrap();
        }

        fn tool(&self, program: &str, args: &[&str]) -> Vec<String> {
            let output = Command::new(program)
                .arg("-c")
                .arg(self.config())
                .args(args)
                .output()
                .unwrap_or_else(|e| panic!("{program}: {e}; install libubootenv-tool"));
            assert!(output.status.success(), "{output:?}");
            let text = String::from_utf8(output.stdout).unwrap();
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        }
    }

    fn trial(tries: u8) -> BootState {
        BootState::confirmed("a").armed("b-2", tries)
    }

    #[test]
    fn fw_printenv_reads_what_we_write_over_the_wrap() {
        let image = Image::new();
        assert_eq!(
            image.tool("fw_printenv", &[]),
            ["good=a", "treeline=1", "tries=0"]
        );
        let mut store = image.store();
        for write in 0..520u32 {
            let tries = (write % 9) as u8 + 1;
            store.write_state(&trial(tries)).unwrap();
            assert_eq!(store.read_state().unwrap(), Some(trial(tries)));
            // Around the wrap, twice.
            if matches!(write % 256, 250..=255 | 0..=3) {
                let want = format!("tries={tries}");
                assert!(image.tool("fw_printenv", &[]).contains(&want), "{write}");
            }
        }
    }

    #[test]
    fn fw_setenv_writes_what_we_read_and_keep() {
        let image = Image::new();
        let mut store = image.store();
        let values = image.dir.path().join("values");
        for round in 0..300 {
            if matches!(round, 0..=3 | 250..=260) {
                let text = format!("serial=47 11\nround={round}\ntrial=b-2\ntries=4\n");
                std::fs::write(&values, text).unwrap();
                image.tool("fw_setenv", &["-s", values.to_str().unwrap()]);
                assert_eq!(store.read_state().unwrap(), Some(trial(4)), "{round}");
            }
            store.write_state(&trial(2)).unwrap();
        }
        let printed = image.tool("fw_printenv", &[]);
        for line in ["serial=47 11", "round=260", "tries=2", "good=a"] {
            assert!(printed.contains(&line.to_owned()), "{printed:?}");
        }
    }

    #[test]
    fn mkenvimage_makes_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let [text, made] = ["text", "made"].map(|name| dir.path().join(name));
        let mut variables = Variables::new();
        env::set_state(&mut variables, &trial(3)).unwrap();
        variables.insert("serial".into(), "47 11".into());
        let lines: String = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}\n"))
            .collect();
        std::fs::write(&text, lines).unwrap();
        let output = Command::new("mkenvimage")
            .args(["-r", "-p", "0", "-s", "0x4000", "-o"])
            .args([&made, &text])
            .output()
            .expect("mkenvimage not found: install u-boot-tools");
        assert!(output.status.success(), "{output:?}");
        let made = std::fs::read(made).unwrap();
        let copy = env::parse_copy(&made).unwrap();
        assert_eq!(copy.variables, variables);
        assert_eq!(
            env::render_copy(copy.flag, &variables, 0x4000).unwrap(),
            made
        );
    }

    #[test]
    fn a_write_touches_the_copy_that_does_not_count_and_nothing_else() {
        let image = Image::new();
        let mut store = image.store();
        for write in 0..4 {
            let before = image.bytes();
            store.write_state(&trial(write + 1)).unwrap();
            let after = image.bytes();
            // The first copy counts at the factory.
            let other = [ENVIRONMENT.redundant_offset, ENVIRONMENT.offset][usize::from(write) % 2];
            let range = other.0 as usize..(other.0 + ENVIRONMENT.size.0) as usize;
            assert_ne!(before[range.clone()], after[range.clone()]);
            assert_eq!(before[..range.start], after[..range.start]);
            assert_eq!(before[range.end..], after[range.end..]);
        }
    }

    #[test]
    fn a_torn_write_leaves_the_state_before() {
        let image = Image::new();
        image.store().write_state(&trial(3)).unwrap();
        let old = image.bytes();
        image
            .store()
            .write_state(&BootState::confirmed("b-2"))
            .unwrap();
        let new = image.bytes();
        let start = ENVIRONMENT.offset.0 as usize;
        // Cut after any of its sectors; also with the first sector written last.
        for sectors in 0..=32 {
            let cut = start + sectors * 512;
            let mut bytes = [&new[..cut], &old[cut..]].concat();
            let torn_backwards = [&old[..start], &old[start..cut], &new[cut..]].concat();
            for bytes in [std::mem::take(&mut bytes), torn_backwards] {
                std::fs::write(image.path(), bytes).unwrap();
                let state = image.store().read_state().unwrap().unwrap();
                assert!(
                    state == trial(3) || state == BootState::confirmed("b-2"),
                    "{sectors}: {state:?}"
                );
            }
        }
    }

    #[test]
    fn the_other_copy_is_the_spare_record() {
        let image = Image::new();
        let mut store = image.store();
        assert_eq!(store.read_good().unwrap().as_deref(), Some("a"));
        store.write_state(&BootState::confirmed("b")).unwrap();
        assert_eq!(store.read_good().unwrap().as_deref(), Some("a"));
        store.write_good("b").unwrap();
        assert_eq!(store.read_good().unwrap().as_deref(), Some("b"));
        assert_eq!(store.read_state().unwrap(), Some(BootState::confirmed("b")));
        // What fw_printenv shows is the state, not the spare record.
        assert!(image.tool("fw_printenv", &[]).contains(&"tries=0".into()));

        image.put(1, &[0xff; 0x4000]);
        assert_eq!(store.read_state().unwrap(), None);
        assert_eq!(store.read_good().unwrap().as_deref(), Some("b"));
        store.write_state(&BootState::confirmed("c")).unwrap();
        assert_eq!(store.read_state().unwrap(), Some(BootState::confirmed("c")));
    }

    #[test]
    fn an_area_with_nothing_in_it_can_be_written() {
        for first in ["state", "spare"] {
            let image = Image::new();
            image.put(0, &[0xff; 0x4000]);
            image.put(1, &[0; 0x4000]);
            let mut store = image.store();
            assert_eq!(store.read_state().unwrap(), None);
            assert_eq!(store.read_good().unwrap(), None);
            if first == "spare" {
                store.write_good("a").unwrap();
                assert_eq!(store.read_state().unwrap(), None);
                assert_eq!(store.read_good().unwrap().as_deref(), Some("a"));
            }
            store.write_state(&trial(9)).unwrap();
            assert_eq!(store.read_state().unwrap(), Some(trial(9)));
            assert!(image.tool("fw_printenv", &[]).contains(&"tries=9".into()));
        }
    }

    #[test]
    fn refuses_another_disk_and_what_it_could_not_write() {
        let image = Image::new();
        let small = Environment {
            redundant_offset: Size((1 << 20) - 512),
            ..ENVIRONMENT
        };
        let text = UbootStore::open(&image.path(), &small)
            .unwrap_err()
            .to_string();
        assert!(text.contains("is it the whole disk?"), "{text}");
        let none = image.dir.path().join("none");
        let text = UbootStore::open(&none, &ENVIRONMENT)
            .unwrap_err()
            .to_string();
        assert!(text.contains("opening the boot state on"), "{text}");

        let before = image.bytes();
        let mut store = image.store();
        assert!(store.write_state(&BootState::confirmed("a b")).is_err());
        assert!(store.write_good("").is_err());
        assert_eq!(before, image.bytes());
    }
}
