//! The disk of every board with its real boot loader from the archive: the right file at the right byte, tables and
//! firmware file system as their judges want them, the boot state as `fw_printenv` or `grub-editenv` reads it.
//!
//! What a board file says is also held against the packages: U-Boot's configuration (`loader`), the kernel's device
//! trees and modules (`kernel`), and whether those modules lead to the disk (`storage`).
//!
//! `bsp/src/disk/golden` has the layouts themselves, `builder/src/image/tests` the same with stand-ins.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up has failed"
)]

#[path = "layouts/device_tree.rs"]
mod device_tree;
#[path = "layouts/grub.rs"]
mod grub;
#[path = "layouts/kernel.rs"]
mod kernel;
#[path = "layouts/loader.rs"]
mod loader;
#[path = "layouts/storage.rs"]
mod storage;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use bsp::board::{Backend, Board, Role, ScriptImage};
use bsp::disk::{plan, Layout};
use builder::cache::Cache;
use builder::lock::{self, Lock, LockedPackage};
use builder::progress::Progress;
use builder::project::Project;
use treeline_tests::{build, example, run};

/// Files of the firmware partition that the boot ROM or the firmware runs: all are larger than this.
const SMALLEST_PROGRAM: usize = 50_000;
/// Boards judged at the same time, by builders in one product.
const AT_ONCE: usize = 2;

#[test]
fn every_board_gets_its_real_boot_loader() {
    let dir = tempfile::tempdir().unwrap();
    let product = example(dir.path()).unwrap();
    only_the_release(&product);
    let boards: Vec<Board> = bsp::board::list()
        .into_iter()
        .map(|id| bsp::board::builtin(id).unwrap())
        .collect();
    // What asks for the same packages is locked once: first one board of each kind, then the others.
    let mut kinds = BTreeMap::new();
    for board in &boards {
        let kind = (&board.arch, &board.packages, board.firmware_packages());
        kinds.entry(kind).or_insert_with(Vec::new).push(board);
    }
    let known = kernel::Known::default();
    let first: Vec<&Board> = kinds.values().map(|kind| kind[0]).collect();
    first
        .iter()
        .for_each(|board| judge(&product, board, &known));
    let others: Vec<&Board> = kinds
        .values()
        .flat_map(|kind| &kind[1..])
        .copied()
        .collect();
    std::thread::scope(|scope| {
        for share in others.chunks(others.len().div_ceil(AT_ONCE).max(1)) {
            let (product, known) = (&product, &known);
            scope.spawn(move || share.iter().for_each(|board| judge(product, board, known)));
        }
    });
}

/// Boot loaders come with the release; its updates would only cost the time to read their lists.
fn only_the_release(product: &Path) {
    let manifest = product.join("product.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let changed = text.replacen("[base]\n", "[base]\nupdates = []\n", 1);
    assert_ne!(text, changed, "{text}");
    fs::write(&manifest, changed).unwrap();
}

fn judge(product: &Path, board: &Board, known: &kernel::Known) {
    let id = &board.id;
    let output = build(product, &["-q", "build", "--board", id, "--until", "boot"]).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{id}: {said}");
    let packages = Packages::of(product, board, known);
    if board.boot.backend == Backend::Uboot {
        loader::judge(board, &packages);
    }
    kernel::judge(board, &packages);
    let dir = product.join(format!("out/{id}"));
    let image = dir.join(format!("gateway-1.0.0-{id}.boot.raw"));
    let layout = plan(board, &Default::default()).unwrap();
    assert_eq!(fs::metadata(&image).unwrap().len(), layout.disk_bytes);
    let said = run(Command::new("sgdisk").arg("--verify").arg(&image)).unwrap();
    assert!(said.contains("No problems found"), "{id}: {said}");
    run(Command::new("sfdisk").arg("--verify").arg(&image)).unwrap();
    raw_areas(board, &image);
    let partition = cut(&layout, &image, &dir);
    match board.boot.backend {
        Backend::Uboot => {
            firmware(board, &partition);
            environment(board, &image, &dir);
        }
        Backend::Grub => {
            grub::core_image(board, &layout, &image);
            grub::firmware(board, &layout, &partition, &dir);
        }
    }
    fs::remove_dir_all(&dir).unwrap();
}

/// The packages that a board was locked with.
pub struct Packages<'a> {
    known: &'a kernel::Known,
    project: Project,
    board: Board,
    locked: Vec<LockedPackage>,
    cache: Cache,
}

