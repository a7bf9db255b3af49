//! The rest of the system, behind a small trait: units, commands with a time limit, the clock, reboot.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

/// State of a systemd unit as far as health is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnitState {
    /// Running, or done and meant to stay active.
    Active,
    /// Starting, restarting or not started yet.
    Pending,
    /// Failed for good.
    Failed,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it exited with 0 in time.
    pub ok: bool,
    /// How it ended, for people: `exit status: 1`, `no answer after 30 s`.
    pub ended: String,
    /// The end of what it said on both outputs.
    pub output: String,
}

/// What the judge needs from the system.
pub trait System {
    /// State of a unit.
    fn unit(&self, name: &str) -> UnitState;
    /// Names of the units that have failed.
    fn failed_units(&self) -> Vec<String>;
    /// Runs a command with a time limit.
    fn run(&self, command: &[String], limit: Duration) -> Outcome;
    /// Time since some fixed moment; never goes back.
    fn elapsed(&self) -> Duration;
    /// Waits.
    fn sleep(&self, time: Duration);
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_secs())
}

/// The running system.
#[derive(Debug)]
pub struct Running {
    start: Instant,
}

impl Default for Running {
    fn default() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

/// Time systemd may take to answer a question.
const ANSWER: Duration = Duration::from_secs(20);
/// Bytes of output kept of a command.
const KEPT: usize = 4096;

impl System for Running {
    fn unit(&self, name: &str) -> UnitState {
        let shown = run(
            Command::new("systemctl").args(["show", "--property=ActiveState", "--value", name]),
            ANSWER,
        );
        match shown.output.trim() {
            "active" | "reloading" | "refreshing" => UnitState::Active,
            "failed" => UnitState::Failed,
            _ => UnitState::Pending,
        }
    }

    fn failed_units(&self) -> Vec<String> {
        let listed = run(
            Command::new("systemctl").args([
                "list-units",
                "--state=failed",
                "--plain",
                "--no-legend",
                "--no-pager",
            ]),
            ANSWER,
        );
        listed
            .output
            .lines()
            .filter_map(|line| line.split_ascii_whitespace().next())
            .map(str::to_owned)
            .collect()
    }

    fn run(&self, command: &[String], limit: Duration) -> Outcome {
        match command.split_first() {
            Some((program, args)) => run(Command::new(program).args(args), limit),
            None => Outcome {
                ok: false,
                ended: "no command".into(),
                output: String::new(),
            },
        }
    }

    fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Runs a command in a process group of its own and ends the whole group when its time is up.
pub fn run(command: &mut Command, limit: Duration) -> Outcome {
    use std::os::unix::process::CommandExt;
    let shown = command.get_program().to_string_lossy().into_owned();
    let (reader, writer) = match nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC) {
        Ok((reader, writer)) => (File::from(reader), writer),
        Err(error) => return failed_to_start(&shown, &error.into()),
    };
    let child = writer.try_clone().and_then(|second| {
        command
            .stdin(Stdio::null())
            .stdout(second)
            .stderr(writer)
            .process_group(0)
            .spawn()
    });
    // The command keeps both ends of the pipe open until it is replaced.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = match child {
        Ok(child) => child,
        Err(error) => return failed_to_start(&shown, &error),
    };
    let output = Tail::read(reader);
    let status = match end(&mut child, limit) {
        Ok(status) => status,
        Err(error) => return failed_to_start(&shown, &error),
    };
    Outcome {
        ok: status.is_some_and(|s| s.success()),
        ended: describe(status, limit),
        output: output.take(),
    }
}

/// Waits for the end of a command in a process group of its own; `None` if its time was up and the whole group was
/// ended.
pub(crate) fn end(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None if start.elapsed() >= limit => break,
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    if let Ok(group) = i32::try_from(child.id()) {
        // A group that is already gone needs no signal.
        let _ = nix::sys::signal::killpg(
            nix::unistd::Pid::from_raw(group),
            nix::sys::signal::Signal::SIGKILL,
        );
    }
    let _ = child.wait();
    Ok(None)
}

