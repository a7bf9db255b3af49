//! Whether the initramfs of a board has every driver between its kernel and its card slots and eMMCs: device trees tell
//! what waits for what, and the modules by which compatible devices they are known.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use bsp::board::Board;
use treeline_tests::run;

use super::device_tree::Tree;

/// Drivers of parts of a device that the tree does not list as devices of their own.
const PARTS: [(&str, &str); 2] = [
    ("x-powers,axp", "axp20x_regulator"),
    ("rockchip,rk80", "rk808_regulator"),
];

/// The modules of a kernel package.
pub struct Modules {
    /// By compatible device.
    by_device: BTreeMap<String, BTreeSet<String>>,
    /// What each needs, itself too.
    needs: BTreeMap<String, BTreeSet<String>>,
}

impl Modules {
    /// Reads what `depmod` finds out about an unpacked package.
    pub fn of(package: &Path, out: &Path) -> Self {
        let modules = package.join("usr/lib/modules");
        let version = fs::read_dir(&modules).unwrap().next().unwrap().unwrap();
        let version = version.file_name();
        // depmod writes where it reads, and the package is not ours to change.
        let made = out.join("lib/modules").join(&version);
        fs::create_dir_all(&made).unwrap();
        for entry in fs::read_dir(modules.join(&version)).unwrap() {
            let path = entry.unwrap().path();
            symlink(&path, made.join(path.file_name().unwrap())).unwrap();
        }
        run(Command::new("depmod").arg("-b").arg(out).arg(&version)).unwrap();
        let text = |name: &str| fs::read_to_string(made.join(name)).unwrap();
        let mut by_device: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for line in text("modules.alias").lines() {
            let mut words = line.split(' ').skip(1);
            let (Some(alias), Some(module)) = (words.next(), words.next()) else {
                continue;
            };
            if let Some((_, device)) = alias.split_once("of:N*T*C") {
                let device = device.trim_end_matches("C*");
                by_device
                    .entry(device.into())
                    .or_default()
                    .insert(module.into());
            }
        }
        let needs = text("modules.dep");
        let needs = needs.lines().filter_map(|line| {
            let (module, needs) = line.split_once(':')?;
            let all = needs.split_whitespace().chain([module]);
            Some((name(module), all.map(name).collect()))
        });
        Self {
            by_device,
            needs: needs.collect(),
        }
    }

    /// Everything that is loaded with these.
    fn with_needs(&self, modules: &[String]) -> BTreeSet<String> {
        let own = modules.iter().cloned();
        let needs = modules.iter().filter_map(|module| self.needs.get(module));
        own.chain(needs.flatten().cloned()).collect()
    }
}

fn name(path: &str) -> String {
    let file = PathBuf::from(path);
    let file = file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    file.split(".ko")
        .next()
        .unwrap_or_default()
        .replace('-', "_")
}

/// Judges one of the board's device trees.
pub fn judge(board: &Board, modules: &Modules, file: &str, content: &[u8]) {
    let tree = Tree::read(content);
    let loaded = modules.with_needs(&board.initramfs_modules);
    let controllers = (0..tree.nodes.len()).filter(|node| is_disk(&tree, *node));
    let mut disks = 0;
    for controller in controllers {
        disks += 1;
        for device in tree.needed_by(controller) {
            for wanted in drivers(&tree, device, modules) {
                assert!(
                    wanted.iter().any(|module| loaded.contains(module)),
                    "{}: {} of {file} waits for {}, but initramfs-modules has none of {wanted:?}",
                    board.id,
                    tree.nodes[controller].name,
                    tree.nodes[device].name
                );
            }
        }
    }
    assert!(
        disks > 0,
        "{}: {file} has no card slot and no eMMC",
        board.id
    );
}

/// A controller with a slot or an eMMC; one with a Wi-Fi chip says so.
fn is_disk(tree: &Tree, node: usize) -> bool {
    let name = |name: &str| name.split('@').next().unwrap_or_default().to_string();
    let wireless = [
        "wifi",
        "wlan",
        "brcmf",
        "bcrmf",
        "sdio_wifi",
        "xr819",
        "wlcore",
    ];
    matches!(name(&tree.nodes[node].name).as_str(), "mmc" | "sdhci")
        && !tree.nodes[node].compatible().is_empty()
        && tree.is_enabled(node)
        && !tree
            .children(node)
            .any(|child| wireless.contains(&name(&child.name).as_str()))
}

/// Modules that drive a device, each list one of which will do; none if it is built in.
fn drivers(tree: &Tree, device: usize, modules: &Modules) -> Vec<Vec<String>> {
    let compatible = tree.nodes[device].compatible();
    // The machine as a whole, and a bus that only groups others.
    if tree.nodes[device].parent.is_none() || compatible.iter().any(|c| c == "simple-bus") {
        return Vec::new();
    }
    let own = compatible.iter().find_map(|c| modules.by_device.get(c));
    let own = own.map(|own| own.iter().cloned().collect());
    let parts = PARTS
        .iter()
        .filter(|(device, _)| compatible.iter().any(|c| c.starts_with(device)));
    own.into_iter()
        .chain(parts.map(|(_, module)| vec![(*module).to_string()]))
        .collect()
}
