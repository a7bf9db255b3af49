//! One copy in each boot partition of an eMMC. Which one the machine starts says `PARTITION_CONFIG` of the
//! extended CSD (JEDEC JESD84-B51, 7.4.69): bits 3 to 5, one command to change. `mmc` of mmc-utils reads and
//! writes it; the boot partitions are ordinary block devices, which the kernel keeps read-only until told
//! otherwise (`force_ro` in sysfs).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use bsp::block::BlockDevice;
use bsp::loader::Blob;

use super::copies::Copies;
use super::fits;
use crate::paths::Paths;

/// The program, below the root.
const PROGRAM: &str = "usr/bin/mmc";
/// What it prints before the value.
const LABEL: &str = "PARTITION_CONFIG: 0x";

/// The boot partition `copy` of the eMMC `disk`.
pub fn boot_partition(disk: &Path, copy: usize) -> Result<PathBuf> {
    let name = disk.file_name().and_then(|name| name.to_str());
    let name = name.filter(|name| name.starts_with("mmcblk"));
    let name = name.with_context(|| format!("{} is not an eMMC", disk.display()))?;
    Ok(disk.with_file_name(format!("{name}boot{copy}")))
}

/// The two boot partitions.
#[derive(Debug)]
pub struct Emmc {
    disk: PathBuf,
    boots: [BlockDevice; 2],
    locks: [PathBuf; 2],
    program: PathBuf,
    offsets: [u64; 2],
}

impl Emmc {
    /// Opens the boot partitions of `disk`; reads only.
    pub fn open(paths: &Paths, disk: &Path, blob: &Blob) -> Result<Self> {
        let devices = [boot_partition(disk, 0)?, boot_partition(disk, 1)?];
        for device in &devices {
            fits(device, BlockDevice::new(device).bytes()?, blob)?;
        }
        let sysfs = paths.at("sys/class/block");
        let lock = |device: &PathBuf| {
            let name = device.file_name().unwrap_or_default();
            sysfs.join(name).join("force_ro")
        };
        Ok(Self {
            disk: disk.into(),
            boots: [BlockDevice::new(&devices[0]), BlockDevice::new(&devices[1])],
            locks: [lock(&devices[0]), lock(&devices[1])],
            program: paths.at(PROGRAM),
            offsets: [blob.offsets[0], blob.offsets[1]],
        })
    }

    fn mmc(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(args).arg(&self.disk);
        let doing = format!("running {} {}", self.program.display(), args.join(" "));
        let output = command.output().with_context(|| {
            format!("{doing}: add the package mmc-utils to the product's packages")
        })?;
        ensure!(
            output.status.success(),
            "{doing} {}: {}",
            self.disk.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The register.
    fn config(&self) -> Result<u8> {
        let text = self.mmc(&["extcsd", "read"])?;
        let value = text.split_once(LABEL).and_then(|(_, rest)| rest.get(..2));
        value
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
            .with_context(|| {
                format!(
                    "looking for PARTITION_CONFIG in what {} says of {}",
                    self.program.display(),
                    self.disk.display()
                )
            })
    }

    fn lock(&self, copy: usize, value: &str) -> Result<()> {
        let path = &self.locks[copy];
        std::fs::write(path, value)
            .with_context(|| format!("writing {value} to {}", path.display()))
    }
}

impl Copies for Emmc {
    fn read(&self, copy: usize, at: u64, length: usize) -> Result<Vec<u8>> {
        Ok(self.boots[copy].read(self.offsets[copy] + at, length)?)
    }

    fn write(&mut self, copy: usize, at: u64, bytes: &[u8]) -> Result<()> {
        self.lock(copy, "0")?;
        let written = self.boots[copy].write(self.offsets[copy] + at, bytes);
        self.lock(copy, "1")?;
        Ok(written?)
    }

    fn started(&self) -> Result<usize> {
        match self.config()? >> 3 & 7 {
            1 => Ok(0),
            2 => Ok(1),
            other => bail!(
                "{} does not start from a boot partition (its boot selection is {other}): `mmc bootpart enable 1 1 {}` makes it start from the first, if the board can",
                self.disk.display(),
                self.disk.display()
            ),
        }
    }

    fn start(&mut self, copy: usize) -> Result<()> {
        // The acknowledgement stays as it is: some boot ROMs wait for it.
        let acknowledge = if self.config()? & 0x40 == 0 { "0" } else { "1" };
        let partition = if copy == 0 { "1" } else { "2" };
        self.mmc(&["bootpart", "enable", partition, acknowledge])
            .map(drop)
    }
}
