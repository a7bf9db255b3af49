//! Judges a boot: once at every start of the system, and when an operator decides by hand.

use anyhow::{Context, Result};
use bsp::boot::store::BootStore;

use crate::device::{Device, Situation};
use crate::failed::{commit_of, Failure, Memory};
use crate::health::{self, Finding, Judgement, Requirements};
use crate::install::Switcher;
use crate::report::{Event, Report};
use crate::steps::{self, NoMenu};
use crate::sysroot::{Deployed, Sysroot};
use crate::system::{self, System};
use crate::trial::{self, Trial};
use crate::{check, evidence, lock, stop_point};

/// What the judge came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conclusion {
    /// Nothing to do; the line says what runs.
    Settled(String),
    /// A trial was confirmed or a fallback tidied up; the line says so.
    Done(String),
    /// The trial has failed: the device must reboot now.
    Reboot(String),
}

/// Judges the boot that is under way. Whatever changes something holds the lock while it looks and acts;
/// watching a trial does not.
pub fn at_boot(device: &Device, system: &dyn System) -> Result<Conclusion> {
    let mut store = device.store()?;
    let store = store.as_mut();
    let version = &device.config.version;
    match device.situation(store)? {
        Situation::Confirmed => {
            mend_spare(device, store)?;
            Ok(Conclusion::Settled(format!("running {version}, confirmed")))
        }
        Situation::Pending { .. } => Ok(Conclusion::Settled(format!(
            "running {version}, confirmed; another deployment waits for the reboot"
        ))),
        Situation::Rejected => Ok(Conclusion::Reboot(format!("gave up {version}"))),
        Situation::OnTrial { tries_left } => try_out(device, store, system, tries_left),
        // The state is gone, but the spare record knows another deployment as good: this one has yet to
        // show that it is.
        Situation::Lost if spare_names_another(device, store) => try_out(device, store, system, 0),
        _ => {
            let _lock = lock::take(&device.paths, "judge", true)?;
            tidy_up(device, store)
        }
    }
}

/// After a fallback, a cut update or a lost state. An operator's command may have done it while this one
/// waited for the lock: the situation is drawn anew.
fn tidy_up(device: &Device, store: &mut dyn BootStore) -> Result<Conclusion> {
    let version = &device.config.version;
    let text = match device.situation(store)? {
        Situation::FellBack { failed } => {
            let failure = after_fallback(device, store, &failed)?;
            let failed_version = failure.version.unwrap_or_default();
            format!(
                "fell back to {version}; {failed_version} failed: {}",
                failure.reason
            )
        }
        Situation::ArmedNotSwitched { .. } => {
            steps::run(&steps::disarm(&device.booted), store, &mut NoMenu)?;
            Sysroot::write(device.paths.root())?.clean_up()?;
            format!("running {version}, confirmed; an update that was cut short is forgotten")
        }
        Situation::Lost => {
            heal(device, store)?;
            format!("running {version}; the boot state was lost and has been written anew")
        }
        _ => return Ok(Conclusion::Settled(format!("running {version}"))),
    };
    Ok(Conclusion::Done(text))
}

fn spare_names_another(device: &Device, store: &dyn BootStore) -> bool {
    let entries = device.entries().unwrap_or_default();
    matches!(store.read_good(), Ok(Some(good)) if good != device.booted && entries.contains(&good))
        && matches!(store.read_state(), Ok(None))
}

/// A cut between the two writes of a confirmation leaves the spare record behind; it follows here.
fn mend_spare(device: &Device, store: &mut dyn BootStore) -> Result<()> {
    if store.read_good()?.as_deref() != Some(device.booted.as_str()) {
        store.write_good(&device.booted)?;
    }
    Ok(())
}

fn notes(device: &Device, id: &str) -> Trial {
    Trial::load(&device.paths, id).unwrap_or_else(|| Trial::unknown(id))
}

fn try_out(
    device: &Device,
    store: &mut dyn BootStore,
    system: &dyn System,
    tries_left: u8,
) -> Result<Conclusion> {
    let version = &device.config.version;
    eprintln!("device-agent: {version} is on trial, {tries_left} more boots if this one fails");
    let mut trial = notes(device, &device.booted);
    trial.version.clone_from(version);
    trial.count_boot(&device.paths);
    // Notes only: a full or broken /var must not decide about the boot.
    warn(trial.save(&device.paths));
    let requirements = Requirements::new(&device.paths, &device.config.health);
    let before = store.read_state()?;
    let judgement = {
        let mut overtaken = || matches!(store.read_state(), Ok(now) if now != before);
        health::watch(system, &requirements, &mut overtaken)
    };
    if let Judgement::Good(_) = judgement {
        stop_point::reach("judged");
    }
    let _lock = lock::take(&device.paths, "judge", true)?;
    let unchanged = store.read_state()? == before;
    match judgement {
        Judgement::Good(warnings) if unchanged => {
            confirm(device, store, warnings)?;
            Ok(Conclusion::Done(format!("confirmed {version}")))
        }
        Judgement::Bad(findings) if unchanged => {
            let why = summary(&findings);
            reject(device, store, findings)?;
            Ok(Conclusion::Reboot(format!("gave up {version}: {why}")))
        }
        _ => Ok(Conclusion::Settled(format!(
            "{version} was decided about by hand"
        ))),
    }
}

