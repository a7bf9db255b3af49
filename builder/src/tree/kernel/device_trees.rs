//! Device trees belong to the kernel: libostree takes them from `/usr/lib/modules/<version>/dtb`, keeps
//! them beside kernel and initramfs, and lets them count in the boot checksum.

use anyhow::{bail, Result};
use bsp::board::DeviceTrees;

use super::super::{file_name, join, Node, Tree};
use super::module_dir;
use crate::manifest::nearest;

/// Where a product puts device trees of its own, for every kernel.
const OWN: &str = "usr/lib/device-trees";

/// Directory of a kernel's device trees.
pub fn device_tree_dir(version: &str) -> String {
    join(&module_dir(version), "dtb")
}

/// Where Debian's kernel packages put theirs: several hundred.
fn package_dir(version: &str) -> String {
    format!("usr/lib/linux-image-{version}")
}

/// Brings the device trees of the board into place; no others stay.
pub fn place_device_trees(
    tree: &mut Tree,
    wanted: Option<&DeviceTrees>,
    version: &str,
) -> Result<()> {
    let package = package_dir(version);
    if let Some(wanted) = wanted {
        let dir = device_tree_dir(version);
        let mut found = Vec::new();
        for file in wanted.files() {
            found.push((join(&dir, file), find(tree, version, file)?));
        }
        for (path, name) in wanted.overlays.iter().zip(wanted.overlay_files()) {
            let Some(node) = tree.follow(path).filter(|node| node.is_file()) else {
                bail!(
                    "placing the device trees: there is no overlay /{path} in the tree; the board file names it \
                     in device-trees.overlays: add the package or the overlay directory that brings it"
                );
            };
            found.push((join(&dir, &name), node.clone()));
        }
        tree.remove(&dir);
        for (path, node) in found {
            tree.insert(&path, node)?;
        }
    }
    tree.remove(&package);
    Ok(())
}

fn find(tree: &Tree, version: &str, file: &str) -> Result<Node> {
    let dirs = [
        OWN.to_string(),
        package_dir(version),
        device_tree_dir(version),
    ];
    let mut places = dirs.iter().map(|dir| join(dir, file));
    if let Some(node) = places.find_map(|path| tree.follow(&path).filter(|node| node.is_file())) {
        return Ok(node.clone());
    }
    let known: Vec<&str> = dirs
        .iter()
        .flat_map(|dir| {
            let below = tree.below(dir).filter(|(_, node)| node.is_file());
            below.map(|(path, _)| &path[dir.len() + 1..])
        })
        .collect();
    let name = |path: &&str| file_name(path) == file_name(file);
    let near = known.iter().copied().find(|path| name(path));
    let hint = near
        .or_else(|| nearest(file, known.iter().copied()))
        .map_or_else(
            || format!("it has {} device trees", known.len()),
            |near| format!("did you mean {near}?"),
        );
    bail!(
        "placing the device trees: kernel {version} has no {file}, which the board file names; {hint} \
         (a product's own stand in /{OWN})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trees(default: &str, overlays: &[&str]) -> DeviceTrees {
        DeviceTrees {
            default: default.into(),
            others: vec!["v/b.dtb".into()],
            detect: false,
            overlays: overlays.iter().map(|path| (*path).to_string()).collect(),
        }
    }

    fn tree() -> Tree {
        let mut tree = Tree::new();
        for path in [
            "usr/lib/linux-image-6.1/v/a.dtb",
            "usr/lib/linux-image-6.1/v/b.dtb",
            "usr/lib/linux-image-6.1/v/c.dtb",
            "usr/lib/device-trees/v/b.dtb",
            "usr/share/o.dtbo",
            "usr/lib/modules/6.1/vmlinuz",
        ] {
            tree.insert(path, Node::file(path, 0o644)).unwrap();
        }
        tree
    }

    #[test]
    fn the_boards_device_trees_stay_and_no_others() {
        let mut tree = tree();
        let wanted = trees("v/a.dtb", &["usr/share/o.dtbo"]);
        place_device_trees(&mut tree, Some(&wanted), "6.1").unwrap();
        let dir = device_tree_dir("6.1");
        let files: Vec<String> = tree
            .below(&dir)
            .filter(|(_, node)| node.is_file())
            .map(|(path, _)| path[dir.len() + 1..].to_string())
            .collect();
        assert_eq!(files, ["overlays/o.dtbo", "v/a.dtb", "v/b.dtb"]);
        // The product's own comes first.
        let own = tree.read_text(&join(&dir, "v/b.dtb")).unwrap();
        assert_eq!(own, "usr/lib/device-trees/v/b.dtb");
        assert!(!tree.contains("usr/lib/linux-image-6.1"));
        // A base that has them in place already is left as it is.
        tree.remove("usr/lib/device-trees");
        place_device_trees(&mut tree, Some(&wanted), "6.1").unwrap();
        assert!(tree.contains("usr/lib/modules/6.1/dtb/v/a.dtb"));
    }

    #[test]
    fn what_is_missing_is_named() {
        for (wanted, says) in [
            (trees("a.dtb", &[]), "did you mean v/a.dtb?"),
            (trees("v/d.dtb", &[]), "did you mean v/"),
            (
                trees("v/a.dtb", &["usr/share/p.dtbo"]),
                "no overlay /usr/share/p.dtbo",
            ),
        ] {
            let error = place_device_trees(&mut tree(), Some(&wanted), "6.1").unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
        }
        place_device_trees(&mut tree(), None, "6.1").unwrap();
    }
}
