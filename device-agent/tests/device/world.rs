//! A device in a directory: a real libostree sysroot, a real firmware partition image, a release server that
//! is a directory, and the boot loader's rule in place of a boot loader.

#[path = "boot.rs"]
mod boot;

use std::path::{Path, PathBuf};
use std::process::Command;

use bsp::board::Backend;
use bsp::boot::state::{decide, Decision};
use device_agent::check::{self, Offer, Server};
use device_agent::config;
use device_agent::device::Device;
use device_agent::failed::Memory;
use device_agent::install::{self, Switched};
use device_agent::judge::{self, Conclusion};
use device_agent::paths::Paths;
use device_agent::sysroot::Sysroot;
use device_agent::system::{Outcome, System, UnitState};
use device_agent::transport::Transport;
use keys::author::{self, Expiry, Keyring};
use keys::keyfile::PrivateKey;
use keys::release::{channel_target, release_target, Artifact, Channel, Delta, Release};
use ostree::gio::Cancellable;
use ostree::glib::prelude::*;
use sha2::{Digest, Sha256};

pub const PRODUCT: &str = "shop";
pub const BOARD: &str = "x86_64-uefi";
const PARTUUID: &str = "11111111-1111-8111-8111-111111111111";

pub struct World {
    dir: tempfile::TempDir,
    key: PrivateKey,
    backend: Backend,
}

/// What a commit is made of.
pub struct Commit<'a> {
    pub version: &'a str,
    pub board: &'a str,
    /// `None`: not signed.
    pub key: Option<&'a PrivateKey>,
}

/// A system in which everything is well, or nothing.
pub struct Simulated {
    pub healthy: bool,
}

impl System for Simulated {
    fn unit(&self, name: &str) -> UnitState {
        match (name, self.healthy) {
            ("multi-user.target", _) => UnitState::Active,
            ("app.service", true) => UnitState::Active,
            ("app.service", false) => UnitState::Failed,
            _ => UnitState::Pending,
        }
    }
    fn failed_units(&self) -> Vec<String> {
        Vec::new()
    }
    fn run(&self, command: &[String], _: std::time::Duration) -> Outcome {
        panic!("{command:?}: no checks are configured")
    }
    fn elapsed(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
    fn sleep(&self, _: std::time::Duration) {}
}

pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| {
            panic!("{program}: {e}; install the Debian package that brings it ({program})")
        });
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

impl World {
    /// A device with GRUB on which `version` runs and is confirmed.
    pub fn new(version: &str) -> Self {
        Self::with(Backend::Grub, version)
    }

    /// The same with another boot backend.
    pub fn with(backend: Backend, version: &str) -> Self {
        let world = Self {
            backend,
            dir: tempfile::tempdir().unwrap(),
            key: PrivateKey::generate().unwrap(),
        };
        let archive = world.archive();
        run(
            "ostree",
            &["init", "--mode=archive", "--repo", text(&archive)],
        );
        let first = world.commit(&Commit {
            version,
            board: BOARD,
            key: Some(&world.key),
        });
        let root = world.root();
        let repo = root.join("ostree/repo");
        let sysroot = format!("--sysroot={}", text(&root));
        std::fs::create_dir_all(&root).unwrap();
        run("ostree", &["admin", "init-fs", &sysroot, text(&root)]);
        run("ostree", &["admin", "os-init", &sysroot, PRODUCT]);
        run(
            "ostree",
            &[
                "config",
                "--repo",
                text(&repo),
                "set",
                "sysroot.bootloader",
                match backend {
                    Backend::Grub => "grub2",
                    Backend::Uboot => "uboot",
                },
            ],
        );
        world.empty_menu();
        run(
            "ostree",
            &["pull-local", "--repo", text(&repo), text(&archive), &first],
        );
        let id = format!("--karg=treeline.id={first}");
        let os = format!("--os={PRODUCT}");
        run(
            "ostree",
            &[
                "admin",
                "deploy",
                &sysroot,
                &os,
                "--karg=root=UUID=1",
                &id,
                &first,
            ],
        );
        world.firmware(&first);
        world.boots_with(&first);
        world.tree_config(version);
        world
    }

    pub fn root(&self) -> PathBuf {
        self.dir.path().join("device")
    }

    pub fn server(&self) -> PathBuf {
        self.dir.path().join("server")
    }

    fn archive(&self) -> PathBuf {
        self.dir.path().join("archive")
    }

    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    pub fn paths(&self) -> Paths {
        Paths::below(self.root())
    }

