//! Signatures in the tree, for a board that starts what is signed with the product's own keys: of the kernel for the
//! firmware, and of everything that GRUB opens.

use anyhow::{Context, Result};
use bsp::boot::grub::sealed::{boot_script, BOOT_SCRIPT_PATH, SIGNATURE_ENDING};

use super::agent::KARGS_PATH;
use super::{join, kernel, Content, Kind, Node, Tree};
use crate::secure_boot::{openpgp, pe, Pair};

/// Signs the kernel in its place, writes the script that loads it, and signs both and the initramfs for GRUB.
pub fn apply(tree: &mut Tree, kernel_version: &str, pair: &Pair) -> Result<()> {
    let dir = kernel::module_dir(kernel_version);
    let image = join(&dir, "vmlinuz");
    let signed = tree
        .read(&image)
        .and_then(|kernel| pe::sign(&kernel, pair))
        .with_context(|| format!("signing /{image}"))?;
    if let Some(node) = tree.get_mut(&image) {
        node.kind = Kind::File(Content::bytes(signed));
    }
    let kargs: Vec<String> = tree
        .read_text(KARGS_PATH)?
        .lines()
        .map(str::to_string)
        .collect();
    let script = boot_script(kernel_version, &kargs);
    tree.insert(BOOT_SCRIPT_PATH, Node::file(script, 0o644))?;
    for path in [image, join(&dir, "initramfs.img"), BOOT_SCRIPT_PATH.into()] {
        let signature = tree
            .read(&path)
            .and_then(|content| openpgp::signature(pair, &content))
            .with_context(|| format!("signing /{path}"))?;
        let place = format!("{path}{SIGNATURE_ENDING}");
        tree.insert(&place, Node::file(signature, 0o644))?;
    }
    Ok(())
}
