//! The agent's metadata verifier behind the command line of the public conformance suite of The Update
//! Framework (`tuf-conformance`, version 2). An example, so that it is built with the tests and never ships.
//!
//! See docs/src/trust.md for how it is built and run. Exit code 0 or 1.
#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use clap::Parser;
use device_agent::transport::Transport;
use keys::client::Updater;
use url::Url;

/// Bytes a target may have: the suite's are small.
const MAX_TARGET: u64 = 256 * 1024 * 1024;

#[derive(Debug, Parser)]
struct Args {
    /// Where trusted metadata is kept
    #[arg(long, value_name = "DIR")]
    metadata_dir: PathBuf,
    /// Where the server has its metadata
    #[arg(long, value_name = "URL")]
    metadata_url: Option<String>,
    /// Target to download; may be repeated
    #[arg(long, value_name = "NAME")]
    target_name: Vec<String>,
    /// Where the server has its targets
    #[arg(long, value_name = "URL")]
    target_base_url: Option<String>,
    /// Where targets are put
    #[arg(long, value_name = "DIR")]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Begins with this trusted root metadata
    Init { trusted_root: PathBuf },
    /// Brings the metadata up to date
    Refresh,
    /// The same, then downloads the targets that are not there yet
    Download,
}

fn main() -> ExitCode {
    // Whatever is wrong with the arguments is failure 1, too.
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tuf-conformance-client: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    if let Action::Init { trusted_root } = &args.action {
        let root = fs::read(trusted_root)
            .with_context(|| format!("reading {}", trusted_root.display()))?;
        let place = args.metadata_dir.join("root.json");
        fs::create_dir_all(&args.metadata_dir)
            .and_then(|()| fs::write(&place, root))
            .with_context(|| format!("writing {}", place.display()))?;
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    runtime.block_on(work(args))
}

async fn work(args: &Args) -> Result<()> {
    let metadata = url(args.metadata_url.as_deref(), "--metadata-url")?;
    // The second call of a process finds the provider in place; this is the first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let http = reqwest::Client::builder()
        .no_proxy()
        .build()
        .context("preparing the HTTP client")?;
    let transport = Arc::new(Transport::over(http));
    let updater = Updater::refresh(&args.metadata_dir, &metadata, transport).await?;
    if matches!(args.action, Action::Download) {
        let base = url(args.target_base_url.as_deref(), "--target-base-url")?;
        let dir = args
            .target_dir
            .as_deref()
            .context("--target-dir is missing")?;
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        for name in &args.target_name {
            download(&updater, &base, dir, name).await?;
        }
    }
    Ok(())
}

async fn download(updater: &Updater, base: &Url, dir: &Path, name: &str) -> Result<()> {
    let found = updater
        .find(name)
        .await?
        .with_context(|| format!("no role offers the target {name}"))?;
    let place = dir.join(file_name(name));
    if fs::read(&place).is_ok_and(|there| found.check(&there).is_ok()) {
        return Ok(());
    }
    let content = updater.read(&found, base, MAX_TARGET).await?;
    fs::write(&place, content).with_context(|| format!("writing {}", place.display()))
}

/// A target's name as one file name.
fn file_name(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

fn url(text: Option<&str>, option: &str) -> Result<Url> {
    let text = text.with_context(|| format!("{option} is missing"))?;
    Url::parse(text).with_context(|| format!("{option} {text}"))
}
