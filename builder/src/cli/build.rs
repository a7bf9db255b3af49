//! `builder build`

use anyhow::Result;

use super::{print, Context};
use crate::cache::Cache;
use crate::image::Format;
use crate::manifest::shown;
use crate::pipeline::{self, BuildOptions, Built, Early};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The board [default: the only one with a section in product.toml]
    #[arg(short, long, value_name = "ID")]
    board: Option<String>,
    /// Image formats: raw, raw.zst, raw.xz, qcow2
    #[arg(
        short,
        long,
        value_delimiter = ',',
        default_value = "raw",
        value_name = "LIST"
    )]
    format: Vec<Format>,
    /// Stops after this stage
    #[arg(long, value_enum, default_value_t = Until::Image, value_name = "STAGE")]
    until: Until,
    /// Fails if product.lock does not fit, instead of making it anew
    #[arg(long)]
    frozen: bool,
    /// Prints what was built as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Until {
    /// Packages and their versions
    Resolve,
    /// A disk with the boot loader and no system, to try a board with
    Boot,
    /// The base tree from packages
    Compose,
    /// The tree in OSTree's layout
    Assemble,
    /// The signed commit
    Commit,
    /// Disk images
    Image,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let project = context.project()?;
    let board = project.board_or_only(args.board.as_deref())?;
    let cache = Cache::from_env()?;
    let early = match args.until {
        Until::Resolve => Early::Resolve,
        Until::Boot => Early::Boot,
        Until::Compose => Early::Compose,
        Until::Assemble => Early::Assemble,
        Until::Commit | Until::Image => {
            let options = BuildOptions {
                formats: match args.until {
                    Until::Image => args.format.clone(),
                    _ => Vec::new(),
                },
                frozen: args.frozen,
            };
            let built = pipeline::build(&project, &board, &options, &cache, context.progress)?;
            return tell(&built, args.json);
        }
    };
    pipeline::build_until(
        &project,
        &board,
        early,
        args.frozen,
        &cache,
        context.progress,
    )
}

fn tell(built: &Built, json: bool) -> Result<()> {
    if json {
        return print::json(built);
    }
    if let Some(changes) = &built.lock_changes {
        print::text(&format!("product.lock is new:\n{changes}"))?;
    }
    print::line(format_args!(
        "{} {}  commit {}",
        built.reference, built.version, built.checksum
    ))?;
    for image in built.image.iter().flat_map(|image| &image.images) {
        print::line(format_args!("{}", shown(&image.path)))?;
    }
    for path in built
        .image
        .iter()
        .filter_map(|image| image.emmc_boot.as_ref())
    {
        print::line(format_args!(
            "{}  (for both boot partitions of the eMMC)",
            shown(path)
        ))?;
    }
    Ok(())
}
