//! From names to exact packages: what the product and its board ask for, solved by apt.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use bsp::board::Board;

use super::apt::{Apt, SuiteLine};
use super::archive::Archive;
use super::parse::{self, Stanza, Uri};
use super::suites::suite_lines;
use super::{BoardLock, LockedBase, LockedFile, LockedPackage, INITRAMFS_STAND_IN};
use crate::cache::{sha256_file, Cache, Inputs};
use crate::image::core_image;
use crate::manifest::nearest;
use crate::progress::Progress;
use crate::project::Merged;

/// Packages of every tree made from a suite, besides the essential ones and the board's.
pub const BASE_PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "systemd-repart",
    "systemd-timesyncd",
    // Without it nothing writes /etc/resolv.conf, and the agent finds no server by name.
    "systemd-resolved",
    "udev",
    "dbus",
    "kmod",
    "ostree",
    "ostree-boot",
    "busybox",
    "e2fsprogs",
    "iproute2",
    "login",
    "ca-certificates",
    "netbase",
    "tzdata",
];

/// `mke2fs` and what it needs to read a tar. From the product's suite, so that the bytes of an image do not
/// depend on the machine that makes it.
const TOOLS: &[&str] = &["e2fsprogs", "libarchive13t64"];

/// Packages whose programs do the same on every architecture: while packages of another architecture are
/// installed, this machine's builds of them run in place of the tree's. Needed besides: dpkg-deb.
pub const HELPERS: &[&str] = &[
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "mawk",
    "perl-base",
    "sed",
    "tar",
];

/// Architecture of the machines that `builder` runs on. Fixed, so that a lock means the same everywhere.
const TOOLS_ARCH: &str = "amd64";

/// Debian's archive keys, from the package debian-archive-keyring.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Essential packages without apt, which counts itself among them.
const ESSENTIAL: &str = "?and(?essential, ?not(?exact-name(apt)))";

/// Finds out exactly what a product is made of on a board, from the archive as it is now.
pub fn resolve(merged: &Merged, cache: &Cache, progress: Progress) -> Result<BoardLock> {
    let stage = progress.stage("resolve");
    let base = locked_base(merged)?;
    ensure!(
        Path::new(KEYRING).exists(),
        "checking the archive's signatures: {KEYRING} is missing; install the Debian package debian-archive-keyring"
    );
    let archive = Archive::of(merged)?;
    let lines = suite_lines(merged, &archive, &format!("signed-by={KEYRING}"));
    let lock = with_archive(merged, &archive, lines, base, cache, |text| {
        stage.note(text)
    })?;
    stage.done(format_args!(
        "{} packages, {} for the boot loader, {} for tools",
        lock.packages.len(),
        lock.firmware.len(),
        lock.tools.len()
    ));
    Ok(lock)
}

fn with_archive(
    merged: &Merged,
    archive: &Archive,
    lines: Vec<SuiteLine>,
    base: Option<LockedBase>,
    cache: &Cache,
    note: impl Fn(&'static str),
) -> Result<BoardLock> {
    let arch = &merged.board.arch;
    note("package lists");
    let apt = open(cache, &lines, arch)?;
    apt.update()?;
    let mut lock = BoardLock {
        suites: apt.suites()?,
        base,
        files: user_files(merged)?,
        ..BoardLock::default()
    };
    if lock.base.is_none() {
        note("packages");
        lock.packages = tree(merged, archive, &apt)?;
    }
    note("boot loader");
    lock.firmware = firmware(merged, archive, &apt)?;
    note("tools");
    if arch == TOOLS_ARCH {
        lock.tools = programs(&apt, archive, &tools(&merged.board))?;
    } else {
        let apt = open(cache, &lines, TOOLS_ARCH)?;
        apt.update()?;
        lock.tools = programs(&apt, archive, &tools(&merged.board))?;
        if lock.base.is_none() {
            lock.helpers = programs(&apt, archive, HELPERS)?;
        }
    }
    Ok(lock)
}

/// Packages of the tools that write a board's image.
fn tools(board: &Board) -> Vec<&'static str> {
    let grub = board.boot.core.is_some() || board.own_grub().is_some();
    let grub = grub.then_some(core_image::PACKAGE);
    TOOLS.iter().copied().chain(grub).collect()
}

/// Packages with programs that the builder runs, and all that they need.
fn programs(apt: &Apt, archive: &Archive, names: &[&str]) -> Result<Vec<LockedPackage>> {
    let wanted: Vec<String> = names.iter().map(|name| (*name).to_string()).collect();
    let from = |_: &str| "one of the builder's tools".to_string();
    Ok(records(apt, archive, &solve(apt, &wanted, &from)?)?.0)
}

