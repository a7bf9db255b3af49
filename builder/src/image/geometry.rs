//! How ext4 file systems are laid out, and what therefore fits.

use anyhow::{bail, Result};
use bsp::board::Size;

use crate::deploy::Room;

/// Block size, bytes.
pub const BLOCK: u64 = 4096;
/// Inode size, bytes.
pub const INODE_SIZE: u64 = 256;
/// One inode per so many bytes.
pub const BYTES_PER_INODE: u64 = 16384;
/// Blocks kept for root, percent.
pub const RESERVED_PERCENT: u64 = 1;

/// Journal size for a file system of `size` bytes: a 64th, 16 to 64 MiB.
pub fn journal(size: u64) -> u64 {
    (size / 64).clamp(16 << 20, 64 << 20) >> 20 << 20
}

/// Bytes for files in a file system of `size` bytes.
pub(crate) fn usable(size: u64) -> u64 {
    let inodes = size / BYTES_PER_INODE * INODE_SIZE;
    let reserved = size / 100 * RESERVED_PERCENT;
    // Bitmaps, descriptors and their copies: 2 blocks per group of 128 MiB and a little more.
    let groups = size.div_ceil(BLOCK * BLOCK * 8) * 8 * BLOCK + (1 << 20);
    size.saturating_sub(journal(size) + inodes + reserved + groups)
}

fn fits(size: u64, room: Room) -> bool {
    // Two deployments that share nothing: the one in the image, and the first update.
    2 * room.bytes <= usable(size) && 2 * room.inodes + 1024 <= size / BYTES_PER_INODE
}

/// Fails unless a root partition of `size` bytes has room for the sysroot and for an update of it.
pub fn check(label: &str, size: u64, room: Room) -> Result<()> {
    if fits(size, room) {
        return Ok(());
    }
    let step = 64 * Size::MIB;
    let mut enough = size.div_ceil(step) * step;
    while !fits(enough, room) {
        enough += step;
    }
    let mib = |bytes: u64| bytes.div_ceil(Size::MIB);
    bail!(
        "the partition \"{label}\" is too small: the system takes {} MiB in {} files, an update needs as much again \
         ({} MiB in all), and of {} MiB there are {} MiB for files; set in product.toml:\n\n\
         [partitions]\n{label} = \"{}\"",
        mib(room.bytes),
        room.inodes,
        mib(2 * room.bytes),
        mib(size),
        usable(size) >> 20,
        Size(enough),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_says_what_would() {
        let room = Room {
            inodes: 20_000,
            bytes: 300 << 20,
        };
        check("root", 1 << 30, room).unwrap();
        let error = check("root", 512 << 20, room).unwrap_err().to_string();
        assert!(error.contains("root = \"704MiB\""), "{error}");
        check("root", 704 << 20, room).unwrap();
        let many = Room {
            inodes: 200_000,
            bytes: 1,
        };
        assert!(check("root", 1 << 30, many).is_err());
    }
}
