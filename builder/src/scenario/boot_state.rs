//! Boot states that nobody of ours has written, on a running device.

use anyhow::{Context, Result};
use base64::Engine;
use bsp::board::{Backend, Board, Environment, Role};
use bsp::boot::uboot::env;
use bsp::boot::{grubenv, STATE_PATH};

use super::device::{Device, COMMAND};

/// What the boot state becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoiled {
    /// Bytes that mean nothing.
    Garbage,
    /// A sound record in the backend's format that says nothing of ours.
    Foreign,
}

/// Overwrites the boot state: the record that counts, not its spare.
pub fn spoil(device: &mut Device, board: &Board, spoiled: Spoiled) -> Result<()> {
    let command = match board.boot.backend {
        Backend::Grub => grub(board, spoiled)?,
        Backend::Uboot => {
            let environment = board
                .boot
                .environment
                .context("the board has no place for its boot environment")?;
            uboot(&environment, spoiled)?
        }
    };
    device
        .machine
        .sh_ok(&command, COMMAND)
        .map(drop)
        .context("spoiling the boot state")
}

fn grub(board: &Board, spoiled: Spoiled) -> Result<String> {
    let size = grubenv::BLOCK_SIZE;
    let content = match spoiled {
        Spoiled::Garbage => format!("head -c {size} /dev/urandom"),
        Spoiled::Foreign => format!(
            "{{ printf '# GRUB Environment Block\\nsaved_entry=debian\\n'; \
             head -c {size} /dev/zero | tr '\\0' '#'; }} | head -c {size}"
        ),
    };
    let mut partitions = board.disk.partitions.iter();
    let firmware = partitions
        .find(|partition| partition.role == Role::Firmware)
        .context("the board has no firmware partition")?;
    Ok(format!(
        "set -e; mkdir -p /run/firmware; mount -t vfat /dev/disk/by-partlabel/{} /run/firmware; \
         {content} >/run/state; dd if=/run/state of=/run/firmware/{STATE_PATH} conv=notrunc,fsync; \
         umount /run/firmware",
        firmware.label
    ))
}

/// The copy that counts is found by its flag, the byte after the checksum; both copies are sound.
fn uboot(environment: &Environment, spoiled: Spoiled) -> Result<String> {
    let (first, second, size) = (
        environment.offset.0,
        environment.redundant_offset.0,
        environment.size.0,
    );
    let content = match spoiled {
        Spoiled::Garbage => format!("head -c {size} /dev/urandom"),
        Spoiled::Foreign => {
            let variables = [("bootcmd", "run distro_bootcmd"), ("bootdelay", "2")]
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .into();
            let copy = env::render_copy(0, &variables, size)?;
            // Zeros to its end, which need not travel.
            let used = copy
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            let text = base64::engine::general_purpose::STANDARD.encode(&copy[..used]);
            // The flag is not part of the checksum: it stays the one that counts.
            format!(
                "{{ echo {text} | base64 -d; head -c {size} /dev/zero; }} | head -c {size} >/run/foreign; \
                 printf \"\\\\$(printf %03o $flag)\" | dd of=/run/foreign bs=1 seek=4 conv=notrunc 2>/dev/null; \
                 cat /run/foreign"
            )
        }
    };
    Ok(format!(
        "set -e; part=$(basename \"$(readlink -f \"$(findmnt -n -o SOURCE /sysroot)\")\"); \
         disk=/dev/$(basename \"$(dirname \"$(readlink -f /sys/class/block/$part)\")\"); \
         flag() {{ od -An -tu1 -j $(($1 + 4)) -N 1 $disk | tr -d ' '; }}; \
         a=$(flag {first}); b=$(flag {second}); place={first}; flag=$a; \
         case $a:$b in 255:0) newer=1 ;; 0:255) newer=0 ;; *) newer=$((b > a)) ;; esac; \
         if [ $newer = 1 ]; then place={second}; flag=$b; fi; \
         {{ {content}; }} >/run/state; \
         dd if=/run/state of=$disk bs=512 seek=$((place / 512)) conv=notrunc,fsync"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use bsp::board::builtin;
    use bsp::boot::state::BootState;
    use bsp::boot::store::BootStore;
    use bsp::boot::uboot::{environment_area, UbootStore};

    /// The device's commands, run here on a file in place of the disk.
    #[test]
    fn the_copy_that_counts_is_spoiled_and_the_spare_is_not() {
        let environment = builtin("qemu-aarch64").unwrap().boot.environment.unwrap();
        for spoiled in [Spoiled::Garbage, Spoiled::Foreign] {
            for writes in [0, 1] {
                let dir = tempfile::tempdir().unwrap();
                let disk = dir.path().join("disk");
                let file = std::fs::File::create(&disk).unwrap();
                file.set_len(32 << 20).unwrap();
                for (offset, copy) in
                    environment_area(&environment, &BootState::confirmed("ab")).unwrap()
                {
                    std::os::unix::fs::FileExt::write_all_at(&file, &copy, offset).unwrap();
                }
                let mut store = UbootStore::open(&disk, &environment).unwrap();
                for _ in 0..writes {
                    store.write_state(&BootState::confirmed("ab")).unwrap();
                }
                let command = uboot(&environment, spoiled).unwrap();
                let (_, work) = command.split_once("flag()").unwrap();
                let work = work.replace("/run/", &format!("{}/", dir.path().display()));
                Command::new("sh", "dash")
                    .arg("-c")
                    .arg(format!("set -e; disk={}; flag(){work}", disk.display()))
                    .run()
                    .unwrap();
                let state = store.read_state().unwrap();
                // Garbage leaves the older copy as the state; a foreign record leaves it as the spare.
                assert_eq!(state.is_some(), spoiled == Spoiled::Garbage, "{writes}");
                let good = match state {
                    Some(state) => Some(state.good),
                    None => store.read_good().unwrap(),
                };
                assert_eq!(good.as_deref(), Some("ab"), "{spoiled:?} {writes}");
            }
        }
    }
}
