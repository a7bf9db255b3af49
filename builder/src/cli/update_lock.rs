//! `builder update-lock`

use std::collections::BTreeMap;

use anyhow::Result;

use super::{print, Context};
use crate::cache::Cache;
use crate::lock::{Lock, LockDiff};
use crate::manifest::shown;
use crate::pipeline::locked;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Renews this board only; without it every board of the lock
    #[arg(short, long, value_name = "ID")]
    board: Option<String>,
    /// Prints what changed as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let project = context.project()?;
    let cache = Cache::from_env()?;
    let lock = Lock::read(&project.lock_path())?.unwrap_or_default();
    let ids: Vec<String> = match &args.board {
        Some(id) => vec![id.clone()],
        None if lock.boards.is_empty() => vec![project.only_board()?],
        None => lock.boards.keys().cloned().collect(),
    };
    let mut changes: BTreeMap<String, LockDiff> = BTreeMap::new();
    for id in ids {
        let merged = project.merged(&project.board(&id)?);
        let renewed = locked::renew(&project, &merged, &cache, context.progress)?.renewed;
        changes.insert(id, renewed.unwrap_or_default());
    }
    if args.json {
        return print::json(&changes);
    }
    for (board, diff) in &changes {
        print::text(&format!("{board}:\n{diff}"))?;
    }
    print::line(format_args!("Wrote {}", shown(&project.lock_path())))
}
