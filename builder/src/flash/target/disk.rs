//! A real disk, card, loop device or file, opened for this program alone and past the page cache.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use nix::fcntl::{fallocate, posix_fadvise, FallocateFlags, PosixFadviseAdvice};
use nix::libc;

use super::Target;
use crate::command::Command;

/// An open disk or file.
#[derive(Debug)]
pub struct Disk {
    file: File,
    size: u64,
    block: usize,
    direct: bool,
    discard: Discard,
    /// After the file: while this program has the disk for itself, nobody may read its table.
    _reread: Reread,
}

/// Lets the kernel read the partition table of a disk anew when it is dropped.
#[derive(Debug)]
struct Reread(Option<PathBuf>);

impl Drop for Reread {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            // What the kernel thinks of the table is no concern of ours.
            let _ = Command::new("blockdev", "util-linux")
                .arg("--rereadpt")
                .arg(path)
                .run();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Discard {
    /// A regular file: holes are punched.
    Holes,
    /// A block device that takes discards.
    Device,
    /// Neither.
    No,
}

impl Disk {
    /// Opens `path` for writing: a block device, which nobody else may have in use (`O_EXCL`), or a regular
    /// file. `discards` says whether a block device takes discards.
    pub fn open(path: &Path, discards: bool) -> Result<Self> {
        let doing = || format!("opening {} for writing", path.display());
        let is_device = std::fs::metadata(path)
            .with_context(doing)?
            .file_type()
            .is_block_device();
        let exclusive = if is_device { libc::O_EXCL } else { 0 };
        let open = |flags| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(flags)
                .open(path)
        };
        let (mut file, direct) = match open(exclusive | libc::O_DIRECT) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                (open(exclusive).with_context(doing)?, false)
            }
            opened => (opened.map_err(explain).with_context(doing)?, true),
        };
        let kind = file.metadata().with_context(doing)?.file_type();
        if kind.is_block_device() != is_device || !(is_device || kind.is_file()) {
            bail!("{}: it is neither a disk nor a file", doing());
        }
        let size = file.seek(SeekFrom::End(0)).with_context(doing)?;
        let block = if is_device {
            let block = rustix::fs::ioctl_blksszget(&file).map_err(io::Error::from);
            block.with_context(doing)? as usize
        } else {
            4096
        };
        if !block.is_power_of_two() || !(512..=4096).contains(&block) {
            bail!("{}: blocks of {block} bytes are not supported", doing());
        }
        Ok(Self {
            file,
            size,
            block: if direct { block } else { 512 },
            direct,
            discard: match (is_device, discards) {
                (false, _) => Discard::Holes,
                (true, true) => Discard::Device,
                (true, false) => Discard::No,
            },
            _reread: Reread(is_device.then(|| path.to_path_buf())),
        })
    }

    /// Device number of the opened block device: what was really opened, whatever the path means by now.
    pub fn number(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.rdev())
    }
}

fn explain(error: io::Error) -> anyhow::Error {
    let hint = match error.raw_os_error() {
        Some(libc::EBUSY) => "it is in use; see `lsblk` for what holds it",
        Some(libc::EACCES | libc::EPERM) => {
            "try it as root, or as a member of the group `disk`; is the card's write protection on?"
        }
        Some(libc::EROFS) => "it is read-only; is the card's write protection on?",
        Some(libc::ENOMEDIUM) => "there is no card in the reader",
        Some(libc::ENXIO | libc::ENODEV) => "the device is gone; plug it in again",
        _ => return error.into(),
    };
    anyhow::Error::new(error).context(hint)
}

impl Target for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn block(&self) -> usize {
        self.block
    }

    fn write_at(&mut self, data: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(data, at)
    }

    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        if !self.direct {
            let offset = i64::try_from(at).unwrap_or(i64::MAX);
            let length = i64::try_from(buffer.len()).unwrap_or(i64::MAX);
            posix_fadvise(
                &self.file,
                offset,
                length,
                PosixFadviseAdvice::POSIX_FADV_DONTNEED,
            )?;
        }
        self.file.read_exact_at(buffer, at)
    }

    fn discard(&mut self, range: Range<u64>) -> io::Result<bool> {
        match self.discard {
            Discard::No => Ok(false),
            Discard::Holes => {
                let flags =
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                let offset = i64::try_from(range.start).map_err(io::Error::other)?;
                let length = i64::try_from(range.end - range.start).map_err(io::Error::other)?;
                Ok(fallocate(&self.file, flags, offset, length).is_ok())
            }
            // Through the open file, so that it is this very device. `--force` only means that the
            // program does not ask for the device alone: we have it.
            Discard::Device => {
                let done = Command::new("blkdiscard", "util-linux")
                    .args(["--force", "--offset", &range.start.to_string()])
                    .args(["--length", &(range.end - range.start).to_string()])
                    .arg("/proc/self/fd/0")
                    .stdin(self.file.try_clone()?)
                    .run();
                if done.is_err() {
                    self.discard = Discard::No;
                }
                Ok(done.is_ok())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}
