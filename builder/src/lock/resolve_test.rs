//! Judged by apt: a small archive of index files only, as resolving needs no package.

use std::fs;

use sha2::{Digest, Sha256};

use super::*;
use crate::lock::DEFAULT_SUITE;
use crate::project::Project;

struct World {
    dir: tempfile::TempDir,
    cache: Cache,
}

impl World {
    /// An archive with every package of the base list and the board, and some that fit and do not fit.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path().join("cache")).unwrap();
        let world = Self { dir, cache };
        let mut index = String::new();
        let mut add = |name: &str, more: &str| {
            index.push_str(&format!(
                "Package: {name}\nVersion: 1:2.0+b1\nArchitecture: amd64\nMaintainer: x\nFilename: pool/{name}_2.0+b1_amd64.deb\n\
                 Size: 10\nSHA256: {}\nDescription: x\n{more}\n",
                hex::encode(Sha256::digest(name))
            ));
        };
        for name in BASE_PACKAGES {
            add(
                name,
                if *name == "udev" {
                    "Depends: kmod\n"
                } else {
                    ""
                },
            );
        }
        add("libarchive13t64", "Depends: libzstd1\n");
        add("libzstd1", "");
        add("dpkg", "Essential: yes\n");
        add("apt", "Depends: libapt\n");
        add("libapt", "");
        add(
            "linux-image-cloud-amd64",
            "Depends: initramfs-tools | linux-initramfs-tool\n",
        );
        add(
            "initramfs-tools",
            "Provides: linux-initramfs-tool\nConflicts: linux-initramfs-tool\n",
        );
        add("shim-signed", "Depends: grub-install\n");
        add("grub-efi-amd64-signed", "");
        add("shim-helpers-amd64-signed", "");
        add("nginx", "Recommends: nginx-doc\n");
        add("nginx-doc", "");
        add("left", "Conflicts: right\n");
        add("right", "");
        add("broken", "Depends: nowhere (>= 3)\n");
        let root = world.archive();
        let packages = root.join("dists/trixie/main/binary-amd64");
        fs::create_dir_all(&packages).unwrap();
        fs::write(packages.join("Packages"), &index).unwrap();
        fs::write(
            root.join("dists/trixie/Release"),
            format!(
                "Suite: trixie\nCodename: trixie\nDate: Sat, 06 Sep 2025 09:13:21 UTC\nArchitectures: amd64\nComponents: main\n\
                 SHA256:\n {} {} main/binary-amd64/Packages\n",
                hex::encode(Sha256::digest(&index)),
                index.len()
            ),
        )
        .unwrap();
        world
    }

    fn archive(&self) -> std::path::PathBuf {
        self.dir.path().join("archive")
    }

    /// Resolves a product with these lines in `[packages]`.
    fn resolve(&self, packages: &str) -> Result<BoardLock> {
        let address = format!("file://{}/", self.archive().display());
        fs::write(
            self.dir.path().join("product.toml"),
            format!("name = \"demo\"\nversion = \"1.0.0\"\n[base]\nsuite = \"trixie\"\n[packages]\n{packages}\n"),
        )?;
        let project = Project::load(self.dir.path())?;
        let merged = project.merged(&project.board("x86_64-uefi")?);
        let archive = Archive {
            main: address.clone(),
            security: format!("{address}security/"),
        };
        let mut lines = suite_lines(&merged, &archive, "trusted=yes");
        lines.truncate(1);
        with_archive(&merged, &archive, lines, None, &self.cache, |_| ())
    }

    fn error(&self, packages: &str) -> String {
        format!("{:#}", self.resolve(packages).unwrap_err())
    }
}

fn names(packages: &[LockedPackage]) -> Vec<&str> {
    packages
        .iter()
        .map(|package| package.name.as_str())
        .collect()
}

#[test]
fn a_product_is_resolved() {
    let world = World::new();
    let lock = world
        .resolve("add = [\"nginx\"]\ndrop = [\"tzdata\"]")
        .unwrap();
    let tree = names(&lock.packages);
    for there in ["nginx", "systemd", "dpkg", "linux-image-cloud-amd64"] {
        assert!(tree.contains(&there), "{there} is missing: {tree:?}");
    }
    for gone in [
        "tzdata",
        "nginx-doc",
        "apt",
        "initramfs-tools",
        INITRAMFS_STAND_IN,
    ] {
        assert!(!tree.contains(&gone), "{gone} is there: {tree:?}");
    }
    // Without their dependencies, with theirs.
    assert_eq!(
        names(&lock.firmware),
        [
            "grub-efi-amd64-signed",
            "shim-helpers-amd64-signed",
            "shim-signed"
        ]
    );
    assert_eq!(
        names(&lock.tools),
        ["e2fsprogs", "libarchive13t64", "libzstd1"]
    );
    let nginx = lock.packages.iter().find(|p| p.name == "nginx").unwrap();
    assert_eq!(
        *nginx,
        LockedPackage {
            name: "nginx".into(),
            version: "1:2.0+b1".into(),
            arch: "amd64".into(),
            size: 10,
            sha256: hex::encode(Sha256::digest("nginx")),
            archive: "main".into(),
            filename: "pool/nginx_2.0+b1_amd64.deb".into(),
        }
    );
    assert_eq!(lock.suites[0].name, DEFAULT_SUITE);
    assert_eq!(lock.newest_date(), 1_757_150_001);
    assert_eq!(
        world
            .resolve("add = [\"nginx\"]\ndrop = [\"tzdata\"]")
            .unwrap(),
        lock
    );
}

#[test]
fn mistakes_are_told_in_the_users_words() {
    let world = World::new();
    for (packages, says) in [
        (
            "add = [\"ngnix\"]",
            vec!["packages.add", "no package ngnix", "did you mean nginx?"],
        ),
        (
            "add = [\"left\", \"right\"]",
            vec!["together", "left", "right"],
        ),
        ("add = [\"broken\"]", vec!["together", "nowhere"]),
        (
            "add = [\"initramfs-tools\"]",
            vec!["initramfs generator cannot be added"],
        ),
        (
            "drop = [\"kmod\"]",
            vec!["kmod cannot be dropped", "needed by udev"],
        ),
        (
            "drop = [\"dpkg\"]",
            vec!["dpkg cannot be dropped", "essential"],
        ),
        ("drop = [\"tzdatta\"]", vec!["did you mean tzdata?"]),
    ] {
        let error = world.error(packages);
        for part in says {
            assert!(
                error.contains(part),
                "{packages}: {part} is not in:\n{error}"
            );
        }
    }
}

#[test]
fn words_that_apt_would_take_for_commands_are_refused() {
    for name in [
        "nginx-",
        "?essential",
        "--help",
        "-o",
        "./x.deb",
        "Nginx",
        "a b",
        "nginx=1",
    ] {
        let refused = check_names(&[name.to_string()], &|_| "here".into());
        assert!(refused.is_err(), "{name}");
    }
    for name in ["g++", "libc6", "2to3"] {
        check_names(&[name.to_string()], &|_| "here".into()).unwrap();
    }
}

#[test]
fn an_archive_out_of_reach_is_told() {
    let world = World::new();
    fs::remove_dir_all(world.archive()).unwrap();
    let error = world.error("");
    assert!(
        error.contains("reading the package lists of file://"),
        "{error}"
    );
}

#[test]
fn names_in_what_apt_says() {
    let said = "E: Unable to locate package foo\nE: Version '9' for 'bar' was not found\n\
                E: Package 'baz' has no installation candidate\nE: Unable to locate package foo";
    assert_eq!(unknown_packages(said), ["foo", "bar", "baz"]);
}
