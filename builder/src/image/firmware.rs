//! What stands on the firmware partition: the boot loader's own files, the static configuration with
//! the trial logic, and the boot state of a device on which the first deployment is good.

use anyhow::{Context, Result};
use bsp::board::{stable_uuid, Backend, Board, Environment, Purpose, Reader, Role};
use bsp::boot::grub::{petitboot_config, static_config, GrubPlaces};
use bsp::boot::state::BootState;
use bsp::boot::uboot::fit::sealed::script_fit;
use bsp::boot::uboot::{self, DeviceTree, ScriptPlaces};
use bsp::boot::{grubenv, GOOD_PATH, STATE_PATH};
use bsp::disk::{Layout, PlacedPartition};

use super::efi_files;
use super::sources::Sources;
use crate::secure_boot::Pair;

/// Path on the partition and content of every file; `id` is the identity of the first deployment, `pair` the db key of
/// a board that starts what is signed with it.
pub fn files(
    product: &str,
    board: &Board,
    layout: &Layout,
    sources: &Sources<'_>,
    id: &str,
    source_date_epoch: u64,
    pair: Option<&Pair>,
) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for file in board.firmware_files() {
        let content = file
            .source()
            .map_err(anyhow::Error::msg)
            .and_then(|source| sources.read(source))
            .with_context(|| format!("making {} of the firmware partition", file.path))?;
        files.push((file.path.clone(), content));
    }
    files.extend(efi_files::records(board, layout, sources)?);
    let root = layout
        .partition(Role::Root)
        .context("making the firmware partition: the board has no root partition")?;
    match board.boot.backend {
        Backend::Grub => files.extend(grub(product, board, layout, id)?),
        Backend::Uboot => files.push((
            board.boot.config.clone(),
            boot_script(board, root, source_date_epoch, pair)?,
        )),
    }
    Ok(files)
}

/// The script that U-Boot finds and runs.
fn boot_script(
    board: &Board,
    root: &PlacedPartition,
    source_date_epoch: u64,
    pair: Option<&Pair>,
) -> Result<Vec<u8>> {
    let own = board.starts_own();
    let device_tree = match &board.device_trees {
        None => DeviceTree::Loader,
        Some(trees) if trees.detect => DeviceTree::Detected {
            files: trees.files().map(str::to_string).collect(),
            overlays: trees.overlay_files().collect(),
        },
        Some(trees) => DeviceTree::Deployment {
            name: Some(trees.default.clone()),
            overlays: trees.overlay_files().collect(),
        },
    };
    let script = uboot::boot_script(&ScriptPlaces {
        root_partition_number: root.number,
        environment: environment(board)?,
        arch: board.arch.clone(),
        device_tree,
        addresses: board.boot.load_addresses,
        watchdog: board.boot.watchdog_start.clone(),
        fit: board
            .boot
            .load_addresses
            .and_then(|at| at.fit)
            .filter(|_| own),
    });
    // The field of the image has 32 bits.
    let time = u32::try_from(source_date_epoch).unwrap_or(u32::MAX);
    let making = "making the image of the boot script";
    if !own {
        return uboot::image(board.boot.script, &script, time).context(making);
    }
    let pair = pair
        .context("there is no db key; `builder keys secureboot` makes it")
        .context(making)?;
    script_fit(&script, time, |message| pair.sign(message)).context(making)
}

/// The boot environment of a device on which the first deployment is good: first byte on the disk and
/// content of each copy. None where another backend keeps the state.
pub fn environment_copies(board: &Board, id: &str) -> Result<Vec<(u64, Vec<u8>)>> {
    match board.boot.backend {
        Backend::Grub => Ok(Vec::new()),
        Backend::Uboot => uboot::environment_area(&environment(board)?, &BootState::confirmed(id))
            .context("making the boot environment"),
    }
}

fn environment(board: &Board) -> Result<Environment> {
    board
        .boot
        .environment
        .with_context(|| format!("board {} has no place for its boot environment", board.id))
}

/// The static configuration of GRUB.
pub fn grub_config(product: &str, board: &Board, layout: &Layout) -> Result<String> {
    let place = |role: Role| {
        let partition = layout.partition(role);
        partition.with_context(|| format!("the board has no {} partition", role.as_str()))
    };
    let (root, firmware) = (place(Role::Root)?, place(Role::Firmware)?);
    let places = GrubPlaces {
        root_fs_uuid: stable_uuid(product, &board.id, &root.label, Purpose::Filesystem),
        root_partition_number: root.number,
        consoles: board.boot.consoles.clone(),
        sealed: board.own_grub().map(|_| firmware.number),
    };
    Ok(match board.boot.reader {
        Reader::Grub => static_config(&places),
        Reader::Petitboot => petitboot_config(&places),
    })
}

/// The static configuration and the boot state.
fn grub(product: &str, board: &Board, layout: &Layout, id: &str) -> Result<Vec<(String, Vec<u8>)>> {
    let state = BootState::confirmed(id);
    let state = grubenv::from_state(&state).context("making the boot state")?;
    let good = grubenv::from_good(id).context("making the spare record of the boot state")?;
    let mut files = vec![
        (STATE_PATH.into(), state.to_vec()),
        (GOOD_PATH.into(), good.to_vec()),
    ];
    // One's own GRUB has it inside.
    if board.own_grub().is_none() {
        let config = grub_config(product, board, layout)?.into_bytes();
        files.insert(0, (board.boot.config.clone(), config));
    }
    Ok(files)
}
