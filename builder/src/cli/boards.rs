//! `builder boards`

use anyhow::Result;
use bsp::board::{Board, Tier};
use serde::Serialize;

use super::{print, Context};
use crate::project::board_sheet::Sheet;
use crate::project::boards;

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Those of which id or description have all these words
    #[arg(value_name = "WORD")]
    words: Vec<String>,
    /// Those of this architecture (amd64, arm64, armhf, ppc64el)
    #[arg(long)]
    arch: Option<String>,
    /// Those of this tier (tested, built)
    #[arg(long)]
    tier: Option<String>,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Draws a board's disk and tells where its parts come from and what is proven
    Show(Show),
}

#[derive(Debug, clap::Args)]
struct Show {
    /// The board
    #[arg(value_name = "ID")]
    id: String,
    /// JSON instead of text
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
    if let Some(Command::Show(args)) = &args.command {
        let dir = dir.unwrap_or_else(|| context.dir.clone());
        return show(&boards::find(&dir, &args.id)?, args.json);
    }
    let all = boards::all(dir.as_deref())?.into_iter();
    let rows: Vec<Row> = all.map(row).filter(|row| row.is_wanted(args)).collect();
    if args.json {
        return print::json(&rows);
    }
    let width = |of: fn(&Row) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let (id, arch) = (width(|row| row.id.len()), width(|row| row.arch.len()));
    let lines: String = rows
        .iter()
        .map(|row| {
            format!(
                "{:id$}  {:arch$}  {:6}  {}\n",
                row.id,
                row.arch,
                row.tier.as_str(),
                row.description
            )
        })
        .collect();
    print::text(&lines)
}

fn show(board: &Board, json: bool) -> Result<()> {
    let sheet = Sheet::of(board)?;
    if json {
        print::json(&sheet)
    } else {
        print::text(&sheet.render())
    }
}

fn row(board: Board) -> Row {
    Row {
        id: board.id,
        arch: board.arch,
        tier: board.tier,
        description: board.description,
    }
}

impl Row {
    fn is_wanted(&self, args: &Args) -> bool {
        let text = format!("{} {}", self.id, self.description).to_lowercase();
        let is = |wanted: &Option<String>, own: &str| wanted.as_ref().is_none_or(|w| w == own);
        is(&args.arch, &self.arch)
            && is(&args.tier, self.tier.as_str())
            && args
                .words
                .iter()
                .all(|word| text.contains(&word.to_lowercase()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::Parser;

    fn found(words: &[&str]) -> Vec<String> {
        let all = ["builder", "boards"].iter().chain(words);
        let cli = Cli::try_parse_from(all).unwrap();
        let crate::cli::Command::Boards(args) = cli.command else {
            panic!("{cli:?}");
        };
        let rows = boards::all(None).unwrap().into_iter().map(row);
        let wanted = rows.filter(|row| row.is_wanted(&args));
        wanted.map(|row| row.id).collect()
    }

    #[test]
    fn filters_go_together() {
        assert_eq!(found(&[]), bsp::board::list());
        assert_eq!(found(&["--arch", "armhf", "qemu"]), ["qemu-armhf"]);
        assert_eq!(found(&["RASPBERRY", "400"]), ["rpi4"]);
        assert_eq!(
            found(&["--tier", "tested", "u-boot", "64-bit"]),
            ["qemu-aarch64"]
        );
        assert!(found(&["toaster"]).is_empty());
        let show = Cli::try_parse_from(["builder", "boards", "show", "rpi4", "--json"]);
        assert!(show.is_ok(), "{show:?}");
    }
}
