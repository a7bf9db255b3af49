//! The update agent in the tree: program, units, trust roots, configuration, kernel arguments.

use std::path::PathBuf;

use anyhow::{bail, Context, Result};
use bsp::board::{partition_uuid, stable_uuid, Purpose, Role};
use bsp::device::{BootPlace, DeviceConfig, Health, Update, CA_PATH, CONFIG_PATH, ROOT_JSON_PATH};

use super::{relative_target, Content, Kind, Node, Tree};
use crate::project::Merged;

/// What the build brings for the agent besides the product's description.
#[derive(Debug, Clone)]
pub struct AgentFiles {
    /// The program, built for the board's architecture.
    pub binary: PathBuf,
    /// The trusted release root (TUF `root.json`).
    pub root_json: Vec<u8>,
    /// Commit-signing public keys, base64.
    pub commit_keys: Vec<String>,
    /// CA certificates for the update server, PEM.
    pub ca_pem: Option<Vec<u8>>,
}

/// Kernel arguments of a deployment, one a line, in the tree; the identity and `ostree=` are added per
/// deployment.
pub const KARGS_PATH: &str = "usr/lib/device-agent/kargs";
const BINARY: &str = "usr/bin/device-agent";
/// Called by libostree under this name to write the boot menu.
pub const GRUB_MENU: &str = "usr/libexec/device-agent/grub-menu";
const UNIT_DIR: &str = "usr/lib/systemd/system";
const OVERRIDE_DIR: &str = "etc/device-agent";

const UNITS: [(&str, &str); 7] = [
    (
        "device-agent-first-boot.service",
        include_str!("../../../device-agent/units/device-agent-first-boot.service"),
    ),
    // Started when there is a script.
    (
        "device-agent-first-boot-script.service",
        include_str!("../../../device-agent/units/device-agent-first-boot-script.service"),
    ),
    (
        "device-agent-judge.service",
        include_str!("../../../device-agent/units/device-agent-judge.service"),
    ),
    // Not enabled: a product does that.
    (
        "device-agent-loader.service",
        include_str!("../../../device-agent/units/device-agent-loader.service"),
    ),
    // Not enabled: the timer is.
    (
        "device-agent-resident.service",
        include_str!("../../../device-agent/units/device-agent-resident.service"),
    ),
    (
        "device-agent.service",
        include_str!("../../../device-agent/units/device-agent.service"),
    ),
    (
        "device-agent.timer",
        include_str!("../../../device-agent/units/device-agent.timer"),
    ),
];

/// Puts it all into the tree.
pub fn apply(tree: &mut Tree, merged: &Merged, files: &AgentFiles) -> Result<()> {
    tree.insert(BINARY, binary(files)?)?;
    tree.insert(GRUB_MENU, Node::symlink(relative_target(GRUB_MENU, BINARY)))?;
    for (name, text) in UNITS {
        tree.insert(&format!("{UNIT_DIR}/{name}"), Node::file(text, 0o644))?;
    }
    tree.insert(
        &format!("{UNIT_DIR}/device-agent.timer.d/50-interval.conf"),
        Node::file(timer(&merged.product.update.interval), 0o644),
    )?;
    let config =
        toml::to_string(&config(merged, files)?).context("writing the device's configuration")?;
    tree.insert(CONFIG_PATH, Node::file(config, 0o644))?;
    tree.insert(OVERRIDE_DIR, Node::dir(0o755))?;
    tree.insert(ROOT_JSON_PATH, Node::file(files.root_json.clone(), 0o644))?;
    if let Some(pem) = &files.ca_pem {
        tree.insert(CA_PATH, Node::file(pem.clone(), 0o644))?;
    }
    let mut lines = kargs(merged)?.join("\n");
    lines.push('\n');
    tree.insert(KARGS_PATH, Node::file(lines, 0o644))
}

fn binary(files: &AgentFiles) -> Result<Node> {
    let path = &files.binary;
    let len = std::fs::metadata(path)
        .with_context(|| format!("looking for the device agent at {}", path.display()))?
        .len();
    let mut node = Node::file("", 0o755);
    node.kind = Kind::File(Content::Host {
        path: path.clone(),
        len,
    });
    Ok(node)
}

/// Kernel arguments of every deployment of the product on the board. Every way to end without a running
/// system reboots, so that a trial counts.
pub fn kargs(merged: &Merged) -> Result<Vec<String>> {
    let root = label(merged, Role::Root)?;
    let root = stable_uuid(
        &merged.product.name,
        &merged.board.id,
        root,
        Purpose::Filesystem,
    );
    let mut all = vec![format!("root=UUID={root}")];
    all.extend(
        [
            "rw",
            "panic=5",
            "rd.shell=0",
            "rd.emergency=reboot",
            "systemd.crash_reboot=1",
        ]
        .map(str::to_string),
    );
    all.extend(merged.board.kernel_args.iter().cloned());
    all.extend(merged.product.kernel_args.iter().cloned());
    Ok(all)
}

/// What the kernel calls the board's partition with this role (`PARTUUID=`).
pub(super) fn part_uuid(merged: &Merged, role: Role) -> Result<String> {
    partition_uuid(&merged.product.name, &merged.board, role).with_context(|| {
        format!(
            "board `{}` has no partition with the role {role:?}",
            merged.board.id
        )
    })
}

