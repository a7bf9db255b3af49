//! The command line.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde_json::{json, Value};

use crate::check::{self, LastCheck, Offer, Server};
use crate::device::{Device, Situation};
use crate::failed::Memory;
use crate::health::Finding;
use crate::judge::{self, Conclusion};
use crate::paths::Paths;
use crate::problem::{hint_of, kind_of, Kind, Problem};
use crate::sysroot::Sysroot;
use crate::transport::Transport;
use crate::{clock, config, grub_menu, install, lock, report, status, stop_point, system, trial};

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
    /// What the timer does: check, install if the configuration says so, send reports.
    #[command(hide = true)]
    Auto,
    /// Judge this boot (started by systemd at every boot).
    #[command(hide = true)]
    Judge,
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
        Command::Auto => {
            let _lock = lock("auto")?;
            runtime()?.block_on(auto(&device))
        }
        Command::Judge | Command::StopPoints => Err(anyhow::anyhow!("already answered")),
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

/// What is needed to look at the server: the running deployment's epoch raises the floor, its time the clock.
struct Base {
    floor: u64,
    memory: Memory,
    transport: Transport,
}

fn base(device: &Device) -> Result<Base> {
    let sysroot = Sysroot::read(device.paths.root())?;
    let running = sysroot.find(&device.booted);
    let time = sysroot.commit_time(device.booted_commit()).unwrap_or(0);
    if clock::raise_to(clock::floor(&device.paths, time))? {
        say("the clock was behind the running system and has been moved forward");
    }
    Ok(Base {
        floor: check::epoch_floor(&device.paths, running.and_then(|d| d.epoch)),
        memory: Memory::load(&device.paths),
        transport: Transport::new(&device.paths)?,
    })
}

async fn look(device: &Device) -> Result<(Offer, Base)> {
    let base = base(device)?;
    let outcome = async {
        let server = Server::open(device, &base.transport).await?;
        server.newest(device, base.floor, &base.memory).await
    }
    .await;
    LastCheck::save(&device.paths, &outcome)?;
    Ok((outcome?, base))
}

fn told(offer: &Offer, device: &Device) -> Answer {
    let running = &device.config.version;
    match offer {
        Offer::UpToDate => Answer::new(
            json!({ "result": "up-to-date", "running": running }),
            format!(
                "{running} is the newest on channel {}\n",
                device.config.update.channel
            ),
        ),
        Offer::Newer(release) => Answer::new(
            json!({
                "result": "available",
                "running": running,
                "version": release.version,
                "commit": release.commit,
                "notes": release.notes,
            }),
            format!(
                "{} is available ({running} runs); `device-agent upgrade` installs it\n",
                release.version
            ),
        ),
        Offer::Withheld { version, reason } => Answer::new(
            json!({ "result": "withheld", "running": running, "version": version, "reason": reason }),
            format!("{version} is not installed: {reason}\n"),
        ),
    }
}

fn installed(switched: &install::Switched, reboot: bool) -> Answer {
    let next = if reboot {
        "rebooting into it"
    } else {
        "it is tried at the next boot"
    };
    Answer {
        json: json!({
            "result": "installed",
            "version": switched.version,
            "id": switched.id,
            "downloaded": switched.downloaded,
            "reboot": reboot,
        }),
        text: format!("{} is installed; {next}\n", switched.version),
        reboot,
    }
}

async fn upgrade(
    device: &Device,
    version: Option<&str>,
    retry: bool,
    reboot: bool,
) -> Result<Answer> {
    let (release, transport) = match version {
        Some(version) => {
            let base = base(device)?;
            let server = Server::open(device, &base.transport).await?;
            let release = server.release(device, version).await?;
            if release.commit == device.booted_commit() {
                return Err(Problem::new(Kind::Refused, format!("{version} is what runs")).into());
            }
            check::admit(&release, device, base.floor, &base.memory, retry)?;
            (release, base.transport)
        }
        None => match look(device).await? {
            (Offer::Newer(release), base) => (*release, base.transport),
            (Offer::Withheld { version, .. }, base) if retry => {
                let server = Server::open(device, &base.transport).await?;
                let release = server.release(device, &version).await?;
                check::admit(&release, device, base.floor, &base.memory, true)?;
                (release, base.transport)
            }
            (Offer::Withheld { reason, .. }, _) => {
                return Err(Problem::new(Kind::Refused, reason)
                    .hint("`--retry` takes a release that failed here before")
                    .into())
            }
            (offer, _) => return Ok(told(&offer, device)),
        },
    };
    let switched = install::install(device, &transport, &release, &say).await?;
    Ok(installed(&switched, reboot))
}

