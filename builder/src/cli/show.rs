//! `builder show`

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::{print, Context};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Merged for this board; without it the product alone, with every default
    #[arg(short, long, value_name = "ID")]
    board: Option<String>,
    /// JSON instead of TOML
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let project = context.project()?;
    match &args.board {
        Some(id) => show(args, &project.merged(&project.board(id)?)),
        None => show(args, &project.product),
    }
}

fn show(args: &Args, value: &impl Serialize) -> Result<()> {
    if args.json {
        print::json(value)
    } else {
        print::text(&toml::to_string_pretty(value).context("writing TOML")?)
    }
}
