//! Signatures in the tree, for a board that starts what is signed with the product's own keys: of the kernel for the
//! firmware and of everything that GRUB opens, or of everything that U-Boot starts.

use anyhow::{Context, Result};
use bsp::board::Backend;
use bsp::boot::grub::sealed::{boot_script, BOOT_SCRIPT_PATH, SIGNATURE_ENDING};
use bsp::boot::uboot::fit::sealed::{boot_fit, Boot, FIT_PATH};

use super::agent::KARGS_PATH;
use super::{join, kernel, Content, Kind, Node, Tree};
use crate::project::Merged;
use crate::secure_boot::{openpgp, pe, Pair};

/// Signs what the board starts.
pub fn apply(tree: &mut Tree, merged: &Merged, kernel_version: &str, pair: &Pair) -> Result<()> {
    match merged.board.boot.backend {
        Backend::Grub => for_grub(tree, kernel_version, pair),
        Backend::Uboot => for_uboot(tree, merged, kernel_version, pair),
    }
}

/// Writes the signed tree that says what belongs to the deployment.
fn for_uboot(tree: &mut Tree, merged: &Merged, kernel_version: &str, pair: &Pair) -> Result<()> {
    let board = &merged.board;
    let making = || format!("making /{FIT_PATH}, which U-Boot checks");
    let dir = kernel::module_dir(kernel_version);
    let loader = "board.boot.load-addresses.fit is missing";
    let addresses = board
        .boot
        .load_addresses
        .context(loader)
        .with_context(making)?;
    let fit = addresses.fit.context(loader).with_context(making)?;
    let kernel = tree.read(&join(&dir, "vmlinuz"))?;
    let ramdisk = tree.read(&join(&dir, "initramfs.img"))?;
    let device_tree = match &board.device_trees {
        Some(trees) => {
            let dir = kernel::device_tree_dir(kernel_version);
            Some(tree.read(&join(&dir, &trees.default))?)
        }
        None => None,
    };
    let arguments: Vec<String> = kernel_arguments(tree)?;
    let boot = Boot {
        arch: &board.arch,
        kernel: &kernel,
        ramdisk: &ramdisk,
        device_tree: device_tree.as_deref(),
        stateroot: &merged.product.name,
        arguments: &arguments.join(" "),
        addresses,
        fit,
    };
    let made = boot_fit(&boot, |message| pair.sign(message)).with_context(making)?;
    tree.insert(FIT_PATH, Node::file(made, 0o644))
}

fn kernel_arguments(tree: &Tree) -> Result<Vec<String>> {
    let text = tree.read_text(KARGS_PATH)?;
    Ok(text.lines().map(str::to_string).collect())
}

/// Signs the kernel in its place, writes the script that loads it, and signs both and the initramfs for GRUB.
fn for_grub(tree: &mut Tree, kernel_version: &str, pair: &Pair) -> Result<()> {
    let dir = kernel::module_dir(kernel_version);
    let image = join(&dir, "vmlinuz");
    let signed = tree
        .read(&image)
        .and_then(|kernel| pe::sign(&kernel, pair))
        .with_context(|| format!("signing /{image}"))?;
    if let Some(node) = tree.get_mut(&image) {
        node.kind = Kind::File(Content::bytes(signed));
    }
    let kargs = kernel_arguments(tree)?;
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
