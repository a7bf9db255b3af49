//! Plays one scenario: a device on the old version, an offer, a fault, and what must hold afterwards.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use bsp::boot::NOT_LOADED;

use super::altered::alter;
use super::bench::Bench;
use super::boot_state::{spoil, Spoiled};
use super::device::{Device, BOOT, COMMAND, KERNEL, TRIAL, UPGRADE};
use super::table::{Expect, Fault, Scenario};
use super::variant::{NEW_VERSION, OLD_VERSION};
use super::{loader, stand_in};
use crate::qemu::{Firmware, Machine, MachineRequest};
use crate::serve::fault::{Fault as ServerFault, Times};
use crate::serve::Running;

/// Name of the snapshot of a device that has booted the old version and is confirmed.
const READY: &str = "ready";
/// Printed by systemd early in its life.
const WELCOME: &str = "Welcome to";

/// Boots a device from the factory image once and leaves disk and memory as a snapshot, so that every
/// scenario begins with a device that runs; where QEMU cannot do that, the device is switched off in good order
/// and every scenario switches it on. Returns the disk; the firmware is the bench's.
pub fn ready_device(bench: &Bench<'_>, dir: &Path) -> Result<PathBuf> {
    let log = dir.join("first-boot.log");
    let machine = Machine::start(&MachineRequest {
        board: &bench.board,
        disk: &bench.disk,
        console_log: &log,
        firmware: &bench.firmware,
        resume: None,
        test_shell: true,
        offer: None,
    })?;
    let mut device = Device {
        machine,
        offline: !bench.has_network(),
    };
    started(&mut device).with_context(|| format!("first boot; console: {}", log.display()))?;
    device.must_run(OLD_VERSION)?;
    let size = device
        .machine
        .sh_ok("df --output=size -B1M /var | tail -1", COMMAND)?;
    ensure!(
        size.trim().parse::<u64>().unwrap_or(0) > 400,
        "the data partition has not grown to the end of the disk: /var has {size} MiB"
    );
    if bench.has_snapshots() {
        device.machine.save(READY)?;
    } else {
        switch_off(device)?;
    }
    Ok(bench.disk.clone())
}

/// Waits until a device that was switched on has started everything.
fn started(device: &mut Device) -> Result<()> {
    device.machine.wait_for_shell(BOOT)?;
    device
        .machine
        .sh_ok(
            "until systemctl is-active -q multi-user.target; do sleep 1; done",
            BOOT,
        )
        .map(drop)
}

/// Shuts a device down. QEMU knows of no power switch on some boards: the kernel's last word is enough.
fn switch_off(mut device: Device) -> Result<()> {
    let from = device.machine.console.position();
    device.machine.sh_start("systemctl poweroff")?;
    let last = ["reboot: Power down", "System halted"];
    device.machine.console.wait_for_any(&last, from, BOOT)?;
    device.machine.cut_power()
}

/// A scenario being played.
struct Play<'a> {
    bench: &'a Bench<'a>,
    scenario: &'a Scenario,
    disk: PathBuf,
    firmware: Firmware,
    log: PathBuf,
    updates: PathBuf,
    server: Option<Running>,
    /// The disk with the updates, on a board without network.
    offer: Option<PathBuf>,
}

/// Plays `scenario` with copies of the ready device in `scratch`; the console goes to `log`.
pub fn play(
    bench: &Bench<'_>,
    scenario: &Scenario,
    ready: &Path,
    scratch: &Path,
    log: &Path,
) -> Result<()> {
    let updates = bench.server_dir(scenario.offer, scenario.fault, scratch)?;
    let (server, offer) = if bench.has_network() {
        (Some(bench.serve(&updates)?), None)
    } else {
        let disk = scratch.join("offer.raw");
        stand_in::offer_disk(&updates, &disk)?;
        (None, Some(disk))
    };
    let mut play = Play {
        bench,
        scenario,
        disk: copy(ready, scratch)?,
        firmware: bench.firmware.fork(scratch)?,
        log: log.to_path_buf(),
        server,
        offer,
        updates,
    };
    let device = play.ready()?;
    match scenario.expect {
        Expect::Updated => play.updated(device),
        Expect::FellBack => play.fell_back(device),
        Expect::Refused(code) => play.refused(device, code),
        Expect::OldThenUpdated => play.old_then_updated(device),
    }
}

/// A copy of the ready device's disk.
fn copy(from: &Path, dir: &Path) -> Result<PathBuf> {
    let to = dir.join("disk.qcow2");
    std::fs::copy(from, &to).with_context(|| format!("copying {}", from.display()))?;
    Ok(to)
}