    /// On a device these two come with the running tree.
    fn tree_config(&self, version: &str) {
        let config = format!(
            r#"
product = "{PRODUCT}"
version = "{version}"
board = "{BOARD}"
stateroot = "{PRODUCT}"
commit-keys = ["{}"]
[boot]
{}
firmware-partuuid = "{PARTUUID}"
tries = 2
[update]
url = "file://{}"
[health]
settle-seconds = 0
units = ["app.service"]
"#,
            self.key.public_base64(),
            self.boot_place(),
            text(&self.server())
        );
        let file = self.paths().config();
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, config).unwrap();
    }

    fn boots_with(&self, id: &str) {
        let proc = self.root().join("proc");
        std::fs::create_dir_all(&proc).unwrap();
        std::fs::write(
            proc.join("cmdline"),
            format!("root=UUID=1 treeline.id={id}\n"),
        )
        .unwrap();
        // What is in /run is gone after a boot.
        let _ = std::fs::remove_dir_all(self.root().join("run"));
        std::fs::create_dir_all(self.root().join("run")).unwrap();
    }

    pub fn device(&self) -> Device {
        Device::new(self.paths(), config::load(&self.paths()).unwrap()).unwrap()
    }

    /// Boots by the boot loader's rule; returns the version that runs then.
    pub fn reboot(&self) -> String {
        let mut store = self.store();
        let state = store.read_state().unwrap();
        let good = store.read_good().unwrap();
        let entries = self.device().entries().unwrap();
        let index = match decide(state.as_ref(), good.as_deref(), &entries).unwrap() {
            Decision::Boot(index) => index,
            Decision::CountThenBoot(index, counted) => {
                store.write_state(&counted).unwrap();
                index
            }
        };
        self.judge_menu(&entries);
        self.boots_with(&entries[index]);
        let commit = entries[index].split('-').next().unwrap().to_owned();
        let version = self.version_in_archive(&commit);
        self.tree_config(&version);
        version
    }

    fn version_in_archive(&self, commit: &str) -> String {
        let shown = run(
            "ostree",
            &[
                "show",
                "--repo",
                text(&self.archive()),
                "--print-metadata-key=version",
                commit,
            ],
        );
        shown.trim_matches('\'').to_owned()
    }

    pub fn judge(&self, healthy: bool) -> Conclusion {
        judge::at_boot(&self.device(), &Simulated { healthy }).unwrap()
    }

    pub fn install(&self, release: &Release) -> anyhow::Result<Switched> {
        let transport = Transport::new(&self.paths(), &self.device().config.update).unwrap();
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(install::install(
                &self.device(),
                &transport,
                release,
                &|_| {},
            ))
    }

    /// Commits a small tree into the archive.
    pub fn commit(&self, commit: &Commit<'_>) -> String {
        let tree = self.dir.path().join(format!("tree-{}", commit.version));
        let _ = std::fs::remove_dir_all(&tree);
        let version = commit.version;
        for (file, content) in [
            (
                "usr/lib/os-release",
                format!("NAME=shop\nVERSION={version}\nID=shop\n"),
            ),
            ("usr/lib/modules/6.1.0/vmlinuz", "kernel".into()),
            (
                "usr/lib/modules/6.1.0/initramfs.img",
                format!("initramfs {version}"),
            ),
            (
                "usr/lib/device-agent/kargs",
                "root=UUID=1\nrw\npanic=5\n".into(),
            ),
            ("usr/etc/shop.conf", format!("default of {version}\n")),
            ("usr/etc/other.conf", format!("default of {version}\n")),
        ] {
            let file = tree.join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        }
        for empty in ["boot", "dev", "proc", "run", "sys", "sysroot", "tmp", "var"] {
            std::fs::create_dir_all(tree.join(empty)).unwrap();
        }
        let archive = self.archive();
        let checksum = run(
            "ostree",
            &[
                "commit",
                "--repo",
                text(&archive),
                "--orphan",
                "--owner-uid=0",
                "--owner-gid=0",
                "--no-xattrs",
                &format!("--add-metadata-string=version={version}"),
                &format!("--add-metadata-string=treeline.product={PRODUCT}"),
                &format!("--add-metadata-string=treeline.board={}", commit.board),
                text(&tree),
            ],
        );
        if let Some(key) = commit.key {
            self.sign(&checksum, key);
        }
        checksum
    }

    fn sign(&self, checksum: &str, key: &PrivateKey) {
        let repo = ostree::Repo::new_for_path(self.archive());
        repo.open(Cancellable::NONE).unwrap();
        let bytes = repo
            .load_variant(ostree::ObjectType::Commit, checksum)
            .unwrap()
            .data_as_bytes();
        let metadata = ostree::glib::VariantDict::new(None);
        metadata.insert_value(
            keys::commit::METADATA_KEY,
            &vec![key.sign(&bytes).to_vec()].to_variant(),
        );
        repo.write_commit_detached_metadata(checksum, Some(&metadata.end()), Cancellable::NONE)
            .unwrap();
    }

    /// Publishes a commit: the whole, and deltas from `from`.
    pub fn release(&self, version: &str, commit: &str, from: &[&str]) -> Release {
        Release {
            format: keys::release::FORMAT,
            product: PRODUCT.into(),
            version: version.into(),
            boards: vec![BOARD.into()],
            arch: "amd64".into(),
            commit: commit.into(),
            epoch: 1,
            created: 0,
            full: self.artifact(None, commit),
            deltas: from
                .iter()
                .map(|from| Delta {
                    from: from.to_string(),
                    // The choice is by length; a delta of this small tree need not be the shorter one.
                    file: self.artifact(Some(from), commit),
                    compact: None,
                })
                .collect(),
            installed_bytes: 1 << 20,
            notes: String::new(),
        }
    }

    fn artifact(&self, from: Option<&str>, to: &str) -> Artifact {
        let deltas = self.server().join("deltas");
        std::fs::create_dir_all(&deltas).unwrap();
        let name = match from {
            Some(from) => format!("{}-{}", &from[..8], &to[..8]),
            None => to[..8].to_owned(),
        };
        let file = deltas.join(&name);
        run(
            "ostree",
            &[
                "static-delta",
                "generate",
                "--repo",
                text(&self.archive()),
                "--inline",
                "--min-fallback-size=0",
                &format!("--filename={}", text(&file)),
                &from.map_or("--empty".into(), |from| format!("--from={from}")),
                &format!("--to={to}"),
            ],
        );
        let content = std::fs::read(&file).unwrap();
        Artifact {
            path: format!("deltas/{name}"),
            length: content.len() as u64,
            sha256: hex::encode(Sha256::digest(&content)),
        }
    }

    /// Publishes the archive itself, as plain OSTree clients want it; returns where it stands.
    pub fn publish_repository(&self) -> PathBuf {
        let repo = self.server().join(keys::release::REPOSITORY);
        let _ = std::fs::remove_dir_all(&repo);
        std::fs::create_dir_all(self.server()).unwrap();
        run("cp", &["-a", text(&self.archive()), text(&repo)]);
        repo
    }

    /// Judges the device's repository with libostree's own tool.
    pub fn fsck(&self) {
        run(
            "ostree",
            &["fsck", "--repo", text(&self.root().join("ostree/repo"))],
        );
    }

    /// Directory of the deployment of `commit`.
    pub fn deployment(&self, commit: &str) -> PathBuf {
        let base = self.root().join(format!("ostree/deploy/{PRODUCT}/deploy"));
        std::fs::read_dir(&base)
            .unwrap()
            .flatten()
            .map(|e| e.path())
            .find(|p| p.is_dir() && p.file_name().unwrap().to_string_lossy().starts_with(commit))
            .unwrap_or_else(|| panic!("no deployment of {commit}"))
    }

    pub fn has_commit(&self, commit: &str) -> bool {
        self.root()
            .join(format!(
                "ostree/repo/objects/{}/{}.commit",
                &commit[..2],
                &commit[2..]
            ))
            .exists()
    }
}

