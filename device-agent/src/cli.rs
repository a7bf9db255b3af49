//! The command line.

mod commands;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde_json::{json, Value};

use commands::{
    auto, confirm, installed, judge_boot, look, reject, take_over_settings, told, update_loader,
    upgrade,
};

use crate::device::Device;
use crate::paths::Paths;
use crate::problem::{hint_of, kind_of, Kind};
use crate::{config, grub_menu, install, lock, resident, status, stop_point, system, verify};

/// Keeps this device up to date: check, install, confirm, go back.
#[derive(Debug, Parser)]
#[command(name = "device-agent", version, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 done, 2 wrong command line, 3 configuration, 4 another agent at work, \
5 not possible in this state, 6 network, 7 signature, hash or expiry, 8 no room, 9 release refused, \
10 boot state, 11 needs root, 1 anything else."
)]
struct Cli {
    /// Print the result as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// If another device-agent is at work, wait for it.
    #[arg(long, global = true)]
    wait: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what runs, what is installed and what is known about updates.
    Status,
    /// Look whether the channel offers something newer.
    Check,
    /// Install the newest release of the channel and reboot into it.
    Upgrade {
        /// Install, but leave the reboot to somebody else.
        #[arg(long)]
        no_reboot: bool,
        /// Install this version instead of the newest.
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
        /// Take it even if it failed on this device before.
        #[arg(long)]
        retry: bool,
    },
    /// Install one particular version, older ones too, and reboot into it.
    Deploy {
        /// Version, as the server names it.
        version: String,
        /// Install, but leave the reboot to somebody else.
        #[arg(long)]
        no_reboot: bool,
        /// Take it even if it failed on this device before.
        #[arg(long)]
        retry: bool,
    },
    /// Go back to the deployment before and reboot into it.
    Rollback {
        /// Switch, but leave the reboot to somebody else.
        #[arg(long)]
        no_reboot: bool,
    },
    /// Confirm the running deployment without waiting for the health checks.
    Confirm,
    /// Give up the running deployment, which is on trial, and reboot into the one before.
    Reject {
        /// Leave the reboot to somebody else.
        #[arg(long)]
        no_reboot: bool,
    },
    /// Check every file of the running deployment against its checksum. Changes nothing; reads everything.
    Verify,
    /// Replace boot loaders that are older than what the running, confirmed deployment brings.
    UpdateLoader {
        /// Try one that was tried on this device before and did not start.
        #[arg(long)]
        again: bool,
    },
    /// Stay resident: check now and then, install if the configuration says so. Instead of the timer.
    Run {
        /// Time between two checks (s, min, h, d), at random up to a quarter longer.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = resident::interval)]
        interval: std::time::Duration,
    },
    /// What the timer does: check, install if the configuration says so, send reports.
    #[command(hide = true)]
    Auto,
    /// Judge this boot (started by systemd at every boot).
    #[command(hide = true)]
    Judge,
    /// Take over the settings given at flash time (started by systemd at every boot).
    #[command(hide = true)]
    FirstBoot,
    /// List the places where DEVICE_AGENT_STOP_AT stops the agent.
    #[command(hide = true)]
    StopPoints,
}

/// What a command has to say: for programs, and for people.
struct Answer {
    json: Value,
    text: String,
    /// Reboot after it has been said.
    reboot: bool,
}

impl Answer {
    fn new(json: Value, text: impl Into<String>) -> Self {
        Self {
            json,
            text: text.into(),
            reboot: false,
        }
    }
}

