//! The QEMU command line of a board.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{bail, Context, Result};
use base64::Engine;
use bsp::board::{Board, DiskBus, Qemu, SecureMachine, TEST_PORT};

use super::{hardware, shell, MachineRequest};

/// Name of the second disk, and of the device that makes the guest see it.
pub const OFFER: &str = "offer";

/// Builds the command line; sockets are created in `scratch`.
pub fn command(request: &MachineRequest<'_>, scratch: &Path) -> Result<Command> {
    let board = request.board;
    let qemu = board.qemu.as_ref().with_context(|| {
        format!(
            "board {} has no QEMU machine; it runs on real hardware only",
            board.id
        )
    })?;
    installed(&qemu.program)?;
    let secure = secure(board)?;
    let machine = secure.map_or(&qemu.machine, |secure| &secure.machine);
    // However this program ends, no virtual device outlives it.
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "--", &qemu.program])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let socket = |name: &str| {
        format!(
            "socket,id={name},path={},server=on,wait=off",
            scratch.join(name).display()
        )
    };
    command
        .args(["-nodefaults", "-display", "none", "-no-user-config"])
        .args(["-machine", machine, "-cpu", &qemu.cpu])
        .args(["-m", &format!("{}M", qemu.memory_mib)])
        .args(&qemu.args)
        .args(secure.iter().flat_map(|secure| &secure.args))
        .args(["-chardev", "stdio,id=console,signal=off"])
        .args(["-chardev", &socket("shell")])
        .args([
            "-chardev",
            &socket("monitor"),
            "-mon",
            "chardev=monitor,mode=control",
        ])
        .args(devices(qemu));
    add_disk(&mut command, request, qemu)?;
    add_firmware(&mut command, request)?;
    if request.test_shell && qemu.test_port.is_none() {
        add_credentials(&mut command, request, scratch)?;
    }
    if let Some(snapshot) = request.resume {
        command.args(["-loadvm", snapshot]);
    }
    Ok(command)
}

/// Serial ports, network and what else the machine gets. One without PCI has its own devices, and is only told
/// what they are connected to.
fn devices(qemu: &Qemu) -> Vec<String> {
    let mut args = Vec::new();
    let mut add = |option: &str, value: String| args.extend([option.to_string(), value]);
    let shell_on_usb = qemu
        .test_port
        .as_deref()
        .is_some_and(|port| port.starts_with("ttyUSB"));
    let paravirtual = qemu.test_port.as_deref().unwrap_or(TEST_PORT) == TEST_PORT;
    let shell_on_serial = !paravirtual && !shell_on_usb;
    let mut shell_placed = !shell_on_serial;
    for port in 0..=qemu.console_port.max(u8::from(shell_on_serial)) {
        let connected = if port == qemu.console_port {
            "chardev:console"
        } else if !shell_placed {
            shell_placed = true;
            "chardev:shell"
        } else {
            "null"
        };
        add("-serial", connected.into());
    }
    if shell_on_usb {
        add(
            "-device",
            "usb-serial,chardev=shell,always-plugged=on".into(),
        );
    } else if !shell_on_serial {
        add("-device", "virtio-serial-pci".into());
        add(
            "-device",
            format!("virtserialport,chardev=shell,name={}", port_name()),
        );
    }
    match qemu.disk {
        DiskBus::Virtio => {
            add("-device", "virtio-rng-pci".into());
            if qemu.network {
                add("-netdev", "user,id=net0".into());
                add("-device", "virtio-net-pci,netdev=net0,romfile=".into());
            }
        }
        DiskBus::Sd => {
            let network = if qemu.network { "user" } else { "none" };
            add("-nic", network.into());
        }
    }
    args
}

/// What QEMU calls the paravirtual port.
fn port_name() -> &'static str {
    TEST_PORT.trim_start_matches("virtio-ports/")
}

fn add_disk(command: &mut Command, request: &MachineRequest<'_>, qemu: &Qemu) -> Result<()> {
    let drive = format!(
        "format={},file={},discard=unmap,detect-zeroes=unmap",
        image_format(request.disk)?,
        option_value(request.disk)?
    );
    match qemu.disk {
        DiskBus::Virtio => {
            // Told by QEMU what to start first, UEFI firmware forgets the order that the device has given it.
            let first = match request.board.replaced_programs() {
                Some(_) => "",
                None => ",bootindex=1",
            };
            command
                .args(["-drive", &format!("if=none,id=disk,{drive}")])
                .args(["-device", &format!("virtio-blk-pci,drive=disk{first}")])
        }
        // QEMU's card never asks the image format to write what that holds back, which a power cut would lose.
        DiskBus::Sd => command.args([
            "-drive",
            &format!("if=sd,{drive},cache.writeback=off,cache.no-flush=on"),
        ]),
    };
    if let Some(offer) = request.offer {
        command.args([
            "-blockdev",
            &format!(
                "driver=raw,node-name={OFFER},read-only=on,file.driver=file,file.filename={}",
                option_value(offer)?
            ),
        ]);
    }
    Ok(())
}

