//! `builder flash` from the chosen disks to the receipts.

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::thread;

use anyhow::{Context, Result};

use super::choose::{check_opened, Chosen};
use super::device::System;
use super::engine::{self, Job, Outcome};
use super::interrupt::Awake;
use super::journal::Journal;
use super::plan::Plan;
use super::problem::{Kind, Problem};
use super::report::Reporter;
use super::settings;
use super::source::Image;
use super::target::disk::Disk;
use crate::command::Command;

/// How to write.
#[derive(Debug, Clone)]
pub struct Options {
    /// Writes only what differs.
    pub minimize: bool,
    /// Goes on where an earlier write was interrupted.
    pub resume: bool,
    /// Where notes for `resume` are kept.
    pub notes: PathBuf,
    /// The first-boot file of each target; empty ones and missing ones are none.
    pub settings: Vec<Vec<u8>>,
}

/// Writes `image` to all targets. An error if any of them failed; the receipts tell which.
pub fn write(
    image: &Image,
    plans: &[Plan],
    options: &Options,
    system: &System,
    reporter: &mut Reporter,
    stop: &AtomicBool,
) -> Result<Vec<Outcome>> {
    let _awake = Awake::ask();
    let mut jobs = Vec::new();
    let mut journals = Vec::new();
    // All of them are opened before the first is written to.
    for (index, plan) in plans.iter().enumerate() {
        let journal = plan
            .chosen
            .device
            .as_ref()
            .and_then(|device| Journal::of(&options.notes, image, device));
        jobs.push(job(image, plan, index, options, journal.as_ref(), system)?);
        journals.push(journal);
    }
    let (events, seen) = channel();
    let outcomes = thread::scope(|scope| {
        let writers = scope.spawn(move || {
            let outcomes = engine::run(image, jobs, &events, stop);
            drop(events);
            outcomes
        });
        reporter.follow(plans, &journals, &seen);
        writers.join()
    });
    let outcomes = outcomes.map_err(|_| anyhow::anyhow!("the writers died"))?;
    for (index, (plan, outcome)) in plans.iter().zip(&outcomes).enumerate() {
        let settings = options.settings.get(index).is_some_and(|s| !s.is_empty());
        reporter.receipt(plan, image, outcome, settings && outcome.failure.is_none());
        if let (Some(Some(journal)), None) = (journals.get(index), &outcome.failure) {
            journal.forget();
        }
    }
    verdict(plans, &outcomes)?;
    Ok(outcomes)
}

fn job(
    image: &Image,
    plan: &Plan,
    index: usize,
    options: &Options,
    journal: Option<&Journal>,
    system: &System,
) -> Result<Job> {
    let chosen = &plan.chosen;
    for at in &chosen.unmount {
        Command::new("umount", "mount")
            .args(["--", at])
            .run()
            .with_context(|| format!("taking {} down", chosen.path.display()))?;
    }
    let disk = open(chosen)?;
    check_opened(system, chosen, &disk, image.size)?;
    let finish = match options.settings.get(index) {
        Some(content) if !content.is_empty() => Some(settings::finish(&image.head, content)?),
        _ => None,
    };
    let resume_from = match (options.resume, journal) {
        (true, Some(journal)) => journal.position().unwrap_or(0),
        (false, Some(journal)) => {
            journal.forget();
            0
        }
        _ => 0,
    };
    Ok(Job {
        name: chosen.path.display().to_string(),
        target: Box::new(disk),
        kept: plan.kept.clone(),
        boot_area: plan.boot_area.clone(),
        closed_area: plan.closed_area.clone(),
        tail: plan.tail.clone(),
        minimize: options.minimize,
        resume_from,
        finish,
    })
}

fn open(chosen: &Chosen) -> Result<Disk> {
    let discards = chosen.device.as_ref().is_some_and(|device| device.discards);
    Disk::open(&chosen.path, discards).map_err(|error| Problem::refused(format!("{error:#}")))
}

/// The worst that happened decides about the exit code.
fn verdict(plans: &[Plan], outcomes: &[Outcome]) -> Result<()> {
    let failed: Vec<_> = plans
        .iter()
        .zip(outcomes)
        .filter_map(|(plan, outcome)| Some((plan, outcome.failure.as_ref()?)))
        .collect();
    let Some(worst) = failed.iter().map(|(_, failure)| failure.kind).max() else {
        return Ok(());
    };
    let names: Vec<String> = failed
        .iter()
        .map(|(plan, failure)| {
            let state = match failure.untouched {
                true => "unchanged",
                false => "does not boot",
            };
            format!("{} ({state})", plan.chosen.path.display())
        })
        .collect();
    Err(Problem::error(
        Kind::from(worst),
        format!(
            "{} of {} not written: {}",
            failed.len(),
            plans.len(),
            names.join(", ")
        ),
    ))
}
