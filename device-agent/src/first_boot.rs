//! First-boot settings: a small file that `builder flash` put on the firmware partition. Read, applied, then
//! wiped in place.
//!
//! The file is wiped only when every effect is on the disk, so a power cut at any moment means at worst
//! that everything is applied once more, which changes nothing. Its first sector goes first: what begins
//! with zeros is used up, and the rest of it is wiped at the next boot.

mod effects;
mod wifi;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use bsp::fat::{extents, Extent, FatError};
use bsp::first_boot::{FirstBoot, LARGEST, PATH};

use crate::paths::Paths;
use crate::{record, stop_point, system};

/// Time that udev may take to name the firmware partition.
const PATIENCE: Duration = Duration::from_secs(15);
/// Where the script stands until it has run; the unit that runs it has the same path.
pub const SCRIPT: &str = "var/lib/device-agent/first-boot-script";
/// Says that nothing is left to do; a factory reset takes it away, and then there is nothing to find.
const DONE: &str = "var/lib/device-agent/first-boot-done";
/// The unit that runs it.
const SCRIPT_UNIT: &str = "device-agent-first-boot-script.service";

/// Takes over the settings, if there are any, from the firmware partition with this GUID. Returns what was
/// set, in words that may be logged.
pub fn run(paths: &Paths, partuuid: &str) -> Result<Vec<String>> {
    let device = paths.at("dev/disk/by-partuuid").join(partuuid);
    wait_for(&device);
    let said = take_over(paths, &device)?;
    if paths.at(SCRIPT).exists() {
        start_script();
    } else {
        // Nothing is left to do: the unit is not started any more.
        record::write(&paths.at(DONE), b"")?;
    }
    Ok(said)
}

fn wait_for(device: &Path) {
    let begun = Instant::now();
    while !device.exists() && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The same, without starting anything.
pub fn take_over(paths: &Paths, device: &Path) -> Result<Vec<String>> {
    let doing = || format!("reading first-boot settings on {}", device.display());
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::libc::O_SYNC)
        .open(device)
        .with_context(doing)?;
    let Some((places, content)) = read(&mut file).with_context(doing)? else {
        return Ok(Vec::new());
    };
    if content.starts_with(&[0]) {
        // Used up; a cut may have left the rest of it.
        if content.iter().any(|byte| *byte != 0) {
            wipe(&file, &places).with_context(doing)?;
        }
        return Ok(Vec::new());
    }
    let settings = FirstBoot::parse(&content)
        .map_err(anyhow::Error::msg)
        .with_context(doing)?;
    let said = effects::apply(paths, &settings)?;
    // Directories that are new, too.
    nix::unistd::sync();
    stop_point::reach("first-boot-applied");
    wipe(&file, &places).context("wiping the first-boot settings")?;
    Ok(said)
}

/// The places and the content of the file, if it is there.
fn read(file: &mut File) -> Result<Option<(Vec<Extent>, Vec<u8>)>> {
    let places = match extents(file, &[PATH]) {
        Ok(mut all) => all.pop().unwrap_or_default(),
        Err(FatError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None)
        }
        Err(error) => return Err(error.into()),
    };
    let mut content = Vec::new();
    for place in &places {
        let length = usize::try_from(place.length).unwrap_or(usize::MAX);
        if length > LARGEST || content.len() + length > LARGEST {
            bail!("{PATH} has more than {LARGEST} bytes");
        }
        let start = content.len();
        content.resize(start + length, 0);
        file.read_exact_at(&mut content[start..], place.offset)?;
    }
    Ok((!content.is_empty()).then_some((places, content)))
}

/// Overwrites the file's own sectors; the file system around it stays as it is.
fn wipe(file: &File, places: &[Extent]) -> io::Result<()> {
    let mut first = true;
    for place in places {
        let mut done = 0;
        while done < place.length {
            // The first sector alone and before all others: from then on the settings are used up.
            let step = if first { 512 } else { 65536 };
            let length = usize::try_from((place.length - done).min(step)).unwrap_or(512);
            file.write_all_at(&vec![0; length], place.offset + done)?;
            done += length as u64;
            first = false;
        }
    }
    file.sync_all()
}

/// The script of this or, after a power cut, an earlier boot.
fn start_script() {
    let outcome = system::run(
        std::process::Command::new("systemctl").args(["--no-block", "start", SCRIPT_UNIT]),
        Duration::from_secs(30),
    );
    if !outcome.ok {
        eprintln!("device-agent: starting {SCRIPT_UNIT}: {}", outcome.ended);
    }
}

#[cfg(test)]
mod tests;
