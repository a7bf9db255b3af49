use super::*;
use crate::command::Command;

fn host_tree() -> Tree {
    let mut tree = Tree::new();
    for dir in ["bin", "lib", "lib64"] {
        tree.insert(&format!("usr/{dir}"), Node::dir(0o755))
            .unwrap();
        tree.insert(dir, Node::symlink(format!("usr/{dir}")))
            .unwrap();
    }
    // Any dynamic program of the host stands in for the two of the tree.
    for path in [BUSYBOX, PREPARE_ROOT] {
        let bytes = std::fs::read("/usr/bin/ls").unwrap();
        tree.insert(path, Node::file(bytes, 0o755)).unwrap();
    }
    let libraries = Command::new("ldd", "libc-bin")
        .arg("/usr/bin/ls")
        .text()
        .unwrap();
    for word in libraries
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        let bytes = std::fs::read(word).unwrap();
        tree.insert(word, Node::file(bytes, 0o755)).unwrap();
    }
    tree.insert(PREPARE_ROOT_CONF, Node::file("[sysroot]\n", 0o644))
        .unwrap();
    for (name, text) in [
        (
            "modules.dep",
            "kernel/ext4.ko: kernel/jbd2.ko\nkernel/jbd2.ko:\nkernel/i6300esb.ko:\n",
        ),
        ("kernel/ext4.ko", "e"),
        ("kernel/jbd2.ko", "j"),
        ("kernel/i6300esb.ko", "w\0parm=heartbeat:seconds\0"),
    ] {
        tree.insert(
            &format!("usr/lib/modules/6.1/{name}"),
            Node::file(text, 0o644),
        )
        .unwrap();
    }
    tree
}

fn made(tree: &mut Tree) -> Vec<u8> {
    made_for(tree, None)
}

fn made_for(tree: &mut Tree, watchdog_max: Option<u32>) -> Vec<u8> {
    let wanted = Wanted {
        modules: &["ext4".into()],
        watchdog: &["i6300esb".into()],
        watchdog_max,
    };
    add(tree, "6.1", wanted).unwrap();
    tree.read("usr/lib/modules/6.1/initramfs.img").unwrap()
}

#[test]
fn cpio_unpacks_it_with_all_that_it_needs() {
    let dir = tempfile::tempdir().unwrap();
    let archive = dir.path().join("i.cpio");
    std::fs::write(&archive, made(&mut host_tree())).unwrap();
    let listing = Command::new("cpio", "cpio")
        .args(["--quiet", "-itv"])
        .stdin(std::fs::File::open(&archive).unwrap())
        .text()
        .unwrap();
    for end in [
        " init",
        " usr/bin/sh -> busybox",
        " usr/lib/modules/6.1/kernel/jbd2.ko",
        " lib -> usr/lib",
        " dev/console",
        "/libc.so.6",
    ] {
        assert!(
            listing.lines().any(|line| line.ends_with(end)),
            "{end}\nnot in\n{listing}"
        );
    }
    let list = Command::new("cpio", "cpio")
        .args(["--quiet", "-i", "--to-stdout", MODULE_LIST])
        .stdin(std::fs::File::open(&archive).unwrap())
        .text()
        .unwrap();
    assert_eq!(
        list,
        "/usr/lib/modules/6.1/kernel/i6300esb.ko heartbeat=120\n\
         /usr/lib/modules/6.1/kernel/jbd2.ko\n/usr/lib/modules/6.1/kernel/ext4.ko"
    );
}

#[test]
fn a_watchdog_is_given_no_more_than_it_takes() {
    let made = made_for(&mut host_tree(), Some(16));
    let wanted = b"i6300esb.ko heartbeat=16\n";
    assert!(made.windows(wanted.len()).any(|w| w == wanted));
}

#[test]
fn it_is_the_same_every_time() {
    assert!(made(&mut host_tree()) == made(&mut host_tree()));
}

#[test]
fn a_missing_program_names_its_package_and_a_missing_library_its_user() {
    let wanted = Wanted {
        modules: &[],
        watchdog: &[],
        watchdog_max: None,
    };
    let mut tree = host_tree();
    tree.remove(PREPARE_ROOT);
    let error = format!("{:#}", add(&mut tree, "6.1", wanted).unwrap_err());
    assert!(error.contains("ostree-boot"), "{error}");
    let mut tree = host_tree();
    let libc: Vec<String> = tree
        .iter()
        .filter(|(path, _)| path.ends_with("libc.so.6"))
        .map(|(path, _)| path.to_string())
        .collect();
    for path in libc {
        tree.remove(&path);
    }
    let error = format!("{:#}", add(&mut tree, "6.1", wanted).unwrap_err());
    assert!(
        error.contains("libc.so.6") && error.contains(BUSYBOX),
        "{error}"
    );
}

#[test]
fn the_shell_can_read_init() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("init");
    std::fs::write(&path, INIT).unwrap();
    Command::new("sh", "dash")
        .arg("-n")
        .arg(path)
        .run()
        .unwrap();
    for applet in APPLETS {
        assert!(INIT.contains(applet), "{applet} is not used");
    }
}
