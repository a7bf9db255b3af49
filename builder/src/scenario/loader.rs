//! The boot loader of a UEFI machine is replaced: tried first, cut at every step, and one that does not start.

use std::fs;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use bsp::board::Board;
use serde_json::Value;

use super::device::{Device, BOOT, COMMAND};
use super::play::reboot;
use super::table::{LoaderPlay, Offer};

/// What `device-agent update-loader` ends with when it refuses (see the agent's page in the book).
const REFUSED: i32 = 9;
/// How often the agent tries a set.
const TRIES: usize = 3;

/// What the device says of its programs for UEFI.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    state: String,
    installed: Option<u64>,
}

fn standing(device: &mut Device) -> Result<Standing> {
    let text = device
        .machine
        .sh_ok("device-agent status --json", COMMAND)?;
    let reading = || format!("reading the boot loaders in the device's status {text}");
    let value: Value = serde_json::from_str(&text).with_context(reading)?;
    let loaders = value.get("boot_loaders").and_then(Value::as_array);
    let mut loaders = loaders.into_iter().flatten();
    let efi = loaders.find(|loader| loader.get("name").is_some_and(|name| name == "efi"));
    let efi = efi.with_context(reading)?;
    Ok(Standing {
        state: efi
            .get("state")
            .and_then(Value::as_str)
            .with_context(reading)?
            .into(),
        installed: efi.get("installed").and_then(Value::as_u64),
    })
}

fn must_stand(device: &mut Device, when: &str, state: &str, installed: u64) -> Result<()> {
    let found = standing(device)?;
    ensure!(
        found.state == state && found.installed == Some(installed),
        "{when}, edition {installed} should run and be \"{state}\", but {found:?}"
    );
    Ok(())
}

fn update_loader(device: &mut Device, says: &str) -> Result<()> {
    let output = device
        .machine
        .sh_ok("device-agent --wait update-loader", COMMAND)?;
    ensure!(
        output.contains(says),
        "update-loader should say \"{says}\", but:\n{output}"
    );
    Ok(())
}

/// Stops the agent at a point and cuts the power there.
fn cut(
    mut device: Device,
    point: &str,
    power_cycle: &dyn Fn(Device) -> Result<Device>,
) -> Result<Device> {
    let from = device.machine.console.position();
    device.machine.sh_start(&format!(
        "DEVICE_AGENT_STOP_AT={point} device-agent --wait update-loader >/dev/console 2>&1"
    ))?;
    let stopped = format!("device-agent: stopped at {point}");
    device.machine.console.wait_for(&stopped, from, COMMAND)?;
    let mut device = power_cycle(device)?;
    device.machine.wait_for_shell(BOOT)?;
    Ok(device)
}

/// Plays with a device that runs, confirmed, the version that brings the new programs.
pub(super) fn play(
    mut device: Device,
    what: LoaderPlay,
    power_cycle: &dyn Fn(Device) -> Result<Device>,
) -> Result<Device> {
    must_stand(&mut device, "after the update", "outdated", 1)?;
    match what {
        LoaderPlay::Whole => {
            tried_and_kept(&mut device)?;
            device = power_cycle(device)?;
            device.machine.wait_for_shell(BOOT)?;
            must_stand(&mut device, "after a power cut", "current", 2)?;
        }
        LoaderPlay::Cut => {
            device = cut(device, "loader-written", power_cycle)?;
            must_stand(&mut device, "written but not armed", "outdated", 1)?;
            device = cut(device, "loader-armed", power_cycle)?;
            must_stand(&mut device, "armed", "current", 2)?;
            device = cut(device, "loader-tried", power_cycle)?;
            must_stand(&mut device, "tried but not kept", "outdated", 1)?;
            tried_and_kept(&mut device)?;
            reboot(&mut device)?;
            must_stand(&mut device, "kept", "current", 2)?;
        }
        LoaderPlay::Broken => {
            for _ in 0..TRIES {
                update_loader(&mut device, "tries it at the next boot")?;
                must_stand(&mut device, "armed", "armed", 1)?;
                reboot(&mut device)?;
            }
            must_stand(&mut device, "tried in vain", "failed", 1)?;
            let (status, output) = device
                .machine
                .sh("device-agent --wait update-loader", COMMAND)?;
            ensure!(
                status == REFUSED,
                "what does not start should be refused with {REFUSED}, but {status}:\n{output}"
            );
        }
    }
    Ok(device)
}

fn tried_and_kept(device: &mut Device) -> Result<()> {
    update_loader(device, "tries it at the next boot")?;
    must_stand(device, "armed", "armed", 1)?;
    reboot(device)?;
    must_stand(device, "tried", "current", 2)?;
    update_loader(device, "it is started from now on")
}

/// A board file that brings new programs: the same in another edition, or with a GRUB that is none.
pub(super) fn board_file(board: &Board, offer: Offer, dir: &Path) -> Result<()> {
    let mut board = board.clone();
    let Some(loader) = &mut board.efi_loader else {
        bail!(
            "board {} has no programs for UEFI that devices replace",
            board.id
        );
    };
    loader.edition += 1;
    if offer == Offer::BrokenLoader {
        let packaged = |file: &&mut bsp::board::FirmwareFile| {
            file.path.to_ascii_lowercase().contains("grub") && file.package.is_some()
        };
        let grub = board.firmware.iter_mut().find(packaged);
        let grub = grub.context("looking for GRUB among the board's firmware files")?;
        let package = grub.package.clone().unwrap_or_default();
        grub.file = Some(format!("usr/share/doc/{package}/copyright"));
    }
    let path = dir.join(format!("{}.toml", board.id));
    let text = toml::to_string(&board).context("writing a board file")?;
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&path, text))
        .with_context(|| format!("writing {}", path.display()))
}
