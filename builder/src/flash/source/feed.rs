//! The bytes of a disk image, front to back, whatever they are packed in.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use liblzma::read::XzDecoder;
use liblzma::stream::Stream;

use super::Packing;
use crate::command::Command;

/// Memory that unpacking xz may take, bytes.
const XZ_MEMORY: u64 = 80 << 20;
/// Largest window that unpacking Zstandard may take, as a power of two.
const ZSTD_WINDOW_LOG: u32 = 26;

/// An image being read.
pub enum Feed {
    /// Any place can be reached at once.
    Raw(File),
    /// Only what lies ahead can be reached.
    Packed {
        /// The unpacked bytes.
        stream: Box<dyn Read + Send>,
        /// Bytes read of it.
        position: u64,
    },
}

impl Feed {
    /// Begins to read `path`.
    pub fn open(path: &Path, packing: Packing) -> Result<Self> {
        let file = File::open(path)?;
        let packed = |stream| Self::Packed {
            stream,
            position: 0,
        };
        Ok(match packing {
            Packing::Raw => Self::Raw(file),
            Packing::Zstd => {
                let mut decoder = zstd::Decoder::new(file).context("starting to unpack")?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                packed(Box::new(decoder))
            }
            Packing::Xz => {
                let stream = Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)
                    .context("starting to unpack")?;
                let file = BufReader::with_capacity(1 << 20, file);
                packed(Box::new(XzDecoder::new_stream(file, stream)))
            }
            Packing::Qcow2 => bail!("a qcow2 image must be converted first"),
        })
    }

    /// Fills `buffer` from byte `at` of the disk on; packed images only go forward.
    pub fn fill(&mut self, at: u64, buffer: &mut [u8]) -> Result<()> {
        let result = match self {
            Self::Raw(file) => file.read_exact_at(buffer, at),
            Self::Packed { stream, position } => {
                let gap = at.checked_sub(*position).context("reading backwards")?;
                let skipped = io::copy(&mut stream.by_ref().take(gap), &mut io::sink());
                let done = skipped.and_then(|skipped| {
                    if skipped < gap {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    stream.read_exact(buffer)
                });
                *position = at + buffer.len() as u64;
                done
            }
        };
        result.map_err(|error| broken(error, at))
    }

    /// Reads on to the end and tells the size of the disk.
    pub fn measure(&mut self) -> Result<u64> {
        match self {
            Self::Raw(file) => Ok(file.metadata()?.len()),
            Self::Packed { stream, position } => {
                let mut buffer = vec![0; 1 << 20];
                loop {
                    match stream.read(&mut buffer) {
                        Ok(0) => return Ok(*position),
                        Ok(count) => *position += count as u64,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) => return Err(broken(error, *position)),
                    }
                }
            }
        }
    }
}

fn broken(error: io::Error, at: u64) -> anyhow::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return anyhow::anyhow!(
            "it ends before byte {at} of the disk is complete: it is truncated"
        );
    }
    anyhow::Error::new(error).context(format!("unpacking at byte {at} of the disk"))
}

/// First byte of the place of the backing file's name in a qcow2 header (8 bytes, big-endian).
const BACKING_FILE: usize = 8;
/// Incompatible features, version 3 (8 bytes, big-endian); bit 2: the data is in another file.
const FEATURES: usize = 72;
const EXTERNAL_DATA: u64 = 1 << 2;

/// A qcow2 image as a raw file that removes itself. Images that refer to other files are refused: they
/// could make any file of this machine part of the disk.
pub fn convert(path: &Path) -> Result<tempfile::TempPath> {
    let mut header = [0; 80];
    File::open(path)?
        .read_exact(&mut header)
        .context("its header is incomplete")?;
    let number = |at: usize| {
        let bytes = header[at..at + 8].iter();
        bytes.fold(0, |sum: u64, byte| sum << 8 | u64::from(*byte))
    };
    ensure!(
        number(BACKING_FILE) == 0,
        "it is only the difference to another image; flatten it with `qemu-img convert -O qcow2`"
    );
    let version = number(0) & 0xffff_ffff;
    ensure!(
        version < 3 || number(FEATURES) & EXTERNAL_DATA == 0,
        "its data stands in another file; join them with `qemu-img convert -O qcow2`"
    );
    let raw = tempfile::Builder::new()
        .prefix("builder-flash-")
        .tempfile_in(scratch())
        .context("making room for the unpacked image")?
        .into_temp_path();
    Command::new("qemu-img", "qemu-utils")
        .args(["convert", "-f", "qcow2", "-O", "raw"])
        .arg(path)
        .arg(&raw)
        .run()
        .context("unpacking the qcow2 image")?;
    Ok(raw)
}

/// Where large temporary files go: `TMPDIR`, else `/var/tmp`, which is not in memory.
fn scratch() -> std::path::PathBuf {
    std::env::var_os("TMPDIR").map_or_else(|| "/var/tmp".into(), Into::into)
}