/// Confirms the running deployment.
pub fn confirm(device: &Device, store: &mut dyn BootStore, warnings: Vec<Finding>) -> Result<()> {
    steps::run(&steps::confirm(&device.booted), store, &mut NoMenu)?;
    // Confirmed it is; everything below is book-keeping.
    let trial = notes(device, &device.booted);
    let mut memory = Memory::load(&device.paths);
    warn(memory.forget(&device.paths, device.booted_commit()));
    let epoch = Sysroot::read(device.paths.root())
        .ok()
        .and_then(|sysroot| sysroot.find(&device.booted)?.epoch);
    warn(check::raise_epoch_floor(&device.paths, epoch));
    let mut report = report(device, Event::Confirmed, &trial);
    report.warnings = warnings;
    warn(report.save(&device.paths, device.config.update.report_url.is_some()));
    warn(trial::clear(&device.paths));
    Ok(())
}

/// Gives up the running deployment: the next boot takes the last confirmed one. The caller reboots.
pub fn reject(device: &Device, store: &mut dyn BootStore, findings: Vec<Finding>) -> Result<()> {
    let mut trial = notes(device, &device.booted);
    trial.rejected = Some(findings);
    warn(trial.save(&device.paths));
    let good = match store.read_state()? {
        Some(state) => state.good,
        None => store.read_good()?.context("the boot state is lost")?,
    };
    // First the marker: without it a state without a trial would look like a lost one until the reboot.
    device.set_rejected()?;
    steps::run(&steps::reject(&good), store, &mut NoMenu)
}

/// After a fallback: keep the evidence, remember the commit, disarm, take the deployment out of the menu.
pub fn after_fallback(device: &Device, store: &mut dyn BootStore, failed: &str) -> Result<Failure> {
    let trial = notes(device, failed);
    let mut report = report(device, Event::FellBack, &trial);
    warn(evidence::collect(&device.paths, &mut report).map(drop));
    let failure = Failure {
        version: Some(trial.version.clone()),
        time: report.time,
        reason: reason(&trial, report.reset_cause.as_deref()),
    };
    warn(Memory::load(&device.paths).add(&device.paths, commit_of(failed), failure.clone()));
    warn(report.save(&device.paths, device.config.update.report_url.is_some()));
    let sysroot = Sysroot::write(device.paths.root())?;
    steps::run(
        &steps::withdraw(&device.booted),
        store,
        &mut Switcher::new(&sysroot),
    )?;
    device.set_pending(None)?;
    warn(trial::clear(&device.paths));
    sysroot.clean_up()?;
    Ok(failure)
}

/// Writes a lost boot state anew from what runs. A deployment that stands before the running one has
/// lost its trial with the state.
pub fn heal(device: &Device, store: &mut dyn BootStore) -> Result<()> {
    steps::run(&steps::heal(&device.booted), store, &mut NoMenu)?;
    match device.situation(store)? {
        Situation::FellBack { failed } => after_fallback(device, store, &failed).map(drop),
        _ => {
            let report = report(device, Event::Healed, &Trial::unknown(&device.booted));
            warn(report.save(&device.paths, device.config.update.report_url.is_some()));
            Ok(())
        }
    }
}

/// Why a trial ended, in a few words.
fn reason(trial: &Trial, reset_cause: Option<&str>) -> String {
    match (&trial.rejected, trial.boots.is_empty(), reset_cause) {
        (Some(findings), _, _) => summary(findings),
        (None, true, _) => "it never reached user space".into(),
        (None, false, Some(cause)) => {
            format!("it did not come to a judgement; last reset by {cause}")
        }
        (None, false, None) => "it did not come to a judgement".into(),
    }
}

fn summary(findings: &[Finding]) -> String {
    findings
        .iter()
        .map(|f| format!("{}: {}", f.check, f.problem))
        .collect::<Vec<_>>()
        .join("; ")
}

fn report(device: &Device, event: Event, trial: &Trial) -> Report {
    let machine = std::fs::read_to_string(device.paths.at("etc/machine-id")).unwrap_or_default();
    Report {
        format: 1,
        event,
        time: system::now(),
        product: device.config.product.clone(),
        board: device.config.board.clone(),
        machine: machine.trim().to_owned(),
        running_version: device.config.version.clone(),
        id: trial.id.clone(),
        commit: commit_of(&trial.id).to_owned(),
        version: if trial.id == device.booted {
            device.config.version.clone()
        } else {
            trial.version.clone()
        },
        tries: trial.tries,
        boots_in_user_space: trial.boots.len(),
        findings: trial.rejected.clone().unwrap_or_default(),
        warnings: Vec::new(),
        reset_cause: evidence::reset_cause(&device.paths),
        evidence: None,
    }
}

/// Version of a deployment: the running one's from the configuration, others' from their origin or tree.
pub fn version_of(device: &Device, deployed: &Deployed) -> String {
    if deployed.id.as_ref() == Some(&device.booted) {
        return device.config.version.clone();
    }
    deployed.version.clone().unwrap_or_else(|| {
        format!(
            "commit {}",
            &deployed.commit[..12.min(deployed.commit.len())]
        )
    })
}

/// For what may fail without consequence.
fn warn(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("device-agent: {error:#}");
    }
}
