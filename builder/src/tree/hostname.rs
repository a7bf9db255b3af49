//! The device's name. A pattern is expanded on the device: systemd does it by itself from 258 on only.

use anyhow::Result;

use super::{Node, Tree};
use crate::manifest::Product;

const HOSTNAME: &str = "etc/hostname";
const SCRIPT: (&str, &str) = ("usr/libexec/treeline/hostname", include_str!("hostname.sh"));
const UNIT: &str = "usr/lib/systemd/system/treeline-hostname.service";

/// Writes `/etc/hostname`, and for a pattern the unit that expands it.
pub fn apply(tree: &mut Tree, product: &Product) -> Result<()> {
    let name = product.system.hostname.as_ref().unwrap_or(&product.name);
    tree.insert(HOSTNAME, Node::file(format!("{name}\n"), 0o644))?;
    if !name.contains('?') {
        return Ok(());
    }
    let (path, script) = SCRIPT;
    tree.insert(path, Node::file(script, 0o755))?;
    tree.insert(UNIT, Node::file(unit(name, &product.name), 0o644))
}

/// The machine id is there from the start; `/etc` can be written once the root is. Everybody who tells
/// others the name comes later.
fn unit(pattern: &str, product: &str) -> String {
    format!(
        "[Unit]
Description=Name this device after {pattern}
DefaultDependencies=no
ConditionKernelCommandLine=!systemd.hostname
After=systemd-remount-fs.service ostree-remount.service
Wants=network-pre.target
Before=network-pre.target systemd-networkd.service systemd-hostnamed.service sysinit.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/{} {pattern} {product}

[Install]
WantedBy=sysinit.target
",
        SCRIPT.0
    )
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::command::Command;

    const ID: &str = "0123456789abcdef0123456789abcdef\n";
    const PATTERN: &str = "gw-????-x";

    fn device(stored: Option<&str>, running: &str, id: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::create_dir_all(root.join("proc/sys/kernel")).unwrap();
        fs::write(root.join("etc/machine-id"), id).unwrap();
        fs::write(root.join("proc/sys/kernel/hostname"), running).unwrap();
        if let Some(text) = stored {
            fs::write(root.join(HOSTNAME), text).unwrap();
        }
        fs::write(root.join("script"), SCRIPT.1).unwrap();
        dir
    }

    fn run(root: &Path, product: &str) -> Result<()> {
        Command::new("sh", "dash")
            .arg(root.join("script"))
            .args([PATTERN, product])
            .env("TREELINE_ROOT", root)
            .run()
    }

    /// What is stored and what is running after the script.
    fn named(stored: Option<&str>, running: &str, product: &str) -> (String, String) {
        let dir = device(stored, running, ID);
        run(dir.path(), product).unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap_or_default();
        assert!(!dir.path().join("etc/hostname.new").exists());
        (read(HOSTNAME), read("proc/sys/kernel/hostname"))
    }

    #[test]
    fn a_pattern_becomes_a_name_of_this_device() {
        let dir = tempfile::tempdir().unwrap();
        let input = dir.path().join("input");
        fs::write(&input, format!("{} demo", ID.trim())).unwrap();
        let sum = Command::new("sha256sum", "coreutils")
            .arg(&input)
            .text()
            .unwrap();
        let name = format!("gw-{}-x\n", &sum[..4]);
        for stored in [None, Some(""), Some("gw-????-x\n"), Some("gw-????-x")] {
            let (file, running) = named(stored, "gw--x\n", "demo");
            assert_eq!((&file, &running), (&name, &name), "{stored:?}");
        }
        assert_ne!(named(None, "localhost\n", "other").0, name);
    }

    #[test]
    fn a_name_that_is_there_stays() {
        // Somebody changed it on the device.
        let kept = named(Some("pump-7\n"), "pump-7\n", "demo");
        assert_eq!(kept, ("pump-7\n".into(), "pump-7\n".into()));
        // A newer systemd has expanded the pattern.
        let kept = named(Some("gw-????-x\n"), "gw-01af-x\n", "demo");
        assert_eq!(kept, ("gw-????-x\n".into(), "gw-01af-x\n".into()));
    }

    #[test]
    fn without_an_identity_there_is_no_name() {
        for id in ["", "uninitialized\n"] {
            let dir = device(Some("gw-????-x\n"), "gw--x\n", id);
            let error = format!("{:#}", run(dir.path(), "demo").unwrap_err());
            assert!(error.contains("/etc/machine-id"), "{error}");
        }
    }

    #[test]
    fn only_a_pattern_needs_the_unit_and_systemd_takes_it() {
        let text = "name = \"demo\"\nversion = \"1\"\nbase = { suite = \"trixie\" }\n[system]\n";
        let tree = |hostname: &str| {
            let mut tree = Tree::new();
            let product = toml::from_str(&format!("{text}hostname = \"{hostname}\"\n")).unwrap();
            apply(&mut tree, &product).unwrap();
            tree
        };
        assert!(!tree("gw").contains(UNIT));
        let tree = tree(PATTERN);
        assert_eq!(tree.get(SCRIPT.0).unwrap().mode, 0o755);
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("treeline-hostname.service");
        // The program is on the device, not here.
        let here = tree
            .read_text(UNIT)
            .unwrap()
            .replace(&format!("/{}", SCRIPT.0), "/bin/true");
        fs::write(&file, here).unwrap();
        Command::new("systemd-analyze", "systemd")
            .args(["verify", "--man=no"])
            .arg(file)
            .run()
            .unwrap();
    }
}
