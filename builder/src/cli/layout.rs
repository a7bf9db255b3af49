//! `builder layout`

use anyhow::Result;
use bsp::disk;

use super::{print, Context};
use crate::project::board_sheet::Disk;
use crate::project::Project;
use crate::release::{diff, field};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Draws the product's disk: every byte range with its owner
    Show(Show),
    /// Says whether devices that were flashed with an earlier release can take a later one
    ///
    /// They can if every partition, boot-loader area and copy of the boot environment stands where it stood,
    /// and the root partition has room for two deployments of the new size. Exit code 0: they can; 1: not.
    Check(Check),
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The board
    #[arg(short, long, value_name = "ID")]
    board: Option<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Check {
    /// What devices were flashed with: a released version, a ref, or a commit
    #[arg(long, value_name = "RELEASE")]
    against: String,
    /// What they would get: a released version, a ref, or a commit; the last build, if it is not given
    release: Option<String>,
    /// The board
    #[arg(short, long, value_name = "ID")]
    board: Option<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let project = context.project()?;
    match &args.command {
        Command::Show(args) => show(&project, args),
        Command::Check(args) => check(&project, args),
    }
}

fn show(project: &Project, args: &Show) -> Result<()> {
    let board = project.board(&project.board_or_only(args.board.as_deref())?)?;
    let merged = project.merged(&board);
    let disk = Disk::of(&disk::plan(&merged.board, &Default::default())?);
    match args.json {
        true => print::json(&disk),
        false => print::text(&disk.render()),
    }
}

fn check(project: &Project, args: &Check) -> Result<()> {
    let board = project.board_or_only(args.board.as_deref())?;
    let find = |name: &str| diff::find_in(project, &board, name);
    let new = match &args.release {
        Some(name) => find(name)?,
        None => find(&project.merged(&project.board(&board)?).reference())?,
    };
    let verdict = field::judge(&find(&args.against)?, &new)?;
    if args.json {
        print::json(&verdict)?;
    }
    let (old, new) = (&verdict.old.version, &verdict.new.version);
    if !verdict.problems.is_empty() {
        anyhow::bail!(
            "devices that were flashed with {old} cannot take {new}:\n  {}",
            verdict.problems.join("\n  ")
        );
    }
    if args.json {
        return Ok(());
    }
    print::line(format_args!(
        "devices that were flashed with {old} can take {new}: everything stands where it stood; {} MiB for files on \
         the root partition, two deployments may take {} MiB",
        verdict.room >> 20,
        verdict.needed.div_ceil(1 << 20)
    ))
}
