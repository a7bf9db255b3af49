//! What the whole-system tests share: the programs under test and a product of their own to work on.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{bail, Context, Result};

/// The root of the source tree.
pub fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .map_or_else(PathBuf::new, Path::to_path_buf)
}

/// The builder under test: `BUILDER`, which `make system` sets, else the development build.
pub fn builder() -> Result<PathBuf> {
    let path = std::env::var_os("BUILDER")
        .map_or_else(|| source().join("target/debug/builder"), PathBuf::from);
    if !path.exists() {
        bail!(
            "looking for the builder: {} is not there; run `make dev`",
            path.display()
        );
    }
    Ok(path)
}

/// The agent that goes into trees: `TREELINE_AGENT`, else the one built beside the builder.
pub fn agent() -> Result<PathBuf> {
    let target = builder()?;
    let target = target
        .ancestors()
        .nth(2)
        .context("the builder is in no target directory")?;
    let path = std::env::var_os("TREELINE_AGENT")
        .map_or_else(|| target.join("device/device-agent"), PathBuf::from);
    if !path.exists() {
        bail!(
            "looking for the agent: {} is not there; run `make agent`",
            path.display()
        );
    }
    Ok(path)
}

/// A copy of the example product in a directory of its own.
pub fn example(dir: &Path) -> Result<PathBuf> {
    let product = dir.join("gateway");
    std::fs::create_dir_all(&product).context("creating a product")?;
    for part in ["product.toml", "overlay"] {
        run(Command::new("cp")
            .arg("-a")
            .arg(source().join("examples/gateway").join(part))
            .arg(&product))?;
    }
    Ok(product)
}

/// Runs a command that must succeed and returns its standard output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("running {command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout).context("reading what it printed")
}

/// Runs the builder on a product and returns everything.
pub fn build(product: &Path, args: &[&str]) -> Result<Output> {
    let mut command = Command::new(builder()?);
    command
        .arg("-C")
        .arg(product)
        .args(args)
        .env("TREELINE_AGENT", agent()?);
    command
        .output()
        .with_context(|| format!("running {command:?}"))
}