/// A running device from copies of the ready one in `scratch`.
pub fn resume(bench: &Bench<'_>, ready: &Path, scratch: &Path, log: &Path) -> Result<Device> {
    let machine = Machine::start(&MachineRequest {
        board: &bench.board,
        disk: &copy(ready, scratch)?,
        console_log: log,
        firmware: &bench.firmware.fork(scratch)?,
        resume: bench.has_snapshots().then_some(READY),
        test_shell: true,
        offer: None,
    })?;
    let mut device = Device {
        machine,
        offline: !bench.has_network(),
    };
    resumed(bench, &mut device)?;
    Ok(device)
}

/// Waits for a device that goes on from the snapshot, or starts where there is none.
fn resumed(bench: &Bench<'_>, device: &mut Device) -> Result<()> {
    if bench.has_snapshots() {
        device.machine.wait_for_shell(Duration::from_secs(120))
    } else {
        started(device)
    }
}

impl Play<'_> {
    fn machine(&self, resume: Option<&str>) -> Result<Device> {
        let machine = Machine::start(&MachineRequest {
            board: &self.bench.board,
            disk: &self.disk,
            console_log: &self.log,
            firmware: &self.firmware,
            resume,
            test_shell: true,
            offer: self.offer.as_deref(),
        })?;
        // What is not plugged in is on this board what a server out of reach is elsewhere.
        let offline = self.offer.is_some() && self.scenario.fault != Fault::NoNetwork;
        Ok(Device { machine, offline })
    }

    /// A running device that has started the old version and confirmed it.
    fn ready(&self) -> Result<Device> {
        let snapshot = self.bench.has_snapshots().then_some(READY);
        let mut device = self.machine(snapshot)?;
        resumed(self.bench, &mut device)?;
        Ok(device)
    }

    /// Cuts the power and boots again from the same disk.
    fn power_cycle(&self, device: Device) -> Result<Device> {
        device.machine.cut_power()?;
        self.machine(None)
    }

    fn updated(&mut self, mut device: Device) -> Result<()> {
        match self.scenario.fault {
            Fault::None | Fault::NoDelta => update(&mut device, "")?,
            Fault::PowerCut(point) => {
                stop_at(&mut device, point)?;
                device = self.power_cycle(device)?;
                device.wait_confirmed(NEW_VERSION, 0, TRIAL)?;
            }
            Fault::PowerCutInTrial => {
                let from = device.machine.console.position();
                device.start_upgrade("")?;
                device.machine.console.wait_for(KERNEL, from, UPGRADE)?;
                device.machine.console.wait_for(WELCOME, from, BOOT)?;
                device = self.power_cycle(device)?;
                device.wait_confirmed(NEW_VERSION, 0, TRIAL)?;
            }
            Fault::PowerCycles => {
                // More often than a trial has boots.
                for _ in 0..=super::variant::TRIES {
                    device = self.power_cycle(device)?;
                    device.machine.console.wait_for(KERNEL, 0, BOOT)?;
                }
                device = self.power_cycle(device)?;
                device.machine.wait_for_shell(BOOT)?;
                device.must_run(OLD_VERSION)?;
                update(&mut device, "")?;
            }
            Fault::CorruptedState => {
                update(&mut device, "")?;
                spoil(&mut device, &self.bench.board, Spoiled::Garbage)?;
                reboot(&mut device)?;
            }
            Fault::ForeignState => {
                update(&mut device, "")?;
                spoil(&mut device, &self.bench.board, Spoiled::Foreign)?;
                reboot(&mut device)?;
            }
            Fault::LostAgentState => {
                let (status, output) = device.install("--wait")?;
                ensure!(
                    status == 0,
                    "device-agent upgrade: exit status {status}\n{output}"
                );
                device
                    .machine
                    .sh_ok("rm -rf /var/lib/device-agent && sync", COMMAND)?;
                let from = device.machine.console.position();
                device.machine.sh_start("systemctl reboot")?;
                device.wait_confirmed(NEW_VERSION, from, TRIAL)?;
            }
            Fault::Loader(what) => {
                update(&mut device, "")?;
                device.must_run(NEW_VERSION)?;
                device = loader::play(device, what, &|device| self.power_cycle(device))?;
            }
            other => bail!("{other:?} cannot end in an update"),
        }
        device.must_run(NEW_VERSION).map(drop)
    }

    fn fell_back(&mut self, mut device: Device) -> Result<()> {
        let from = device.machine.console.position();
        if let Fault::Altered(what) = self.scenario.fault {
            let (status, output) = device.install("--wait")?;
            ensure!(
                status == 0,
                "device-agent upgrade: exit status {status}\n{output}"
            );
            alter(&mut device, self.bench.board.boot.backend, what)?;
            device.machine.sh_start("systemctl reboot")?;
            device.machine.console.wait_for(NOT_LOADED, from, BOOT)?;
        } else {
            device.start_upgrade("")?;
        }
        device.wait_fallback(from)?;
        let status = device.must_run(OLD_VERSION)?;
        ensure!(
            status.failed.iter().any(|v| v == NEW_VERSION),
            "the failed release should be remembered, but {status:?}"
        );
        let evidence = device
            .machine
            .sh_ok("cat /var/lib/device-agent/evidence/*/report.json", COMMAND)?;
        ensure!(
            evidence.contains(NEW_VERSION),
            "the evidence should name the failed release:\n{evidence}"
        );
        // The same release is not installed again.
        let (code, output) = device.install("--wait")?;
        ensure!(
            code != 0 || output.contains("failed"),
            "the release that failed was installed again:\n{output}"
        );
        device.must_run(OLD_VERSION).map(drop)
    }

    fn refused(&mut self, mut device: Device, code: i32) -> Result<()> {
        match self.scenario.fault {
            Fault::NoNetwork => self.stop_server()?,
            Fault::DiskFull => {
                device.machine.sh_ok(
                    "unshare -m sh -c 'mount -o remount,rw /sysroot && \
                     fallocate -l $(( $(df --output=avail -B1 /sysroot | tail -1) - 8388608 )) /sysroot/full'",
                    COMMAND,
                )?;
            }
            Fault::SecondAgent => {
                let from = device.machine.console.position();
                device.start_upgrade("DEVICE_AGENT_STOP_AT=downloaded")?;
                device.machine.console.wait_for(
                    "device-agent: stopped at downloaded",
                    from,
                    UPGRADE,
                )?;
            }
            _ => {}
        }
        let wait = match self.scenario.fault {
            Fault::SecondAgent => "",
            _ => "--wait",
        };
        let (status, output) = device.install(wait)?;
        ensure!(
            status == code,
            "device-agent upgrade should end with {code}, but: {status}\n{output}"
        );
        device.must_run(OLD_VERSION)?;
        if self.scenario.fault == Fault::DiskFull {
            device.machine.sh_ok(
                "unshare -m sh -c 'mount -o remount,rw /sysroot && rm /sysroot/full'",
                COMMAND,
            )?;
            let (status, output) = device.install("--wait")?;
            ensure!(
                status == 0,
                "with room again: exit status {status}\n{output}"
            );
        }
        Ok(())
    }

    fn old_then_updated(&mut self, mut device: Device) -> Result<()> {
        match self.scenario.fault {
            Fault::PowerCut(point) => {
                stop_at(&mut device, point)?;
                device = self.power_cycle(device)?;
                device.machine.wait_for_shell(BOOT)?;
                device.must_run(OLD_VERSION)?;
                update(&mut device, "")?;
            }
            Fault::ServerGone => {
                let server = self.server.as_ref().context("no server")?;
                let faults = &server.faults;
                faults.arm("/deltas/", ServerFault::CutAfter(500_000), Times::Once);
                faults.arm("/deltas/", ServerFault::Status(503), Times::Always);
                let (status, output) = device.install("--wait")?;
                ensure!(
                    status == super::table::NETWORK,
                    "with the server gone: exit status {status}\n{output}"
                );
                self.stop_server()?;
                device.must_run(OLD_VERSION)?;
                self.server = Some(self.bench.serve(&self.updates)?);
                update(&mut device, "")?;
                let served = self.server.as_ref().context("no server")?.served();
                ensure!(
                    served
                        .iter()
                        .any(|s| s.path.starts_with("/deltas/") && s.range.is_some()),
                    "the download should have been resumed, but the server saw {served:?}"
                );
            }
            other => bail!("{other:?} cannot end in a second attempt"),
        }
        device.must_run(NEW_VERSION).map(drop)
    }

    fn stop_server(&mut self) -> Result<()> {
        match self.server.take() {
            Some(server) => server.kill(),
            None => Ok(()),
        }
    }
}

/// Upgrades with a reboot and waits until the new version is confirmed.
fn update(device: &mut Device, environment: &str) -> Result<()> {
    let from = device.machine.console.position();
    device.start_upgrade(environment)?;
    device.wait_confirmed(NEW_VERSION, from, TRIAL)
}

/// Upgrades until the agent stands at a stop point.
fn stop_at(device: &mut Device, point: &str) -> Result<()> {
    let from = device.machine.console.position();
    device.start_upgrade(&format!("DEVICE_AGENT_STOP_AT={point}"))?;
    device
        .machine
        .console
        .wait_for(&format!("device-agent: stopped at {point}"), from, UPGRADE)
}

/// Reboots in good order and waits for the test shell.
pub(super) fn reboot(device: &mut Device) -> Result<()> {
    let from = device.machine.console.position();
    device.machine.sh_start("systemctl reboot")?;
    device.machine.console.wait_for(WELCOME, from, BOOT)?;
    device.machine.wait_for_shell(BOOT)
}