fn open(cache: &Cache, lines: &[SuiteLine], arch: &str) -> Result<Apt> {
    let mut key = Inputs::new("apt root", 1).add(arch);
    for line in lines {
        key = key.add(format!("{line:?}"));
    }
    let suite = lines.first().map_or("none", |line| line.suite.as_str());
    let key: String = key.key().chars().take(12).collect();
    Apt::open(
        &cache.path("apt", &format!("{suite}-{arch}-{key}")),
        lines.to_vec(),
        arch,
    )
}

/// The product's files that become part of the boot loader.
fn user_files(merged: &Merged) -> Result<Vec<LockedFile>> {
    let files = merged.board.user_files().into_iter();
    files
        .map(|path| {
            let sha256 = sha256_file(&merged.dir.join(path)).with_context(|| {
                format!("reading {path:?}, which board {} names", merged.board.id)
            })?;
            Ok(LockedFile {
                path: path.to_string(),
                sha256,
            })
        })
        .collect()
}

fn locked_base(merged: &Merged) -> Result<Option<LockedBase>> {
    let base = &merged.product.base;
    let (path, file) = match (&base.rootfs, &base.oci) {
        (Some(path), _) => (path, merged.dir.join(path)),
        (None, Some(path)) => (path, merged.dir.join(path).join("index.json")),
        (None, None) => return Ok(None),
    };
    let sha256 = sha256_file(&file)
        .with_context(|| format!("reading the base {path:?} named in product.toml"))?;
    Ok(Some(LockedBase {
        path: path.clone(),
        sha256,
    }))
}

fn tree(merged: &Merged, archive: &Archive, apt: &Apt) -> Result<Vec<LockedPackage>> {
    let packages = &merged.product.packages;
    let base: Vec<String> = BASE_PACKAGES
        .iter()
        .filter(|name| !packages.drop.iter().any(|dropped| dropped == *name))
        .map(|name| (*name).to_string())
        .collect();
    let asked: Vec<String> = base
        .iter()
        .chain(&merged.board.packages)
        .chain(&packages.add)
        .cloned()
        .collect();
    let from = |name: &str| whence(merged, name);
    check_names(&asked, &from)?;
    check_dropped(&packages.drop, apt)?;
    let mut wanted = vec![ESSENTIAL.to_string()];
    wanted.extend(asked);
    let solution = solve(apt, &wanted, &from)?;
    let (locked, stanzas) = records(apt, archive, &solution)?;
    for dropped in &packages.drop {
        if locked.iter().any(|package| package.name == *dropped) {
            bail!(
                "packages.drop in product.toml: {dropped} cannot be dropped: {}",
                needed_by(dropped, &stanzas)
            );
        }
    }
    Ok(locked)
}

fn firmware(merged: &Merged, archive: &Archive, apt: &Apt) -> Result<Vec<LockedPackage>> {
    let wanted: Vec<String> = merged
        .board
        .firmware_packages()
        .into_iter()
        .map(str::to_string)
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let from = |_: &str| format!("[[firmware]] of board {}", merged.board.id);
    check_names(&wanted, &from)?;
    match apt.locate(&wanted)? {
        Ok(uris) => Ok(records(apt, archive, &uris)?.0),
        Err(said) => Err(refusal(apt, &said, &from)),
    }
}

/// Which file asked for a package.
fn whence(merged: &Merged, name: &str) -> String {
    if merged.product.packages.add.iter().any(|own| own == name) {
        "packages.add in product.toml".into()
    } else if merged.board.packages.iter().any(|own| own == name) {
        format!("packages of board {}", merged.board.id)
    } else {
        "Treeline's own base list".into()
    }
}

/// A name becomes a word of apt's command line, where `x-` means removal and `?x` a pattern.
fn check_names(names: &[String], from: &dyn Fn(&str) -> String) -> Result<()> {
    for name in names {
        let plain = name.len() >= 2
            && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && !name.ends_with('-')
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
        ensure!(
            plain,
            "{}: {name:?} is not a package name (lower-case letters, digits, + - .)",
            from(name)
        );
    }
    Ok(())
}

/// Dropping a package that nobody knows is a slip.
fn check_dropped(dropped: &[String], apt: &Apt) -> Result<()> {
    let foreign: Vec<&String> = dropped
        .iter()
        .filter(|name| !BASE_PACKAGES.contains(&name.as_str()))
        .collect();
    if foreign.is_empty() {
        return Ok(());
    }
    let names = apt.names()?;
    for name in foreign {
        if !names.contains(name) {
            let hint = nearest(name, BASE_PACKAGES.iter().copied()).map_or_else(
                || format!("the base list is: {}", BASE_PACKAGES.join(" ")),
                |near| format!("did you mean {near}?"),
            );
            bail!("packages.drop in product.toml: there is no package {name}; {hint}");
        }
    }
    Ok(())
}

