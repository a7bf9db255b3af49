//! `builder keys`

use anyhow::Result;
use serde::Serialize;

use super::{print, Context};
use crate::manifest::shown;
use crate::project::secrets;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Makes what is missing in keys/; never overwrites
    Init,
    /// Prints the public parts
    Show {
        /// JSON instead of a table
        #[arg(long)]
        json: bool,
    },
}

#[derive(Serialize)]
struct Key {
    role: String,
    public: String,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let dir = context.project()?.keys_dir();
    match args.action {
        Action::Init => {
            let made = secrets::init(&dir)?;
            let dir = shown(&dir);
            if made.signing {
                print::line(format_args!(
                    "Made signing keys in {dir}. They are secret; keep a copy: without them no device can be updated."
                ))?;
            }
            if made.tls {
                print::line(format_args!(
                    "Made certificates for `builder serve` in {dir}/tls."
                ))?;
            }
            if !made.signing && !made.tls {
                print::line(format_args!("Nothing to do: {dir} is complete."))?;
            }
            Ok(())
        }
        Action::Show { json } => show(&secrets::public(&dir)?, json),
    }
}

fn show(keys: &[(String, String)], json: bool) -> Result<()> {
    if json {
        let keys: Vec<Key> = keys
            .iter()
            .map(|(role, public)| Key {
                role: role.clone(),
                public: public.clone(),
            })
            .collect();
        return print::json(&keys);
    }
    let lines: String = keys
        .iter()
        .map(|(role, public)| format!("{role:10} {public}\n"))
        .collect();
    print::text(&lines)
}
