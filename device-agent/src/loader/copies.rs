//! Two copies of a boot loader, of which one is started: the order of writes in which the other is replaced.

use anyhow::{ensure, Context, Result};
use bsp::board::RECORD_BYTES;
use bsp::loader::{filled, Blob, Record, SECTOR};

/// Bytes that are written and read back at once.
const CHUNK: usize = 64 * 1024;

/// Two copies, 0 and 1, of which one is started.
pub trait Copies {
    /// `length` bytes of a copy's slot from `at` on.
    fn read(&self, copy: usize, at: u64, length: usize) -> Result<Vec<u8>>;
    /// Writes into a copy's slot; it is on the medium when this returns.
    fn write(&mut self, copy: usize, at: u64, bytes: &[u8]) -> Result<()>;
    /// The copy that the machine starts.
    fn started(&self) -> Result<usize>;
    /// Has the machine start this copy, which is whole: one write.
    fn start(&mut self, copy: usize) -> Result<()>;
}

/// What is in a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A whole copy of this edition.
    Whole {
        /// Edition.
        edition: u32,
        /// SHA-256 of the file.
        sha256: [u8; 32],
    },
    /// The same, but its first sector was taken away so that nobody starts it; the record has it.
    Withdrawn {
        /// Edition.
        edition: u32,
    },
    /// Nothing, a torn copy, or one that has no record.
    Unknown,
}

impl Found {
    /// Its edition, if it is whole.
    pub fn edition(&self) -> Option<u32> {
        match self {
            Self::Whole { edition, .. } | Self::Withdrawn { edition } => Some(*edition),
            Self::Unknown => None,
        }
    }
}

/// What is in the slot of a copy.
pub fn find(copies: &dyn Copies, blob: &Blob, copy: usize) -> Result<Found> {
    let place = blob.slot - RECORD_BYTES;
    let record = copies.read(copy, place, RECORD_BYTES as usize)?;
    let Some(record) = Record::parse(&record).filter(|record| record.size <= place) else {
        return Ok(Found::Unknown);
    };
    let size = usize::try_from(record.size).context("reading the record of its edition")?;
    let mut content = copies.read(copy, 0, size)?;
    if record.is_for(&content) {
        return Ok(Found::Whole {
            edition: record.edition,
            sha256: record.sha256,
        });
    }
    let first = content.len().min(SECTOR);
    content[..first].copy_from_slice(&record.first[..first]);
    Ok(if record.is_for(&content) {
        Found::Withdrawn {
            edition: record.edition,
        }
    } else {
        Found::Unknown
    })
}

/// Replaces the copy that is not started and has the machine start it. Cut anywhere, the machine starts the old
/// copy or the new one, each whole; done again, it comes to the same end.
pub fn install(copies: &mut dyn Copies, blob: &Blob, content: &[u8]) -> Result<()> {
    let spare = 1 - copies.started()?;
    let record = Record::of(blob.edition, content);
    let wanted = Found::Whole {
        edition: record.edition,
        sha256: record.sha256,
    };
    // It may be there already: the power went before the switch.
    if find(copies, blob, spare)? != wanted {
        write_spare(copies, blob, spare, content, &record)?;
    }
    let found = find(copies, blob, spare)?;
    ensure!(
        found == wanted,
        "its new copy is not what was written; the old one stays"
    );
    copies.start(spare)?;
    ensure!(
        copies.started()? == spare,
        "the switch was made and has no effect; the old copy is started"
    );
    Ok(())
}

/// The first sector comes last: before it, nobody takes the copy for one.
fn write_spare(
    copies: &mut dyn Copies,
    blob: &Blob,
    spare: usize,
    content: &[u8],
    record: &Record,
) -> Result<()> {
    let bytes = filled(content);
    if copies.read(spare, 0, SECTOR)?.iter().any(|byte| *byte != 0) {
        copies.write(spare, 0, &[0; SECTOR])?;
    }
    let mut at = SECTOR;
    for chunk in bytes[SECTOR..].chunks(CHUNK) {
        copies.write(spare, at as u64, chunk)?;
        at += chunk.len();
    }
    copies.write(spare, blob.slot - RECORD_BYTES, &record.render())?;
    let back = copies.read(spare, 0, bytes.len())?;
    ensure!(
        back[SECTOR..] == bytes[SECTOR..],
        "reading its new copy back gave something else; the old one stays"
    );
    copies.write(spare, 0, &bytes[..SECTOR])
}
