//! Which disks: the ones that are offered, and the ones that were named.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::device::{self, candidate, refusals, signature, Device, Severity, System, Use};
use super::problem::Problem;
use super::target::disk::Disk;

/// A disk or file that may be written to, as far as the rules go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its device file, or the file.
    pub path: PathBuf,
    /// The disk; `None` for a regular file.
    pub device: Option<Device>,
    /// Size, bytes.
    pub size: u64,
    /// What `--force` overruled: what will be lost or broken.
    pub overruled: Vec<String>,
    /// Mounts to be taken down first.
    pub unmount: Vec<String>,
}

/// The disks to choose from for an image of `needed` bytes.
pub fn candidates(system: &System, needed: u64) -> Vec<Device> {
    let mut all = device::list(system);
    all.iter_mut().for_each(add_members);
    all.retain(|device| candidate(device, needed));
    all
}

/// The disk or file at `path`, unless a rule speaks against it.
pub fn named(system: &System, path: &Path, needed: u64, force: bool) -> Result<Chosen> {
    let doing = || format!("looking at {}", path.display());
    let real = std::fs::canonicalize(path).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "; `builder flash --list` shows what there is",
            _ => "",
        };
        Problem::refused(format!("{}: {error}{hint}", doing()))
    })?;
    let meta = std::fs::metadata(&real).with_context(doing)?;
    if meta.file_type().is_block_device() {
        let mut all = device::list(system);
        all.iter_mut().for_each(add_members);
        return of_number(&all, &number(meta.rdev()), path, needed, force);
    }
    if !meta.is_file() || real.starts_with("/dev") {
        return Err(Problem::refused(format!(
            "{}: it is neither a disk nor a file to write an image to",
            doing()
        )));
    }
    if meta.len() < needed {
        return Err(Problem::refused(format!(
            "{}: the file has {} bytes, the image needs {needed}; `truncate -s` makes it larger",
            doing(),
            meta.len()
        )));
    }
    Ok(Chosen {
        path: real,
        device: None,
        size: meta.len(),
        overruled: Vec::new(),
        unmount: Vec::new(),
    })
}

/// `major:minor`, as the kernel writes it.
fn number(rdev: u64) -> String {
    format!("{}:{}", rustix::fs::major(rdev), rustix::fs::minor(rdev))
}

/// The disk with this device number.
pub fn of_number(
    all: &[Device],
    number: &str,
    path: &Path,
    needed: u64,
    force: bool,
) -> Result<Chosen> {
    let doing = format!("looking at {}", path.display());
    if let Some(whole) = all
        .iter()
        .find(|device| device.partitions.iter().any(|part| part.number == number))
    {
        return Err(Problem::refused(format!(
            "{doing}: it is a partition; an image goes to the whole disk, {}",
            whole.path.display()
        )));
    }
    let Some(device) = all.iter().find(|device| device.number == number) else {
        return Err(Problem::refused(format!(
            "{doing}: the kernel does not know this disk; it may have been unplugged"
        )));
    };
    let objections = refusals(device, needed);
    let limit = if force {
        Severity::Force
    } else {
        Severity::NotOffered
    };
    let (fatal, overruled): (Vec<_>, Vec<_>) =
        objections.into_iter().partition(|o| o.severity > limit);
    if !fatal.is_empty() {
        let never = fatal.iter().any(|o| o.severity == Severity::Never);
        let hint = match (never, force) {
            (true, true) => "; --force does not help here",
            (true, false) => "",
            _ => "; --force overrules this",
        };
        let texts: Vec<String> = fatal.into_iter().map(|o| o.text).collect();
        return Err(Problem::refused(format!(
            "refusing to write to {} ({}): {}{hint}",
            device.path.display(),
            device.title(),
            texts.join("; ")
        )));
    }
    let unmount = device.uses.iter().filter_map(|used| match used {
        Use::Mounted { at, .. } => Some(at.clone()),
        _ => None,
    });
    Ok(Chosen {
        path: device.path.clone(),
        size: device.size,
        overruled: overruled
            .into_iter()
            .filter(|o| o.severity == Severity::Force)
            .map(|o| o.text)
            .collect(),
        // What was mounted last is taken down first.
        unmount: unmount.rev().collect(),
        device: Some(device.clone()),
    })
}

/// Reads what the disk is a member of, where udev has not said so and the disk may be read.
fn add_members(device: &mut Device) {
    let Ok(mut file) = File::open(&device.path) else {
        return;
    };
    let whole = (device.name.clone(), 0, device.size);
    let parts = device.partitions.iter();
    let all: Vec<(String, u64, u64)> = std::iter::once(whole)
        .chain(parts.map(|p| (p.name.clone(), p.start, p.size)))
        .collect();
    for (on, start, size) in all {
        let known = device
            .uses
            .iter()
            .any(|used| matches!(used, Use::Member { on: other, .. } if *other == on));
        if known {
            continue;
        }
        if let Ok(Some(of)) = signature::probe(&mut file, start, size) {
            device.uses.push(Use::Member {
                on,
                of: of.to_string(),
                system: false,
            });
        }
    }
}

/// Looks once more at what was really opened: the same disk as the one that was agreed to, and still
/// nothing that speaks against it.
pub fn check_opened(system: &System, chosen: &Chosen, disk: &Disk, needed: u64) -> Result<()> {
    let Some(agreed) = &chosen.device else {
        return Ok(());
    };
    let opened = number(disk.number().context("looking at the opened disk")?);
    let now = device::list(system);
    same(agreed, &now, &opened, needed)
}