/// Label of the board's partition with this role.
fn label(merged: &Merged, role: Role) -> Result<&str> {
    let found = merged
        .board
        .disk
        .partitions
        .iter()
        .find(|partition| partition.role == role);
    match found {
        Some(partition) => Ok(&partition.label),
        None => bail!(
            "board `{}` has no partition with the role {role:?}",
            merged.board.id
        ),
    }
}

fn config(merged: &Merged, files: &AgentFiles) -> Result<DeviceConfig> {
    let product = &merged.product;
    let defaults = Health::default();
    Ok(DeviceConfig {
        product: product.name.clone(),
        version: product.version.clone(),
        board: merged.board.id.clone(),
        stateroot: product.name.clone(),
        boot: BootPlace {
            backend: merged.board.boot.backend,
            firmware_partuuid: part_uuid(merged, Role::Firmware)?,
            environment: merged.board.boot.environment,
            tries: product.update.tries,
        },
        update: Update {
            url: product.update.url.clone(),
            channel: product.update.channel.clone(),
            automatic: product.update.automatic,
            report_url: product.update.report_url.clone(),
            pinned_keys: product.update.pinned_keys.clone(),
            client_certificate: product.update.client_certificate.clone(),
            client_key: product.update.client_key.clone(),
            client_signer: product.update.client_signer.clone(),
            proxy: product.update.proxy.clone(),
            delta_time: product.update.delta_time,
        },
        commit_keys: files.commit_keys.clone(),
        health: Health {
            deadline_seconds: product
                .health
                .deadline_seconds
                .unwrap_or(defaults.deadline_seconds),
            settle_seconds: product
                .health
                .settle_seconds
                .unwrap_or(defaults.settle_seconds),
            units: product.health.units.clone(),
            checks: product.health.checks.clone(),
        },
    })
}

/// Drop-in of the timer: an interval counts from the last check, anything else is a calendar. An empty
/// value takes back all that the unit's own file says.
fn timer(interval: &str) -> String {
    let is_span = interval.split_whitespace().all(|word| {
        word.starts_with(|c: char| c.is_ascii_digit())
            && word.chars().all(|c| c.is_ascii_alphanumeric())
    });
    if is_span {
        format!("[Timer]\nOnUnitActiveSec=\nOnBootSec=3min\nOnUnitActiveSec={interval}\n")
    } else {
        format!("[Timer]\nOnUnitActiveSec=\nOnCalendar={interval}\nPersistent=yes\n")
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::merged;
    use super::*;
    use crate::command::Command;

    fn files(dir: &std::path::Path) -> AgentFiles {
        let binary = dir.join("agent");
        std::fs::write(&binary, "#!").unwrap();
        AgentFiles {
            binary,
            root_json: b"{}".to_vec(),
            commit_keys: vec!["k".into()],
            ca_pem: Some(b"pem".to_vec()),
        }
    }

    #[test]
    fn the_agent_can_read_what_is_written_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut tree = Tree::new();
        let merged = merged(
            "[update]\nurl = \"https://u/\"\ntries = 5\n[health]\nunits = [\"a.service\"]\n",
        );
        apply(&mut tree, &merged, &files(dir.path())).unwrap();
        let config: DeviceConfig = toml::from_str(&tree.read_text(CONFIG_PATH).unwrap()).unwrap();
        assert_eq!((config.product.as_str(), config.boot.tries), ("demo", 5));
        assert_eq!(config.health.units, ["a.service"]);
        assert_eq!(config.health.deadline_seconds, 600);
        assert_eq!(tree.resolve(GRUB_MENU).as_deref(), Some(BINARY));
        assert_eq!(tree.read(CA_PATH).unwrap(), b"pem");
    }

    #[test]
    fn kernel_arguments_name_the_root_and_reboot_on_failure() {
        let merged = merged("kernel-args = [\"quiet\"]\n");
        let args = kargs(&merged).unwrap();
        let uuid = stable_uuid("demo", "x86_64-uefi", "root", Purpose::Filesystem);
        assert_eq!(args[0], format!("root=UUID={uuid}"));
        for arg in [
            "rw",
            "panic=5",
            "systemd.crash_reboot=1",
            "console=ttyS0,115200",
        ] {
            assert!(args.iter().any(|a| a == arg), "{arg}");
        }
        assert_eq!(args.last().map(String::as_str), Some("quiet"));
    }

    #[test]
    fn systemd_takes_the_units_and_every_kind_of_interval() {
        let dir = tempfile::tempdir().unwrap();
        for interval in ["1h", "1h 30min", "daily", "*-*-* 03:00:00"] {
            for (name, text) in UNITS {
                // The programs are on the device, not here.
                let text = text
                    .replace("/usr/bin/device-agent", "/bin/true")
                    .replace("=/var/lib/device-agent/first-boot-script", "=/bin/true");
                std::fs::write(dir.path().join(name), text).unwrap();
            }
            let dropin = dir.path().join("device-agent.timer.d");
            std::fs::create_dir_all(&dropin).unwrap();
            std::fs::write(dropin.join("50-interval.conf"), timer(interval)).unwrap();
            Command::new("systemd-analyze", "systemd")
                .args(["verify", "--man=no"])
                .args(UNITS.map(|(name, _)| dir.path().join(name)))
                .run()
                .unwrap();
        }
    }
}
