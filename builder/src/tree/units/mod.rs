//! Enabling, disabling and masking of systemd units, as `systemctl` would do it on the device, by reading
//! their `[Install]` sections. Links stand in `/etc/systemd/system`, so that an administrator can change
//! them on a device.

use std::collections::BTreeSet;

use anyhow::{bail, Context, Result};

use super::{file_name, join, Node, Tree};
use crate::manifest::{nearest, Units};

mod install;

use install::{Install, Name};

const CONFIGURED: &str = "etc/systemd/system";
const SHIPPED: &str = "usr/lib/systemd/system";

/// Enabled on every device, where they are installed.
const ENABLED: [&str; 8] = [
    "device-agent-first-boot.service",
    "device-agent-judge.service",
    "device-agent.timer",
    "ostree-remount.service",
    "systemd-networkd.service",
    "systemd-resolved.service",
    "systemd-timesyncd.service",
    "treeline-hostname.service",
];
/// Masked unless the product names them: they ask questions at the first boot, work on what updates
/// replace, or (ldconfig) would leave a device with the library cache of its first release.
const MASKED: [&str; 7] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "ldconfig.service",
    "systemd-firstboot.service",
];

/// Generators that guess: at mounts (the disk's layout is known, and the firmware partition is never
/// mounted), and at further ways in by ssh.
const MASKED_GENERATORS: [&str; 2] = ["systemd-gpt-auto-generator", "systemd-ssh-generator"];
const GENERATORS: &str = "system-generators";

/// Applies Treeline's defaults, then the product's wishes.
pub fn apply(tree: &mut Tree, units: &Units) -> Result<()> {
    let named = |unit: &str| {
        [&units.enable, &units.disable, &units.mask]
            .iter()
            .any(|list| list.iter().any(|name| name == unit))
    };
    for unit in ENABLED {
        if !named(unit) && find(tree, unit).is_some() {
            enable(tree, unit)?;
        }
    }
    for unit in MASKED {
        if !named(unit) && find(tree, unit).is_some() {
            disable(tree, unit)?;
            mask(tree, unit)?;
        }
    }
    for generator in MASKED_GENERATORS {
        if tree.contains(&format!("usr/lib/systemd/{GENERATORS}/{generator}")) {
            let path = format!("etc/systemd/{GENERATORS}/{generator}");
            tree.insert(&path, Node::symlink("/dev/null"))?;
        }
    }
    for unit in &units.enable {
        enable(tree, unit)?;
    }
    for unit in &units.disable {
        known(tree, unit).with_context(|| format!("disabling {unit}"))?;
        disable(tree, unit)?;
    }
    for unit in &units.mask {
        known(tree, unit).with_context(|| format!("masking {unit}"))?;
        disable(tree, unit)?;
        mask(tree, unit)?;
    }
    Ok(())
}

/// Enables a unit and those its `Also=` names.
pub fn enable(tree: &mut Tree, unit: &str) -> Result<()> {
    let mut done = BTreeSet::new();
    let mut open = vec![unit.to_string()];
    while let Some(next) = open.pop() {
        if !done.insert(next.clone()) {
            continue;
        }
        let first = next == unit;
        let install = enable_one(tree, &next, first).with_context(|| format!("enabling {unit}"))?;
        // What a unit names besides itself may belong to a package that is not installed.
        open.extend(
            install
                .also
                .into_iter()
                .filter(|also| find(tree, also).is_some()),
        );
    }
    Ok(())
}