fn same(agreed: &Device, now: &[Device], opened: &str, needed: u64) -> Result<()> {
    let changed = |what: &str| {
        Problem::refused(format!(
            "{} is not the disk any more that was agreed to: {what}; begin again",
            agreed.path.display()
        ))
    };
    let Some(device) = now.iter().find(|device| device.number == opened) else {
        return Err(changed("it is gone"));
    };
    if device.number != agreed.number || device.name != agreed.name {
        return Err(changed("another device was opened"));
    }
    if device.sequence != agreed.sequence || device.size != agreed.size {
        return Err(changed("another medium is in it"));
    }
    if (&device.serial, &device.model) != (&agreed.serial, &agreed.model) {
        return Err(changed("it has another name"));
    }
    let worst = refusals(device, needed)
        .into_iter()
        .filter(|o| !agreed_to(agreed, &o.text, needed))
        .find(|o| o.severity >= Severity::Force);
    match worst {
        Some(objection) => Err(changed(&objection.text)),
        None => Ok(()),
    }
}

/// Whether the objection was there when the disk was agreed to and was overruled then. Mounts were taken
/// down since.
fn agreed_to(agreed: &Device, text: &str, needed: u64) -> bool {
    refusals(agreed, needed)
        .iter()
        .any(|o| o.text == text && o.severity == Severity::Force)
}

#[cfg(test)]
mod tests {
    use super::super::device::tests::Machine;
    use super::*;

    const GIB: u64 = 1 << 30;

    fn named_on(machine: &Machine, number: &str, force: bool) -> Result<Chosen> {
        of_number(&machine.list(), number, Path::new("/dev/x"), GIB, force)
    }

    fn refusal(machine: &Machine, number: &str, force: bool) -> String {
        let error = named_on(machine, number, force).unwrap_err();
        assert!(error.is::<Problem>());
        error.to_string()
    }

    #[test]
    fn only_whole_disks_that_are_there_can_be_named() {
        let machine = Machine::new();
        let disk = machine.card();
        machine.part(&disk, "sdb1", "8:17");
        assert_eq!(named_on(&machine, "8:16", false).unwrap().size, 32 * GIB);
        let text = refusal(&machine, "8:17", true);
        assert!(text.contains("/dev/sdb"), "{text}");
        assert!(refusal(&machine, "8:99", true).contains("does not know"));
    }

    #[test]
    fn force_overrules_some_rules_and_says_what_is_lost_but_never_the_running_system() {
        let mut machine = Machine::new();
        let disk = machine.card();
        machine.part(&disk, "sdb1", "8:17");
        machine.mount("8:17", "/dev/sdb1", "vfat", "/media/card");
        let text = refusal(&machine, "8:16", false);
        assert!(text.contains("--force overrules this"), "{text}");
        let chosen = named_on(&machine, "8:16", true).unwrap();
        assert_eq!(chosen.unmount, ["/media/card"]);
        assert!(chosen.overruled[0].contains("mounted"));
        machine.mount("8:17", "/dev/sdb1", "vfat", "/boot/efi");
        let text = refusal(&machine, "8:16", true);
        assert!(text.contains("running system"), "{text}");
        assert!(text.contains("--force does not help"), "{text}");
    }

    #[test]
    fn a_disk_that_changed_since_the_question_is_refused() {
        let machine = Machine::new();
        let disk = machine.card();
        let agreed = named_on(&machine, "8:16", false).unwrap().device.unwrap();
        assert!(same(&agreed, &machine.list(), "8:16", GIB).is_ok());
        let gone = same(&agreed, &machine.list(), "8:32", GIB).unwrap_err();
        assert!(gone.to_string().contains("it is gone"), "{gone}");
        machine.card_in(1, "sdc", "8:32");
        let other = same(&agreed, &machine.list(), "8:32", GIB).unwrap_err();
        assert!(other.to_string().contains("another device"), "{other}");
        for (file, before, after) in [
            ("diskseq", "7", "8"),
            ("size", "67108864", "67108865"),
            ("device/model", "Ultra Card Reade", "Other"),
            ("ro", "0", "1"),
            ("holders/md0/dev", "", "9:0"),
        ] {
            machine.write(&format!("{disk}/{file}"), after);
            let error = same(&agreed, &machine.list(), "8:16", GIB).unwrap_err();
            assert!(error.to_string().contains("begin again"), "{file}: {error}");
            machine.write(&format!("{disk}/{file}"), before);
        }
    }

    #[test]
    fn files_must_be_there_and_large_enough_and_a_typing_error_makes_none() {
        let dir = tempfile::tempdir().unwrap();
        let system = System::below(dir.path());
        let file = dir.path().join("card.img");
        std::fs::write(&file, [0; 100]).unwrap();
        let at = |path: &Path, needed| named(&system, path, needed, true);
        assert!(at(&file, 100).unwrap().device.is_none());
        let error = at(&file, 101).unwrap_err().to_string();
        assert!(error.contains("truncate"), "{error}");
        let error = at(Path::new("/dev/no-such-disk"), 1)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("No such file") && error.contains("--list"),
            "{error}"
        );
        for odd in [Path::new("/dev/null"), dir.path(), Path::new("/dev/stdin")] {
            assert!(at(odd, 0).is_err(), "{}", odd.display());
        }
    }
}
