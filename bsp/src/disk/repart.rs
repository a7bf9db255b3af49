//! What systemd-repart must know to grow the last partition on the device (`repart.d(5)`).

use super::{gpt::partition_type, DiskError};
use crate::board::Board;

/// Directory of the files in the tree, without leading slash.
pub const REPART_DIR: &str = "usr/lib/repart.d";

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
    use crate::board::builtin;

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
