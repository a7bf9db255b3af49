//! Making the firmware file system.

use std::collections::BTreeSet;
use std::io::{Read, Seek, Write};

use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time};

use super::sparse::Sparse;
use super::{dots, DiskError};

/// From this size on, on disks with sectors of 512 bytes, it is FAT32, which UEFI asks for on fixed disks: 65525
/// clusters of one sector and the tables. With larger sectors it takes as much more.
pub(super) const FAT32_FROM: u64 = 34 * 1024 * 1024;

/// The parameters of a FAT file system.
#[derive(Debug, Clone)]
pub struct FatVolume {
    /// Size in bytes.
    pub bytes: u64,
    /// Bytes in a sector of the disk: 512 or 4096. Linux mounts no FAT whose sectors are smaller.
    pub sector: u64,
    /// Volume id: the first four bytes of [`stable_uuid`](crate::board::stable_uuid) for
    /// [`Purpose::Fat`](crate::board::Purpose::Fat), see [`FatVolume::id_from_uuid`].
    pub id: u32,
    /// Label, at most 11 characters; becomes upper case.
    pub label: String,
}

impl FatVolume {
    /// The volume id in the first eight digits of a UUID.
    pub fn id_from_uuid(uuid: &str) -> u32 {
        let digits = uuid.get(..8).unwrap_or_default();
        u32::from_str_radix(digits, 16).unwrap_or_default()
    }
}

/// The time stamp of everything on the file system: the first day that FAT knows.
#[derive(Debug)]
struct FirstDay;

static FIRST_DAY: FirstDay = FirstDay;

impl fatfs::TimeProvider for FirstDay {
    fn get_current_date(&self) -> Date {
        Date {
            year: 1980,
            month: 1,
            day: 1,
        }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime {
            date: self.get_current_date(),
            time: Time {
                hour: 0,
                min: 0,
                sec: 0,
                millis: 0,
            },
        }
    }
}

/// Makes a FAT file system with `files` (path, content) in `out`, which must be all zeros and begin where
/// the file system begins. The result depends on the arguments only; the order of `files` does not
/// matter. Only what is not zero is written, so that `out` stays sparse. Each file's clusters follow
/// one another.
pub fn create_fat(
    volume: &FatVolume,
    files: &[(&str, &[u8])],
    out: &mut (impl Write + Seek),
) -> Result<(), DiskError> {
    build(volume, files)
        .map_err(|problem| DiskError::Fat {
            bytes: volume.bytes,
            problem,
        })?
        .copy_to(out)
        .map_err(|source| DiskError::Io {
            doing: "writing the firmware file system".into(),
            source,
        })
}

fn build(volume: &FatVolume, files: &[(&str, &[u8])]) -> Result<Sparse, String> {
    let words = |error: std::io::Error| error.to_string();
    let sector: u16 = match volume.sector {
        512 => 512,
        4096 => 4096,
        other => return Err(format!("no disk has sectors of {other} bytes")),
    };
    let sectors = u32::try_from(volume.bytes / volume.sector)
        .map_err(|_| "FAT ends at 2 TiB; make it smaller".to_owned())?;
    let kind = if volume.bytes >= FAT32_FROM / super::SECTOR * volume.sector {
        FatType::Fat32
    } else {
        FatType::Fat16
    };
    let format = FormatVolumeOptions::new()
        .bytes_per_sector(sector)
        .total_sectors(sectors)
        .fat_type(kind)
        .volume_id(volume.id)
        .volume_label(padded_label(&volume.label)?);
    let mut disk = Sparse::new(volume.bytes);
    fatfs::format_volume(&mut disk, format).map_err(words)?;
    let options = FsOptions::new().time_provider(&FIRST_DAY);
    disk.rewind().map_err(words)?;
    let fs = FileSystem::new(&mut disk, options).map_err(words)?;
    // Makes fatfs count the free clusters, which the format leaves open and fsck complains about.
    fs.stats().map_err(words)?;
    fill(&fs, files).map_err(|(path, error)| {
        format!("adding {path}: {error}; if it is full, give the firmware partition more room")
    })?;
    fs.unmount().map_err(words)?;
    dots::mend(&mut disk).map_err(words)?;
    Ok(disk)
}