/// Runs the program; `args` begins with its name.
pub fn main(args: Vec<OsString>) -> ExitCode {
    // libostree tells people on standard output what it frees; that place belongs to the answer.
    ostree::glib::set_print_handler(|text| eprint!("{text}"));
    let name = args
        .first()
        .map(std::path::PathBuf::from)
        .unwrap_or_default();
    if name.file_name().is_some_and(|n| n == grub_menu::NAME) {
        return finish(grub_menu::run(&args[1..]).map(|()| None), false);
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // A broken pipe is no error.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let json = cli.json;
    finish(run(cli).map(Some), json)
}

fn finish(result: Result<Option<Answer>>, json: bool) -> ExitCode {
    match result {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(answer)) => {
            let text = if json {
                format!("{:#}\n", answer.json)
            } else {
                answer.text
            };
            print(&text);
            if answer.reboot {
                if let Err(error) = system::order_reboot() {
                    eprintln!("device-agent: {error:#}");
                    return ExitCode::from(Kind::Other.exit_code());
                }
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            let kind = kind_of(&error);
            if json {
                let value = json!({
                    "error": format!("{error:#}"),
                    "kind": kind.name(),
                    "hint": hint_of(&error),
                });
                print(&format!("{value:#}\n"));
            }
            eprintln!("device-agent: {error:#}");
            if let Some(hint) = hint_of(&error) {
                eprintln!("  try: {hint}");
            }
            ExitCode::from(kind.exit_code())
        }
    }
}

fn print(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout();
    // A reader that has gone away wants no more.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn run(cli: Cli) -> Result<Answer> {
    let paths = Paths::default();
    match cli.command {
        Command::StopPoints => return Ok(stop_points()),
        Command::Judge => return judge_boot(paths),
        Command::FirstBoot => return take_over_settings(&paths),
        Command::Run { interval } => {
            resident::run(interval)?;
            return Ok(Answer::new(json!({ "result": "stopped" }), ""));
        }
        // The resident process may have started this one.
        Command::Auto => resident::unblock_signals()?,
        _ => {}
    }
    let device = Device::new(paths.clone(), config::load(&paths)?)?;
    let wait = cli.wait;
    let lock = |doing: &str| lock::take(&paths, doing, wait);
    match cli.command {
        Command::Status => {
            let status = status::collect(&device)?;
            let json = serde_json::to_value(&status).context("writing the status")?;
            Ok(Answer::new(json, status.people()))
        }
        Command::Verify => {
            let objects = verify::running(&device)?;
            let version = &device.config.version;
            Ok(Answer::new(
                json!({ "result": "good", "version": version, "objects": objects }),
                format!("{version} is what was installed ({objects} objects)\n"),
            ))
        }
        Command::Check => {
            let _lock = lock("check")?;
            runtime()?
                .block_on(look(&device))
                .map(|(offer, _)| told(&offer, &device))
        }
        Command::Upgrade {
            no_reboot,
            version,
            retry,
        } => {
            let _lock = lock("upgrade")?;
            runtime()?.block_on(upgrade(&device, version.as_deref(), retry, !no_reboot))
        }
        Command::Deploy {
            version,
            no_reboot,
            retry,
        } => {
            let _lock = lock("deploy")?;
            runtime()?.block_on(upgrade(&device, Some(&version), retry, !no_reboot))
        }
        Command::Rollback { no_reboot } => {
            let _lock = lock("rollback")?;
            Ok(match install::roll_back(&device, &say)? {
                Some(switched) => installed(&switched, !no_reboot),
                None => Answer::new(
                    json!({ "withdrawn": true }),
                    "the update that waited for the reboot was taken back; nothing else was changed\n",
                ),
            })
        }
        Command::Confirm => {
            let _lock = lock("confirm")?;
            confirm(&device)
        }
        Command::Reject { no_reboot } => {
            let _lock = lock("reject")?;
            reject(&device, !no_reboot)
        }
        Command::UpdateLoader { again } => {
            let _lock = lock("update-loader")?;
            update_loader(&device, again)
        }
        Command::Auto => {
            let _lock = lock("auto")?;
            runtime()?.block_on(auto(&device))
        }
        Command::Judge | Command::FirstBoot | Command::Run { .. } | Command::StopPoints => {
            Err(anyhow::anyhow!("already answered"))
        }
    }
}

fn say(text: &str) {
    eprintln!("device-agent: {text}");
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")
}

fn stop_points() -> Answer {
    let json = stop_point::ALL
        .iter()
        .map(|(name, what)| json!({ "name": name, "at": what }));
    let text = stop_point::ALL
        .iter()
        .map(|(name, what)| format!("{name:<16}{what}\n"));
    Answer::new(json.clone().collect(), text.collect::<String>())
}
