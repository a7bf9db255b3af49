//! `mke2fs` from the product's own suite: the bytes of an image do not depend on the host's version. It must be 1.47.1 or later (it reads a tar stream).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{bail, Context, Result};

use super::geometry;
use super::programs::Programs;
use crate::command::Command;
use crate::deploy::Sysroot;

/// Features of every file system. GRUB reads all of them; `orphan_file` and `metadata_csum_seed`,
/// which today's defaults add, it does not.
const FEATURES: &str = "none,has_journal,ext_attr,dir_index,filetype,extent,64bit,flex_bg,\
    sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";

/// The locked `mke2fs`.
#[derive(Debug, Clone)]
pub struct Mke2fs {
    programs: Programs,
    program: PathBuf,
    config: PathBuf,
}

/// An ext4 file system to make.
#[derive(Debug, Clone)]
pub struct Ext4<'a> {
    /// Where it begins on the disk, bytes.
    pub start: u64,
    /// Bytes, a multiple of 4096.
    pub size: u64,
    /// Volume label.
    pub label: &'a str,
    /// Volume UUID.
    pub uuid: &'a str,
    /// Seed of the directory hashes.
    pub hash_seed: &'a str,
    /// Whether it is to be grown on the device.
    pub grows: bool,
    /// Time of everything that has no time of its own, seconds since 1970.
    pub source_date_epoch: u64,
}

impl Mke2fs {
    /// `programs` are those of `e2fsprogs`, `libarchive13t64` and what they need.
    pub fn new(programs: &Programs) -> Result<Self> {
        Ok(Self {
            program: programs.find(&["usr/sbin/mke2fs"])?,
            config: programs.find(&["etc/mke2fs.conf"])?,
            programs: programs.clone(),
        })
    }

    /// Makes `fs` in the file `disk`, with the tree of `content` or empty. Its place must be all zeros.
    pub fn make(&self, fs: &Ext4<'_>, content: Option<&Sysroot>, disk: &Path) -> Result<()> {
        let stderr = tempfile::tempfile().context("creating a scratch file")?;
        let complaint = stderr.try_clone().context("sharing a scratch file")?;
        let mut command = self.command(fs, content.is_some(), disk).into_std();
        let stdin = match content {
            Some(_) => Stdio::piped(),
            None => Stdio::null(),
        };
        let mut child = command
            .stdin(stdin)
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .with_context(|| format!("running {}", self.program.display()))?;
        // The pipe must be closed before waiting.
        let written = match (content, child.stdin.take()) {
            (Some(content), Some(mut pipe)) => content.write_tar(&mut pipe),
            _ => Ok(()),
        };
        let status = child.wait().context("waiting for mke2fs")?;
        if !status.success() {
            bail!(
                "making the ext4 file system \"{}\" of {} MiB: mke2fs: {status}\n{}",
                fs.label,
                fs.size >> 20,
                read_all(complaint)?.trim()
            );
        }
        written.with_context(|| format!("filling the ext4 file system \"{}\"", fs.label))
    }

    fn command(&self, fs: &Ext4<'_>, filled: bool, disk: &Path) -> Command {
        let features = if fs.grows {
            format!("{FEATURES},resize_inode")
        } else {
            FEATURES.to_string()
        };
        // Only the last -E counts.
        let extended = format!(
            "offset={},hash_seed={},lazy_itable_init=0,lazy_journal_init=0,nodiscard,root_owner=0:0",
            fs.start, fs.hash_seed
        );
        let mut command = self
            .programs
            .command(&self.program)
            .args(["-q", "-F", "-t", "ext4", "-O", &features])
            .args(["-b", &geometry::BLOCK.to_string()])
            .args(["-I", &geometry::INODE_SIZE.to_string()])
            .args(["-i", &geometry::BYTES_PER_INODE.to_string()])
            .args(["-m", &geometry::RESERVED_PERCENT.to_string()])
            .arg("-J")
            .arg(format!("size={}", geometry::journal(fs.size) >> 20))
            .args(["-L", fs.label, "-U", fs.uuid, "-E", &extended])
            .env("SOURCE_DATE_EPOCH", fs.source_date_epoch.to_string())
            .env("MKE2FS_CONFIG", &self.config);
        if filled {
            command = command.args(["-d", "-"]);
        }
        command.arg(disk).arg(format!("{}k", fs.size >> 10))
    }
}

fn read_all(mut file: fs::File) -> Result<String> {
    use std::io::{Read, Seek};
    let mut text = Vec::new();
    file.rewind()
        .and_then(|()| file.read_to_end(&mut text))
        .context("reading what mke2fs said")?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}
