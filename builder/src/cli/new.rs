//! `builder new`

use anyhow::Result;

use super::{print, Context};
use crate::manifest::shown;
use crate::project::scaffold;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the product and of its directory: lower case letters, digits, dashes
    name: String,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let dir = scaffold::create(&context.dir, &args.name)?;
    let dir = shown(&dir);
    print::text(&format!(
        "Made {dir}: product.toml, overlay/ with an example service, keys/ (secret: keep a copy).\n\
         Next:\n  cd {dir}\n  builder build --board x86_64-uefi\n"
    ))
}
