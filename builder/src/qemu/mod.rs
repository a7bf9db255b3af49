//! Virtual devices: a board's QEMU machine with its disk, console, test shell and control socket.
//!
//! Everything runs in software emulation, so nothing here waits for a fixed time: callers wait for a
//! marker with a generous limit. A machine that is dropped is killed, which for its disk is a power cut.

pub mod console;
mod firmware;
mod hardware;
pub mod interactive;
pub mod launch;
pub mod monitor;
pub mod shell;

use std::path::Path;
use std::process::Child;
use std::time::Duration;

use anyhow::{bail, Context, Result};

use console::Console;
pub use firmware::Firmware;
use monitor::Monitor;
use serde_json::json;
use shell::Shell;

/// A running virtual device.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    /// What the serial console printed; also in the log file.
    pub console: Console,
    monitor: Monitor,
    shell: Shell,
    /// Whether the second disk is in the USB port.
    plugged: bool,
    // Holds the sockets; removed with the machine.
    _scratch: tempfile::TempDir,
}

/// How to start a machine.
#[derive(Debug, Clone)]
pub struct MachineRequest<'a> {
    /// The board; must have a `[qemu]` section.
    pub board: &'a bsp::board::Board,
    /// Disk image (qcow2 or raw, told apart by its magic).
    pub disk: &'a Path,
    /// Where the console log goes (appended).
    pub console_log: &'a Path,
    /// What it boots with besides the disk.
    pub firmware: &'a Firmware,
    /// Name of an internal snapshot to resume instead of booting.
    pub resume: Option<&'a str>,
    /// Whether the guest gets a root shell for tests, injected by a systemd credential; on a machine that
    /// knows no way for that, the shell must be in its tree ([`shell::unit`]).
    pub test_shell: bool,
    /// A second disk (raw), for the guest to read, that [`Machine::plug_in`] puts into the USB port.
    pub offer: Option<&'a Path>,
}

impl Machine {
    /// Starts QEMU. Returns as soon as the control socket answers.
    pub fn start(request: &MachineRequest<'_>) -> Result<Self> {
        let scratch = tempfile::Builder::new()
            .prefix("treeline-vm-")
            .tempdir()
            .context("creating a directory for the sockets of a virtual device")?;
        let mut command = launch::command(request, scratch.path())?;
        let mut child = command
            .spawn()
            .context("running setpriv (Debian package util-linux)")?;
        let started = (|| {
            let output = child.stdout.take().context("taking QEMU's console")?;
            let console = Console::new(output, request.console_log)?;
            let monitor = Monitor::connect(&scratch.path().join("monitor"), &mut child)?;
            let port = request
                .board
                .qemu
                .as_ref()
                .and_then(|q| q.test_port.as_deref());
            let serial = port.is_some_and(shell::is_serial);
            let shell = Shell::connect(&scratch.path().join("shell"), serial)?;
            Ok((console, monitor, shell))
        })();
        match started {
            Ok((console, monitor, shell)) => Ok(Self {
                child,
                console,
                monitor,
                shell,
                plugged: false,
                _scratch: scratch,
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let text = child
                    .stderr
                    .take()
                    .and_then(|mut err| {
                        let mut text = String::new();
                        std::io::Read::read_to_string(&mut err, &mut text)
                            .ok()
                            .map(|_| text)
                    })
                    .unwrap_or_default();
                Err(anyhow::Error::context(
                    error,
                    format!("starting a virtual {}: {text}", request.board.id),
                ))
            }
        }
    }

    /// Waits until the test shell answers; the boot it belongs to has then reached `basic.target`.
    pub fn wait_for_shell(&mut self, limit: Duration) -> Result<()> {
        let (child, shell) = (&mut self.child, &mut self.shell);
        shell.wait(limit, || match child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => bail!("QEMU ended with {status}"),
            Err(error) => Err(error).context("waiting for QEMU"),
        })
    }

    /// Runs a shell command in the guest: its exit status and output (standard output and error).
    pub fn sh(&mut self, command: &str, limit: Duration) -> Result<(i32, String)> {
        self.shell.run(command, limit)
    }

    /// Runs a shell command that must succeed.
    pub fn sh_ok(&mut self, command: &str, limit: Duration) -> Result<String> {
        match self.sh(command, limit)? {
            (0, output) => Ok(output),
            (status, output) => bail!("on the device: {command}: exit status {status}\n{output}"),
        }
    }

    /// Starts a shell command in the guest without waiting for it (it will reboot the device, say).
    pub fn sh_start(&mut self, command: &str) -> Result<()> {
        self.shell.start(command)
    }

    /// Puts the second disk into the USB port, once more if it was there: QEMU's USB controllers tell a guest only
    /// of what comes while it listens.
    pub fn plug_in(&mut self) -> Result<()> {
        self.unplug()?;
        self.plugged = true;
        // Without a number of its own QEMU would put a slow hub before it.
        let device = json!({
            "driver": "usb-storage", "id": launch::OFFER, "drive": launch::OFFER, "port": "1"
        });
        self.monitor.execute("device_add", device).map(drop)
    }

    /// Takes the second disk out of the USB port, if it is there.
    pub fn unplug(&mut self) -> Result<()> {
        if std::mem::take(&mut self.plugged) {
            self.monitor
                .execute("device_del", json!({"id": launch::OFFER}))?;
        }
        Ok(())
    }

    /// Whether the second disk is in the USB port.
    pub fn is_plugged(&self) -> bool {
        self.plugged
    }

    /// Writes a snapshot of memory and disk into the disk image.
    pub fn save(&mut self, name: &str) -> Result<()> {
        self.monitor.human(&format!("savevm {name}"))
    }

    /// Cuts the power: QEMU is killed, what the guest had not written to its disk is lost.
    pub fn cut_power(mut self) -> Result<()> {
        self.child
            .kill()
            .context("cutting the power (killing QEMU)")?;
        self.child.wait().context("waiting for QEMU's end")?;
        Ok(())
    }

    /// Waits until QEMU ends by itself (the guest has powered off).
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<()> {
        let deadline = std::time::Instant::now() + limit;
        while self.child.try_wait().context("waiting for QEMU")?.is_none() {
            if std::time::Instant::now() > deadline {
                bail!(
                    "the device has not powered off within {} s",
                    limit.as_secs()
                );
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
