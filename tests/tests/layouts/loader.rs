//! A board held against the configuration that its U-Boot was built with: every package has it in its
//! documentation.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use bsp::board::{Board, ScriptImage};
use bsp::disk::{plan, Kind};
use treeline_tests::run;

use super::Packages;

/// What the boot script uses, and what leads to it.
const NEEDED: [&str; 16] = [
    "HUSH_PARSER",
    "CMD_SOURCE",
    "EFI_PARTITION",
    "CMD_PART",
    "CMD_FS_GENERIC",
    "CMD_FAT",
    "CMD_EXT4",
    "CMD_ECHO",
    "CMD_SLEEP",
    "CMD_ITEST",
    "CMD_MEMORY",
    "CMD_IMPORTENV",
    "CMD_EXPORTENV",
    "CMD_FDT",
    "CMD_RUN",
    "OF_LIBFDT",
];

/// `CONFIG_` names and values.
type Config = BTreeMap<String, String>;

/// Every U-Boot of the board: package, and the directory in it.
fn targets(board: &Board) -> Vec<(&str, &str)> {
    let raw = board.disk.raw.iter();
    let raw = raw.filter_map(|area| Some((area.package.as_deref()?, area.file.as_deref()?)));
    let firmware = board.firmware.iter();
    let firmware = firmware.filter_map(|f| Some((f.package.as_deref()?, f.file.as_deref()?)));
    let qemu = board
        .qemu
        .iter()
        .flat_map(|qemu| [&qemu.bios, &qemu.kernel]);
    let qemu = qemu
        .flatten()
        .map(|from| (from.package.as_str(), from.file.as_str()));
    let mut found: Vec<_> = raw
        .chain(firmware)
        .chain(qemu)
        .filter_map(|(package, file)| {
            let rest = file.strip_prefix("usr/lib/u-boot/")?;
            Some((package, rest.split('/').next()?))
        })
        .collect();
    found.dedup();
    found
}

fn config(dir: &Path, package: &str, target: &str) -> Config {
    let place = dir.join(format!("usr/share/doc/{package}/configs"));
    let path = place.join(format!("config.{target}.gz"));
    let text = run(Command::new("zcat").arg(&path)).unwrap();
    let lines = text.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
        Some((name.to_string(), value.trim_matches('"').to_string()))
    });
    lines.collect()
}

fn number(config: &Config, name: &str) -> Option<u64> {
    let value = config.get(name)?;
    match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => value.parse().ok(),
    }
}

pub fn judge(board: &Board, packages: &Packages<'_>) {
    let targets = targets(board);
    assert!(!targets.is_empty(), "{} has no U-Boot", board.id);
    for (package, target) in targets {
        let (_, dir) = packages.unpacked(|name| name == package).unwrap();
        let config = config(&dir, package, target);
        runs_the_script(board, target, &config);
        finds_u_boot(board, target, &config);
        keeps_its_own_environment(board, target, &config);
    }
}

fn runs_the_script(board: &Board, target: &str, config: &Config) {
    let image = match board.boot.script {
        ScriptImage::Legacy => "LEGACY_IMAGE_FORMAT",
        ScriptImage::Fit => "FIT",
    };
    let start = match board.arch.as_str() {
        "arm64" => "CMD_BOOTI",
        _ => "CMD_BOOTZ",
    };
    for name in NEEDED.into_iter().chain([image, start]) {
        assert!(
            config.contains_key(name),
            "{}: {target} has no {name}",
            board.id
        );
    }
    let looks = ["DISTRO_DEFAULTS", "BOOTMETH_SCRIPT"];
    let looks = looks.iter().any(|name| config.contains_key(*name));
    assert!(looks, "{}: {target} looks for no script", board.id);
    let disk = ["CMD_MMC", "CMD_VIRTIO"];
    assert!(
        disk.iter().any(|name| config.contains_key(*name)),
        "{target}"
    );
}

/// The SPL loads U-Boot from a sector; Allwinner's counts it from its own place, within the same file.
fn finds_u_boot(board: &Board, target: &str, config: &Config) {
    let area = board.disk.raw.iter().find(|area| area.name == "u-boot");
    let (Some(area), Some(sector)) = (area, number(config, "SYS_MMCSD_RAW_MODE_U_BOOT_SECTOR"))
    else {
        assert!(board.disk.raw.is_empty(), "{}: {target}", board.id);
        return;
    };
    let wanted = match area.package.as_deref() {
        Some("u-boot-sunxi") => 0x40,
        _ => area.offset.0 / 512,
    };
    assert_eq!(sector, wanted, "{}: {target}", board.id);
}

/// Where this U-Boot would write an environment of its own, nothing of ours stands.
fn keeps_its_own_environment(board: &Board, target: &str, config: &Config) {
    if !config.contains_key("ENV_IS_IN_MMC") {
        return;
    }
    let size = number(config, "ENV_SIZE").unwrap();
    let layout = plan(board, &Default::default()).unwrap();
    for name in ["ENV_OFFSET", "ENV_OFFSET_REDUND"] {
        let Some(offset) = number(config, name) else {
            continue;
        };
        let own: Range<u64> = offset..offset + size;
        for region in &layout.regions {
            let apart = own.end <= region.bytes.start || region.bytes.end <= own.start;
            let what = (&region.owner, region.kind == Kind::Raw);
            assert!(
                apart,
                "{}: {target} has its environment in {what:?}",
                board.id
            );
        }
    }
}
