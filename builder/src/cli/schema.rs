//! `builder schema`

use anyhow::Result;

use super::print;
use crate::manifest;
use crate::project::board_schema;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Of board files instead
    #[arg(long)]
    board: bool,
}

pub(super) fn run(args: &Args) -> Result<()> {
    if args.board {
        print::json(&board_schema::any())
    } else {
        print::json(&manifest::schema())
    }
}
