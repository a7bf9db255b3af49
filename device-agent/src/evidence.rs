//! The black box: after a fallback, everything that may tell why, in one directory per event.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::paths::Paths;
use crate::report::Report;
use crate::{record, system};

/// Events kept; older ones are removed.
const KEPT: usize = 5;
/// Bytes taken of one pstore file, and files taken.
const PSTORE_BYTES: usize = 1 << 20;
const PSTORE_FILES: usize = 32;
/// Lines of the failed boot's journal.
const JOURNAL_LINES: &str = "300";

fn base(paths: &Paths) -> PathBuf {
    paths.state().join("evidence")
}

/// Why the machine was last reset, as far as a watchdog tells.
pub fn reset_cause(paths: &Paths) -> Option<String> {
    let status = fs::read_to_string(paths.at("sys/class/watchdog/watchdog0/bootstatus")).ok()?;
    // WDIOF_CARDRESET: the card reset the machine.
    const CARD_RESET: u32 = 0x20;
    let status: u32 = status.trim().parse().ok()?;
    (status & CARD_RESET != 0).then(|| "watchdog".to_owned())
}

/// Collects the evidence about `report` and completes it with the place. What cannot be had is left out:
/// evidence must never stand in the way of coming back.
pub fn collect(paths: &Paths, report: &mut Report) -> Result<PathBuf> {
    let name = format!("{}-{}", stamp(report.time), safe(&report.version));
    let dir = base(paths).join(name);
    fs::create_dir_all(&dir)?;
    report.evidence = Some(dir.clone());
    record::write_json(&dir.join("report.json"), report)?;
    for (file, args) in [
        (
            "journal.txt",
            &["--boot=-1", "--no-pager", "--lines", JOURNAL_LINES][..],
        ),
        ("boots.txt", &["--list-boots", "--no-pager"]),
    ] {
        let outcome = system::run(
            Command::new("journalctl").args(args),
            Duration::from_secs(30),
        );
        record::write(&dir.join(file), outcome.output.as_bytes())?;
    }
    for source in ["sys/fs/pstore", "var/lib/systemd/pstore"] {
        copy_files(&paths.at(source), &dir.join("pstore"))?;
    }
    prune(paths);
    Ok(dir)
}

fn stamp(time: u64) -> String {
    i64::try_from(time)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(
            || time.to_string(),
            |t| t.strftime("%Y%m%dT%H%M%SZ").to_string(),
        )
}

fn safe(version: &str) -> String {
    version
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || ".+~_".contains(c) {
                c
            } else {
                '_'
            }
        })
        .take(64)
        .collect()
}

/// Copies the newest files of a tree (systemd sorts pstore into directories), flat, bounded.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    let mut files = Vec::new();
    gather(from, &mut files, 0);
    files.sort_by_key(|(modified, _)| std::cmp::Reverse(*modified));
    for (_, file) in files.into_iter().take(PSTORE_FILES) {
        let Ok(mut content) = fs::read(&file) else {
            continue;
        };
        content.truncate(PSTORE_BYTES);
        if let Some(name) = file.file_name() {
            record::write(&to.join(name), &content)?;
        }
    }
    Ok(())
}

fn gather(dir: &Path, files: &mut Vec<(std::time::SystemTime, PathBuf)>, depth: u8) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() && depth < 3 {
            gather(&entry.path(), files, depth + 1);
        } else if meta.is_file() {
            let modified = meta.modified().unwrap_or(std::time::UNIX_EPOCH);
            files.push((modified, entry.path()));
        }
    }
}

/// Directories of events, oldest first (their names begin with the time).
pub fn events(paths: &Paths) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = fs::read_dir(base(paths))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    dirs.sort();
    dirs
}

fn prune(paths: &Paths) {
    let events = events(paths);
    for old in &events[..events.len().saturating_sub(KEPT)] {
        // Old evidence that cannot be removed only takes room.
        let _ = fs::remove_dir_all(old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Event;

    fn report(time: u64) -> Report {
        Report {
            format: 1,
            event: Event::FellBack,
            time,
            product: "p".into(),
            board: "b".into(),
            machine: "m".into(),
            running_version: "1.0.0".into(),
            id: "abc".into(),
            commit: "abc".into(),
            version: "1.1.0/../x".into(),
            tries: 3,
            boots_in_user_space: 0,
            findings: Vec::new(),
            warnings: Vec::new(),
            reset_cause: None,
            evidence: None,
        }
    }

    #[test]
    fn five_events_are_kept_and_the_newest_ones() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        let pstore = paths.at("var/lib/systemd/pstore/1");
        fs::create_dir_all(&pstore).unwrap();
        fs::write(pstore.join("dmesg.txt"), "Kernel panic").unwrap();
        for day in 0..7 {
            collect(&paths, &mut report(1_800_000_000 + day * 86_400)).unwrap();
        }
        let events = events(&paths);
        assert_eq!(events.len(), KEPT);
        let name = events[0]
            .file_name()
            .unwrap()
            .to_string_lossy()
            .into_owned();
        assert_eq!(name, "20270117T080000Z-1.1.0_.._x");
        let last = events.last().unwrap();
        assert_eq!(
            fs::read_to_string(last.join("pstore/dmesg.txt")).unwrap(),
            "Kernel panic"
        );
        let kept: Report = record::read_json(&last.join("report.json")).unwrap();
        assert_eq!(kept.evidence.as_deref(), Some(last.as_path()));
        assert!(last.join("journal.txt").exists());
    }

    #[test]
    fn the_watchdog_names_itself() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        assert_eq!(reset_cause(&paths), None);
        let file = paths.at("sys/class/watchdog/watchdog0/bootstatus");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "32\n").unwrap();
        assert_eq!(reset_cause(&paths).as_deref(), Some("watchdog"));
    }
}
