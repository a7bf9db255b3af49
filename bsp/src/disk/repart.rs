//! What systemd-repart must know to grow the last partition on the device (`repart.d(5)`).

use super::{gpt::partition_type, DiskError};
use crate::board::Board;

/// Directory of the files in the tree, without leading slash.
pub const REPART_DIR: &str = "usr/lib/repart.d";

/// How systemd-repart is called on the device. By default it discards what no partition covers, and there stand
/// boot loaders and the boot environment.
pub const REPART_ARGUMENTS: [&str; 2] = ["--dry-run=no", "--discard=no"];

/// The files (name, content) for [`REPART_DIR`]: one for the partition that grows, none if none does.
///
/// systemd-repart takes the existing partition of that type for the described one and grows it into
/// the free space behind it. It leaves partitions alone that no file describes.
pub fn repart_files(board: &Board) -> Result<Vec<(String, String)>, DiskError> {
    board
        .disk
        .partitions
        .iter()
        .filter(|partition| partition.grow)
        .map(|partition| {
            let kind = partition_type(partition.role, &board.arch)?;
            let content = format!("[Partition]\nType={kind}\nLabel={}\n", partition.label);
            Ok((format!("50-{}.conf", partition.label), content))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{builtin, Role, Table};
    use crate::boot::grub::core::BOOT_CODE;
    use crate::disk::{plan, write_table, TableIds, SECTOR};
    use std::os::unix::fs::FileExt;
    use std::process::Command;

    fn run(command: &mut Command, package: &str) -> String {
        let output = command
            .output()
            .unwrap_or_else(|e| panic!("{command:?}: {e}; install {package}"));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// First sector and size of every partition.
    fn partitions(image: &std::path::Path) -> Vec<(u64, u64)> {
        let dump = run(Command::new("sfdisk").arg("--dump").arg(image), "fdisk");
        let field = |line: &str, name: &str| {
            let rest = line.split_once(name)?.1;
            rest.split(',').next()?.trim().parse().ok()
        };
        dump.lines()
            .filter_map(|line| Some((field(line, "start=")?, field(line, "size=")?)))
            .collect()
    }

    fn first_sector(image: &std::path::Path) -> [u8; 512] {
        let mut sector = [0; 512];
        let mut file = std::fs::File::open(image).unwrap();
        std::io::Read::read_exact(&mut file, &mut sector).unwrap();
        sector
    }

    #[test]
    fn systemd_repart_grows_the_data_partition_and_nothing_else() {
        // A plain table, one with an MBR that shows more than protection, one with fewer entries, one with
        // entries elsewhere. One has code before the MBR and a partition more.
        for id in ["x86_64-uefi", "x86_64", "rpi4", "orangepi-pc", "wandboard"] {
            grows(id);
        }
    }

    fn grows(id: &str) {
        let dir = tempfile::tempdir().unwrap();
        let board = builtin(id).unwrap();
        let layout = plan(&board, &Default::default()).unwrap();
        let image = dir.path().join("disk.raw");
        let mut file = std::fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&image)
            .unwrap();
        file.set_len(layout.disk_bytes).unwrap();
        let ids = TableIds {
            product: "shop",
            board: &board.id,
            arch: &board.arch,
        };
        write_table(&layout, ids, &mut file).unwrap();
        // What stands before the first partition, and the code in the first sector.
        let kept = layout.partitions[0].start - SECTOR;
        file.write_all_at(&[0x5a; 512], kept).unwrap();
        file.write_all_at(&[0x5a; BOOT_CODE], 0).unwrap();
        // The image on a larger disk.
        let larger = layout.disk_bytes + (1 << 30);
        file.set_len(larger).unwrap();
        let before = partitions(&image);
        let record = first_sector(&image);
        let definitions = dir.path().join("repart.d");
        std::fs::create_dir(&definitions).unwrap();
        for (name, content) in repart_files(&board).unwrap() {
            std::fs::write(definitions.join(name), content).unwrap();
        }
        run(
            Command::new("systemd-repart")
                .args(REPART_ARGUMENTS)
                .arg("--empty=refuse")
                .arg(format!("--definitions={}", definitions.display()))
                .arg(&image),
            "systemd (Debian 13: systemd-repart)",
        );
        let after = partitions(&image);
        let mut sector = [0; 512];
        file.read_exact_at(&mut sector, kept).unwrap();
        assert!(
            sector == [0x5a; 512],
            "{id}: the space before the first partition was discarded"
        );
        let code = match board.disk.table {
            Table::Hybrid => SECTOR as usize,
            _ => BOOT_CODE,
        };
        assert!(
            first_sector(&image)[..code] == record[..code],
            "{id}: the first sector's code or the boot ROM's table has changed"
        );
        let last = before.len() - 1;
        assert_eq!(after[..last], before[..last]);
        let data = layout.partition(Role::Data).unwrap();
        assert_eq!(after[last].0 * SECTOR, data.start);
        assert!(
            after[last].1 * SECTOR > data.size + (1 << 30) - (1 << 20),
            "{after:?}"
        );
        let said = run(Command::new("sgdisk").arg("--verify").arg(&image), "gdisk");
        assert!(said.contains("No problems found"), "{said}");
    }

    #[test]
    fn only_the_partition_that_grows_is_described() {
        let mut board = builtin("x86_64-uefi").unwrap();
        assert_eq!(
            repart_files(&board).unwrap(),
            [(
                "50-data.conf".to_owned(),
                "[Partition]\nType=0fc63daf-8483-4772-8e79-3d69d8477de4\nLabel=data\n".to_owned()
            )]
        );
        for partition in &mut board.disk.partitions {
            partition.grow = false;
        }
        assert_eq!(repart_files(&board).unwrap(), []);
    }
}
