//! `builder release`

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use keys::signer::Signer;

use super::{print, Context};
use crate::cache::Cache;
use crate::commit;
use crate::manifest::shown;
use crate::pipeline::{self, BuildOptions};
use crate::project::Project;
use crate::release::{self, Compression, Request};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Channel (default: the one devices follow, `update.channel` in product.toml)
    #[arg(short, long, value_name = "NAME")]
    channel: Option<String>,
    /// Board; may be left out if the product has only one
    #[arg(short, long, value_name = "ID")]
    board: Option<String>,
    /// Commit to release (default: the product as it is now, built if need be)
    #[arg(long, value_name = "REF")]
    commit: Option<String>,
    /// Earlier releases that deltas are made from
    #[arg(long, default_value_t = release::DEFAULT_DELTAS, value_name = "N")]
    deltas: usize,
    /// What is new, for people
    #[arg(long, default_value = "", value_name = "TEXT")]
    notes: String,
    /// Reads the notes from a file
    #[arg(long, value_name = "FILE", conflicts_with = "notes")]
    notes_file: Option<PathBuf>,
    /// Compresses the whole commit quickly instead of well: for trials
    #[arg(long)]
    fast: bool,
    /// Leaves out the deltas in Treeline's own format, which are several times smaller than libostree's
    #[arg(long)]
    no_compact: bool,
    /// Lists what is released instead
    #[arg(long)]
    list: bool,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let project = context.project()?;
    if args.list {
        let released = release::list(&project.updates_dir(), &project.keys_dir())?;
        return match args.json {
            true => print::json(&released),
            false => print::text(&released.to_string()),
        };
    }
    let cache = Cache::from_env()?;
    let request = request(context, &project, args, &cache)?;
    let published = release::publish(&request, &cache, context.progress)?;
    if args.json {
        return print::json(&published);
    }
    print::text(&published.to_string())?;
    print::line(format_args!(
        "Published in {}; `builder serve` hands it out",
        shown(&request.updates)
    ))
}

/// Builds, or signs the commit that is named, and says what to release.
fn request(context: &Context, project: &Project, args: &Args, cache: &Cache) -> Result<Request> {
    let board = project.board_or_only(args.board.as_deref())?;
    let merged = project.merged(&project.board(&board)?);
    let commit = match &args.commit {
        Some(name) => named(project, name)?,
        None => {
            let options = BuildOptions::commit_only();
            pipeline::build(project, &board, &options, cache, context.progress)?.checksum
        }
    };
    let channel = match &args.channel {
        Some(channel) => channel,
        None => &merged.product.update.channel,
    };
    let mut request = Request::of(project, &board, channel, &commit)?;
    request.version.clone_from(&merged.product.version);
    request.epoch = merged.product.epoch;
    request.deltas = args.deltas;
    request.compact = !args.no_compact;
    request.notes = match &args.notes_file {
        None => args.notes.clone(),
        Some(file) => {
            fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?
        }
    };
    if args.fast {
        request.compression = Compression::Fast;
    }
    Ok(request)
}

/// The commit that `name` (a checksum or a ref) means, signed.
fn named(project: &Project, name: &str) -> Result<String> {
    let repo = project.repo_dir();
    let commit = release::resolve(&repo, name)
        .with_context(|| format!("releasing {name}; `builder build` makes a commit to release"))?;
    let key = Signer::open(&project.keys_dir().join("commit.pem"))?;
    commit::sign(&repo, &commit, &key)?;
    Ok(commit)
}
