//! The clock floor: devices without a battery-backed clock wake up in the past, where every certificate
//! and every signature lies in the future.
//!
//! The clock is moved forward, never back, to the latest time the device can prove: the time of the
//! running commit, or the last time the agent saw verified metadata.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use nix::sys::time::TimeSpec;
use nix::time::{clock_settime, ClockId};

use crate::paths::Paths;

fn stamp(paths: &Paths) -> std::path::PathBuf {
    paths.state().join("clock")
}

/// The floor: the later of `commit_time` (seconds since 1970) and the last good time on record.
pub fn floor(paths: &Paths, commit_time: u64) -> SystemTime {
    let commit = UNIX_EPOCH + Duration::from_secs(commit_time);
    let seen = std::fs::metadata(stamp(paths)).and_then(|m| m.modified());
    seen.map_or(commit, |seen| seen.max(commit))
}

/// Moves the system clock forward to `floor` if it is behind; returns whether it moved.
pub fn raise_to(floor: SystemTime) -> Result<bool> {
    let Some(floor) = wanted(SystemTime::now(), floor) else {
        return Ok(false);
    };
    let since = floor.duration_since(UNIX_EPOCH).unwrap_or_default();
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from_duration(since))
        .context("setting the system clock, which is behind the time of the running system")?;
    Ok(true)
}

/// The time to set the clock to, if it is behind the floor.
fn wanted(now: SystemTime, floor: SystemTime) -> Option<SystemTime> {
    (now < floor).then_some(floor)
}

/// Records that the present time is good: metadata with unexpired signatures was just seen.
pub fn record(paths: &Paths) -> Result<()> {
    crate::record::write(&stamp(paths), b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_the_later_of_commit_and_record() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        assert_eq!(floor(&paths, 1000), UNIX_EPOCH + Duration::from_secs(1000));
        record(&paths).unwrap();
        assert!(floor(&paths, 1000) > UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let far = 1 << 40;
        assert_eq!(floor(&paths, far), UNIX_EPOCH + Duration::from_secs(far));
    }

    #[test]
    fn the_clock_goes_forward_to_the_floor_and_never_back() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        // A device without a clock of its own wakes up in 1970.
        assert_eq!(
            wanted(UNIX_EPOCH, at(1_700_000_000)),
            Some(at(1_700_000_000))
        );
        for now in [1_700_000_000, 1_900_000_000] {
            assert_eq!(wanted(at(now), at(1_700_000_000)), None);
        }
        assert!(!raise_to(UNIX_EPOCH).unwrap());
    }
}
