//! What stands on the firmware partition: the boot loader's own files, the static configuration with
//! the trial logic, and the boot state of a device on which the first deployment is good.

use std::path::PathBuf;

use anyhow::{bail, Context, Result};
use bsp::board::{stable_uuid, Backend, Board, Purpose, Role};
use bsp::boot::grub::{static_config, GrubPlaces};
use bsp::boot::state::BootState;
use bsp::boot::{grubenv, GOOD_PATH, STATE_PATH};
use bsp::disk::Layout;

/// Path on the partition and content of every file. `unpacked` are the unpacked firmware packages by
/// name, `id` the identity of the first deployment.
pub fn files(
    product: &str,
    board: &Board,
    layout: &Layout,
    unpacked: &[(String, PathBuf)],
    id: &str,
) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for file in &board.firmware {
        let Some((_, dir)) = unpacked.iter().find(|(name, _)| *name == file.package) else {
            bail!(
                "making the firmware partition: package {} is not locked; run `builder update-lock`",
                file.package
            );
        };
        let from = dir.join(&file.file);
        let content = std::fs::read(&from).with_context(|| {
            format!(
                "making the firmware partition: reading {} of package {}; the board file names it",
                file.file, file.package
            )
        })?;
        files.push((file.path.clone(), content));
    }
    let root = layout
        .partition(Role::Root)
        .context("making the firmware partition: the board has no root partition")?;
    match board.boot.backend {
        Backend::Grub => files.push((
            board.boot.config.clone(),
            static_config(&GrubPlaces {
                root_fs_uuid: stable_uuid(product, &board.id, &root.label, Purpose::Filesystem),
                root_partition_number: root.number,
                consoles: board.boot.consoles.clone(),
            })
            .into_bytes(),
        )),
        Backend::Uboot => {
            bail!("making the firmware partition: the U-Boot backend is not built in yet")
        }
    }
    let state = BootState::confirmed(id);
    let state = grubenv::from_state(&state).context("making the boot state")?;
    let good = grubenv::from_good(id).context("making the spare record of the boot state")?;
    files.push((STATE_PATH.into(), state.to_vec()));
    files.push((GOOD_PATH.into(), good.to_vec()));
    Ok(files)
}
