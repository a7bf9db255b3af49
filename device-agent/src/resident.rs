//! Staying resident, for devices without timers: a round at start, then one every interval.
//!
//! A round is `device-agent auto` as a child, so nothing of libostree or of the network stays in memory
//! between rounds, and a round that dies takes nobody with it. The parent only waits.

use std::hash::{BuildHasher, RandomState};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{kill, SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;

use crate::notify::{watchdog_pause, News, Notifier};

/// A round may take this long, as one started by the timer (`TimeoutStartSec=`).
const LONGEST_ROUND: Duration = Duration::from_secs(6 * 3600);
/// The shortest interval between two rounds.
const SHORTEST: Duration = Duration::from_secs(10);
/// The longest: a year.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Runs until SIGTERM or SIGINT. The environment's watchdog is fed as long as the loop turns.
pub fn run(interval: Duration) -> Result<()> {
    // Before the first child, or its end could be missed.
    let signals = signals().context("arranging to be told of signals")?;
    let mut resident = Resident {
        interval,
        manager: Notifier::from_environment().context("opening $NOTIFY_SOCKET")?,
        watchdog: watchdog_pause().map(|pause| (pause, Instant::now())),
        state: State::Waiting(Instant::now()),
    };
    resident.tell(News::Ready("starting"));
    while !resident.turn(&signals)? {}
    resident.stop()
}

/// Undoes for a round what the resident process arranged for itself: children inherit blocked signals.
pub fn unblock_signals() -> Result<()> {
    SigSet::empty()
        .thread_set_mask()
        .context("unblocking signals")
}

#[derive(Debug)]
enum State {
    /// Until the next round is due.
    Waiting(Instant),
    /// A round, and when it has lasted too long.
    Round(Child, Instant),
}

struct Resident {
    interval: Duration,
    manager: Notifier,
    /// How often it is fed, and when it is due.
    watchdog: Option<(Duration, Instant)>,
    state: State,
}

impl Resident {
    /// Does what is due, then waits for the next thing. Returns whether the end was asked for.
    fn turn(&mut self, signals: &SignalFd) -> Result<bool> {
        let now = Instant::now();
        if let Some((pause, due)) = self.watchdog {
            if due <= now {
                self.watchdog = Some((pause, now + pause));
                self.tell(News::Alive);
            }
        }
        self.advance(now)?;
        let due = match self.state {
            State::Waiting(due) | State::Round(_, due) => due,
        };
        let due = self.watchdog.map_or(due, |(_, feed)| feed.min(due));
        wait(signals, due.saturating_duration_since(now))
    }

    fn advance(&mut self, now: Instant) -> Result<()> {
        match &mut self.state {
            State::Waiting(due) if *due <= now => {
                self.tell(News::Status("looking for updates"));
                self.state = match start() {
                    Ok(child) => State::Round(child, now + LONGEST_ROUND),
                    // Short of memory or processes: later there may be some.
                    Err(error) => self.rest(now, &format!("starting it: {error}")),
                };
            }
            State::Round(child, limit) => {
                if let Some(status) = child.try_wait().context("waiting for a round")? {
                    let outcome = outcome(status);
                    self.state = self.rest(now, &outcome);
                } else if *limit <= now {
                    // An update may be cut anywhere.
                    child.kill().context("ending a round that lasts too long")?;
                    *limit = now + LONGEST_ROUND;
                }
            }
            State::Waiting(_) => {}
        }
        Ok(())
    }

    fn rest(&self, now: Instant, outcome: &str) -> State {
        let pause = pause(self.interval, RandomState::new().hash_one(now));
        let minutes = pause.as_secs().div_ceil(60);
        self.tell(News::Status(&format!(
            "last look: {outcome}; the next in {minutes} min"
        )));
        State::Waiting(now + pause)
    }

    fn stop(mut self) -> Result<()> {
        self.tell(News::Stopping);
        if let State::Round(child, _) = &mut self.state {
            if let Ok(pid) = i32::try_from(child.id()) {
                // Not waited for yet, so the number is still the child's.
                kill(Pid::from_raw(pid), Signal::SIGTERM).context("ending the round")?;
            }
            child.wait().context("waiting for the round's end")?;
        }
        Ok(())
    }

    /// A manager that does not listen must not stop updates.
    fn tell(&self, news: News<'_>) {
        if let Err(error) = self.manager.say(news) {
            eprintln!("device-agent: telling the service manager: {error}");
        }
    }
}

fn start() -> std::io::Result<Child> {
    Command::new("/proc/self/exe")
        .arg0("device-agent")
        .arg("auto")
        // These are between the manager and this process.
        .env_remove("NOTIFY_SOCKET")
        .env_remove("WATCHDOG_USEC")
        .env_remove("WATCHDOG_PID")
        .spawn()
}

fn outcome(status: ExitStatus) -> String {
    match status.code() {
        Some(0) => "done".into(),
        Some(code) => format!("exit code {code}"),
        None => status.to_string(),
    }
}

fn signals() -> nix::Result<SignalFd> {
    let set: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD]
        .into_iter()
        .collect();
    set.thread_block()?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// Waits at most `at_most`, or for a signal. Returns whether it was one to end.
fn wait(signals: &SignalFd, at_most: Duration) -> Result<bool> {
    let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout(at_most)) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error).context("waiting"),
    }
    let mut end = false;
    while let Some(signal) = signals.read_signal().context("reading a signal")? {
        end |= i32::try_from(signal.ssi_signo) != Ok(Signal::SIGCHLD as i32);
    }
    Ok(end)
}

