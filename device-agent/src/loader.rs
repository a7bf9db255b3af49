//! Boot loaders outside every partition: which edition a device has, which one its deployment brings, and the
//! replacement of the one by the other.
//!
//! Only upwards, only from a confirmed deployment, only where the board has a safe way. What must never happen:
//! a moment in which no whole copy would be started.

mod copies;
mod efi;
mod emmc;
#[cfg(test)]
mod tests;
mod two_places;

use std::path::Path;

use anyhow::{ensure, Context, Result};
use bsp::block::BlockDevice;
use bsp::board::{Medium, UpdateWay};
use bsp::loader::{Blob, Manifest, MANIFEST_PATH};
use serde::Serialize;

use crate::boot_place;
use crate::device::{Device, Situation};
use crate::problem::{Kind, Problem};

use copies::Copies;

/// A boot loader of this device, as `status --json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// Name of the raw area.
    pub name: String,
    /// Edition that the running deployment brings.
    pub offered: u32,
    /// Edition of the copy that is started; absent if its record is not there, or not for it.
    pub installed: Option<u32>,
    /// Edition of the other copy, if that is whole.
    pub kept: Option<u32>,
    /// The way to replace it: `two-places`, `emmc-boot`, `efi` or `none`.
    pub update: &'static str,
    /// `current`, `outdated`, `armed` (tried at the next boot), `failed` (was tried and did not start),
    /// `no-safe-way` (what is on the disk is not what is offered, and nothing may be done about it) or `unknown`.
    pub state: &'static str,
    /// Why it is unknown.
    pub error: Option<String>,
}

impl Standing {
    /// The same for people.
    pub fn people(&self) -> String {
        let Self { name, offered, .. } = self;
        match (self.state, self.installed, &self.error) {
            ("current", Some(edition), _) => format!("{name} edition {edition}"),
            ("outdated", Some(edition), _) => format!(
                "{name} edition {edition}; edition {offered} is here, `device-agent update-loader` installs it"
            ),
            ("outdated", None, _) => format!(
                "{name} without a record of its edition; edition {offered} is here, `device-agent update-loader` installs it"
            ),
            ("armed", _, _) => format!("{name}: edition {offered} is tried at the next boot"),
            ("failed", _, _) => format!(
                "{name}: edition {offered} was tried and did not start; `device-agent update-loader --again` tries it again"
            ),
            ("no-safe-way", _, _) => {
                format!("{name} is not edition {offered}; this board has no safe way to replace it")
            }
            (_, _, Some(error)) => format!("{name}: {error}"),
            _ => format!("{name}: unknown"),
        }
    }
}

/// What was done about a boot loader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replaced {
    /// Name of the raw area.
    pub name: String,
    /// Edition before, if it was known.
    pub from: Option<u32>,
    /// Edition now, or at the next boot.
    pub to: u32,
    /// `installed` (started from the next boot on), `tried-next` (tried at the next boot, once) or `kept` (has
    /// started this system, and is started from now on).
    pub state: &'static str,
}

/// What the running deployment brings; nothing if it has no manifest.
fn manifest(device: &Device) -> Result<Manifest> {
    let path = device.paths.at(MANIFEST_PATH);
    let reading = || format!("reading {}", path.display());
    match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Manifest::new(Vec::new(), None))
        }
        text => Manifest::parse(&text.with_context(reading)?).with_context(reading),
    }
}

/// How every boot loader stands. What cannot be read is unknown.
pub fn look(device: &Device) -> Vec<Standing> {
    let Ok(manifest) = manifest(device) else {
        return Vec::new();
    };
    let blobs = manifest.blobs.iter().map(|blob| standing(device, blob));
    let efi = manifest.efi.iter().map(|set| efi::look(device, set));
    blobs.chain(efi).collect()
}

fn standing(device: &Device, blob: &Blob) -> Standing {
    let mut standing = Standing {
        name: blob.name.clone(),
        offered: blob.edition,
        installed: None,
        kept: None,
        update: blob.update.as_str(),
        state: "unknown",
        error: None,
    };
    let found = match blob.update {
        UpdateWay::None => fixed(device, blob).map(|same| (same.then_some(blob.edition), None)),
        _ => open(device, blob).and_then(|copies| {
            let started = copies.started()?;
            let found = copies::find(copies.as_ref(), blob, started)?;
            let other = copies::find(copies.as_ref(), blob, 1 - started)?;
            Ok((found.edition(), other.edition()))
        }),
    };
    match found {
        Ok((installed, kept)) => {
            standing.installed = installed;
            standing.kept = kept;
            standing.state = match (blob.update, installed) {
                (_, Some(edition)) if edition >= blob.edition => "current",
                (UpdateWay::None, _) => "no-safe-way",
                _ => "outdated",
            };
        }
        Err(error) if is_denied(&error) => {
            standing.error = Some("only root can read it".into());
        }
        Err(error) => standing.error = Some(format!("{error:#}")),
    }
    standing
}

