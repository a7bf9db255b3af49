//! What happens, told to people or to programs.

use std::fs::File;
use std::io::Write;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde_json::{json, Value};

use super::engine::{Event, Outcome, Phase, What};
use super::journal::Journal;
use super::plan::{size, Plan};
use super::source::Image;

/// Version of the JSON lines. New keys and events may come without a new version.
pub const PROTOCOL: u32 = 1;

/// Where it is told.
pub enum Reporter {
    /// Lines and one bar for each target, on standard error.
    People,
    /// One JSON object a line.
    Programs(Box<dyn Write + Send>),
    /// Nowhere; errors come back all the same.
    Nobody,
}

impl Reporter {
    /// JSON lines to the open file descriptor `fd`.
    pub fn to_fd(fd: u32) -> Result<Self> {
        let path = format!("/proc/self/fd/{fd}");
        let file = File::options()
            .append(true)
            .open(&path)
            .with_context(|| format!("opening file descriptor {fd} for the JSON lines"))?;
        Ok(Self::Programs(Box::new(file)))
    }

    /// Tells one event.
    pub fn event(&mut self, event: &str, mut value: Value) {
        if let (Self::Programs(out), Some(object)) = (self, value.as_object_mut()) {
            let mut line = serde_json::Map::new();
            line.insert("protocol".into(), PROTOCOL.into());
            line.insert("event".into(), event.into());
            line.append(object);
            // A reader that went away does not stop the disks.
            let _ = writeln!(out, "{}", Value::Object(line)).and_then(|()| out.flush());
        }
    }

    /// Tells people something.
    pub fn say(&self, text: &str) {
        if matches!(self, Self::People) {
            eprint!("{text}");
        }
    }

    /// Tells what will be done.
    pub fn plan(&mut self, plan: &Plan, image: &Image) {
        self.say(&plan.text(image));
        self.event("plan", plan.json(image));
    }

    /// Follows the writers to their end.
    pub fn follow(
        &mut self,
        plans: &[Plan],
        journals: &[Option<Journal>],
        events: &Receiver<Event>,
    ) {
        let bars = Bars::new(plans, matches!(self, Self::People));
        let mut done = vec![0u64; plans.len()];
        let mut told = vec![Instant::now(); plans.len()];
        for event in events {
            let target = plans.get(event.job).map(|plan| &plan.chosen.path);
            bars.show(&event);
            match event.what {
                What::Begins(phase, bytes) => {
                    done[event.job] = 0;
                    self.event(
                        "phase",
                        json!({"target": target, "phase": phase, "bytes": bytes}),
                    );
                }
                What::Progress(bytes) => {
                    done[event.job] += bytes;
                    if told[event.job].elapsed() >= Duration::from_millis(500) {
                        told[event.job] = Instant::now();
                        self.event(
                            "progress",
                            json!({"target": target, "bytes": done[event.job]}),
                        );
                    }
                }
                What::Flushed(position) => {
                    if let Some(Some(journal)) = journals.get(event.job) {
                        journal.note(position);
                    }
                }
                What::Ended => {}
            }
        }
        bars.clear();
    }

    /// Tells what became of a target.
    pub fn receipt(&mut self, plan: &Plan, image: &Image, outcome: &Outcome, settings: bool) {
        let stats = &outcome.stats;
        let path = plan.chosen.path.display();
        let text = match &outcome.failure {
            Some(failure) => format!("{path}  FAILED: {failure}\n"),
            None => format!(
                "{path}  done: {} written in {:.1} s ({}/s), {} verified in {:.1} s{}{}\n",
                size(stats.written_bytes),
                stats.write_seconds,
                size(rate(stats.written_bytes, stats.write_seconds)),
                size(stats.verified_bytes),
                stats.verify_seconds,
                match stats.skipped_bytes {
                    0 => String::new(),
                    skipped => format!(", {} stood there already", size(skipped)),
                },
                if settings {
                    ", first-boot settings added"
                } else {
                    ""
                }
            ),
        };
        self.say(&text);
        let failure = outcome.failure.as_ref();
        self.event(
            "result",
            json!({
                "target": plan.chosen.path,
                "device": plan.chosen.device,
                "ok": failure.is_none(),
                "boots": failure.is_none(),
                "untouched": failure.is_some_and(|f| f.untouched),
                "error": failure.map(|f| &f.text),
                "kind": failure.map(|f| f.kind),
                "image": image.name,
                "settings": settings,
                "stats": stats,
            }),
        );
    }
}

fn rate(bytes: u64, seconds: f64) -> u64 {
    if seconds > 0.0 {
        (bytes as f64 / seconds) as u64
    } else {
        0
    }
}

struct Bars {
    all: MultiProgress,
    bars: Vec<ProgressBar>,
}

impl Bars {
    fn new(plans: &[Plan], shown: bool) -> Self {
        let all = MultiProgress::new();
        let bars = plans
            .iter()
            .map(|plan| {
                let bar = match shown {
                    true => all.add(ProgressBar::new(plan.bytes)),
                    false => ProgressBar::hidden(),
                };
                bar.set_style(style());
                bar.set_prefix(plan.chosen.path.display().to_string());
                bar
            })
            .collect();
        Self { all, bars }
    }

    fn show(&self, event: &Event) {
        let Some(bar) = self.bars.get(event.job) else {
            return;
        };
        match event.what {
            What::Begins(phase, bytes) => {
                bar.reset();
                bar.set_length(bytes);
                bar.set_message(match phase {
                    Phase::Prepare => "preparing",
                    Phase::Write => "writing",
                    Phase::Verify => "verifying",
                    Phase::Finish => "finishing",
                });
            }
            What::Progress(bytes) => bar.inc(bytes),
            What::Flushed(_) => {}
            What::Ended => bar.finish(),
        }
    }

    fn clear(&self) {
        // The bars go, the receipts stay.
        let _ = self.all.clear();
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template(
        "  {prefix:<14} {msg:<10} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}",
    )
    .unwrap_or_else(|_| ProgressStyle::default_bar())
}
