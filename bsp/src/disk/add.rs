//! Adding a file to a FAT file system that is there, and reading one.

use std::io::{self, Read, Seek, SeekFrom, Write};

use fatfs::{FileSystem, FsOptions};

use super::dots;

/// Writes `content` as the file `path` of the FAT in `disk` (whose byte 0 is the file system's), in place of
/// an older one, and reads it back. Directories are made as needed.
pub fn add_file(
    disk: &mut (impl Read + Write + Seek),
    path: &str,
    content: &[u8],
) -> io::Result<()> {
    let made = {
        let fs = open(disk)?;
        let root = fs.root_dir();
        let mut made = false;
        for (end, _) in path.match_indices('/') {
            if root.open_dir(&path[..end]).is_err() {
                root.create_dir(&path[..end])?;
                made = true;
            }
        }
        // Makes fatfs count the free clusters itself, whatever the file system claims.
        fs.stats()?;
        let mut file = root.create_file(path)?;
        file.truncate()?;
        file.write_all(content)?;
        file.flush()?;
        drop(file);
        drop(root);
        fs.unmount()?;
        made
    };
    if made {
        dots::mend(disk)?;
    }
    disk.flush()?;
    if read_file(disk, path)? != content {
        return Err(io::Error::other(format!("{path} reads back wrong")));
    }
    Ok(())
}

/// The content of the file `path` of the FAT in `disk`, whose byte 0 is the file system's.
pub fn read_file(disk: &mut (impl Read + Write + Seek), path: &str) -> io::Result<Vec<u8>> {
    let fs = open(disk)?;
    let mut content = Vec::new();
    fs.root_dir().open_file(path)?.read_to_end(&mut content)?;
    Ok(content)
}

fn open<T: Read + Write + Seek>(disk: &mut T) -> io::Result<FileSystem<&mut T>> {
    disk.seek(SeekFrom::Start(0))?;
    FileSystem::new(disk, FsOptions::new().update_accessed_date(false))
}

#[cfg(test)]
mod tests {
    use super::super::{create_fat, FatVolume};
    use super::*;
    use std::fs::File;
    use std::process::Command;

    #[test]
    fn a_file_is_added_and_replaced_and_the_judges_are_content() {
        let dir = tempfile::tempdir().unwrap();
        let before: [&[(&str, &[u8])]; 2] =
            [&[("treeline/state.env", &[b'#'; 1024])], &[("a", b"x")]];
        for (n, files) in before.into_iter().enumerate() {
            for mib in [16, 64] {
                let path = dir.path().join(format!("{n}-{mib}"));
                let mut file = File::options()
                    .read(true)
                    .write(true)
                    .create_new(true)
                    .open(&path)
                    .unwrap();
                file.set_len(mib << 20).unwrap();
                let volume = FatVolume {
                    sector: 512,
                    bytes: mib << 20,
                    id: 1,
                    label: "firmware".into(),
                };
                create_fat(&volume, files, &mut file).unwrap();
                for length in [9000, 1024] {
                    let content = vec![b'x'; length];
                    add_file(&mut file, crate::first_boot::PATH, &content).unwrap();
                    let image = path.to_str().unwrap();
                    let run = |program: &str, args: &[&str]| {
                        let output = Command::new(program).args(args).output();
                        let output = output.unwrap_or_else(|e| {
                            panic!("{program}: {e}; install dosfstools and mtools")
                        });
                        assert!(output.status.success(), "{output:?}");
                        output.stdout
                    };
                    run("fsck.fat", &["-n", image]);
                    let read = run("mtype", &["-i", image, "::treeline/first-boot.toml"]);
                    assert_eq!(read, content);
                    let found = crate::fat::extents(&mut file, &[crate::first_boot::PATH]).unwrap();
                    let bytes: u64 = found[0].iter().map(|e| e.length).sum();
                    assert_eq!(bytes, length as u64);
                }
            }
        }
        let mut small = io::Cursor::new(vec![0; 4096]);
        assert!(add_file(&mut small, "a", b"x").is_err());
    }
}