impl World {
    /// The release keys, made by the first publication.
    pub fn keys(&self) -> PathBuf {
        self.dir.path().join("keys")
    }

    /// Publishes signed metadata: these releases, newest first, are the channel.
    /// Returns the version of the timestamp.
    pub fn publish(&self, releases: &[&Release]) -> u64 {
        self.publish_until(releases, &Expiry::from(std::time::SystemTime::now()))
    }

    /// The same, valid until then.
    pub fn publish_until(&self, releases: &[&Release], expiry: &Expiry) -> u64 {
        let keyring = Keyring::in_dir(&self.keys());
        let root_file = self.root().join(bsp::device::ROOT_JSON_PATH);
        if !root_file.exists() {
            std::fs::create_dir_all(self.keys()).unwrap();
            for file in [
                &keyring.root,
                &keyring.targets,
                &keyring.snapshot,
                &keyring.timestamp,
            ] {
                PrivateKey::generate().unwrap().save_new(file).unwrap();
            }
            let root = author::create_root(&keyring, expiry).unwrap();
            std::fs::write(&root_file, root).unwrap();
        }
        let root = std::fs::read(root_file).unwrap();
        self.publish_as(&root, &keyring, releases, expiry)
    }

    /// The same with any root and keys.
    pub fn publish_as(
        &self,
        root: &[u8],
        keyring: &Keyring,
        releases: &[&Release],
        expiry: &Expiry,
    ) -> u64 {
        let channel = Channel {
            format: keys::release::FORMAT,
            product: PRODUCT.into(),
            channel: "stable".into(),
            board: BOARD.into(),
            versions: releases.iter().map(|r| r.version.clone()).collect(),
        };
        let mut add = vec![(channel_target(BOARD, "stable"), channel.to_json().unwrap())];
        for release in releases {
            add.push((
                release_target(BOARD, &release.version),
                release.to_json().unwrap(),
            ));
        }
        let done = author::publish(root, keyring, &self.server().join("tuf"), add, expiry);
        done.unwrap().timestamp_version
    }

    /// The epoch that the running deployment remembers.
    pub fn epoch_of_what_runs(&self) -> Option<u64> {
        let sysroot = Sysroot::read(&self.root()).unwrap();
        sysroot.find(&self.device().booted).and_then(|d| d.epoch)
    }

    /// What the channel offers.
    pub fn look(&self) -> anyhow::Result<Offer> {
        let device = self.device();
        let transport = Transport::new(&self.paths(), &device.config.update).unwrap();
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async {
                let server = Server::open(&device, &transport).await?;
                let floor = check::epoch_floor(&self.paths(), None);
                server
                    .newest(&device, floor, &Memory::load(&self.paths()))
                    .await
            })
    }
}
