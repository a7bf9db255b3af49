//! `builder run`

use anyhow::{Context as _, Result};

use super::{print, Context};
use crate::cache::Cache;
use crate::manifest::shown;
use crate::pipeline::{self, BuildOptions};
use crate::qemu::interactive;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The board [default: the only one with a section in product.toml]
    #[arg(short, long, value_name = "ID")]
    board: Option<String>,
    /// Begins again from the image; otherwise the device goes on as it was left
    #[arg(long)]
    fresh: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let project = context.project()?;
    let id = project.board_or_only(args.board.as_deref())?;
    let board = project.merged(&project.board(&id)?).board;
    let dir = project.out_dir().join(&id).join("run");
    if args.fresh || !interactive::exists(&dir) {
        let cache = Cache::from_env()?;
        let options = BuildOptions::raw_image();
        let built = pipeline::build(&project, &id, &options, &cache, context.progress)?;
        let image = built.raw_image().context("the build made no raw image")?;
        interactive::create(&board, image, &dir, &project.keys_dir(), |file| {
            pipeline::package_file(&project, &id, file, &cache, context.progress)
        })?;
    } else {
        print::line(format_args!(
            "The device goes on as it was left in {}; --fresh begins again from the image.",
            shown(&dir)
        ))?;
    }
    print::line("Leave with Ctrl-A X; Ctrl-A H lists what else QEMU's console can do.")?;
    interactive::run(&board, &dir)
}