fn add_firmware(command: &mut Command, request: &MachineRequest<'_>) -> Result<()> {
    let firmware = request.firmware;
    if let Some(code) = pflash(request.board, 0)? {
        command.arg("-drive").arg(format!(
            "if=pflash,unit=0,format=raw,readonly=on,file={}",
            option_value(&code)?
        ));
    }
    if let Some(variables) = &firmware.variables {
        command.arg("-drive").arg(format!(
            // Or a power cut would take from it what no flash chip forgets.
            "if=pflash,unit=1,format=qcow2,file={},cache=writethrough",
            option_value(variables)?
        ));
    }
    for (option, file) in [
        ("-bios", &firmware.bios),
        ("-kernel", &firmware.kernel),
        ("-dtb", &firmware.device_tree),
    ] {
        if let Some(file) = file {
            command.arg(option).arg(file);
        }
    }
    if let Some(overlay) = &firmware.overlay {
        command.arg("-device").arg(format!(
            "loader,addr={:#x},force-raw=on,file={}",
            hardware::OVERLAY_ADDRESS,
            option_value(overlay)?
        ));
    }
    Ok(())
}

/// Hands the test shell to the guest's systemd without a change to its image: through SMBIOS where the kernel
/// reads it without UEFI (x86), else through QEMU's configuration device (`qemu_fw_cfg`).
fn add_credentials(
    command: &mut Command,
    request: &MachineRequest<'_>,
    scratch: &Path,
) -> Result<()> {
    // systemd.system-credentials(7); names are short: QEMU's configuration device has no room for longer ones.
    let unit = shell::unit(TEST_PORT);
    let credentials = [
        (format!("systemd.extra-unit.{}", shell::UNIT), unit.as_str()),
        ("systemd.unit-dropin.-.slice".into(), shell::WANT),
    ];
    for (name, text) in credentials {
        if request.board.arch == "amd64" {
            let text = base64::engine::general_purpose::STANDARD.encode(text);
            command.arg("-smbios").arg(format!(
                "type=11,value=io.systemd.credential.binary:{name}={text}"
            ));
        } else {
            let file = scratch.join(&name);
            std::fs::write(&file, text).with_context(|| format!("writing {}", file.display()))?;
            command.arg("-fw_cfg").arg(format!(
                "name=opt/io.systemd.credentials/{name},file={}",
                option_value(&file)?
            ));
        }
    }
    Ok(())
}

/// The board's pflash image for a unit: the first of its alternatives that is installed.
pub fn pflash(board: &bsp::board::Board, unit: usize) -> Result<Option<PathBuf>> {
    let Some(qemu) = &board.qemu else {
        return Ok(None);
    };
    let secure = secure(board)?.and_then(|secure| match unit {
        0 => Some(&secure.code),
        _ => Some(&secure.variables).filter(|files| !files.is_empty()),
    });
    let Some(alternatives) = secure.or_else(|| qemu.pflash.get(unit)) else {
        return Ok(None);
    };
    match alternatives.iter().map(PathBuf::from).find(|p| p.exists()) {
        Some(path) => Ok(Some(path)),
        None => bail!(
            "looking for the firmware of a virtual {}: none of {} is there; install the Debian package {}",
            board.id,
            alternatives.join(", "),
            qemu.firmware_package.as_deref().unwrap_or("that brings them")
        ),
    }
}

/// What differs on a machine that starts what is signed with the product's keys.
fn secure(board: &Board) -> Result<Option<&SecureMachine>> {
    if board.own_grub().is_none() {
        return Ok(None);
    }
    let found = board
        .qemu
        .as_ref()
        .and_then(|qemu| qemu.secure_boot.as_ref());
    found.map(Some).with_context(|| {
        format!(
            "board {} has no QEMU machine with Secure Boot (qemu.secure-boot in the board file)",
            board.id
        )
    })
}

/// Fails unless `program` is in one of the directories of `PATH`.
fn installed(program: &str) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
        return Ok(());
    }
    bail!(
        "running {program}: not found; install the Debian package {}",
        package_of(program)
    )
}

/// The Debian package that brings a QEMU program.
fn package_of(program: &str) -> &'static str {
    match program {
        "qemu-system-x86_64" => "qemu-system-x86",
        "qemu-system-aarch64" | "qemu-system-arm" => "qemu-system-arm",
        "qemu-system-ppc64" => "qemu-system-ppc",
        _ => "that brings it",
    }
}

/// `qcow2` or `raw`, by magic.
fn image_format(path: &Path) -> Result<&'static str> {
    use std::io::Read;
    let mut magic = [0; 4];
    std::fs::File::open(path)
        .and_then(|mut file| file.read_exact(&mut magic))
        .with_context(|| format!("reading the disk image {}", path.display()))?;
    Ok(if &magic == b"QFI\xfb" { "qcow2" } else { "raw" })
}

/// A path as the value of a QEMU option, where a comma is written twice.
fn option_value(path: &Path) -> Result<String> {
    let text = path
        .to_str()
        .with_context(|| format!("the path {} is not UTF-8", path.display()))?;
    Ok(text.replace(',', ",,"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bsp::board::builtin;

    fn line(board: &str) -> String {
        devices(&builtin(board).unwrap().qemu.unwrap()).join(" ")
    }

    #[test]
    fn a_paravirtual_machine_gets_its_devices_on_pci() {
        assert_eq!(
            line("qemu-aarch64"),
            "-serial chardev:console -device virtio-serial-pci \
             -device virtserialport,chardev=shell,name=treeline.test -device virtio-rng-pci \
             -netdev user,id=net0 -device virtio-net-pci,netdev=net0,romfile="
        );
    }

    #[test]
    fn a_board_is_told_what_its_own_devices_are_connected_to() {
        assert_eq!(
            line("rpi4"),
            "-serial chardev:shell -serial chardev:console -nic none"
        );
        assert_eq!(
            line("rpi2"),
            "-serial chardev:console -serial chardev:shell -nic none"
        );
        assert_eq!(
            line("orangepi-pc"),
            "-serial chardev:console -device usb-serial,chardev=shell,always-plugged=on -nic user"
        );
    }
}
