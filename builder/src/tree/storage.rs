//! What the device mounts and how its last partition grows.

use anyhow::{Context, Result};
use bsp::board::Role;
use bsp::disk::{repart_files, REPART_DIR};

use super::agent::part_uuid;
use super::{join, Node, Tree};
use crate::project::Merged;

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
    Ok(())
}
