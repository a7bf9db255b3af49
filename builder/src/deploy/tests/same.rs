//! The sysroot of `ostree admin deploy` and ours, path by path.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;

use super::*;

/// The capabilities in a tree, a line per file.
fn capabilities(root: &Path) -> String {
    let text = Command::new("getcap", "libcap2-bin")
        .arg("-r")
        .arg(root)
        .text()
        .unwrap();
    text.replace(&root.display().to_string(), "")
}

/// Everything about a path that must be the same.
#[derive(Debug, PartialEq, Eq)]
struct Look {
    mode: u32,
    owner: (u32, u32),
    content: Vec<u8>,
    /// Time 0: libostree sets it on the directories and files that it checks out (not on links and
    /// empty files).
    timeless: bool,
    /// First path of the same inode.
    inode: String,
}

fn looks(root: &Path) -> BTreeMap<String, Look> {
    let mut paths = Vec::new();
    collect(root, root, &mut paths);
    paths.sort();
    let mut inodes = BTreeMap::new();
    let mut looks = BTreeMap::new();
    for path in paths {
        let full = root.join(&path);
        let meta = fs::symlink_metadata(&full).unwrap();
        let content = if meta.is_file() {
            fs::read(&full).unwrap()
        } else if meta.is_symlink() {
            fs::read_link(&full)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else {
            Vec::new()
        };
        let checked_out = path.contains(".0/") && !meta.is_symlink() && meta.len() > 0;
        let inode = inodes.entry(meta.ino()).or_insert(path.clone()).clone();
        let look = Look {
            mode: meta.mode(),
            owner: (meta.uid(), meta.gid()),
            content,
            timeless: meta.mtime() == 0 && checked_out,
            inode,
        };
        looks.insert(path, look);
    }
    looks
}

fn collect(root: &Path, dir: &Path, paths: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        paths.push(
            path.strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .to_string(),
        );
        if path.is_dir() && !path.is_symlink() {
            collect(root, &path, paths);
        }
    }
}

/// Takes a file for the boot loader out of both sysroots: the real one and ours. Bookworm's libostree has
/// no bootprefix; with it, paths begin with `/boot`.
fn loader_texts(looks: [&mut BTreeMap<String, Look>; 2], names: [&str; 2]) -> [String; 2] {
    let mut texts = looks.into_iter().zip(names).map(|(looks, name)| {
        let look = looks.remove(&format!("boot/loader.1/{name}")).expect(name);
        String::from_utf8(look.content).unwrap()
    });
    [texts.next().unwrap(), texts.next().unwrap()]
}

/// The two sysroots, less what is known to differ and what the boot loader reads.
fn compare(mut real: BTreeMap<String, Look>, ours: BTreeMap<String, Look>) {
    for only_real in [
        "ostree/repo/.lock",
        "ostree/deploy/demo/var/.ostree-selabeled",
    ] {
        assert!(real.remove(only_real).is_some(), "{only_real}");
    }
    let names = |looks: &BTreeMap<String, Look>| looks.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&ours), names(&real));
    for (path, look) in &ours {
        assert_eq!(look, &real[path], "{path}");
    }
}

const ENTRIES: [&str; 2] = ["entries/ostree-1-demo.conf", "entries/ostree-1.conf"];

#[test]
fn the_sysroot_is_the_one_that_ostree_admin_deploy_makes() {
    let world = world();
    let (real, ours) = (world.real(), world.ours("ours"));
    assert_eq!(capabilities(&ours), capabilities(&real));
    assert!(capabilities(&ours).contains("cap_net_raw"));
    let (mut real, mut ours) = (looks(&real), looks(&ours));
    let [real_entry, our_entry] = loader_texts([&mut real, &mut ours], ENTRIES);
    assert_eq!(our_entry.replace(" /boot/ostree/", " /ostree/"), real_entry);
    assert!(
        our_entry.contains("linux /boot/ostree/demo-"),
        "{our_entry}"
    );
    loader_texts([&mut real, &mut ours], ["grub.cfg"; 2]);
    compare(real, ours);
}

#[test]
fn the_sysroot_of_a_u_boot_board_is_the_one_that_ostree_admin_deploy_makes() {
    for device_trees in [
        &[][..],
        // Names of which one is the beginning of another, and directories between files.
        &[
            "b.dtb",
            "b-1.dtb",
            "b/z.dtb",
            "a.dtb",
            "overlays/x.dtbo",
            "c/d/e.dtb",
        ],
    ] {
        let world = world_with(Backend::Uboot, device_trees);
        let (real, ours) = (world.real(), world.ours("ours"));
        let (mut real, mut ours) = (looks(&real), looks(&ours));
        for names in [ENTRIES, ["uEnv.txt"; 2]] {
            let [real, ours] = loader_texts([&mut real, &mut ours], names);
            assert_eq!(ours, real);
            assert_eq!(ours.contains("fdtdir"), !device_trees.is_empty(), "{ours}");
        }
        compare(real, ours);
    }
}
