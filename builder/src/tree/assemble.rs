//! From a base to the tree that is committed: one step after another on the same value.

use anyhow::{Context, Result};

use super::agent::AgentFiles;
use super::initramfs::Wanted;
use super::{
    agent, clean, emergency, hostname, initramfs, integrity, kernel, layout, loader, overlay,
    packages, seal, ssh, storage, system, sysusers, units, users, Assembled, Tree,
};
use crate::cache::Cache;
use crate::compose::BaseTar;
use crate::lock::BoardLock;
use crate::progress::Progress;
use crate::project::Merged;
use crate::secure_boot::Pair;

/// Assembles the tree. The overlay comes after what the product's description says, so that a file of
/// the product has the last word; only what is computed from the finished tree comes later. With `pair`, the db key,
/// what starts is signed for Secure Boot.
pub fn assemble(
    base: &BaseTar,
    merged: &Merged,
    lock: &BoardLock,
    agent_files: &AgentFiles,
    pair: Option<&Pair>,
    cache: &Cache,
    progress: Progress,
) -> Result<Assembled> {
    let stage = progress.stage("assemble");
    let product = &merged.product;
    let mut tree = Tree::from_tar(&base.path)?;
    packages::check(&tree, lock)?;
    layout::merge_usr(&mut tree)?;

    let locale = &product.system.locale;
    let language = locale.split(['_', '.', '@']).next().unwrap_or_default();
    clean::apply(&mut tree, &product.keep, language)?;
    let kernel_version = kernel::place(&mut tree)?;
    users::apply(&mut tree, &product.users, &product.system)?;
    emergency::apply(&mut tree)?;
    hostname::apply(&mut tree, product)?;
    system::apply(&mut tree, product, merged.board.watchdog_max_seconds)?;
    storage::apply(&mut tree, merged)?;
    agent::apply(&mut tree, merged, agent_files)?;
    loader::apply(&mut tree, merged, lock, cache, progress)?;
    let settings = integrity::settings(&tree);
    overlay::apply(&mut tree, &merged.overlays, &merged.dir)?;
    integrity::check(&tree, settings.as_deref())?;
    let device_trees = merged.board.device_trees.as_ref();
    kernel::place_device_trees(&mut tree, device_trees, &kernel_version)?;
    ssh::host_keys(&mut tree)?;
    sysusers::apply(&mut tree)?;
    units::apply(&mut tree, &product.units)?;

    stage.note("kernel modules");
    kernel::unpack(&mut tree, &kernel_version, cache)?;
    layout::apply(&mut tree).context("giving the tree OSTree's layout")?;
    stage.note("initramfs");
    let wanted = Wanted {
        modules: &merged.board.initramfs_modules,
        watchdog: &merged.board.watchdog_modules,
        watchdog_max: merged.board.watchdog_max_seconds,
    };
    initramfs::add(&mut tree, &kernel_version, wanted)?;
    if let Some(pair) = pair {
        stage.note("signatures for Secure Boot");
        seal::apply(&mut tree, merged, &kernel_version, pair)?;
    }
    stage.done(format_args!(
        "{} paths, kernel {kernel_version}",
        tree.iter().count()
    ));
    Ok(Assembled {
        tree,
        kernel_version,
    })
}
