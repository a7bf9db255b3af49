//! A flat apt repository made of exactly the packages of a lock.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::cache::sha256_file;
use crate::command::Command;
use crate::lock::INITRAMFS_STAND_IN;

/// Puts `debs` into `dir` with an index of them. Everything in it can be read by anybody: in a user
/// namespace apt is somebody else.
pub(crate) fn make(dir: &Path, debs: &[PathBuf]) -> Result<()> {
    let mut index = String::new();
    for deb in debs {
        let name = deb.file_name().context("a package without a file name")?;
        let place = dir.join(name);
        // A link costs nothing; across file systems, or of somebody else's file, it takes a copy.
        if fs::hard_link(deb, &place)
            .and_then(|()| readable(&place))
            .is_err()
        {
            let _ = fs::remove_file(&place);
            fs::copy(deb, &place)
                .and_then(|_| readable(&place))
                .with_context(|| format!("copying {}", deb.display()))?;
        }
        index.push_str(&record(&place)?);
    }
    let file = dir.join("Packages");
    fs::write(&file, index)
        .and_then(|()| readable(&file))
        .with_context(|| format!("writing {}", file.display()))
}

/// Whatever the umask.
fn readable(file: &Path) -> std::io::Result<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o644))
}

fn record(deb: &Path) -> Result<String> {
    let mut text = Command::new("dpkg-deb", "dpkg")
        .arg("--field")
        .arg(deb)
        .text()?;
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\nFilename: ./{}\nSize: {}\nSHA256: {}\n\n",
        deb.file_name().unwrap_or_default().to_string_lossy(),
        fs::metadata(deb)?.len(),
        sha256_file(deb)?
    );
    Ok(text)
}

/// Makes the empty package that stands in for an initramfs generator, and returns its file.
pub(crate) fn stand_in(dir: &Path) -> Result<PathBuf> {
    let control = format!(
        "Package: {INITRAMFS_STAND_IN}\nVersion: 1\nArchitecture: all\nMaintainer: Treeline <treeline@localhost>\n\
         Provides: linux-initramfs-tool\nDescription: the initramfs is assembled when the system is built\n"
    );
    build(dir, INITRAMFS_STAND_IN, &control)
}

/// Builds a package without files from its control file.
pub(crate) fn build(dir: &Path, name: &str, control: &str) -> Result<PathBuf> {
    let tree = dir.join(format!("{name}.tree"));
    let deb = dir.join(format!("{name}.deb"));
    let prepare = || -> Result<()> {
        fs::create_dir_all(tree.join("DEBIAN"))?;
        fs::write(tree.join("DEBIAN/control"), control)?;
        // Whatever the umask: the package carries the mode of the root directory.
        for path in [tree.clone(), tree.join("DEBIAN")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
        }
        fs::set_permissions(
            tree.join("DEBIAN/control"),
            fs::Permissions::from_mode(0o644),
        )?;
        Ok(())
    };
    prepare().with_context(|| format!("preparing the package {name} in {}", dir.display()))?;
    Command::new("dpkg-deb", "dpkg")
        .args(["--root-owner-group", "-Znone", "--build"])
        .arg(&tree)
        .arg(&deb)
        .env("SOURCE_DATE_EPOCH", "0")
        .run()?;
    Ok(deb)
}
