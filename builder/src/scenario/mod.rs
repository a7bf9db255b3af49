//! `builder test`: a device in QEMU is updated, broken and judged, by the very programs that users run.
//!
//! `table` says what is tried, `variant` what is offered, `bench` builds and serves it, `play` carries a
//! scenario out on a [`device::Device`], `report` tells how it went.

mod altered;
pub mod bench;
mod boot_state;
pub mod device;
mod loader;
pub mod measure;
pub mod play;
pub mod report;
mod stand_in;
pub mod table;
pub mod variant;

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::cache::Cache;
use crate::progress::Progress;
use crate::project::Project;
use bench::Bench;
use report::{Outcome, Summary};
use table::Scenario;

/// What to test.
#[derive(Debug)]
pub struct Request<'a> {
    /// The product.
    pub project: &'a Project,
    /// Board id.
    pub board: &'a str,
    /// Scenarios, in order.
    pub scenarios: Vec<&'static Scenario>,
    /// How often each is played.
    pub rounds: u32,
    /// Port of the update server that the devices talk to.
    pub port: u16,
    /// Where logs and reports go, e.g. `out/test/<board>`.
    pub out: PathBuf,
}

/// A bench with a device that has booted once, and where everything goes.
struct Place<'a> {
    bench: Bench<'a>,
    ready: PathBuf,
    out: PathBuf,
    logs: PathBuf,
    work: PathBuf,
}

fn prepare<'a>(request: &Request<'_>, cache: &'a Cache, progress: Progress) -> Result<Place<'a>> {
    let out = std::path::absolute(&request.out).context("finding the output directory")?;
    let logs = out.join("logs");
    let work = out.join("work");
    let bench = Bench::prepare(
        request.project,
        request.board,
        &work,
        request.port,
        cache,
        progress,
    )?;
    if logs.exists() {
        fs::remove_dir_all(&logs).with_context(|| format!("clearing {}", logs.display()))?;
    }
    fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
    let stage = progress.stage("first boot");
    let ready = play::ready_device(&bench, &work)?;
    stage.done("the device is up");
    Ok(Place {
        bench,
        ready,
        out,
        logs,
        work,
    })
}

/// Runs a test. A scenario that fails does not stop the others; only what keeps all of them from running
/// is an error.
pub fn run(request: &Request<'_>, cache: &Cache, progress: Progress) -> Result<Summary> {
    let place = prepare(request, cache, progress)?;
    let mut summary = Summary {
        board: request.board.into(),
        outcomes: Vec::new(),
    };
    for round in 1..=request.rounds {
        for scenario in &request.scenarios {
            if let Some(reason) = scenario.unplayable(&place.bench.board) {
                progress
                    .stage(scenario.name)
                    .done(format_args!("not played: {reason}"));
                summary.outcomes.push(Outcome::not_played(scenario, reason));
                summary.write(&place.out)?;
                continue;
            }
            let log = place.logs.join(format!("{}-{round}.log", scenario.name));
            let stage = progress.stage(scenario.name);
            let begun = Instant::now();
            let scratch =
                tempfile::tempdir_in(&place.work).context("creating a scratch directory")?;
            let result = play::play(&place.bench, scenario, &place.ready, scratch.path(), &log);
            stage.done(if result.is_ok() { "ok" } else { "FAILED" });
            summary.outcomes.push(Outcome {
                scenario: scenario.name.into(),
                about: scenario.about.into(),
                seconds: begun.elapsed().as_secs_f64(),
                failure: result.err().map(|error| format!("{error:#}")),
                not_played: None,
                console_log: log.display().to_string(),
            });
            // After every scenario, so that an interrupted run leaves what it has found.
            summary.write(&place.out)?;
        }
    }
    Ok(summary)
}
