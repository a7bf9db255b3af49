//! The serial console of a virtual device: read by a thread, kept in memory and in a log file.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;
use std::process::ChildStdout;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};

/// What the console printed so far.
#[derive(Debug, Clone)]
pub struct Console {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    text: Mutex<Text>,
    more: Condvar,
}

#[derive(Debug, Default)]
struct Text {
    seen: String,
    ended: bool,
}

impl Console {
    /// Reads `output` until its end; everything is appended to `log` as well.
    pub fn new(output: ChildStdout, log: &Path) -> Result<Self> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("opening the console log {}", log.display()))?;
        let shared = Arc::new(Shared::default());
        let writer = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("console".into())
            .spawn(move || pump(output, log, &writer))
            .context("starting the console reader")?;
        Ok(Self { shared })
    }

    /// Where the console stands now; markers are looked for from such a place on.
    pub fn position(&self) -> usize {
        self.lock().seen.len()
    }

    /// Everything printed from `from` on.
    pub fn since(&self, from: usize) -> String {
        self.lock().seen.get(from..).unwrap_or_default().to_string()
    }

    /// Waits until one of `markers` stands in what is printed from `from` on; returns its index.
    pub fn wait_for_any(&self, markers: &[&str], from: usize, limit: Duration) -> Result<usize> {
        let deadline = Instant::now() + limit;
        let mut text = self.lock();
        loop {
            let printed = text.seen.get(from..).unwrap_or_default();
            if let Some(index) = markers.iter().position(|m| printed.contains(m)) {
                return Ok(index);
            }
            let now = Instant::now();
            if text.ended || now >= deadline {
                let why = if text.ended {
                    "the console ended".to_string()
                } else {
                    format!("nothing for {} s", limit.as_secs())
                };
                bail!(
                    "waiting for {markers:?} on the console: {why}; it last printed:\n{}",
                    tail(printed, 25)
                );
            }
            text = self
                .shared
                .more
                .wait_timeout(text, deadline - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for one marker.
    pub fn wait_for(&self, marker: &str, from: usize, limit: Duration) -> Result<()> {
        self.wait_for_any(&[marker], from, limit).map(drop)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Text> {
        self.shared
            .text
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn pump(mut output: ChildStdout, mut log: File, shared: &Shared) {
    let mut buffer = [0; 4096];
    loop {
        let count = output.read(&mut buffer).unwrap_or(0);
        let mut text = shared.text.lock().unwrap_or_else(PoisonError::into_inner);
        if count == 0 {
            text.ended = true;
            shared.more.notify_all();
            return;
        }
        // A lost log line is no reason to lose the test.
        let _ = log.write_all(&buffer[..count]);
        text.seen
            .push_str(&String::from_utf8_lossy(&buffer[..count]));
        shared.more.notify_all();
    }
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