/// In whole milliseconds, upwards, so that the time has come when it is over; the longest waits in parts.
fn timeout(at_most: Duration) -> PollTimeout {
    let millis = at_most.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

/// The interval and up to a quarter of it, as `random` has it, so that a fleet does not come in step.
fn pause(interval: Duration, random: u64) -> Duration {
    let part = u32::try_from(random >> 32).unwrap_or(0);
    interval + (interval / 4).mul_f64(f64::from(part) / f64::from(u32::MAX))
}

/// Reads an interval: numbers with units, as in `90min` or `1h 30min` (`s`, `min`, `h`, `d`).
pub fn interval(text: &str) -> Result<Duration, String> {
    let usage = || format!("`{text}` is no interval: write for example 30min, 1h or 1d 12h");
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(usage());
    }
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit());
        let (unit, after) = split(after.trim_start(), |c| c.is_ascii_alphabetic());
        let seconds = match unit {
            "s" => 1,
            "min" => 60,
            "h" => 3600,
            "d" => 86_400,
            _ => return Err(usage()),
        };
        let part = number.parse::<u64>().ok();
        total = part
            .and_then(|n| n.checked_mul(seconds))
            .and_then(|s| total.checked_add(Duration::from_secs(s)))
            .ok_or_else(usage)?;
        rest = after.trim_start();
    }
    if (SHORTEST..=LONGEST).contains(&total) {
        Ok(total)
    } else {
        Err(format!("`{text}`: between 10s and 365d"))
    }
}

fn split(text: &str, take: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !take(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_numbers_with_units() {
        for (text, seconds) in [
            ("10s", 10),
            ("90min", 5400),
            ("1h", 3600),
            (" 1h 30min ", 5400),
            ("1d12h", 129_600),
            ("2 h", 7200),
        ] {
            assert_eq!(interval(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in [
            "",
            " ",
            "1",
            "h",
            "1x",
            "-1h",
            "1.5h",
            "1h,",
            "daily",
            "9s",
            "366d",
            "99999999999999999999h",
            "9999999999999999999d",
            "1é",
        ] {
            assert!(interval(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pause_is_the_interval_and_up_to_a_quarter() {
        let hour = Duration::from_secs(3600);
        assert_eq!(pause(hour, 0), hour);
        assert_eq!(pause(hour, u64::MAX), Duration::from_secs(4500));
        let half = pause(hour, u64::MAX / 2);
        assert!(half > Duration::from_secs(4049) && half < Duration::from_secs(4051));
        assert!(pause(LONGEST, u64::MAX) > LONGEST);
    }

    #[test]
    fn waits_end_after_the_time_never_before_and_never_at_once() {
        assert_eq!(timeout(Duration::ZERO), PollTimeout::ZERO);
        assert_eq!(timeout(Duration::from_nanos(1)), PollTimeout::from(1u8));
        assert_eq!(
            timeout(Duration::from_millis(250)),
            PollTimeout::from(250u8)
        );
        assert_eq!(timeout(LONGEST), PollTimeout::MAX);
    }
}