fn fill<'a, T: Read + Write + Seek>(
    fs: &FileSystem<T>,
    files: &[(&'a str, &[u8])],
) -> Result<(), (&'a str, std::io::Error)> {
    let root = fs.root_dir();
    let mut files = files.to_vec();
    files.sort_unstable();
    let mut made = BTreeSet::new();
    for (path, content) in files {
        let error = |e| (path, e);
        for (end, _) in path.match_indices('/') {
            // FAT does not tell upper from lower case.
            if made.insert(path[..end].to_ascii_lowercase()) {
                root.create_dir(&path[..end]).map_err(error)?;
            }
        }
        if !made.insert(path.to_ascii_lowercase()) {
            let twice = std::io::Error::other("two files have this name");
            return Err((path, twice));
        }
        let mut file = root.create_file(path).map_err(error)?;
        file.write_all(content).map_err(error)?;
        file.flush().map_err(error)?;
    }
    Ok(())
}

fn padded_label(label: &str) -> Result<[u8; 11], String> {
    let label = label.to_ascii_uppercase();
    if label.is_empty() || label.len() > 11 || !label.is_ascii() {
        return Err(format!(
            "the label \"{label}\" must have 1 to 11 ASCII characters"
        ));
    }
    let mut padded = [b' '; 11];
    padded[..label.len()].copy_from_slice(label.as_bytes());
    Ok(padded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    fn volume(mib: u64) -> FatVolume {
        FatVolume {
            sector: super::super::SECTOR,
            bytes: mib << 20,
            id: 0x1234_abcd,
            label: "firmware".into(),
        }
    }

    fn make(dir: &Path, name: &str, mib: u64, files: &[(&str, &[u8])]) -> PathBuf {
        make_with(volume(mib), &dir.join(name), files)
    }

    fn make_with(volume: FatVolume, path: &Path, files: &[(&str, &[u8])]) -> PathBuf {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)
            .unwrap();
        file.set_len(volume.bytes).unwrap();
        create_fat(&volume, files, &mut file).unwrap();
        path.into()
    }

    fn run(program: &str, package: &str, args: &[&str]) -> Vec<u8> {
        let output = Command::new(program)
            .args(args)
            .output()
            .unwrap_or_else(|e| panic!("{program}: {e}; install {package}"));
        assert!(output.status.success(), "{output:?}");
        output.stdout
    }

    const LOADER: &[u8] = &[0x5a; 300_000];
    const FILES: &[(&str, &[u8])] = &[
        ("treeline/state.env", &[b'#'; 1024]),
        ("EFI/BOOT/BOOTX64.EFI", LOADER),
        ("EFI/BOOT/grubx64.efi", &[1; 513]),
        ("EFI/debian/grub.cfg", b"# a script"),
        ("a long name with CAPITALS.txt", b""),
    ];

    #[test]
    fn fsck_finds_nothing_wrong_and_mtools_the_files() {
        let dir = tempfile::tempdir().unwrap();
        for (sector, mib, kind) in [
            (512, 16, "FAT16"),
            (512, 34, "FAT32"),
            (512, 64, "FAT32"),
            (512, 300, "FAT32"),
            (4096, 64, "FAT16"),
            (4096, 300, "FAT32"),
        ] {
            let volume = FatVolume {
                sector,
                ..volume(mib)
            };
            let path = make_with(
                volume,
                &dir.path().join(format!("{sector}-{mib}.img")),
                FILES,
            );
            let image = path.to_str().unwrap();
            let text = run("fsck.fat", "dosfstools", &["-n", "-v", image]);
            let text = String::from_utf8_lossy(&text);
            assert!(!text.contains("uninitialized"), "{text}");
            assert!(
                text.contains(&format!("{sector} bytes per logical sector")),
                "{text}"
            );
            let probe = run("blkid", "util-linux", &["-p", "-o", "export", image]);
            let probe = String::from_utf8_lossy(&probe);
            assert!(probe.contains(&format!("VERSION={kind}")), "{probe}");
            assert!(probe.contains("UUID=1234-ABCD"), "{probe}");
            assert!(probe.contains("LABEL=FIRMWARE"), "{probe}");
            for (name, content) in FILES {
                let read = run("mtype", "mtools", &["-i", image, &format!("::{name}")]);
                assert_eq!(read, *content, "{name}");
            }
        }
    }

    #[test]
    fn directories_may_be_large_and_deep() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..60)
            .map(|n| format!("overlays/a rather long name, number {n}/deep {n}/file.dtbo"))
            .collect();
        let files: Vec<(&str, &[u8])> = names.iter().map(|n| (n.as_str(), &b"x"[..])).collect();
        for mib in [16, 64] {
            let path = make(dir.path(), &format!("{mib}.img"), mib, &files);
            run("fsck.fat", "dosfstools", &["-n", path.to_str().unwrap()]);
        }
    }

    #[test]
    fn depends_on_nothing_but_its_arguments() {
        let dir = tempfile::tempdir().unwrap();
        let first = make(dir.path(), "a.img", 64, FILES);
        let mut turned = FILES.to_vec();
        turned.reverse();
        let second = make(dir.path(), "b.img", 64, &turned);
        assert!(std::fs::read(first).unwrap() == std::fs::read(second).unwrap());
    }

    #[test]
    fn the_boot_state_stands_together_and_can_be_written() {
        use crate::boot::store::{BootStore, GrubStore};
        use crate::boot::{grubenv, state::BootState};
        let dir = tempfile::tempdir().unwrap();
        let state = BootState::confirmed("a").armed("b", 3);
        let state_env = grubenv::from_state(&state).unwrap();
        let good_env = grubenv::from_good("a").unwrap();
        let files: &[(&str, &[u8])] = &[
            (crate::boot::STATE_PATH, &state_env),
            (crate::boot::GOOD_PATH, &good_env),
        ];
        let path = make(dir.path(), "a.img", 64, files);
        let found = crate::fat::extents(
            &mut File::open(&path).unwrap(),
            &[crate::boot::STATE_PATH, crate::boot::GOOD_PATH],
        )
        .unwrap();
        assert!(found.iter().all(|extents| extents.len() == 1), "{found:?}");
        let mut store = GrubStore::open(&path).unwrap();
        assert_eq!(store.read_state().unwrap(), Some(state));
        store.write_state(&BootState::confirmed("b")).unwrap();
        assert_eq!(store.read_state().unwrap(), Some(BootState::confirmed("b")));
        run("fsck.fat", "dosfstools", &["-n", path.to_str().unwrap()]);
    }

    #[test]
    fn says_what_does_not_fit() {
        let mut small = std::io::Cursor::new(vec![0; 8 << 20]);
        let big = vec![1; 9 << 20];
        let error = create_fat(&volume(8), &[("EFI/big.efi", &big)], &mut small).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("adding EFI/big.efi") && text.contains("more room"),
            "{text}"
        );
        let mut small = std::io::Cursor::new(vec![0; 8 << 20]);
        let twice = create_fat(&volume(8), &[("a", b"1"), ("A", b"2")], &mut small);
        assert!(twice.unwrap_err().to_string().contains("two files"));
    }

    #[test]
    fn the_volume_id_comes_from_the_uuid() {
        assert_eq!(FatVolume::id_from_uuid("1234abcd-0000"), 0x1234_abcd);
    }
}
