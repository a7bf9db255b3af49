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
