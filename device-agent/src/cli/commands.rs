//! What the commands do, each a function from the device to an answer.

use anyhow::Result;
use serde_json::json;

use super::{print, say, Answer};
use crate::check::{self, LastCheck, Offer, Server};
use crate::device::{Device, Situation};
use crate::failed::Memory;
use crate::health::Finding;
use crate::judge::{self, Conclusion};
use crate::paths::Paths;
use crate::problem::{Kind, Problem};
use crate::sysroot::Sysroot;
use crate::transport::Transport;
use crate::{clock, config, install, loader, report, system, trial};

/// What is needed to look at the server: the running deployment's epoch raises the floor, its time the clock.
pub(super) struct Base {
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
        transport: Transport::new(&device.paths, &device.config.update)?,
    })
}

pub(super) async fn look(device: &Device) -> Result<(Offer, Base)> {
    let base = base(device)?;
    let outcome = async {
        let server = Server::open(device, &base.transport).await?;
        server.newest(device, base.floor, &base.memory).await
    }
    .await;
    LastCheck::save(&device.paths, &outcome)?;
    Ok((outcome?, base))
}

pub(super) fn told(offer: &Offer, device: &Device) -> Answer {
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

pub(super) fn installed(switched: &install::Switched, reboot: bool) -> Answer {
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

pub(super) async fn upgrade(
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

pub(super) async fn auto(device: &Device) -> Result<Answer> {
    let store = device.store()?;
    if let Situation::OnTrial { .. } | Situation::Rejected = device.situation(store.as_ref())? {
        return Ok(Answer::new(
            json!({ "result": "on-trial" }),
            "the running deployment is on trial; nothing is looked for before it is confirmed\n",
        ));
    }
    drop(store);
    if let Some(url) = &device.config.update.report_url {
        let transport = Transport::new(&device.paths, &device.config.update)?;
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

pub(super) fn update_loader(device: &Device, again: bool) -> Result<Answer> {
    let replaced = loader::update(device, again, &say)?;
    let text = match replaced.len() {
        0 => "no boot loader is older than what this version brings\n".to_string(),
        _ => replaced
            .iter()
            .map(|loader| {
                let what = match loader.state {
                    "tried-next" => "is there; firmware tries it at the next boot, once",
                    "kept" => "has started this system; it is started from now on",
                    _ => "is installed; it is started at the next boot",
                };
                format!("{} edition {} {what}\n", loader.name, loader.to)
            })
            .collect(),
    };
    Ok(Answer::new(json!({ "replaced": replaced }), text))
}

pub(super) fn confirm(device: &Device) -> Result<Answer> {
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

pub(super) fn reject(device: &Device, reboot: bool) -> Result<Answer> {
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
pub(super) fn judge_boot(paths: Paths) -> Result<Answer> {
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

pub(super) fn take_over_settings(paths: &Paths) -> Result<Answer> {
    // The owner's own file may be what these settings are to mend.
    let (config, _) = config::load_for_judging(paths)?;
    let said = crate::first_boot::run(paths, &config.boot.firmware_partuuid)?;
    let text = said
        .iter()
        .map(|line| format!("device-agent: first boot: {line}\n"));
    Ok(Answer::new(
        json!({ "set": said }),
        text.collect::<String>(),
    ))
}