fn enable_one(tree: &mut Tree, unit: &str, strict: bool) -> Result<Install> {
    let path = known(tree, unit)?;
    let install = Install::parse(&tree.read_text(&path)?);
    // A drop-in of the overlay may add to it.
    let install = dropins(tree, unit)?
        .into_iter()
        .fold(install, Install::with);
    if strict && install.is_empty() {
        bail!("{unit} has no [Install] section: other units start it; leave it out, or give it one by a drop-in of the overlay");
    }
    let name = Name::parse(unit);
    let instance = match (name.is_template(), &install.default_instance) {
        (true, Some(instance)) => name.with_instance(instance),
        (true, None) if strict && install.wants_links() => bail!(
            "{unit} is a template; name an instance, e.g. {}",
            name.with_instance("name").text()
        ),
        _ => name,
    };
    let target = format!("/{path}");
    for alias in &install.alias {
        let alias = instance.expand(alias);
        if alias != unit {
            link(tree, &alias, &target)?;
        }
    }
    if instance.is_template() {
        return Ok(install);
    }
    for (suffix, wanting) in [
        ("wants", &install.wanted_by),
        ("requires", &install.required_by),
        ("upholds", &install.upheld_by),
    ] {
        for other in wanting {
            let dir = format!("{}.{suffix}", instance.expand(other));
            link(tree, &join(&dir, &instance.text()), &target)?;
        }
    }
    // An enabled unit cannot stay masked.
    let masked = join(CONFIGURED, unit);
    if tree.get(&masked).and_then(Node::link_target) == Some("/dev/null") {
        tree.remove(&masked);
    }
    Ok(install)
}

fn link(tree: &mut Tree, name: &str, target: &str) -> Result<()> {
    tree.insert(&join(CONFIGURED, name), Node::symlink(target))
}

/// Takes away all links to the unit; those that packages ship in `/usr` stay (mask the unit then).
fn disable(tree: &mut Tree, unit: &str) -> Result<()> {
    let links: Vec<String> = tree
        .below(CONFIGURED)
        .filter(|(path, node)| {
            node.link_target().is_some_and(|target| {
                let is_alias = file_name(target) == unit && target != "/dev/null";
                file_name(path) == unit && path.matches('/').count() > 3 || is_alias
            })
        })
        .map(|(path, _)| path.to_string())
        .collect();
    for path in links {
        tree.remove(&path);
    }
    Ok(())
}

fn mask(tree: &mut Tree, unit: &str) -> Result<()> {
    let path = join(CONFIGURED, unit);
    if tree.get(&path).is_some_and(Node::is_file) {
        bail!("masking {unit}: /{path} is a file of the overlay; leave it out there");
    }
    tree.insert(&path, Node::symlink("/dev/null"))
}

/// The path of a unit's file; of its template for an instance.
fn find(tree: &Tree, unit: &str) -> Option<String> {
    let template = Name::parse(unit).template();
    [Some(unit.to_string()), template]
        .into_iter()
        .flatten()
        .flat_map(|name| [join(CONFIGURED, &name), join(SHIPPED, &name)])
        .find(|path| {
            // A link is an alias: it leads to the unit; a mask leads nowhere.
            tree.follow(path).is_some_and(Node::is_file)
        })
}

fn known(tree: &Tree, unit: &str) -> Result<String> {
    if let Some(path) = find(tree, unit) {
        return Ok(path);
    }
    let names: BTreeSet<&str> = [CONFIGURED, SHIPPED]
        .iter()
        .flat_map(|dir| tree.children(dir))
        .filter(|(name, node)| node.is_file() && name.contains('.'))
        .map(|(name, _)| name)
        .collect();
    match nearest(unit, names.iter().copied()) {
        Some(near) => bail!("there is no unit {unit} in the tree; did you mean {near}?"),
        None => bail!(
            "there is no unit {unit} in the tree; add the package that brings it, or put it into the overlay as /{CONFIGURED}/{unit}"
        ),
    }
}

fn dropins(tree: &Tree, unit: &str) -> Result<Vec<Install>> {
    let mut found = Vec::new();
    for dir in [SHIPPED, CONFIGURED] {
        let dir = format!("{dir}/{unit}.d");
        for (name, node) in tree.children(&dir) {
            if name.ends_with(".conf") && node.is_file() {
                found.push(Install::parse(&tree.read_text(&join(&dir, name))?));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
