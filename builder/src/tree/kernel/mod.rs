//! The kernel's place in the tree: `/usr/lib/modules/<version>/vmlinuz`, where OSTree looks for it.
//! `/boot` ships empty; libostree fills it on the device.

use anyhow::{bail, Result};

use super::{join, Node, Tree};

mod device_trees;
mod modules;

pub use device_trees::{device_tree_dir, place_device_trees};
pub use modules::{unpack, Modules};

const MODULES: &str = "usr/lib/modules";
/// Names Debian gives kernel images in `/boot`; ppc64el boots the uncompressed one.
const IMAGES: [&str; 2] = ["vmlinuz-", "vmlinux-"];

/// Directory of a kernel's modules.
pub fn module_dir(version: &str) -> String {
    join(MODULES, version)
}

/// Moves the kernel into place, empties `/boot` and returns the kernel's version.
pub fn place(tree: &mut Tree) -> Result<String> {
    let version = the_version(tree)?;
    let dir = module_dir(&version);
    for image in IMAGES {
        let from = format!("boot/{image}{version}");
        let to = join(&dir, "vmlinuz");
        if tree.get(&from).is_some_and(Node::is_file) && !tree.contains(&to) {
            tree.rename(&from, &to)?;
        }
    }
    let config = format!("boot/config-{version}");
    if tree.get(&config).is_some_and(Node::is_file) {
        let to = join(&dir, "config");
        tree.remove(&to);
        tree.rename(&config, &to)?;
    }
    // Links that lead to a build tree, and the initramfs that the package's hooks made.
    for name in ["build", "source", "initramfs.img"] {
        tree.remove(&join(&dir, name));
    }
    for link in [
        "vmlinuz",
        "vmlinuz.old",
        "initrd.img",
        "initrd.img.old",
        "vmlinux",
    ] {
        tree.remove(link);
    }
    tree.empty("boot");
    Ok(version)
}

fn the_version(tree: &Tree) -> Result<String> {
    let mut versions: Vec<String> = tree
        .children("boot")
        .filter(|(_, node)| node.is_file())
        .filter_map(|(name, _)| IMAGES.iter().find_map(|image| name.strip_prefix(image)))
        .chain(
            tree.children(MODULES)
                .filter(|(name, _)| tree.contains(&format!("{MODULES}/{name}/vmlinuz")))
                .map(|(name, _)| name),
        )
        .map(str::to_string)
        .collect();
    versions.sort();
    versions.dedup();
    match versions.as_slice() {
        [version] if tree.get(&module_dir(version)).is_some_and(Node::is_dir) => Ok(version.clone()),
        [version] => bail!(
            "looking for the kernel: there is an image of {version} but no directory /{MODULES}/{version}; \
             the modules must come with the kernel"
        ),
        [] => bail!(
            "looking for the kernel: neither /boot/vmlinuz-<version> nor /{MODULES}/<version>/vmlinuz is in the tree; \
             the board's packages must name a kernel such as linux-image-cloud-amd64"
        ),
        several => bail!(
            "looking for the kernel: there are several ({}); a tree has exactly one: drop the others from the packages",
            several.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(paths: &[&str]) -> Tree {
        let mut tree = Tree::new();
        for path in paths {
            tree.insert(path, Node::file(*path, 0o644)).unwrap();
        }
        tree
    }

    #[test]
    fn debians_kernel_moves_beside_its_modules() {
        let mut tree = tree(&[
            "boot/vmlinuz-6.1",
            "boot/config-6.1",
            "boot/initrd.img-6.1",
            "boot/System.map-6.1",
            "usr/lib/modules/6.1/kernel/a.ko",
        ]);
        assert_eq!(place(&mut tree).unwrap(), "6.1");
        assert_eq!(
            tree.read("usr/lib/modules/6.1/vmlinuz").unwrap(),
            b"boot/vmlinuz-6.1"
        );
        assert_eq!(
            tree.read("usr/lib/modules/6.1/config").unwrap(),
            b"boot/config-6.1"
        );
        assert_eq!(tree.children("boot").count(), 0);
        // A base that has it there already is left as it is.
        assert_eq!(place(&mut tree).unwrap(), "6.1");
    }

    #[test]
    fn no_kernel_two_kernels_and_one_without_modules_are_errors() {
        for (paths, says) in [
            (&["usr/lib/modules/6.1/kernel/a.ko"][..], "linux-image"),
            (&["boot/vmlinuz-6.1", "boot/vmlinuz-6.2"], "6.1, 6.2"),
            (&["boot/vmlinuz-6.1"], "modules must come"),
        ] {
            let error = place(&mut tree(paths)).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