impl<'a> Packages<'a> {
    fn of(product: &Path, board: &Board, known: &'a kernel::Known) -> Self {
        let lock = Lock::read(&product.join("product.lock")).unwrap().unwrap();
        let locked = &lock.boards[&board.id];
        let packages = locked.firmware.iter().chain(&locked.packages);
        Self {
            known,
            project: Project::load(product).unwrap(),
            board: board.clone(),
            locked: packages.cloned().collect(),
            cache: Cache::from_env().unwrap(),
        }
    }

    /// A package whose name `is` it, unpacked.
    fn unpacked(&self, is: impl Fn(&str) -> bool) -> Option<(String, PathBuf)> {
        let package = self.locked.iter().find(|package| is(&package.name))?;
        let merged = self.project.merged(&self.board);
        let wanted = std::slice::from_ref(package);
        let debs = lock::fetch(wanted, &merged, &self.cache, Progress::Quiet).unwrap();
        let dir = lock::unpack(&debs[0], &self.cache).unwrap();
        Some((package.name.clone(), dir))
    }
}

/// What the boot ROM and the loaders look for, written here once more: by package, and for the boards that are
/// exceptions.
fn raw_areas(board: &Board, image: &Path) {
    const FIT: &[u8] = &[0xd0, 0x0d, 0xfe, 0xed];
    const LEGACY: &[u8] = &[0x27, 0x05, 0x19, 0x56];
    const IDBLOADER: &[u8] = &[0x3b, 0x8c, 0xdc, 0xfc, 0xbe, 0x9f, 0x9d, 0x51];
    const VECTOR_TABLE: &[u8] = &[0xd1, 0x00, 0x20, 0x40];
    let wide = board.arch == "arm64";
    let packages = board.firmware_packages();
    let looked_for: &[(u64, &[u8])] = match packages.first().copied().unwrap_or_default() {
        // Allwinner: "eGON.BT0" four bytes into the SPL, U-Boot's own image 32 KiB behind it.
        "u-boot-sunxi" if wide => &[(8196, b"eGON.BT0"), (40960, FIT)],
        "u-boot-sunxi" => &[(8196, b"eGON.BT0"), (40960, LEGACY)],
        // Rockchip: sectors 64 and 0x4000, and the one board with another place.
        "u-boot-rockchip" if board.id == "puma-haikou" => {
            &[(64 * 512, IDBLOADER), (0x200 * 512, FIT)]
        }
        "u-boot-rockchip" if wide => &[(64 * 512, IDBLOADER), (0x4000 * 512, FIT)],
        "u-boot-rockchip" => &[(64 * 512, IDBLOADER), (0x4000 * 512, LEGACY)],
        // AM335x, AM57xx: a configuration header, then a flattened image tree where SPL has its sector 0x300.
        "u-boot-omap" => &[(131_092, b"CHSETTINGS"), (0x300 * 512, FIT)],
        // i.MX6.
        "u-boot-imx" if board.id == "wandboard" => &[(1024, VECTOR_TABLE), (69 * 1024, FIT)],
        "u-boot-imx" => &[(1024, VECTOR_TABLE), (69 * 1024, LEGACY)],
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
    let format: &[u8] = match board.boot.script {
        ScriptImage::Legacy => &[0x27, 0x05, 0x19, 0x56],
        ScriptImage::Fit => &[0xd0, 0x0d, 0xfe, 0xed],
    };
    assert!(script.starts_with(format), "{}", board.id);
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
