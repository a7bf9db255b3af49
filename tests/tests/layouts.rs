//! The disk of every U-Boot board with its real boot loader from the archive: the right file at the right byte,
//! tables and firmware file system as their judges want them, the boot environment as `fw_printenv` reads it.
//!
//! `bsp/src/disk/golden` has the layouts themselves, `builder/src/image/tests` the same with stand-ins.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bsp::board::{Backend, Board, Role};
use bsp::disk::{plan, Layout};
use treeline_tests::{build, example, run};

/// Files of the firmware partition that the boot ROM or the firmware runs: all are larger than this.
const SMALLEST_PROGRAM: usize = 50_000;

#[test]
fn every_board_gets_its_real_boot_loader() {
    let dir = tempfile::tempdir().unwrap();
    let product = example(dir.path()).unwrap();
    only_the_release(&product);
    for id in bsp::board::list() {
        let board = bsp::board::builtin(id).unwrap();
        if board.boot.backend == Backend::Uboot {
            judge(&product, &board, dir.path());
        }
    }
}

/// Boot loaders come with the release; its updates would only cost the time to read their lists.
fn only_the_release(product: &Path) {
    let manifest = product.join("product.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let changed = text.replacen("[base]\n", "[base]\nupdates = []\n", 1);
    assert_ne!(text, changed, "{text}");
    fs::write(&manifest, changed).unwrap();
}

fn judge(product: &Path, board: &Board, dir: &Path) {
    let id = &board.id;
    let output = build(product, &["-q", "build", "--board", id, "--until", "boot"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{id}: {said}");
    let image = product.join(format!("out/{id}/gateway-1.0.0-{id}.boot.raw"));
    let layout = plan(board, &Default::default()).unwrap();
    assert_eq!(fs::metadata(&image).unwrap().len(), layout.disk_bytes);
    let said = run(Command::new("sgdisk").arg("--verify").arg(&image)).unwrap();
    assert!(said.contains("No problems found"), "{id}: {said}");
    run(Command::new("sfdisk").arg("--verify").arg(&image)).unwrap();
    raw_areas(board, &image);
    firmware(board, &cut(&layout, &image, dir));
    environment(board, &image, dir);
    fs::remove_file(&image).unwrap();
}

/// What the boot ROM and the loaders look for, written here once more.
fn raw_areas(board: &Board, image: &Path) {
    let looked_for: &[(u64, &[u8])] = match board.id.as_str() {
        // Allwinner: "eGON.BT0" four bytes into the SPL, U-Boot's own image 32 KiB behind it.
        "orangepi-pc" => &[(8196, b"eGON.BT0"), (40960, &[0x27, 0x05, 0x19, 0x56])],
        // AM335x: a configuration header, then a flattened image tree where SPL has its sector 0x300.
        "beaglebone" => &[
            (131_092, b"CHSETTINGS"),
            (0x300 * 512, &[0xd0, 0x0d, 0xfe, 0xed]),
        ],
        // Rockchip: sectors 64 and 0x4000.
        "rockpro64" => &[
            (64 * 512, &[0x3b, 0x8c, 0xdc, 0xfc]),
            (0x4000 * 512, &[0xd0, 0x0d, 0xfe, 0xed]),
        ],
        _ => &[],
    };
    assert_eq!(
        looked_for.is_empty(),
        board.disk.raw.is_empty(),
        "{}",
        board.id
    );
    let file = File::open(image).unwrap();
    for (offset, magic) in looked_for {
        let mut found = vec![0; magic.len()];
        file.read_exact_at(&mut found, *offset).unwrap();
        assert!(found == *magic, "{} at {offset}: {found:x?}", board.id);
    }
}

/// The firmware partition as a file of its own.
fn cut(layout: &Layout, image: &Path, dir: &Path) -> PathBuf {
    let partition = layout.partition(Role::Firmware).unwrap();
    let mut bytes = vec![0; usize::try_from(partition.size).unwrap()];
    let file = File::open(image).unwrap();
    file.read_exact_at(&mut bytes, partition.start).unwrap();
    let out = dir.join("firmware");
    fs::write(&out, bytes).unwrap();
    out
}

fn firmware(board: &Board, partition: &Path) {
    run(Command::new("fsck.fat").arg("-n").arg(partition)).unwrap();
    let read = |path: &str| {
        let mut command = Command::new("mtype");
        command.arg("-i").arg(partition).arg(format!("::{path}"));
        let output = command.output().unwrap();
        assert!(output.status.success(), "{path}: {output:?}");
        output.stdout
    };
    let script = read(&board.boot.config);
    assert!(script.starts_with(&[0x27, 0x05, 0x19, 0x56]));
    for file in &board.firmware {
        let content = read(&file.path);
        let ending = file.path.rsplit('.').next().unwrap_or_default();
        let right = match ending {
            "dtb" => content.starts_with(&[0xd0, 0x0d, 0xfe, 0xed]),
            "elf" => content.starts_with(b"\x7fELF"),
            "bin" => content.len() > SMALLEST_PROGRAM,
            "txt" => content.ends_with(b"kernel=u-boot.bin\n"),
            "dat" => !content.is_empty(),
            _ => panic!("{}: nobody knows {}", board.id, file.path),
        };
        assert!(right, "{}: {}", board.id, file.path);
    }
}

fn environment(board: &Board, image: &Path, dir: &Path) {
    let place = board.boot.environment.unwrap();
    let config = dir.join("fw_env.config");
    let text = bsp::boot::uboot::fw_env_config(&image.display().to_string(), &place);
    fs::write(&config, text).unwrap();
    let said = run(Command::new("fw_printenv").arg("-c").arg(&config)).unwrap();
    assert!(
        said.contains("treeline=1\n") && said.contains("good=none\n"),
        "{said}"
    );
}
