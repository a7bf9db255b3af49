//! The rules that keep data safe. Each has a test that fails when the rule is taken away.

use std::path::Path;

use super::names::clean;
use super::{Bus, Device, Use};

/// Something that speaks against writing to a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// How strong it is.
    pub severity: Severity,
    /// What it is, and what to do.
    pub text: String,
}

/// How strong an objection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Not offered; whoever names the device may have it.
    NotOffered,
    /// Refused, unless `--force` is given.
    Force,
    /// Refused, whatever is given.
    Never,
}

/// Largest disk that is offered, bytes: what is larger is hardly the card that was meant.
const LARGEST_OFFERED: u64 = 2 << 40;

/// All that speaks against writing an image of `needed` bytes to `device`.
pub fn refusals(device: &Device, needed: u64) -> Vec<Objection> {
    let mut all = Vec::new();
    let mut object = |severity, text: String| all.push(Objection { severity, text });
    for used in &device.uses {
        let (severity, text) = of_use(used);
        object(severity, text);
    }
    if is_hardware_part(&device.name) {
        object(
            Severity::Never,
            "it is a hardware partition of a memory chip, which holds boot firmware".into(),
        );
    }
    if device.bus == Bus::Made {
        object(
            Severity::Never,
            "it is no disk, but made of memory or of other disks".into(),
        );
    }
    if device.size == 0 {
        object(Severity::Never, "there is no medium in it".into());
    } else if device.size < needed {
        object(
            Severity::Never,
            format!("it has {} bytes, the image needs {needed}", device.size),
        );
    }
    if device.read_only {
        object(
            Severity::Never,
            "it is read-only; is the write protection of the card on?".into(),
        );
    }
    if device.size > LARGEST_OFFERED {
        object(Severity::NotOffered, "it is larger than 2 TiB".into());
    }
    if device.bus == Bus::Loop {
        object(Severity::NotOffered, "it is a loop device".into());
    } else if !device.removable && !device.bus.is_handy() {
        object(Severity::Force, "it is built in, not removable".into());
    }
    all
}

/// Whether a disk is offered to choose from.
pub fn candidate(device: &Device, needed: u64) -> bool {
    refusals(device, needed).is_empty()
}

fn of_use(used: &Use) -> (Severity, String) {
    match used {
        Use::Mounted {
            on,
            at,
            system: true,
        } => (
            Severity::Never,
            format!("the running system is on it ({on} at {})", clean(at)),
        ),
        Use::Mounted { on, at, .. } => (
            Severity::Force,
            format!(
                "{on} is mounted at {}; unmount it, or let --force do it",
                clean(at)
            ),
        ),
        Use::Swap { on } => (
            Severity::Never,
            format!("the running system swaps to {on}; `swapoff /dev/{on}` first"),
        ),
        Use::Holder { on, by, kind_of } => (
            Severity::Never,
            format!("{on} is in use by {by} ({kind_of}); take that down first"),
        ),
        Use::Member {
            on,
            of,
            system: true,
        } => (
            Severity::Never,
            format!("{on} may carry the running system ({of})"),
        ),
        Use::Member { on, of, .. } => (
            Severity::Force,
            format!("{on} is a member of {of}, which may break without it"),
        ),
    }
}

/// `mmcblk0boot0`, `mmcblk0rpmb`, `mmcblk0gp1`: areas of the chip beside its disk.
fn is_hardware_part(name: &str) -> bool {
    let Some(rest) = Path::new(name)
        .to_str()
        .and_then(|name| name.strip_prefix("mmcblk"))
    else {
        return false;
    };
    let tail = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    ["boot", "rpmb", "gp"]
        .iter()
        .any(|part| tail.starts_with(part))
}
