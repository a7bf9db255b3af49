//! A device under test: what is asked of it and what it must answer.

use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use serde_json::Value;

use crate::qemu::Machine;

/// Generous: software emulation on a busy machine.
pub const BOOT: Duration = Duration::from_secs(900);
/// A whole trial with all its failing boots and the fallback.
pub const TRIAL: Duration = Duration::from_secs(2400);
/// A command on the device.
pub const COMMAND: Duration = Duration::from_secs(300);
/// Fetching and installing.
pub const UPGRADE: Duration = Duration::from_secs(900);

/// A virtual device with the agent's view of itself.
#[derive(Debug)]
pub struct Device {
    /// The machine.
    pub machine: Machine,
}

/// What `device-agent status --json` says, as far as the scenarios judge it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Version that runs, from the agent.
    pub version: String,
    /// Whether it is confirmed.
    pub confirmed: bool,
    /// Identity that is armed, if any.
    pub armed: Option<String>,
    /// Versions that failed here.
    pub failed: Vec<String>,
}

impl Device {
    /// The agent's view.
    pub fn status(&mut self) -> Result<Status> {
        let text = self.machine.sh_ok("device-agent status --json", COMMAND)?;
        parse_status(&text).with_context(|| format!("reading the device's status {text}"))
    }

    /// Waits until `version` runs and is confirmed with nothing armed, as the agent, os-release and the
    /// kernel command line say alike.
    pub fn must_run(&mut self, version: &str) -> Result<Status> {
        let deadline = std::time::Instant::now() + BOOT;
        let status = loop {
            let status = self.status()?;
            let settled = status.confirmed && status.armed.is_none();
            if settled || std::time::Instant::now() > deadline {
                break status;
            }
            std::thread::sleep(Duration::from_secs(1));
        };
        ensure!(
            status.version == version,
            "{version} should run, but {status:?}"
        );
        ensure!(
            status.confirmed,
            "{version} should be confirmed, but {status:?}"
        );
        ensure!(
            status.armed.is_none(),
            "nothing should be armed, but {status:?}"
        );
        let release = self
            .machine
            .sh_ok(". /usr/lib/os-release; echo $VERSION_ID", COMMAND)?;
        ensure!(
            release == version,
            "/usr/lib/os-release says {release}, not {version}"
        );
        let booted = self.machine.sh_ok(
            "tr ' ' '\\n' </proc/cmdline | sed -n 's/^treeline.id=//p'",
            COMMAND,
        )?;
        ensure!(
            !booted.is_empty(),
            "the kernel command line has no treeline.id"
        );
        Ok(status)
    }

    /// Starts an upgrade that ends in a reboot; its output goes to the console.
    pub fn start_upgrade(&mut self, environment: &str) -> Result<()> {
        self.machine.sh_start(&format!(
            "{environment} device-agent upgrade >/dev/console 2>&1"
        ))
    }

    /// Installs without a reboot and returns exit status and output.
    pub fn install(&mut self) -> Result<(i32, String)> {
        self.machine.sh("device-agent upgrade --no-reboot", UPGRADE)
    }

    /// Waits for the line that the agent prints when it has confirmed `version`.
    pub fn wait_confirmed(&mut self, version: &str, from: usize, limit: Duration) -> Result<()> {
        let confirmed = format!("device-agent: confirmed {version}");
        let markers = [confirmed.as_str(), "device-agent: fell back"];
        match self.machine.console.wait_for_any(&markers, from, limit)? {
            0 => self.machine.wait_for_shell(BOOT),
            _ => bail!("the device fell back instead of confirming {version}"),
        }
    }

    /// Waits for the line that the agent prints after a fallback.
    pub fn wait_fallback(&mut self, from: usize) -> Result<()> {
        let markers = ["device-agent: fell back", "device-agent: confirmed 2"];
        match self.machine.console.wait_for_any(&markers, from, TRIAL)? {
            0 => self.machine.wait_for_shell(BOOT),
            _ => bail!("the device confirmed a version that should have failed"),
        }
    }
}

fn parse_status(text: &str) -> Result<Status> {
    let value: Value = serde_json::from_str(text).context("it is not JSON")?;
    let field = |name: &str| {
        value
            .get(name)
            .with_context(|| format!("it has no `{name}`"))
    };
    Ok(Status {
        version: field("version")?.as_str().unwrap_or_default().to_string(),
        confirmed: field("confirmed")?.as_bool().unwrap_or(false),
        armed: field("armed")?.as_str().map(String::from),
        failed: field("failed")?
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|f| f.get("version")?.as_str().map(String::from))
            .collect(),
    })
}
