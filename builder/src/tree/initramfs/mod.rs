//! The initramfs, assembled from the tree's own files: busybox and `ostree-prepare-root` with the
//! libraries they need, the board's modules, one `/init`. Nothing of the tree runs for it, so it is made
//! the same way for every architecture, in a second, with the same bytes.

use anyhow::{Context, Result};

use super::integrity::PREPARE_ROOT_CONF;
use super::kernel::{module_dir, Modules};
use super::{file_name, join, Kind, Node, Tree};

mod cpio;
mod elf;

use elf::Libraries;

const INIT: &str = include_str!("init.sh");
const BUSYBOX: &str = "usr/bin/busybox";
/// What arranges a deployment as the root file system.
pub const PREPARE_ROOT: &str = "usr/lib/ostree/ostree-prepare-root";
/// What `/init` calls; all of them are applets of Debian's busybox.
const APPLETS: [&str; 8] = [
    "findfs",
    "insmod",
    "mount",
    "reboot",
    "sh",
    "sleep",
    "switch_root",
    "usleep",
];
/// List of modules to load: path and parameters a line, in order. `/init` reads it.
const MODULE_LIST: &str = "usr/lib/modules/load";
/// Seconds that the hardware watchdog gives the boot until systemd takes it over.
const WATCHDOG_SECONDS: u32 = 120;
/// What watchdog drivers call that time; each knows one of them.
const WATCHDOG_PARAMETERS: [&str; 4] = ["heartbeat", "timeout", "soft_margin", "timer_margin"];

/// What the initramfs of a board loads.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Modules by name, in order.
    pub modules: &'a [String],
    /// Modules of the hardware watchdog; loaded first.
    pub watchdog: &'a [String],
    /// The longest time in seconds that its driver can be given, if that is short.
    pub watchdog_max: Option<u32>,
}

/// Makes the initramfs and puts it beside the kernel of `version`.
pub fn add(tree: &mut Tree, version: &str, wanted: Wanted<'_>) -> Result<()> {
    let files = collect(tree, version, wanted).context("assembling the initramfs")?;
    let image = cpio::write(&files).context("assembling the initramfs")?;
    tree.insert(
        &join(&module_dir(version), "initramfs.img"),
        Node::file(image, 0o644),
    )
}

fn collect(tree: &Tree, version: &str, wanted: Wanted<'_>) -> Result<Tree> {
    let mut files = Tree::new();
    for dir in ["dev", "proc", "run", "sys", "sysroot"] {
        files.insert(dir, Node::dir(0o755))?;
    }
    for dir in ["bin", "lib", "sbin"] {
        let merged = join("usr", dir);
        files.insert(&merged, Node::dir(0o755))?;
        files.insert(dir, Node::symlink(merged))?;
    }
    for (name, node) in tree.children("") {
        if let (true, Some("usr/lib32" | "usr/lib64" | "usr/libx32")) =
            (name.starts_with("lib"), node.link_target())
        {
            files.insert(&join("usr", name), Node::dir(0o755))?;
            files.insert(name, node.clone())?;
        }
    }
    files.insert("init", Node::file(INIT, 0o755))?;
    for applet in APPLETS {
        files.insert(&join("usr/bin", applet), Node::symlink("busybox"))?;
    }
    files.insert(
        PREPARE_ROOT_CONF,
        Node::file(tree.read(PREPARE_ROOT_CONF)?, 0o644),
    )?;
    let mut libraries = Libraries::of(tree);
    for (program, package) in [(BUSYBOX, "busybox"), (PREPARE_ROOT, "ostree-boot")] {
        libraries.add_program(program).with_context(|| {
            format!("the initramfs needs /{program} (Debian package {package})")
        })?;
    }
    for (path, bytes) in libraries.files {
        files.insert(&path, Node::file(bytes, 0o755))?;
    }
    add_modules(tree, &mut files, version, wanted)?;
    Ok(files)
}

fn add_modules(tree: &Tree, files: &mut Tree, version: &str, wanted: Wanted<'_>) -> Result<()> {
    let modules = Modules::of(tree, version)?;
    let watchdog: Vec<String> = wanted
        .watchdog
        .iter()
        .map(|m| m.replace('-', "_"))
        .collect();
    let mut list = String::new();
    let mut names = wanted.watchdog.to_vec();
    names.extend_from_slice(wanted.modules);
    for path in modules.closure(&names)? {
        let node = tree
            .follow(&path)
            .with_context(|| format!("modules.dep names /{path}, which is not there"))?;
        let Kind::File(content) = &node.kind else {
            continue;
        };
        let bytes = content.read()?;
        let name = file_name(&path).trim_end_matches(".ko").replace('-', "_");
        list.push('/');
        list.push_str(&path);
        if watchdog.contains(&name) {
            if let Some(parameter) = watchdog_parameter(&bytes) {
                let seconds = wanted
                    .watchdog_max
                    .unwrap_or(u32::MAX)
                    .min(WATCHDOG_SECONDS);
                list.push_str(&format!(" {parameter}={seconds}"));
            }
        }
        list.push('\n');
        files.insert(&path, Node::file(bytes, 0o644))?;
    }
    files.insert(MODULE_LIST, Node::file(list, 0o644))
}

/// The parameter of a watchdog driver that sets its time, as the module says (`parm=name:text` in its section
/// `.modinfo`).
fn watchdog_parameter(module: &[u8]) -> Option<&'static str> {
    WATCHDOG_PARAMETERS.into_iter().find(|name| {
        let declared = format!("parm={name}:");
        module
            .windows(declared.len())
            .any(|window| window == declared.as_bytes())
    })
}

#[cfg(test)]
mod tests;
