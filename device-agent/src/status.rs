//! What the device runs, for people and for programs.

use std::fmt::Write;

use anyhow::Result;
use serde::Serialize;

use crate::check::LastCheck;
use crate::device::{Device, Situation};
use crate::failed::Memory;
use crate::judge;
use crate::loader::{self, Standing};
use crate::problem::{kind_of, Kind};
use crate::sysroot::Sysroot;

/// The status, as `status --json` prints it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Product name.
    pub product: String,
    /// Board id.
    pub board: String,
    /// Version that runs.
    pub version: String,
    /// Commit that runs.
    pub commit: String,
    /// Identity of the deployment that runs.
    pub id: String,
    /// `confirmed`, `on-trial`, `reboot-pending`, `fell-back`, `armed`, `rejected`, `lost` or `unknown`.
    pub state: &'static str,
    /// Boots left to a deployment on trial.
    pub tries_left: Option<u8>,
    /// Whether state block and spare record are whole and agree; absent if they cannot be read.
    pub boot_state_healthy: Option<bool>,
    /// Why something above is unknown.
    pub boot_state_error: Option<String>,
    /// All deployments, the default one first.
    pub deployments: Vec<Deployment>,
    /// Boot loaders outside every partition that have an edition.
    pub boot_loaders: Vec<Standing>,
    /// Update source.
    pub url: String,
    /// Channel followed.
    pub channel: String,
    /// Whether updates are installed without asking.
    pub automatic: bool,
    /// The last look at the channel.
    pub last_check: Option<LastCheck>,
    /// Commits that failed here.
    pub failed: Memory,
}

/// One deployment in the status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Deployment {
    /// Version.
    pub version: String,
    /// Commit.
    pub commit: String,
    /// Identity.
    pub id: Option<String>,
    /// Whether it is the one that runs.
    pub booted: bool,
}

/// Collects the status. What cannot be read is left unknown; only the configuration must be there.
pub fn collect(device: &Device) -> Result<Status> {
    let deployments = Sysroot::read(device.paths.root())?
        .deployments()
        .into_iter()
        .map(|d| Deployment {
            version: judge::version_of(device, &d),
            booted: d.id.as_ref() == Some(&device.booted),
            commit: d.commit,
            id: d.id,
        })
        .collect();
    let boot = boot(device);
    let (state, tries_left) = match boot.as_ref().map(|(situation, _)| situation) {
        Ok(Situation::Confirmed) => ("confirmed", None),
        Ok(Situation::OnTrial { tries_left }) => ("on-trial", Some(*tries_left)),
        Ok(Situation::Pending { .. }) => ("reboot-pending", None),
        Ok(Situation::FellBack { .. }) => ("fell-back", None),
        Ok(Situation::ArmedNotSwitched { .. }) => ("armed", None),
        Ok(Situation::Rejected) => ("rejected", None),
        Ok(Situation::Lost) => ("lost", None),
        Err(_) => ("unknown", None),
    };
    Ok(Status {
        product: device.config.product.clone(),
        board: device.config.board.clone(),
        version: device.config.version.clone(),
        commit: device.booted_commit().to_owned(),
        id: device.booted.clone(),
        state,
        tries_left,
        boot_state_healthy: boot.as_ref().ok().map(|(_, healthy)| *healthy),
        boot_state_error: boot.as_ref().err().map(|error| match kind_of(error) {
            Kind::Privilege => "only root can read the boot state".into(),
            _ => format!("{error:#}"),
        }),
        deployments,
        boot_loaders: loader::look(device),
        url: device.config.update.url.clone(),
        channel: device.config.update.channel.clone(),
        automatic: device.config.update.automatic,
        last_check: LastCheck::load(&device.paths),
        failed: Memory::load(&device.paths),
    })
}

fn boot(device: &Device) -> Result<(Situation, bool)> {
    let store = device.store()?;
    let situation = device.situation(store.as_ref())?;
    let state = store.read_state()?;
    let healthy = state.is_some_and(|s| store.read_good().is_ok_and(|g| g == Some(s.good)));
    Ok((situation, healthy))
}

impl Status {
    /// The same for people.
    pub fn people(&self) -> String {
        let mut text = String::new();
        let state = match (self.state, self.tries_left) {
            ("on-trial", Some(left)) => format!("on trial, {left} more boots if this one fails"),
            (state, _) => state.replace('-', " "),
        };
        // Writing into a String cannot fail.
        let _ = writeln!(
            text,
            "{} {} on {}: {state}",
            self.product, self.version, self.board
        );
        let _ = writeln!(text, "commit      {}", self.commit);
        for (i, deployment) in self.deployments.iter().enumerate() {
            let mut words = Vec::new();
            if deployment.booted {
                words.push("running");
            }
            if i == 0 {
                words.push("default");
            }
            let _ = writeln!(
                text,
                "deployment  {} {} {}",
                deployment.version,
                &deployment.commit[..12.min(deployment.commit.len())],
                words.join(", ")
            );
        }
        for loader in &self.boot_loaders {
            let _ = writeln!(text, "boot loader {}", loader.people());
        }
        let source = match (self.url.as_str(), self.automatic) {
            ("", _) => "none".to_owned(),
            (url, true) => format!("{url}, channel {}, installed automatically", self.channel),
            (url, false) => format!("{url}, channel {}", self.channel),
        };
        let _ = writeln!(text, "updates     {source}");
        if let Some(last) = &self.last_check {
            let version = last.version.as_deref().unwrap_or_default();
            let line = format!("{} {version} {}", last.result, last.detail);
            let _ = writeln!(text, "last check  {} ({})", line.trim(), ago(last.time));
        }
        for (commit, failure) in &self.failed.commits {
            let version = failure.version.as_deref().unwrap_or(commit);
            let _ = writeln!(text, "failed      {version}: {}", failure.reason);
        }
        match (&self.boot_state_error, self.boot_state_healthy) {
            (Some(error), _) => {
                let _ = writeln!(text, "boot state  {error}");
            }
            (None, Some(false)) => {
                let _ = writeln!(text, "boot state  damaged; it is mended at the next boot");
            }
            _ => {}
        }
        text
    }
}

fn ago(time: u64) -> String {
    let seconds = crate::system::now().saturating_sub(time);
    match seconds {
        0..=119 => format!("{seconds} s ago"),
        120..=7199 => format!("{} min ago", seconds / 60),
        7200..=172_799 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
