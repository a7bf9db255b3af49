//! `builder test`

use std::path::PathBuf;

use anyhow::{anyhow, ensure, Context as _, Result};

use super::{print, Context};
use crate::cache::Cache;
use crate::manifest::shown;
use crate::scenario::{self, bench, table, Request};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Scenarios by name [default: all]
    scenarios: Vec<String>,
    /// The board [default: the only one with a section in product.toml]
    #[arg(short, long, value_name = "ID")]
    board: Option<String>,
    /// Only the short set
    #[arg(long, conflicts_with = "scenarios")]
    quick: bool,
    /// Plays every scenario so many times
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000), value_name = "N")]
    rounds: u32,
    /// Lists the scenarios and ends
    #[arg(long)]
    list: bool,
    /// Measures an update against `ostree admin switch` instead of playing scenarios
    #[arg(long, conflicts_with_all = ["scenarios", "quick", "list"])]
    measure: bool,
    /// Port of this machine that the virtual devices fetch updates from
    #[arg(long, default_value_t = bench::PORT, value_name = "PORT")]
    port: u16,
    /// Where reports and logs go [default: out/test/BOARD]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Prints the report as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let scenarios = table::select(&args.scenarios, args.quick).map_err(|text| anyhow!(text))?;
    if args.list {
        let text: String = scenarios
            .iter()
            .map(|s| {
                let mark = if s.quick { "quick" } else { "" };
                format!("{:<20} {mark:<6} {}\n", s.name, s.about)
            })
            .collect();
        return print::text(&text);
    }
    let project = context.project()?;
    let board = project.board_or_only(args.board.as_deref())?;
    let out = match &args.out {
        Some(out) => out.clone(),
        None => project.out_dir().join("test").join(&board),
    };
    let request = Request {
        project: &project,
        board: &board,
        scenarios,
        rounds: args.rounds,
        port: args.port,
        out: out.clone(),
    };
    if args.measure {
        let figures = scenario::measure::run(&request, &Cache::from_env()?, context.progress)
            .context("measuring an update")?;
        return match args.json {
            true => print::json(&figures),
            false => print::text(&figures.table()),
        };
    }
    let summary = scenario::run(&request, &Cache::from_env()?, context.progress)
        .context("preparing the test")?;
    if args.json {
        print::json(&summary)?;
    } else {
        print::text(&summary.table())?;
    }
    ensure!(
        summary.failed() == 0,
        "{} of {} scenarios failed; reports and console logs are in {}",
        summary.failed(),
        summary.outcomes.len(),
        shown(&out)
    );
    Ok(())
}