fn describe(status: Option<ExitStatus>, limit: Duration) -> String {
    match status {
        Some(status) => status.to_string(),
        None => format!("no answer after {} s", limit.as_secs()),
    }
}

fn failed_to_start(program: &str, error: &std::io::Error) -> Outcome {
    Outcome {
        ok: false,
        ended: format!("starting {program}: {error}"),
        output: String::new(),
    }
}

/// Collects the end of a command's output. The thread is left to itself: a grandchild that keeps the pipe
/// open must not keep the judge waiting.
struct Tail {
    kept: Arc<Mutex<Vec<u8>>>,
    thread: std::thread::JoinHandle<()>,
}

impl Tail {
    fn read(mut from: impl Read + Send + 'static) -> Self {
        let kept = Arc::new(Mutex::new(Vec::new()));
        let shared = kept.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                let Ok(mut kept) = shared.lock() else { return };
                kept.extend_from_slice(&buffer[..n]);
                let surplus = kept.len().saturating_sub(LARGEST);
                kept.drain(..surplus);
            }
        });
        Self { kept, thread }
    }

    fn take(self) -> String {
        let patience = Instant::now();
        while !self.thread.is_finished() && patience.elapsed() < Duration::from_millis(500) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let kept = self.kept.lock().map(|k| k.clone()).unwrap_or_default();
        String::from_utf8_lossy(&kept).into_owned()
    }
}

/// `systemctl list-units` and journals may be long; health checks are cut to [`KEPT`] when recorded.
const LARGEST: usize = 256 * 1024;

/// The last [`KEPT`] bytes of a text, on a character boundary.
pub fn end_of(text: &str) -> &str {
    let mut start = text.len().saturating_sub(KEPT);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    &text[start..]
}

/// Reboots: politely, then with force, then by the kernel. Returns only if even that is refused.
pub fn reboot() -> Result<()> {
    for args in [&["reboot"][..], &["reboot", "--force"]] {
        if run(
            Command::new("systemctl").args(args),
            Duration::from_secs(60),
        )
        .ok
        {
            // The order is given; this process ends with the system.
            std::thread::sleep(Duration::from_secs(180));
        }
    }
    nix::unistd::sync();
    nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT)
        .map(|never| match never {})
        .context("rebooting")
}

/// Orders a reboot and returns.
pub fn order_reboot() -> Result<()> {
    let outcome = run(
        Command::new("systemctl").args(["--no-block", "reboot"]),
        Duration::from_secs(60),
    );
    anyhow::ensure!(
        outcome.ok,
        "rebooting: systemctl: {} {}",
        outcome.ended,
        outcome.output.trim()
    );
    Ok(())
}

/// The executables of a directory, sorted by name.
pub fn executables(dir: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::PermissionsExt;
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            std::fs::metadata(path)
                .is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
        })
        .collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: u64) -> Outcome {
        run(
            Command::new("sh").args(["-c", script]),
            Duration::from_millis(limit),
        )
    }

    #[test]
    fn commands_are_judged_by_their_exit_status() {
        let good = sh("echo out; echo err >&2", 5000);
        assert!(good.ok);
        assert!(good.output.contains("out") && good.output.contains("err"));
        let bad = sh("echo why; exit 3", 5000);
        assert!(!bad.ok && bad.ended.contains('3') && bad.output.contains("why"));
        let none = run(&mut Command::new("/does/not/exist"), Duration::from_secs(1));
        assert!(!none.ok && none.ended.contains("starting"));
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_its_children() {
        let start = Instant::now();
        let outcome = sh("echo begun; sleep 60 & sleep 60", 300);
        assert!(!outcome.ok && outcome.ended.contains("no answer"));
        assert!(outcome.output.contains("begun"));
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn endless_output_is_bounded() {
        let outcome = sh("yes", 500);
        assert!(!outcome.ok && outcome.output.len() <= LARGEST);
        assert!(end_of(&outcome.output).len() <= KEPT);
        assert_eq!(end_of("short"), "short");
    }
}
