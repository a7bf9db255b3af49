//! Applies a compact delta in a repository as the agent does: for measuring what that takes.
//!
//! `apply-delta REPOSITORY DELTA FROM TO PRODUCT BOARD KEY`: commits as checksums, the public commit key in base64.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use device_agent::compact;
use device_agent::stage::Wanted;

fn main() -> ExitCode {
    match run() {
        Ok(commit) => {
            println!("{commit}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("apply-delta: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<String> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [repo, delta, from, to, product, board, key] = &args[..] else {
        anyhow::bail!("usage: apply-delta REPOSITORY DELTA FROM TO PRODUCT BOARD KEY");
    };
    let opened = ostree::Repo::new_for_path(repo);
    opened
        .open(ostree::gio::Cancellable::NONE)
        .with_context(|| format!("opening the repository {repo}"))?;
    let wanted = Wanted {
        commit: to,
        product,
        board,
        keys: std::slice::from_ref(key),
    };
    Ok(compact::apply(&opened, Path::new(delta), from, u64::MAX, &wanted)?.commit)
}
