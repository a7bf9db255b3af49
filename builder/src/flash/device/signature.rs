//! Signatures of things that a disk may be a member of, for machines without udev and for what is read
//! after opening. Offsets from the formats' own documents: md superblocks (md(4)), LVM2 labels, ZFS labels
//! (on-disk specification), swap headers, bcache and LUKS.

use std::io::{self, Read, Seek, SeekFrom};

/// What a file-system type of udev or blkid makes a disk a member of.
pub fn member_of(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "zfs_member" => "ZFS",
        "linux_raid_member" | "isw_raid_member" | "ddf_raid_member" | "jmicron_raid_member" => {
            "RAID"
        }
        "LVM1_member" | "LVM2_member" => "LVM",
        "bcache" => "bcache",
        "VMFS_volume_member" => "VMFS",
        "ceph_bluestore" => "Ceph",
        _ => return None,
    })
}

/// What the area of `size` bytes at `start` of a disk is a member of, by its own content.
pub fn probe(
    disk: &mut (impl Read + Seek),
    start: u64,
    size: u64,
) -> io::Result<Option<&'static str>> {
    let mut at = |offset: u64, length: usize| -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        if offset.saturating_add(length as u64) > size {
            return Ok(bytes);
        }
        disk.seek(SeekFrom::Start(start + offset))?;
        disk.read_exact(&mut bytes)?;
        Ok(bytes)
    };
    const RAID: [u8; 4] = 0xa92b_4efc_u32.to_le_bytes();
    // Versions 1.1, 1.2, 1.0 and 0.90 of the superblock.
    let raid = [
        0,
        4096,
        (size & !511).saturating_sub(8192) & !4095,
        (size & !0xffff).saturating_sub(0x1_0000),
    ];
    for offset in raid {
        if at(offset, 4)? == RAID {
            return Ok(Some("RAID"));
        }
    }
    for sector in 0..4 {
        let label = at(sector * 512, 32)?;
        if label.starts_with(b"LABELONE") && &label[24..32] == b"LVM2 001" {
            return Ok(Some("LVM"));
        }
    }
    // The uberblocks of the first label, 1 KiB apart at least.
    const UBERBLOCK: u64 = 0x00ba_b10c;
    let blocks = at(128 << 10, 128 << 10)?;
    let zfs = blocks.chunks_exact(1024).any(|block| {
        block[..8] == UBERBLOCK.to_le_bytes() || block[..8] == UBERBLOCK.to_be_bytes()
    });
    if zfs {
        return Ok(Some("ZFS"));
    }
    const BCACHE: [u8; 16] = [
        0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d,
        0x81,
    ];
    if at(4096 + 24, 16)? == BCACHE {
        return Ok(Some("bcache"));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_known_by_their_signatures() {
        type Content = &'static [(usize, &'static [u8])];
        let size = 4u64 << 20;
        let cases: [(Content, Option<&str>); 7] = [
            (&[], None),
            (&[(4096, &[0xfc, 0x4e, 0x2b, 0xa9])], Some("RAID")),
            (
                &[((4 << 20) - 8192, &[0xfc, 0x4e, 0x2b, 0xa9])],
                Some("RAID"),
            ),
            (&[(512, b"LABELONE"), (536, b"LVM2 001")], Some("LVM")),
            (
                &[(132 << 10, &[0x0c, 0xb1, 0xba, 0, 0, 0, 0, 0])],
                Some("ZFS"),
            ),
            (
                &[(132 << 10, &[0, 0, 0, 0, 0, 0xba, 0xb1, 0x0c])],
                Some("ZFS"),
            ),
            (&[(512, b"LABELONE")], None),
        ];
        for (content, wanted) in cases {
            for start in [0usize, 1 << 20] {
                let mut disk = vec![0; start + size as usize];
                for (at, bytes) in content {
                    disk[start + at..start + at + bytes.len()].copy_from_slice(bytes);
                }
                let found = probe(&mut io::Cursor::new(disk), start as u64, size).unwrap();
                assert_eq!(found, wanted);
            }
        }
        assert_eq!(member_of("ext4"), None);
        let small = probe(&mut io::Cursor::new(vec![0; 512]), 0, 512).unwrap();
        assert_eq!(small, None);
    }
}
