//! The real firmware of every virtual board with GRUB starts the boot loader from the disk, and that finds the boot
//! rule: UEFI with Secure Boot's shim, a PC's BIOS, Open Firmware. The disk has no system, so the rule says that there is
//! none; that is what is waited for. An image that is made for two kinds of firmware is started by both.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::path::Path;
use std::time::Duration;

use bsp::board::{Backend, Board, CoreTarget};
use builder::qemu::{Firmware, Machine, MachineRequest};
use treeline_tests::{build, example};

/// Far more than a firmware takes (half a minute on an idle machine).
const LIMIT: Duration = Duration::from_secs(300);
const SAID: &str = "Treeline: the root partition is missing";

/// Every way to start the board's disk.
fn machines(board: &Board) -> Vec<Board> {
    let mut machines = vec![board.clone()];
    let bios = board.boot.core.as_ref().map(|core| core.target) == Some(CoreTarget::I386Pc);
    let uefi = board
        .qemu
        .as_ref()
        .is_some_and(|qemu| !qemu.pflash.is_empty());
    if bios && uefi {
        let mut other = board.clone();
        other.qemu.as_mut().unwrap().pflash.clear();
        machines.push(other);
    }
    machines
}

#[test]
fn the_firmware_of_every_board_with_grub_starts_the_boot_rule() {
    let dir = tempfile::tempdir().unwrap();
    let product = example(dir.path()).unwrap();
    // Boot loaders come with the release.
    let manifest = product.join("product.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(
        &manifest,
        text.replacen("[base]\n", "[base]\nupdates = []\n", 1),
    )
    .unwrap();
    let mut started = 0;
    for id in bsp::board::list() {
        let board = bsp::board::builtin(id).unwrap();
        if board.boot.backend != Backend::Grub || board.qemu.is_none() {
            continue;
        }
        let output = build(&product, &["-q", "build", "--board", id, "--until", "boot"]).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{id}: {said}");
        let image = product.join(format!("out/{id}/gateway-1.0.0-{id}.boot.raw"));
        for machine in machines(&board) {
            starts(&machine, &image, dir.path());
            started += 1;
        }
    }
    assert!(started >= 6, "{started}");
}

fn starts(board: &Board, image: &Path, dir: &Path) {
    let uefi = board
        .qemu
        .as_ref()
        .is_some_and(|qemu| !qemu.pflash.is_empty());
    let log = dir.join(format!("{}-{uefi}.log", board.id));
    let firmware = Firmware::make(board, image, dir, dir, |file| {
        anyhow::bail!("{} is no part of a board with GRUB", file.file)
    })
    .unwrap();
    let machine = Machine::start(&MachineRequest {
        board,
        disk: image,
        console_log: &log,
        firmware: &firmware,
        resume: None,
        test_shell: false,
        offer: None,
    })
    .unwrap();
    let waited = machine.console.wait_for(SAID, 0, LIMIT);
    waited.unwrap_or_else(|error| panic!("{} (UEFI: {uefi}): {error:#}", board.id));
}
