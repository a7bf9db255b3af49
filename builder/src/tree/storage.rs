//! What the device mounts and how its last partition grows.

use anyhow::{Context, Result};
use bsp::board::{disk_uuid, Role};
use bsp::boot::uboot::fw_env_config;
use bsp::disk::{repart_files, REPART_ARGUMENTS, REPART_DIR};

use super::agent::part_uuid;
use super::{join, Node, Tree};
use crate::project::Merged;

/// Name below `/dev` of the disk with the boot environment.
const DISK_LINK: &str = "treeline-disk";
/// Behind the rules that read the partition table (60-persistent-storage).
const DISK_RULE: &str = "usr/lib/udev/rules.d/61-treeline-disk.rules";

/// How the disk is grown, in place of the unit's own command.
const REPART_DROPIN: &str = "usr/lib/systemd/system/systemd-repart.service.d/50-treeline.conf";

/// Writes `/etc/fstab` and the files of systemd-repart.
pub fn apply(tree: &mut Tree, merged: &Merged) -> Result<()> {
    let guid = part_uuid(merged, Role::Data)?;
    // The root file system is mounted by the initramfs; libostree looks after the rest.
    let fstab = format!("PARTUUID={guid} /var ext4 defaults,noatime,x-systemd.growfs 0 2\n");
    tree.insert("etc/fstab", Node::file(fstab, 0o644))?;
    let files = repart_files(&merged.board)
        .with_context(|| format!("describing the disk of board `{}`", merged.board.id))?;
    for (name, text) in files {
        tree.insert(&join(REPART_DIR, &name), Node::file(text, 0o644))?;
    }
    let arguments = REPART_ARGUMENTS.join(" ");
    let dropin = format!("[Service]\nExecStart=\nExecStart=systemd-repart {arguments}\n");
    tree.insert(REPART_DROPIN, Node::file(dropin, 0o644))?;
    environment(tree, merged)
}

/// Lets `fw_printenv` and `fw_setenv` find the boot environment: the disk has a link of its own, because
/// its name depends on the board and on what else is plugged in.
fn environment(tree: &mut Tree, merged: &Merged) -> Result<()> {
    let Some(place) = &merged.board.boot.environment else {
        return Ok(());
    };
    let disk = disk_uuid(&merged.product.name, &merged.board);
    let rule = format!(
        "# The disk that holds the boot environment; fw_env.config names it.\n\
         SUBSYSTEM==\"block\", ENV{{DEVTYPE}}==\"disk\", ENV{{ID_PART_TABLE_UUID}}==\"{disk}\", SYMLINK+=\"{DISK_LINK}\"\n"
    );
    tree.insert(DISK_RULE, Node::file(rule, 0o644))?;
    let config = fw_env_config(&format!("/dev/{DISK_LINK}"), place);
    tree.insert("etc/fw_env.config", Node::file(config, 0o644))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::project::Project;

    #[test]
    fn a_u_boot_board_finds_its_environment() {
        let text = "name = \"demo\"\nversion = \"1\"\n[base]\nsuite = \"trixie\"\n";
        let dir = Path::new("/nonexistent");
        let project = Project {
            dir: dir.into(),
            product: crate::manifest::parse("product.toml", text, dir).unwrap(),
        };
        let merged = project.merged(&project.board("qemu-aarch64").unwrap());
        let mut tree = Tree::new();
        apply(&mut tree, &merged).unwrap();
        let config = tree.read_text("etc/fw_env.config").unwrap();
        assert!(
            config.contains(
                "/dev/treeline-disk 0x400000 0x4000\n/dev/treeline-disk 0xc00000 0x4000\n"
            ),
            "{config}"
        );
        let rule = tree.read_text(DISK_RULE).unwrap();
        assert!(rule.contains(&disk_uuid("demo", &merged.board)), "{rule}");
        let merged = project.merged(&project.board("x86_64-uefi").unwrap());
        let mut tree = Tree::new();
        apply(&mut tree, &merged).unwrap();
        assert!(!tree.contains("etc/fw_env.config") && !tree.contains(DISK_RULE));
    }
}
