//! The ssh server: host keys are made on each device, the product's keys come with the system.

use anyhow::{bail, Result};

use super::{join, Node, Tree};

const SERVER: &str = "usr/sbin/sshd";
/// Where the product's keys stand: read-only, so that a release can change or withdraw them.
const KEYS: &str = "usr/lib/treeline/authorized_keys.d";
const KEYS_CONFIG: &str = "etc/ssh/sshd_config.d/50-treeline.conf";
const KEYGEN: &str = "usr/lib/systemd/system/sshd-keygen.service";

const KEYGEN_UNIT: &str = "[Unit]
Description=Make this device's ssh host keys
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
Before=ssh.service sshd.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/ssh-keygen -A

[Install]
WantedBy=ssh.service sshd.service
";
/// Debian's own unit waits for a first boot in systemd's sense, which a system with an empty machine id
/// does not have. An empty condition takes back all of them.
const KEYGEN_DROPIN: &str = "[Unit]
ConditionFirstBoot=
ConditionPathExists=!/etc/ssh/ssh_host_ed25519_key
";

/// Has host keys made on the device, before the server starts.
pub fn host_keys(tree: &mut Tree) -> Result<()> {
    if !tree.contains(SERVER) {
        return Ok(());
    }
    if tree.contains(KEYGEN) {
        let path = format!("{KEYGEN}.d/50-treeline.conf");
        return tree.insert(&path, Node::file(KEYGEN_DROPIN, 0o644));
    }
    tree.insert(KEYGEN, Node::file(KEYGEN_UNIT, 0o644))?;
    for server in ["ssh.service", "sshd.service"] {
        let wants = format!("usr/lib/systemd/system/{server}.wants/sshd-keygen.service");
        tree.insert(&wants, Node::symlink("../sshd-keygen.service"))?;
    }
    Ok(())
}

/// Lets the holders of these public keys in as `user`.
pub fn authorize(tree: &mut Tree, user: &str, keys: &[String]) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    if !tree.contains(SERVER) {
        bail!(
            "ssh keys are given, but no ssh server is in the tree; add the package openssh-server"
        );
    }
    let mut text = String::new();
    for key in keys {
        text.push_str(key.trim());
        text.push('\n');
    }
    tree.insert(&join(KEYS, user), Node::file(text, 0o644))?;
    let config = format!(
        "# Keys that come with the system, besides those of the user.\n\
         AuthorizedKeysFile .ssh/authorized_keys /{KEYS}/%u\n"
    );
    tree.insert(KEYS_CONFIG, Node::file(config, 0o644))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_gets_a_unit_that_makes_keys_once() {
        let mut tree = Tree::new();
        host_keys(&mut tree).unwrap();
        assert!(!tree.contains(KEYGEN));
        tree.insert(SERVER, Node::file("", 0o755)).unwrap();
        host_keys(&mut tree).unwrap();
        assert!(tree
            .read_text("usr/lib/systemd/system/ssh.service.wants/sshd-keygen.service")
            .unwrap()
            .contains("ssh-keygen -A"));
        let debian = "[Unit]\nConditionFirstBoot=yes\n";
        tree.insert(KEYGEN, Node::file(debian, 0o644)).unwrap();
        host_keys(&mut tree).unwrap();
        assert_eq!(tree.read_text(KEYGEN).unwrap(), debian);
        assert!(tree.contains("usr/lib/systemd/system/sshd-keygen.service.d/50-treeline.conf"));
    }
}
