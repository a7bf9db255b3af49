//! Emergency and rescue mode. Debian's units ask for root's password; where there is none they would wait
//! for ever, and a device far away would be lost.

use anyhow::Result;

use super::accounts::Table;
use super::{Node, Tree};

const SCRIPT: (&str, &str) = (
    "usr/libexec/treeline/emergency",
    include_str!("emergency.sh"),
);
const UNITS: [&str; 2] = ["emergency.service", "rescue.service"];
/// Straight to the console: the journal may be what is broken. The type stays `idle`, so that the target is
/// reached at once, and a judge that sees it ends the trial without waiting for the minute.
const DROPIN: &str = "[Unit]
FailureAction=reboot

[Service]
ExecStartPre=
ExecStart=
ExecStart=/usr/libexec/treeline/emergency 60
StandardInput=null
StandardOutput=tty
StandardError=tty
KillMode=control-group
";

/// Lets a device on which root cannot log in reboot instead of waiting. With a password of root's, what
/// Debian ships stays.
pub fn apply(tree: &mut Tree) -> Result<()> {
    if !root_is_locked(tree)? {
        return Ok(());
    }
    let (path, script) = SCRIPT;
    tree.insert(path, Node::file(script, 0o755))?;
    for unit in UNITS {
        let path = format!("usr/lib/systemd/system/{unit}.d/50-treeline.conf");
        tree.insert(&path, Node::file(DROPIN, 0o644))?;
    }
    Ok(())
}

/// A hash never begins with these (shadow(5)).
fn root_is_locked(tree: &Tree) -> Result<bool> {
    let shadow = Table::shadow(tree)?;
    let password = shadow.row("root").and_then(|row| row.get(1));
    Ok(password.is_none_or(|hash| hash.starts_with(['*', '!'])))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::command::Command;

    fn tree(password: &str) -> Tree {
        let mut tree = Tree::new();
        let shadow = format!("root:{password}::0:99999:7:::\n");
        tree.insert("etc/shadow", Node::file(shadow, 0o640))
            .unwrap();
        apply(&mut tree).unwrap();
        tree
    }

    fn dropin(unit: &str) -> String {
        format!("usr/lib/systemd/system/{unit}.d/50-treeline.conf")
    }

    #[test]
    fn only_a_locked_root_makes_it_reboot() {
        for (password, reboots) in [("*", true), ("!", true), ("!*", true), ("$y$h", false)] {
            let tree = tree(password);
            assert_eq!(tree.contains(SCRIPT.0), reboots, "{password}");
            for unit in UNITS {
                assert_eq!(tree.contains(&dropin(unit)), reboots, "{password} {unit}");
            }
        }
    }

    #[test]
    fn systemd_takes_the_dropins() {
        let tree = tree("*");
        for unit in UNITS {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join(unit);
            // What is left of Debian's units, whose paths differ between releases.
            fs::write(
                &file,
                "[Unit]\nDefaultDependencies=no\n[Service]\nType=idle\nStandardInput=tty-force\nExecStart=-/nonexistent/shell\n",
            )
            .unwrap();
            fs::create_dir(dir.path().join(format!("{unit}.d"))).unwrap();
            let text = tree
                .read_text(&dropin(unit))
                .unwrap()
                .replace(&format!("/{}", SCRIPT.0), "/bin/true");
            fs::write(dir.path().join(format!("{unit}.d/50-treeline.conf")), text).unwrap();
            Command::new("systemd-analyze", "systemd")
                .args(["verify", "--man=no"])
                .arg(file)
                .run()
                .unwrap();
        }
    }

    #[test]
    fn it_says_why_before_it_reboots() {
        let dir = tempfile::tempdir().unwrap();
        let stand_in = "#!/bin/sh\necho \"${0##*/} $*\"\n";
        for name in ["systemctl", "journalctl"] {
            let path = dir.path().join(name);
            fs::write(&path, stand_in).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let path = format!("{}:/usr/bin:/bin", dir.path().display());
        let script = dir.path().join("script");
        fs::write(&script, SCRIPT.1).unwrap();
        let said = Command::new("sh", "dash")
            .arg(script)
            .arg("0")
            .env("PATH", path)
            .text()
            .unwrap();
        let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("{text}: {said}"));
        assert!(at("systemctl list-units --failed") < at("journalctl --boot"));
        assert!(at("journalctl --boot") < at("Rebooting in 0 s"));
        assert!(said.ends_with("systemctl --no-block reboot"), "{said}");
    }
}
