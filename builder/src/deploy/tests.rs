//! Judge: the real `ostree`. A small commit is deployed by `ostree admin deploy` and by us, and the
//! two sysroots are compared path by path.

mod same;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::*;
use crate::command::Command;

const REFSPEC: &str = "demo/x86_64-uefi";

struct World {
    _dir: tempfile::TempDir,
    root: PathBuf,
    commit: String,
    backend: Backend,
}

fn ostree(args: &[&str]) -> Command {
    // GRUB's configuration is written by a program of ours; here by one that writes something.
    Command::new("ostree", "ostree").args(args)
}

fn write(root: &Path, path: &str, content: &[u8], mode: u32) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A small operating system with all that is special: set-uid, capabilities, owners, links, an empty
/// file, equal files, long names.
fn tree(root: &Path, version: &str) {
    for dir in ["boot", "dev", "proc", "run", "sys", "sysroot", "tmp", "var"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    write(
        root,
        "usr/lib/modules/6.1-x/vmlinuz",
        format!("kernel {version}").as_bytes(),
        0o644,
    );
    write(
        root,
        "usr/lib/modules/6.1-x/initramfs.img",
        b"initramfs",
        0o600,
    );
    let release = format!("ID=demo\nPRETTY_NAME=\"Demo OS {version}\"\n");
    write(root, "usr/lib/os-release", release.as_bytes(), 0o644);
    write(root, "usr/bin/su", b"#!/bin/sh\n", 0o4755);
    write(root, "usr/bin/su-again", b"#!/bin/sh\n", 0o4755);
    write(root, "usr/bin/ping", b"ping", 0o755);
    write(root, "usr/lib/empty", b"", 0o644);
    write(
        root,
        &format!("usr/lib/{}/größe", "long".repeat(40)),
        b"x",
        0o644,
    );
    write(root, "usr/etc/hostname", b"host\n", 0o644);
    write(root, "usr/etc/empty", b"", 0o640);
    write(root, "usr/etc/secret/key", b"key\n", 0o600);
    write(root, "usr/etc-not/file", b"beside\n", 0o644);
    write(
        root,
        "usr/lib/device-agent/kargs",
        b"root=UUID=1\nrw\n",
        0o644,
    );
    for (link, target) in [
        ("bin", "usr/bin"),
        ("usr/etc/os-release", "../lib/os-release"),
        ("ostree", "sysroot/ostree"),
    ] {
        std::os::unix::fs::symlink(target, root.join(link)).unwrap();
    }
    std::os::unix::fs::chown(root.join("usr/etc/secret/key"), Some(0), Some(42)).unwrap();
    Command::new("setcap", "libcap2-bin")
        .arg("cap_net_raw+ep")
        .arg(root.join("usr/bin/ping"))
        .run()
        .unwrap();
}

fn commit(root: &Path, tree_dir: &Path, version: &str) -> String {
    ostree(&["commit", "--branch", REFSPEC, "--timestamp=@1700000000"])
        .arg(format!("--repo={}", root.join("repo").display()))
        .arg(format!("--tree=dir={}", tree_dir.display()))
        .arg(format!("--add-metadata-string=version={version}"))
        .text()
        .unwrap()
}

fn world() -> World {
    world_with(Backend::Grub, &[])
}

/// A world whose kernel has these device trees.
fn world_with(backend: Backend, device_trees: &[&str]) -> World {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_path_buf();
    tree(&root.join("tree"), "1");
    for file in device_trees {
        let path = format!("usr/lib/modules/6.1-x/dtb/{file}");
        write(&root.join("tree"), &path, file.as_bytes(), 0o644);
    }
    ostree(&["init", "--mode=archive"])
        .arg(format!("--repo={}", root.join("repo").display()))
        .run()
        .unwrap();
    let commit = commit(&root, &root.join("tree"), "1");
    write(&root, "grub", b"#!/bin/sh\necho menu > \"$2\"\n", 0o755);
    World {
        _dir: dir,
        root,
        commit,
        backend,
    }
}

impl World {
    fn site(&self) -> Site {
        Site {
            stateroot: "demo".into(),
            refspec: REFSPEC.into(),
            id: self.commit.clone(),
            kargs: kargs_of(&self.root.join("repo"), &self.commit).unwrap(),
            backend: self.backend,
        }
    }

    fn admin(&self, sysroot: &Path, args: &[&str]) -> Result<String> {
        ostree(&["admin"])
            .args(args)
            .arg(format!("--sysroot={}", sysroot.display()))
            .env("OSTREE_GRUB2_EXEC", self.root.join("grub"))
            .text()
    }

    /// The sysroot as `ostree admin` makes it.
    fn real(&self) -> PathBuf {
        let sysroot = self.root.join("real");
        fs::create_dir(&sysroot).unwrap();
        ostree(&["admin", "init-fs"]).arg(&sysroot).run().unwrap();
        self.admin(&sysroot, &["os-init", "demo"]).unwrap();
        let repo = sysroot.join("ostree/repo");
        fs::write(repo.join("config"), boot::repo_config(self.backend)).unwrap();
        ostree(&["pull-local"])
            .arg(format!("--repo={}", repo.display()))
            .arg(self.root.join("repo"))
            .arg(REFSPEC)
            .run()
            .unwrap();
        if self.backend == Backend::Uboot {
            // libostree writes anew what it finds.
            write(&sysroot, "boot/loader.0/uEnv.txt", b"", 0o644);
            std::os::unix::fs::symlink("loader.0", sysroot.join("boot/loader")).unwrap();
        }
        let id = format!("--karg=treeline.id={}", self.commit);
        let args = [
            "deploy",
            "--os=demo",
            "--karg=root=UUID=1",
            "--karg=rw",
            &id,
            REFSPEC,
        ];
        self.admin(&sysroot, &args).unwrap();
        sysroot
    }

    /// The sysroot as our tar unpacks.
    fn ours(&self, name: &str) -> PathBuf {
        let tar = self.root.join(format!("{name}.tar"));
        let mut file = fs::File::create(&tar).unwrap();
        write_sysroot_tar(
            &self.root.join("repo"),
            &self.commit,
            &self.site(),
            &mut file,
        )
        .unwrap();
        let sysroot = self.root.join(name);
        fs::create_dir(&sysroot).unwrap();
        Command::new("tar", "tar")
            .args([
                "--extract",
                "--xattrs",
                "--xattrs-include=*",
                "--same-owner",
                "--same-permissions",
            ])
            .arg(format!("--file={}", tar.display()))
            .arg(format!("--directory={}", sysroot.display()))
            .run()
            .unwrap();
        sysroot
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // libostree makes deployment roots immutable.
        let _ = Command::new("chattr", "e2fsprogs")
            .args(["-R", "-f", "-i"])
            .arg(&self.root)
            .run();
    }
}

#[test]
fn ostree_accepts_the_sysroot_and_goes_on_with_it() {
    let world = world();
    let sysroot = world.ours("ours");
    let status = world.admin(&sysroot, &["status"]).unwrap();
    assert!(
        status.contains(&format!("demo {}.0", world.commit)),
        "{status}"
    );
    assert!(status.contains("Version: 1"), "{status}");
    let repo = format!("--repo={}", sysroot.join("ostree/repo").display());
    ostree(&["fsck", &repo]).run().unwrap();

    tree(&world.root.join("tree2"), "2");
    let second = commit(&world.root, &world.root.join("tree2"), "2");
    ostree(&["pull-local", &repo])
        .arg(world.root.join("repo"))
        .arg(REFSPEC)
        .run()
        .unwrap();
    world
        .admin(
            &sysroot,
            &[
                "deploy",
                "--os=demo",
                "--karg-append=treeline.id=2",
                &second,
            ],
        )
        .unwrap();
    let status = world.admin(&sysroot, &["status"]).unwrap();
    assert!(
        status.contains(&second) && status.contains(&world.commit),
        "{status}"
    );

    world.admin(&sysroot, &["undeploy", "0"]).unwrap();
    let status = world.admin(&sysroot, &["status"]).unwrap();
    assert!(
        !status.contains(&second) && status.contains(&world.commit),
        "{status}"
    );
    world.admin(&sysroot, &["cleanup"]).unwrap();
    ostree(&["fsck", &repo]).run().unwrap();
    assert!(sysroot.join("boot/loader/entries").is_dir());
}

#[test]
fn the_stream_is_the_same_every_time() {
    let world = world();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = Vec::new();
        let repo = world.root.join("repo");
        write_sysroot_tar(&repo, &world.commit, &world.site(), &mut stream).unwrap();
        streams.push(stream);
    }
    assert!(streams[0] == streams[1]);
}

#[test]
fn a_damaged_object_is_found_while_it_is_written() {
    let world = world();
    let repo = world.root.join("repo");
    let target = "usr/bin/ping";
    let other = "usr/etc/hostname";
    let path_of = |path: &str| {
        let line = ostree(&["ls", "-C"])
            .arg(format!("--repo={}", repo.display()))
            .args([world.commit.as_str(), &format!("/{path}")])
            .text()
            .unwrap();
        let checksum = line.split_whitespace().nth(4).unwrap().to_string();
        repo.join(format!(
            "objects/{}/{}.filez",
            &checksum[..2],
            &checksum[2..]
        ))
    };
    fs::copy(path_of(other), path_of(target)).unwrap();
    let error =
        write_sysroot_tar(&repo, &world.commit, &world.site(), &mut std::io::sink()).unwrap_err();
    assert!(
        format!("{error:#}").contains("does not match its name"),
        "{error:#}"
    );
}
