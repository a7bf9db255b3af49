//! Which bytes of an ext4 file system are in use, from its own block bitmaps.
//!
//! Formats: the Linux kernel's documentation of ext4 on-disk structures. Only what `mke2fs` makes for
//! us is understood; anything else is refused rather than guessed.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{bail, Context, Result};

use super::ranges::Ranges;

const MAGIC: u16 = 0xef53;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_BIGALLOC: u32 = 0x200;
/// Group flag: the block bitmap was never written; only the group's own metadata is in use.
const BLOCK_UNINIT: u16 = 0x2;

/// The bytes in use in the ext4 file system that stands at `start` of `image`, counted from `start`.
pub fn used(image: &File, start: u64) -> Result<Ranges> {
    let fs = Superblock::read(image, start)?;
    let mut blocks: Vec<Range<u64>> = Vec::new();
    // Block 0 holds the boot sector and, with blocks of 4096 bytes, the superblock.
    blocks.push(0..fs.first_block + 1);
    for group in 0..fs.groups() {
        let descriptor = fs.descriptor(image, start, group)?;
        blocks.extend(fs.metadata(&descriptor));
        let first = fs.first_block + group * fs.blocks_per_group;
        if descriptor.flags & BLOCK_UNINIT != 0 {
            if fs.has_backup(group) {
                blocks.push(first..first + 1 + fs.table_blocks() + fs.reserved_table_blocks);
            }
            continue;
        }
        let mut bitmap = vec![0; usize::try_from(fs.block_size)?];
        image
            .read_exact_at(&mut bitmap, start + descriptor.block_bitmap * fs.block_size)
            .with_context(|| format!("reading the block bitmap of group {group}"))?;
        let count = fs.blocks_per_group.min(fs.blocks - first);
        for index in 0..count {
            let byte = bitmap.get(usize::try_from(index / 8)?).copied();
            if byte.unwrap_or(0xff) & (1 << (index % 8)) != 0 {
                blocks.push(first + index..first + index + 1);
            }
        }
    }
    let bytes = blocks
        .into_iter()
        .map(|range| range.start * fs.block_size..range.end.min(fs.blocks) * fs.block_size);
    Ok(Ranges::of(bytes.collect()))
}

#[derive(Debug)]
struct Superblock {
    blocks: u64,
    block_size: u64,
    first_block: u64,
    blocks_per_group: u64,
    inode_table_blocks: u64,
    descriptor_size: u64,
    reserved_table_blocks: u64,
    sparse: bool,
}

#[derive(Debug)]
struct Descriptor {
    block_bitmap: u64,
    inode_bitmap: u64,
    inode_table: u64,
    flags: u16,
}

impl Superblock {
    fn read(image: &File, start: u64) -> Result<Self> {
        let mut raw = [0; 1024];
        image
            .read_exact_at(&mut raw, start + 1024)
            .context("reading the ext4 superblock")?;
        if u16_at(&raw, 0x38) != MAGIC {
            bail!("reading the ext4 superblock: this is no ext4 file system");
        }
        let incompat = u32_at(&raw, 0x60);
        let ro_compat = u32_at(&raw, 0x64);
        let wide = incompat & INCOMPAT_64BIT != 0;
        let high = if wide { u32_at(&raw, 0x150) } else { 0 };
        let block_size = 1024u64
            .checked_shl(u32_at(&raw, 0x18))
            .filter(|size| (1024..=65536).contains(size))
            .context("reading the ext4 superblock: impossible block size")?;
        let fs = Self {
            blocks: u64::from(u32_at(&raw, 4)) | u64::from(high) << 32,
            block_size,
            first_block: u32_at(&raw, 0x14).into(),
            blocks_per_group: u32_at(&raw, 0x20).into(),
            inode_table_blocks: (u64::from(u32_at(&raw, 0x28)) * u64::from(u16_at(&raw, 0x58)))
                .div_ceil(block_size),
            descriptor_size: if wide { u16_at(&raw, 0xfe).into() } else { 32 },
            reserved_table_blocks: u16_at(&raw, 0xce).into(),
            sparse: ro_compat & RO_COMPAT_SPARSE_SUPER != 0,
        };
        let understood = incompat & INCOMPAT_META_BG == 0
            && ro_compat & RO_COMPAT_BIGALLOC == 0
            && fs.descriptor_size >= 32
            && (1..=block_size * 8).contains(&fs.blocks_per_group)
            && fs.blocks > fs.first_block;
        if !understood {
            bail!("reading the ext4 superblock: a layout that Treeline does not make (meta_bg, bigalloc or damaged)");
        }
        Ok(fs)
    }

    fn groups(&self) -> u64 {
        (self.blocks - self.first_block).div_ceil(self.blocks_per_group)
    }

    fn table_blocks(&self) -> u64 {
        (self.groups() * self.descriptor_size).div_ceil(self.block_size)
    }

    fn descriptor(&self, image: &File, start: u64, group: u64) -> Result<Descriptor> {
        let mut raw = [0; 64];
        let size = usize::try_from(self.descriptor_size)?.min(raw.len());
        let at = (self.first_block + 1) * self.block_size + group * self.descriptor_size;
        image
            .read_exact_at(&mut raw[..size], start + at)
            .with_context(|| format!("reading the descriptor of ext4 block group {group}"))?;
        let wide = |low: usize, high: usize| {
            u64::from(u32_at(&raw, low)) | u64::from(u32_at(&raw, high)) << 32
        };
        let descriptor = Descriptor {
            block_bitmap: wide(0, 0x20),
            inode_bitmap: wide(4, 0x24),
            inode_table: wide(8, 0x28),
            flags: u16_at(&raw, 0x12),
        };
        let last = descriptor.block_bitmap.max(descriptor.inode_bitmap).max(
            descriptor
                .inode_table
                .saturating_add(self.inode_table_blocks),
        );
        if last > self.blocks {
            bail!("reading the descriptor of ext4 block group {group}: it points beyond the end");
        }
        Ok(descriptor)
    }

    fn metadata(&self, descriptor: &Descriptor) -> [Range<u64>; 3] {
        let Descriptor {
            block_bitmap,
            inode_bitmap,
            inode_table,
            ..
        } = *descriptor;
        [
            block_bitmap..block_bitmap + 1,
            inode_bitmap..inode_bitmap + 1,
            inode_table..inode_table + self.inode_table_blocks,
        ]
    }

    /// Whether the group begins with a copy of superblock and descriptors.
    fn has_backup(&self, group: u64) -> bool {
        let power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power *= base;
            }
            power == group
        };
        !self.sparse || group < 2 || [3, 5, 7].into_iter().any(power_of)
    }
}

fn u16_at(raw: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([raw[at], raw[at + 1]])
}

fn u32_at(raw: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]])
}