fn is_denied(error: &anyhow::Error) -> bool {
    let mut causes = error.chain();
    causes.any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    })
}

/// Replaces what is older than what the running deployment brings. What has no safe way is refused, after the
/// others are done. `again` tries what was tried before and did not start.
pub fn update(device: &Device, again: bool, say: &dyn Fn(&str)) -> Result<Vec<Replaced>> {
    let store = device.store()?;
    allow(&device.situation(store.as_ref())?)?;
    update_all(device, again, say)
}

/// A deployment on trial may be the wrong one; one that waits may bring another boot loader.
fn allow(situation: &Situation) -> Result<()> {
    if *situation == Situation::Confirmed {
        return Ok(());
    }
    Err(Problem::new(
        Kind::State,
        "boot loaders are replaced only while a confirmed deployment runs and none waits",
    )
    .hint("`device-agent status` says what is under way")
    .into())
}

fn update_all(device: &Device, again: bool, say: &dyn Fn(&str)) -> Result<Vec<Replaced>> {
    let mut replaced = Vec::new();
    let mut refused = Vec::new();
    let manifest = manifest(device)?;
    for blob in manifest.blobs {
        if blob.update == UpdateWay::None {
            if !fixed(device, &blob)? {
                refused.push(blob);
            }
            continue;
        }
        let doing = format!("replacing the boot loader \"{}\"", blob.name);
        replaced.extend(replace(device, &blob, say).context(doing)?);
    }
    if let Some(set) = &manifest.efi {
        let doing = "replacing the programs that UEFI firmware starts";
        replaced.extend(efi::update(device, set, again, say).context(doing)?);
    }
    match refused.first() {
        None => Ok(replaced),
        Some(blob) => Err(Problem::new(
            Kind::Refused,
            format!(
                "the boot loader \"{}\" on the disk is not edition {}, and on this board there is no safe way to replace it",
                blob.name, blob.edition
            ),
        )
        .hint("it stays as it is; only writing the device's disk anew changes it")
        .into()),
    }
}

fn replace(device: &Device, blob: &Blob, say: &dyn Fn(&str)) -> Result<Option<Replaced>> {
    let mut copies = open(device, blob)?;
    let started = copies.started()?;
    let found = copies::find(copies.as_ref(), blob, started)?;
    if found
        .edition()
        .is_some_and(|edition| edition >= blob.edition)
    {
        return Ok(None);
    }
    let content = content(device, blob)?;
    say(&format!(
        "writing edition {} of {}",
        blob.edition, blob.name
    ));
    copies::install(copies.as_mut(), blob, &content)?;
    Ok(Some(Replaced {
        name: blob.name.clone(),
        from: found.edition(),
        to: blob.edition,
        state: "installed",
    }))
}

/// The file that the running deployment brings.
fn content(device: &Device, blob: &Blob) -> Result<Vec<u8>> {
    let path = blob.path().context("it has no file")?;
    brought(device, &path, |content| blob.is(content))
}

/// A file of the tree, if it is what the manifest names.
fn brought(device: &Device, path: &str, is_named: impl Fn(&[u8]) -> bool) -> Result<Vec<u8>> {
    let path = device.paths.at(path);
    let content = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    if !is_named(&content) {
        return Err(Problem::new(
            Kind::Trust,
            format!("{} is not the file that the manifest names", path.display()),
        )
        .into());
    }
    Ok(content)
}

/// The disk that this system was started from.
fn disk(device: &Device) -> Result<std::path::PathBuf> {
    let partition = device.paths.at("dev/disk/by-partuuid");
    boot_place::whole_disk(
        &device.paths,
        &partition.join(&device.config.boot.firmware_partuuid),
    )
}

/// Whether what cannot be replaced is what the deployment brings.
fn fixed(device: &Device, blob: &Blob) -> Result<bool> {
    let disk = disk(device)?;
    let from = match blob.place {
        Medium::Disk => disk,
        Medium::EmmcBoot => emmc::boot_partition(&disk, 0)?,
    };
    let size = usize::try_from(blob.size).context("its size")?;
    let offset = blob.offsets.first().copied().unwrap_or_default();
    Ok(blob.is(&BlockDevice::new(&from).read(offset, size)?))
}

fn open(device: &Device, blob: &Blob) -> Result<Box<dyn Copies>> {
    let disk = disk(device)?;
    match blob.update {
        UpdateWay::EmmcBoot => Ok(Box::new(emmc::Emmc::open(&device.paths, &disk, blob)?)),
        _ => {
            let block = BlockDevice::new(&disk);
            fits(&disk, block.bytes()?, blob)?;
            Ok(Box::new(two_places::TwoPlaces::new(block, blob.clone())))
        }
    }
}

fn fits(path: &Path, bytes: u64, blob: &Blob) -> Result<()> {
    let end = blob.offsets.iter().max().map_or(0, |at| at + blob.slot);
    ensure!(
        end <= bytes,
        "{} has {bytes} bytes; a copy of \"{}\" would end at {end}",
        path.display(),
        blob.name
    );
    Ok(())
}
