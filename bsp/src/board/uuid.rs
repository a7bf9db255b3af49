//! Identifiers that stay the same from one build to the next.

use sha2::{Digest, Sha256};

use super::{Board, Role, Table};

/// What a stable identifier is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// GUID of a partition in the partition table.
    Partition,
    /// UUID of a file system.
    Filesystem,
    /// Seed of ext4's directory hash.
    HashSeed,
    /// GUID of the disk in the partition table; its label is empty.
    Disk,
    /// FAT volume id: the first four bytes of the identifier.
    Fat,
}

impl Purpose {
    /// The word that goes into the hash.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Filesystem => "filesystem",
            Self::HashSeed => "hash-seed",
            Self::Disk => "disk",
            Self::Fat => "fat",
        }
    }
}

/// The identifier of one thing on a product's disks, as a lower-case hyphenated UUID.
///
/// It depends on the product, the board, the partition's label and the purpose, not on the build: so
/// every later tree of the product finds the partitions of a device that was flashed long ago. It is
/// version 8 of RFC 9562 (own scheme), the first 16 bytes of a SHA-256.
pub fn stable_uuid(product: &str, board: &str, label: &str, purpose: Purpose) -> String {
    let text = ["treeline", product, board, label, purpose.as_str()].join("\0");
    let hash = Sha256::digest(text.as_bytes());
    let mut hex = String::with_capacity(36);
    for (index, byte) in hash.iter().take(16).enumerate() {
        let byte = match index {
            6 => (byte & 0x0f) | 0x80,
            8 => (byte & 0x3f) | 0x80,
            _ => *byte,
        };
        if matches!(index, 4 | 6 | 8 | 10) {
            hex.push('-');
        }
        hex.push_str(&format!("{byte:02x}"));
    }
    hex
}

/// The signature of a disk with an MBR: the first four bytes of the disk's identifier.
pub fn disk_id(product: &str, board: &str) -> u32 {
    let uuid = stable_uuid(product, board, "", Purpose::Disk);
    uuid.get(..8)
        .and_then(|digits| u32::from_str_radix(digits, 16).ok())
        .unwrap_or_default()
}

/// The identifier of the whole disk in its partition table, as udev shows it (`ID_PART_TABLE_UUID`).
pub fn disk_uuid(product: &str, board: &Board) -> String {
    match board.disk.table {
        Table::Gpt | Table::Hybrid => stable_uuid(product, &board.id, "", Purpose::Disk),
        Table::Mbr => format!("{:08x}", disk_id(product, &board.id)),
    }
}

/// What the kernel calls the partition with this role (`PARTUUID=`, `/dev/disk/by-partuuid/`): its GUID,
/// on disks with nothing but an MBR `<signature>-<number>`. `None` if the board has no such partition.
pub fn partition_uuid(product: &str, board: &Board, role: Role) -> Option<String> {
    let mut partitions = board.disk.partitions.iter().zip(1u32..);
    let (partition, number) = partitions.find(|(partition, _)| partition.role == role)?;
    Some(match board.disk.table {
        Table::Gpt | Table::Hybrid => {
            stable_uuid(product, &board.id, &partition.label, Purpose::Partition)
        }
        Table::Mbr => format!("{:08x}-{number:02x}", disk_id(product, &board.id)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Devices in the field carry these values: they must never change. The expected value is
    /// `printf 'treeline\0shop\0x86_64-uefi\0root\0filesystem' | sha256sum` with the version and
    /// variant digits set.
    #[test]
    fn stays_what_it_was() {
        assert_eq!(
            stable_uuid("shop", "x86_64-uefi", "root", Purpose::Filesystem),
            "060155e5-c228-85e9-ad57-bc21476ce294"
        );
    }

    #[test]
    fn partitions_are_called_what_the_kernel_calls_them() {
        let mut board = crate::board::builtin("x86_64-uefi").unwrap();
        assert_eq!(
            partition_uuid("shop", &board, Role::Data).unwrap(),
            stable_uuid("shop", "x86_64-uefi", "data", Purpose::Partition)
        );
        board.disk.table = Table::Mbr;
        let id = disk_id("shop", "x86_64-uefi");
        let disk = stable_uuid("shop", "x86_64-uefi", "", Purpose::Disk);
        assert!(disk.starts_with(&format!("{id:08x}")));
        assert_eq!(
            partition_uuid("shop", &board, Role::Data).unwrap(),
            format!("{id:08x}-03")
        );
    }

    #[test]
    fn everything_has_its_own() {
        let mut seen = std::collections::BTreeSet::new();
        for product in ["a", "b"] {
            for label in ["", "root", "data"] {
                for purpose in [
                    Purpose::Partition,
                    Purpose::Filesystem,
                    Purpose::HashSeed,
                    Purpose::Disk,
                    Purpose::Fat,
                ] {
                    assert!(seen.insert(stable_uuid(product, "x", label, purpose)));
                }
            }
        }
    }
}
