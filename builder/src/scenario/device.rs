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
/// Printed by every kernel early in its boot.
pub const KERNEL: &str = "Linux version";
/// Fetching and installing.
pub const UPGRADE: Duration = Duration::from_secs(900);

/// A virtual device with the agent's view of itself.
#[derive(Debug)]
pub struct Device {
    /// The machine.
    pub machine: Machine,
    /// Whether updates come on a disk that must be mounted first.
    pub offline: bool,
}

/// What `device-agent status --json` says, as far as the scenarios judge it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Version that runs, from the agent.
    pub version: String,
    /// Identity of the deployment that runs.
    pub id: String,
    /// `confirmed`, `on-trial`, `armed`, …
    pub state: String,
    /// Whether the boot state and its spare record are whole and agree.
    pub healthy: bool,
    /// Versions that failed here.
    pub failed: Vec<String>,
}

impl Status {
    /// Confirmed, nothing armed or pending, and both records of it agree.
    fn settled(&self) -> bool {
        self.state == "confirmed" && self.healthy
    }
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
            if status.settled() || std::time::Instant::now() > deadline {
                break status;
            }
            std::thread::sleep(Duration::from_secs(1));
        };
        ensure!(
            status.version == version && status.settled(),
            "{version} should run, confirmed and with nothing armed, but {status:?}"
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

    /// Plugs in and mounts the disk with the updates, on a board that has no network.
    fn plug_in(&mut self) -> Result<()> {
        if !self.offline {
            return Ok(());
        }
        let (status, _) = self.machine.sh(&super::stand_in::is_mounted(), COMMAND)?;
        if status != 0 {
            self.machine.plug_in()?;
            let command = super::stand_in::mount_command();
            self.machine
                .sh_ok(&command, COMMAND)
                .context("mounting the disk with the updates")?;
        }
        Ok(())
    }

    /// Takes the disk with the updates out while the device restarts: QEMU's dwc2 tells nobody of a disk that is
    /// there before the kernel's driver, and then interrupts it for ever.
    fn unplug_at_boot(&mut self, from: usize) -> Result<()> {
        if self.machine.is_plugged() {
            self.machine.console.wait_for(KERNEL, from, UPGRADE)?;
            self.machine.unplug()?;
        }
        Ok(())
    }

    /// Starts an upgrade that ends in a reboot; its output goes to the console.
    pub fn start_upgrade(&mut self, environment: &str) -> Result<()> {
        self.plug_in()?;
        self.machine.sh_start(&format!(
            "{environment} device-agent upgrade --wait >/dev/console 2>&1"
        ))
    }

    /// Installs without a reboot and returns exit status and output. `options` such as `--wait`, which
    /// every caller wants but the one that looks for the lock: after a boot the judge may still tidy up.
    pub fn install(&mut self, options: &str) -> Result<(i32, String)> {
        self.plug_in()?;
        self.machine.sh(
            &format!("device-agent upgrade --no-reboot {options}"),
            UPGRADE,
        )
    }

    /// Waits for the line that the agent prints when it has confirmed `version`.
    pub fn wait_confirmed(&mut self, version: &str, from: usize, limit: Duration) -> Result<()> {
        self.unplug_at_boot(from)?;
        let confirmed = format!("device-agent: confirmed {version}");
        let markers = [confirmed.as_str(), "device-agent: fell back"];
        match self.machine.console.wait_for_any(&markers, from, limit)? {
            0 => self.machine.wait_for_shell(BOOT),
            _ => bail!("the device fell back instead of confirming {version}"),
        }
    }

    /// Waits for the line that the agent prints after a fallback.
    pub fn wait_fallback(&mut self, from: usize) -> Result<()> {
        self.unplug_at_boot(from)?;
        let markers = ["device-agent: fell back", "device-agent: confirmed 2"];
        match self.machine.console.wait_for_any(&markers, from, TRIAL)? {
            0 => self.machine.wait_for_shell(BOOT),
            _ => bail!("the device confirmed a version that should have failed"),
        }
    }
}

fn parse_status(text: &str) -> Result<Status> {
    let value: Value = serde_json::from_str(text).context("it is not JSON")?;
    let text = |name: &str| {
        value
            .get(name)
            .and_then(Value::as_str)
            .with_context(|| format!("it has no `{name}`"))
    };
    let failed = value
        .pointer("/failed/commits")
        .and_then(Value::as_object)
        .context("it has no `failed.commits`")?;
    Ok(Status {
        version: text("version")?.into(),
        id: text("id")?.into(),
        state: text("state")?.into(),
        healthy: value.get("boot_state_healthy").and_then(Value::as_bool) == Some(true),
        failed: failed
            .values()
            .filter_map(|f| f.get("version")?.as_str().map(String::from))
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_and_a_strange_one_is_an_error() {
        let text = r#"{"version": "1.0.0", "id": "ab", "state": "confirmed", "boot_state_healthy": true,
            "failed": {"commits": {"cd": {"version": "2.0.0", "time": 1, "reason": "panic"}}}}"#;
        let status = parse_status(text).unwrap();
        assert!(status.settled());
        assert_eq!(status.failed, ["2.0.0"]);
        assert!(parse_status("{}").is_err());
    }
}
