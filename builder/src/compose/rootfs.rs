//! A root file system tarball: plain, or compressed by gzip, xz or zstd; told apart by what it begins with.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use super::layers::Layers;
use crate::command::Command;

/// The tarball at `path`; `scratch` holds what it decompresses to, as long as the value is used.
pub(super) fn layers(path: &Path, scratch: &Path) -> Result<Layers> {
    let mut layers = Layers::default();
    layers.add(&decompress(path, &scratch.join("rootfs.tar"))?)?;
    Ok(layers)
}

/// The plain tar behind `path`: the file itself, or `to` with the decompressed content.
pub(super) fn decompress(path: &Path, to: &Path) -> Result<PathBuf> {
    let open = || File::open(path).with_context(|| format!("opening {}", path.display()));
    let mut file = open()?;
    let mut magic = Vec::new();
    file.by_ref().take(512).read_to_end(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    let unpack = || -> Result<PathBuf> {
        match magic.as_slice() {
            [0x1f, 0x8b, ..] => {
                Command::new("gzip", "gzip")
                    .args(["-d", "-c"])
                    .stdin(file)
                    .stdout(File::create(to)?)
                    .run()?;
            }
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
                let mut from = liblzma::read::XzDecoder::new_multi_decoder(BufReader::new(file));
                std::io::copy(&mut from, &mut File::create(to)?)?;
            }
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let mut from = zstd::Decoder::new(file)?;
                // Archives made with `--long` need a larger window than the default.
                from.window_log_max(31)?;
                std::io::copy(&mut from, &mut File::create(to)?)?;
            }
            _ if magic.get(257..262) == Some(b"ustar") => return Ok(path.to_path_buf()),
            _ => bail!("it is no tar archive, and not one compressed by gzip, xz or zstd"),
        }
        Ok(to.to_path_buf())
    };
    unpack().with_context(|| format!("unpacking {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::layers::tests::{archive, listing};
    use super::*;

    #[test]
    fn every_compression_gives_the_same_tree() {
        let dir = tempfile::tempdir().unwrap();
        let plain = archive(dir.path(), "x.tar", &["d usr", "f usr/a 1", "l b usr"]);
        for (program, package) in [("gzip", "gzip"), ("xz", "xz-utils"), ("zstd", "zstd")] {
            let packed = dir.path().join(format!("x.{program}"));
            Command::new(program, package)
                .arg("-c")
                .stdin(File::open(&plain).unwrap())
                .stdout(File::create(&packed).unwrap())
                .run()
                .unwrap();
            let out = dir.path().join("out.tar");
            layers(&packed, dir.path())
                .unwrap()
                .write(&out, |_| true)
                .unwrap();
            assert_eq!(
                listing(&out),
                ["d .", "l b usr", "d usr", "f usr/a 1"],
                "{program}"
            );
            let whole = std::fs::read(&packed).unwrap();
            std::fs::write(&packed, &whole[..whole.len() - 4]).unwrap();
            let error = format!("{:#}", layers(&packed, dir.path()).unwrap_err());
            assert!(error.contains(&format!("x.{program}")), "{error}");
        }
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for content in [&b""[..], b"PK\x03\x04", &[0; 1024]] {
            let path = dir.path().join("x");
            std::fs::write(&path, content).unwrap();
            let error = format!("{:#}", layers(&path, dir.path()).unwrap_err());
            assert!(error.contains("no tar archive"), "{error}");
        }
        let error = format!(
            "{:#}",
            layers(&dir.path().join("none"), dir.path()).unwrap_err()
        );
        assert!(error.contains("opening"), "{error}");
    }
}