async fn auto(device: &Device) -> Result<Answer> {
    let store = device.store()?;
    if let Situation::OnTrial { .. } | Situation::Rejected = device.situation(store.as_ref())? {
        return Ok(Answer::new(
            json!({ "result": "on-trial" }),
            "the running deployment is on trial; nothing is looked for before it is confirmed\n",
        ));
    }
    drop(store);
    if let Some(url) = &device.config.update.report_url {
        let transport = Transport::new(&device.paths)?;
        match report::post_waiting(&device.paths, &transport, url).await {
            Ok(0) => {}
            Ok(n) => say(&format!("sent {n} reports")),
            Err(error) => say(&format!("{error:#}")),
        }
    }
    if device.config.update.url.is_empty() {
        return Ok(Answer::new(
            json!({ "result": "no-source" }),
            "no update source is configured\n",
        ));
    }
    let (offer, base) = look(device).await?;
    match offer {
        Offer::Newer(release) if device.config.update.automatic => {
            let switched = install::install(device, &base.transport, &release, &say).await?;
            Ok(installed(&switched, true))
        }
        offer => Ok(told(&offer, device)),
    }
}

fn confirm(device: &Device) -> Result<Answer> {
    let mut store = device.store()?;
    let version = &device.config.version;
    match device.situation(store.as_ref())? {
        Situation::OnTrial { .. } => judge::confirm(device, store.as_mut(), Vec::new())?,
        Situation::Lost => judge::heal(device, store.as_mut())?,
        Situation::Rejected => {
            return Err(Problem::new(Kind::State, format!("{version} was given up")).into())
        }
        _ => {
            return Ok(Answer::new(
                json!({ "result": "already-confirmed", "version": version }),
                format!("{version} is confirmed already\n"),
            ))
        }
    }
    Ok(Answer::new(
        json!({ "result": "confirmed", "version": version }),
        format!("confirmed {version}\n"),
    ))
}

fn reject(device: &Device, reboot: bool) -> Result<Answer> {
    let mut store = device.store()?;
    let version = &device.config.version;
    if !matches!(device.situation(store.as_ref())?, Situation::OnTrial { .. }) {
        return Err(
            Problem::new(Kind::State, format!("{version} is not on trial"))
                .hint("`device-agent rollback` leaves a confirmed deployment")
                .into(),
        );
    }
    let finding = Finding {
        check: "operator".into(),
        problem: "rejected by hand".into(),
        output: String::new(),
    };
    judge::reject(device, store.as_mut(), vec![finding])?;
    Ok(Answer {
        json: json!({ "result": "rejected", "version": version }),
        text: format!("{version} is given up; the next boot returns to the deployment before\n"),
        reboot,
    })
}

/// Judging must never harm a good device: outside a trial every error is told and then forgotten; in a
/// trial it is an error of the trial (the unit reboots the device when it keeps failing).
fn judge_boot(paths: Paths) -> Result<Answer> {
    let (config, warning) = config::load_for_judging(&paths)?;
    if let Some(warning) = warning {
        say(&warning);
    }
    let device = Device::new(paths, config)?;
    let conclusion = match judge::at_boot(&device, &system::Running::default()) {
        Ok(conclusion) => conclusion,
        Err(error) if trial::Trial::load(&device.paths, &device.booted).is_none() => {
            Conclusion::Settled(format!(
                "running {}; judging it failed: {error:#}",
                device.config.version
            ))
        }
        Err(error) => return Err(error),
    };
    let (result, text) = match &conclusion {
        Conclusion::Settled(text) => ("settled", text),
        Conclusion::Done(text) => ("done", text),
        Conclusion::Reboot(text) => ("reboot", text),
    };
    print(&format!("device-agent: {text}\n"));
    if let Conclusion::Reboot(_) = conclusion {
        system::reboot()?;
    }
    Ok(Answer::new(json!({ "result": result }), ""))
}
