//! Progress for people: one line per stage on standard error, a bar while something long runs.

use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

/// Where progress goes. Quiet for `--json` and in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Lines and bars on standard error.
    Shown,
    /// Nothing.
    Quiet,
}

impl Progress {
    /// Begins a stage; the returned guard ends it with its duration.
    pub fn stage(self, name: &str) -> Stage {
        let bar = match self {
            Self::Quiet => ProgressBar::hidden(),
            Self::Shown => ProgressBar::new_spinner(),
        };
        bar.set_style(spinner());
        bar.set_prefix(name.to_string());
        bar.enable_steady_tick(std::time::Duration::from_millis(200));
        Stage {
            bar,
            shown: self == Self::Shown,
            name: name.to_string(),
            begun: Instant::now(),
        }
    }
}

/// A running stage.
#[derive(Debug)]
pub struct Stage {
    bar: ProgressBar,
    shown: bool,
    name: String,
    begun: Instant,
}

impl Stage {
    /// Says what is being done now.
    pub fn note(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// Turns the stage's line into a bar over `total` bytes.
    pub fn bytes(&self, total: u64) {
        self.bar.set_length(total);
        self.bar.set_style(bar());
    }

    /// Counts `n` bytes.
    pub fn advance(&self, n: u64) {
        self.bar.inc(n);
    }

    /// Ends the stage with its outcome, e.g. "203 packages" or "cached".
    pub fn done(self, outcome: impl std::fmt::Display) {
        self.bar.finish_and_clear();
        if self.shown {
            eprintln!(
                "  {:<10} {outcome}  ({:.1} s)",
                self.name,
                self.begun.elapsed().as_secs_f32()
            );
        }
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("  {prefix:<10} {spinner} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn bar() -> ProgressStyle {
    ProgressStyle::with_template(
        "  {prefix:<10} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta} {msg}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}
