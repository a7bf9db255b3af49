//! `builder new`: a product that builds as it stands. Everything is made in a scratch directory that
//! becomes the product's by one rename, so there is a whole product or none.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};

use super::secrets;
use crate::manifest;

/// Path, content, mode.
const FILES: [(&str, &str, u32); 6] = [
    ("product.toml", include_str!("template/product.toml"), 0o644),
    ("README.md", include_str!("template/README.md"), 0o644),
    (".gitignore", include_str!("template/gitignore"), 0o644),
    (
        "overlay/usr/lib/systemd/system/hello.service",
        include_str!("template/hello.service"),
        0o644,
    ),
    (
        "overlay/usr/libexec/hello/hello",
        include_str!("template/hello"),
        0o755,
    ),
    (
        "overlay/usr/libexec/hello/check",
        include_str!("template/check"),
        0o755,
    ),
];

/// Makes the product `name` in a new directory of that name in `parent`; returns the directory.
/// Never overwrites: the directory must not be there, or must be empty.
pub fn create(parent: &Path, name: &str) -> Result<PathBuf> {
    if !manifest::is_product_name(name) {
        bail!(
            "making a product \"{name}\": a name has lower case letters, digits and single dashes, \
             begins with a letter and has 40 characters at most"
        );
    }
    let dir = parent.join(name);
    let occupied = match fs::read_dir(&dir) {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    };
    if occupied {
        bail!(
            "making a product in {}: it exists already; choose another name or move it away",
            dir.display()
        );
    }
    let scratch = tempfile::Builder::new()
        .prefix(&format!(".{name}-"))
        .tempdir_in(parent)
        .with_context(|| format!("creating a directory in {}", parent.display()))?;
    for (path, text, mode) in FILES {
        write(
            &scratch.path().join(path),
            &text.replace("@NAME@", name),
            mode,
        )?;
    }
    secrets::init(&scratch.path().join("keys"))?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))
        .with_context(|| format!("setting the mode of {}", scratch.path().display()))?;
    fs::rename(scratch.path(), &dir)
        .with_context(|| format!("moving the new product to {}", dir.display()))?;
    Ok(dir)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let parent = path.parent().context("finding a file's directory")?;
    fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Project;

    #[test]
    fn a_new_product_is_readable_and_nothing_is_overwritten() {
        let parent = tempfile::tempdir().unwrap();
        let dir = create(parent.path(), "my-gateway").unwrap();
        let project = Project::load(&dir.join("overlay/usr")).unwrap();
        assert_eq!(project.product.name, "my-gateway");
        for unit in &project.product.units.enable {
            let file = dir.join("overlay/usr/lib/systemd/system").join(unit);
            assert!(file.is_file(), "{}", file.display());
        }
        for check in &project.product.health.checks {
            let file = dir.join("overlay").join(&check.command[0][1..]);
            let mode = fs::metadata(&file).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755);
        }
        assert!(dir.join(project.product.update.ca.unwrap()).is_file());
        let error = create(parent.path(), "my-gateway").unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
        assert!(create(parent.path(), "../x").is_err());
        let left = fs::read_dir(parent.path()).unwrap().count();
        assert_eq!(left, 1);
    }

    #[test]
    fn the_example_is_readable() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/gateway");
        Project::load(&dir).unwrap();
    }

    #[test]
    fn every_name_in_the_template_is_replaced() {
        let parent = tempfile::tempdir().unwrap();
        let dir = create(parent.path(), "x").unwrap();
        for (path, _, _) in FILES {
            assert!(!fs::read_to_string(dir.join(path))
                .unwrap()
                .contains("@NAME@"));
        }
    }
}
