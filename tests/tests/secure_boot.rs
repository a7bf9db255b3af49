//! Secure Boot with a product's own keys: a virtual machine's firmware that knows them starts the signed GRUB, which
//! finds its configuration, the state and the disk; one that knows other keys refuses it. The disk has no system,
//! so the boot rule says that there is none; that is what is waited for.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bsp::board::{Board, SecureBoot};
use builder::qemu::{Firmware, Machine, MachineRequest};
use treeline_tests::{build, example, run};

/// Far more than a firmware takes (half a minute on an idle machine).
const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn firmware_starts_what_its_own_keys_have_signed() {
    check("x86_64-uefi", "BOOTX64.EFI");
}

#[test]
fn so_it_does_on_64_bit_arm() {
    check("aarch64-uefi", "BOOTAA64.EFI");
}

fn check(id: &str, program: &str) {
    let dir = tempfile::tempdir().unwrap();
    let product = product(id, dir.path());
    let image = product.join(format!("out/{id}/gateway-1.0.0-{id}.boot.raw"));
    let grub = dir.path().join("grub.efi");
    // The first partition begins at the first MiB.
    run(Command::new("mcopy")
        .arg("-i")
        .arg(format!("{}@@1M", image.display()))
        .arg(format!("::/EFI/BOOT/{program}"))
        .arg(&grub))
    .unwrap();
    let keys = product.join("keys");
    let certificate = keys.join("secureboot/db.pem");
    run(Command::new("sbverify")
        .arg("--cert")
        .arg(certificate)
        .arg(&grub))
    .unwrap();

    let place = dir.path().join("own");
    let rule = "Treeline: the root partition is missing";
    says(id, &image, &keys, &place, rule);
    let foreign = dir.path().join("foreign");
    builder::secure_boot::make(&foreign, "another").unwrap();
    let place = dir.path().join("foreign-machine");
    says(id, &image, &foreign, &place, "Access Denied");
}

/// A product with its boot loader built.
fn product(id: &str, dir: &Path) -> PathBuf {
    let product = example(dir).unwrap();
    let manifest = product.join("product.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    // Boot loaders come with the release.
    let text = text.replacen("[base]\n", "[base]\nupdates = []\n", 1);
    let own = format!("{text}\n[board.{id}]\nsecure-boot = \"own\"\n");
    std::fs::write(&manifest, own).unwrap();
    let until_boot: &[&str] = &["-q", "build", "--board", id, "--until", "boot"];
    let output = build(&product, until_boot).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("builder keys secureboot"), "{said}");
    for args in [["keys", "secureboot"].as_slice(), until_boot] {
        let output = build(&product, args).unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {said}");
    }
    product
}

/// Starts a machine that knows `keys` and waits for a text.
fn says(id: &str, image: &Path, keys: &Path, dir: &Path, text: &str) {
    let mut board: Board = bsp::board::builtin(id).unwrap();
    board.boot.secure_boot = SecureBoot::Own;
    std::fs::create_dir_all(dir).unwrap();
    let firmware = Firmware::make(&board, image, dir, keys, |file| {
        anyhow::bail!("{} is no part of a board with GRUB", file.file)
    })
    .unwrap();
    let machine = Machine::start(&MachineRequest {
        board: &board,
        disk: image,
        console_log: &dir.join("console.log"),
        firmware: &firmware,
        resume: None,
        test_shell: false,
        offer: None,
    })
    .unwrap();
    let waited = machine.console.wait_for(text, 0, LIMIT);
    waited.unwrap_or_else(|error| panic!("{id}, {}: {error:#}", dir.display()));
}
