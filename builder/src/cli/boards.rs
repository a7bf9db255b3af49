//! `builder boards`

use anyhow::Result;
use bsp::board::{Board, Tier};
use serde::Serialize;

use super::{print, Context};
use crate::project::boards;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    id: String,
    arch: String,
    tier: Tier,
    description: String,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    // A product's own boards count, but the list is of use without a product too.
    let dir = crate::project::find(&context.dir);
    let rows: Vec<Row> = boards::all(dir.as_deref())?.into_iter().map(row).collect();
    if args.json {
        return print::json(&rows);
    }
    let width = |of: fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let (id, arch) = (width(|row| row.id.len()), width(|row| row.arch.len()));
    let lines: String = rows
        .iter()
        .map(|row| {
            let tier = match row.tier {
                Tier::Tested => "tested",
                Tier::Built => "built",
            };
            format!(
                "{:id$}  {:arch$}  {tier:6}  {}\n",
                row.id, row.arch, row.description
            )
        })
        .collect();
    print::text(&lines)
}

fn row(board: Board) -> Row {
    Row {
        id: board.id,
        arch: board.arch,
        tier: board.tier,
        description: board.description,
    }
}