fn solve(apt: &Apt, wanted: &[String], from: &dyn Fn(&str) -> String) -> Result<Vec<Uri>> {
    match apt.solve(wanted)? {
        Ok(uris) => Ok(uris),
        Err(said) => Err(refusal(apt, &said, from)),
    }
}

/// Turns what apt says into what the user can mend.
fn refusal(apt: &Apt, said: &str, from: &dyn Fn(&str) -> String) -> anyhow::Error {
    let unknown = unknown_packages(said);
    if unknown.is_empty() {
        let extra = if said.contains(INITRAMFS_STAND_IN) {
            format!("\n({INITRAMFS_STAND_IN} stands for the initramfs that the builder assembles; an initramfs generator cannot be added)")
        } else {
            String::new()
        };
        return anyhow::anyhow!("these packages cannot be installed together:\n{said}{extra}");
    }
    let names = apt.names().unwrap_or_default();
    let lines: Vec<String> = unknown
        .iter()
        .map(|name| {
            let hint = nearest(name, names.iter().map(String::as_str))
                .filter(|near| near != name)
                .map(|near| format!("; did you mean {near}?"))
                .unwrap_or_default();
            format!("{}: there is no package {name}{hint}", from(name))
        })
        .collect();
    anyhow::anyhow!("{}", lines.join("\n"))
}

/// Names in apt's complaints about packages that it does not know or cannot get.
fn unknown_packages(said: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in said.lines() {
        let line = line.trim_start_matches("E: ").trim();
        let name = if let Some(rest) = line.strip_prefix("Unable to locate package ") {
            Some(rest)
        } else if line.ends_with("has no installation candidate") || line.ends_with("was not found")
        {
            line.split('\'')
                .nth(if line.starts_with("Version") { 3 } else { 1 })
        } else if line.starts_with("No packages found") || line.contains("as it has no candidate") {
            line.split('\'').nth(1)
        } else {
            None
        };
        // `pkg:arch` where apt adds the architecture.
        let name = name
            .and_then(|name| name.split(':').next())
            .map(str::to_string);
        if let Some(name) = name.filter(|name| !name.is_empty() && !found.contains(name)) {
            found.push(name);
        }
    }
    found
}

fn needed_by(name: &str, stanzas: &[Stanza]) -> String {
    let mut needing: Vec<&str> = stanzas
        .iter()
        .filter(|stanza| {
            ["Depends", "Pre-Depends"].iter().any(|field| {
                stanza
                    .get(*field)
                    .is_some_and(|value| parse::relation_names(value).any(|other| other == name))
            })
        })
        .filter_map(|stanza| stanza.get("Package").map(String::as_str))
        .collect();
    needing.sort_unstable();
    needing.dedup();
    match needing.as_slice() {
        [] => "it is essential, or asked for by the board or packages.add".into(),
        names => format!("needed by {}", names.join(", ")),
    }
}

/// Full records of a solution, sorted by name.
fn records(
    apt: &Apt,
    archive: &Archive,
    solution: &[Uri],
) -> Result<(Vec<LockedPackage>, Vec<Stanza>)> {
    let stanzas = if solution.is_empty() {
        Vec::new()
    } else {
        apt.show(solution)?
    };
    let mut by_file: BTreeMap<&str, &Stanza> = BTreeMap::new();
    for stanza in &stanzas {
        if let Some(file) = stanza.get("Filename") {
            by_file.insert(file.trim_start_matches("./"), stanza);
        }
    }
    let mut locked = Vec::with_capacity(solution.len());
    for package in solution {
        let record = || -> Result<LockedPackage> {
            let (key, path) = archive
                .locate(&package.uri)
                .with_context(|| format!("{} is in no archive of this product", package.uri))?;
            let path = path.trim_start_matches("./");
            let stanza = by_file
                .get(path)
                .with_context(|| format!("apt has no record with the file name {path}"))?;
            let field = |name: &str| {
                stanza
                    .get(name)
                    .cloned()
                    .with_context(|| format!("its record has no {name}"))
            };
            Ok(LockedPackage {
                name: field("Package")?,
                version: field("Version")?,
                arch: field("Architecture")?,
                size: field("Size")?.parse().context("its Size is no number")?,
                sha256: field("SHA256")?,
                archive: key.to_string(),
                filename: path.to_string(),
            })
        };
        locked.push(record().with_context(|| {
            format!("locking the package {} {}", package.name, package.version)
        })?);
    }
    locked.sort();
    Ok((locked, stanzas))
}

#[cfg(test)]
#[path = "resolve_test.rs"]
mod tests;
