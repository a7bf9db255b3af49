//! `builder serve`

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::Context;
use crate::progress::Progress;
use crate::serve::{self, tls, Config};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Port; 0 takes a free one
    #[arg(short, long, default_value_t = serve::DEFAULT_PORT)]
    port: u16,
    /// Address to listen on
    #[arg(long, default_value_t = serve::ANY, value_name = "ADDRESS")]
    bind: IpAddr,
    /// Directory to serve (default: out/updates)
    // Not `dir`: that is the id of the global option, whose value would be served.
    #[arg(short = 'd', long = "dir", value_name = "DIR")]
    served: Option<PathBuf>,
    /// A further name or address for the server's certificate, as devices reach it
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Only for devices with a certificate of an authority in this file (PEM)
    #[arg(long, value_name = "FILE")]
    client_ca: Option<PathBuf>,
    /// Allows TLS 1.2 besides 1.3
    #[arg(long)]
    tls12: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<()> {
    let project = context.project()?;
    let mut names = args.names.clone();
    if !args.bind.is_unspecified() {
        names.push(args.bind.to_string());
    }
    let tls = tls::ensure(&project.keys_dir().join("tls"), &names)?;
    let dir = match &args.served {
        Some(dir) => dir.clone(),
        None => {
            // Before the first release there is nothing to serve, but a server may wait for it.
            let dir = project.updates_dir();
            fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
            dir
        }
    };
    let mut config = Config::new(dir, tls);
    config.bind = args.bind;
    config.port = args.port;
    config.client_ca.clone_from(&args.client_ca);
    config.allow_tls12 = args.tls12;
    config.reports = Some(project.out_dir().join("reports.jsonl"));
    config.print_requests = context.progress == Progress::Shown;
    serve::serve(config)
}
