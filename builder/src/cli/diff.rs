//! `builder diff`

use std::path::PathBuf;

use anyhow::Result;

use super::{print, Context};
use crate::cache::Cache;
use crate::release::{cost, diff};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The older: a released version, a ref, or a commit
    from: String,
    /// The newer
    to: String,
    /// Board whose releases are meant
    #[arg(short, long, value_name = "ID")]
    board: Option<String>,
    /// Lists every file
    #[arg(long)]
    all: bool,
    /// Makes the compact delta and lists what each file costs in it
    #[arg(long, conflicts_with = "all")]
    bytes: bool,
    /// Keeps the compact delta in a file
    #[arg(long, requires = "bytes", value_name = "FILE")]
    keep: Option<PathBuf>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let project = context.project()?;
    let board = match &args.board {
        Some(id) => id.clone(),
        None => project.only_board()?,
    };
    let find = |name: &str| diff::find_in(&project, &board, name);
    let (from, to) = (find(&args.from)?, find(&args.to)?);
    if args.bytes {
        let cost = cost::cost(&from, &to, args.keep.as_deref(), &Cache::from_env()?)?;
        return match args.json {
            true => print::json(&cost),
            false => print::text(&cost.to_string()),
        };
    }
    let found = diff::diff(&from, &to)?;
    if args.json {
        return print::json(&found);
    }
    print::text(&match args.all {
        true => found.full_table(),
        false => found.to_string(),
    })
}
