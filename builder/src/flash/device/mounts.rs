//! What is mounted and what is swapped to: `/proc/self/mountinfo` and `/proc/swaps`.

use super::System;

/// A mount: the device number and source that the kernel names, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor`; `0:n` for file systems over several devices (btrfs, ZFS).
    pub number: String,
    /// File system type.
    pub fs: String,
    /// What was mounted, e.g. `/dev/sda2`.
    pub source: String,
    /// Where.
    pub at: String,
}

impl Mount {
    /// Whether the running system stands on it.
    pub fn is_system(&self) -> bool {
        const EXACT: [&str; 9] = [
            "/", "/usr", "/etc", "/var", "/boot", "/home", "/sysroot", "/nix", "/cdrom",
        ];
        const BELOW: [&str; 6] = [
            "/boot/",
            "/run/live",
            "/lib/live",
            "/run/initramfs",
            "/run/archiso",
            "/sysroot/",
        ];
        EXACT.contains(&self.at.as_str()) || BELOW.iter().any(|top| self.at.starts_with(top))
    }
}

/// All mounts.
pub fn mounts(system: &System) -> Vec<Mount> {
    let text = system.text("proc/self/mountinfo").unwrap_or_default();
    text.lines().filter_map(parse).collect()
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw` (see proc(5)).
fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let mut right = right.split(' ');
    Some(Mount {
        number: left.next()?.to_string(),
        at: unescape(left.nth(1)?),
        fs: right.next()?.to_string(),
        source: unescape(right.next()?),
    })
}

/// Paths of active swap devices and files.
pub fn swaps(system: &System) -> Vec<String> {
    let text = system.text("proc/swaps").unwrap_or_default();
    let lines = text.lines().skip(1);
    lines
        .filter_map(|line| line.split_ascii_whitespace().next())
        .map(unescape)
        .collect()
}

/// The kernel writes white space and backslashes as octal numbers.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = (*first == b'\\')
            .then(|| tail.get(..3))
            .flatten()
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_all_their_oddities() {
        let line =
            r"36 35 8:17 / /media/My\040Card rw,noatime shared:1 master:2 - vfat /dev/sdb1 rw";
        let mount = parse(line).unwrap();
        assert_eq!(
            (mount.number.as_str(), mount.at.as_str()),
            ("8:17", "/media/My Card")
        );
        assert_eq!(
            (mount.fs.as_str(), mount.source.as_str()),
            ("vfat", "/dev/sdb1")
        );
        assert!(!mount.is_system());
        assert!(parse("nonsense").is_none());
        let root = parse("1 0 8:2 / / rw - ext4 /dev/sda2 rw").unwrap();
        assert!(root.is_system());
    }
}
