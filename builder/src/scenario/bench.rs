//! The test bench: keys, images and update servers that the scenarios share.
//!
//! Everything stands in a directory of its own (`out/test/<board>`), so a test never touches the
//! product's keys, releases or lock.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{ensure, Context, Result};
use bsp::board::{Board, DiskBus};
use keys::author::{self, Expiry, Keyring};
use keys::keyfile::PrivateKey;
use keys::release::{release_target, Release};

use super::table::{Fault, Offer};
use super::{stand_in, variant};
use crate::cache::Cache;
use crate::command::Command;
use crate::pipeline::{self, BuildOptions};
use crate::progress::Progress;
use crate::project::Project;
use crate::qemu::Firmware;
use crate::release::{self, Compression};
use crate::secure_boot;
use crate::serve::{self, tls, Running};

/// Port that the devices under test reach the server at, unless told otherwise.
pub const PORT: u16 = 18443;

/// What the scenarios share.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The board.
    pub board: Board,
    /// Disk of a device on the old version, fresh from the factory (qcow2).
    pub disk: PathBuf,
    /// What the devices boot with besides the disk.
    pub firmware: Firmware,
    dir: PathBuf,
    project: Project,
    old_commit: String,
    port: u16,
    cache: &'a Cache,
    progress: Progress,
}

impl<'a> Bench<'a> {
    /// Builds the old version of `project` for `board` below `dir`.
    pub fn prepare(
        project: &Project,
        board: &str,
        dir: &Path,
        port: u16,
        cache: &'a Cache,
        progress: Progress,
    ) -> Result<Self> {
        // Keys and repository of an earlier run belong to that run.
        if dir.exists() {
            fs::remove_dir_all(dir).with_context(|| format!("clearing {}", dir.display()))?;
        }
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let machine = project.merged(&project.board(board)?).board;
        let url = stand_in::url(machine.qemu.as_ref(), port);
        let mut product = variant::under_test(project, &url);
        stand_in::lay_into(&mut product, &machine, &dir.join("stand-in"))?;
        let site = Project {
            dir: dir.to_path_buf(),
            product,
        };
        make_keys(&site.keys_dir())?;
        if machine.starts_own() {
            secure_boot::make(&site.keys_dir(), &site.product.name)?;
        }
        if project.lock_path().exists() {
            fs::copy(project.lock_path(), site.lock_path()).context("copying the lock")?;
        }
        let boards = project.dir.join("boards");
        if boards.exists() {
            Command::new("cp", "coreutils")
                .arg("-a")
                .arg(&boards)
                .arg(dir)
                .run()?;
        }
        let built = pipeline::build(&site, board, &BuildOptions::raw_image(), cache, progress)
            .context("building the version that devices start with")?;
        // A resolved lock is worth keeping: the next run builds the same.
        if !project.lock_path().exists() {
            fs::copy(site.lock_path(), project.lock_path()).context("keeping the lock")?;
        }
        let raw = built.raw_image().context("the build made no raw image")?;
        let disk = dir.join("factory.qcow2");
        Command::new("qemu-img", "qemu-utils")
            .args(["convert", "-q", "-f", "raw", "-O", "qcow2"])
            .arg(raw)
            .arg(&disk)
            .run()?;
        // A larger disk than the image: the data partition must grow.
        Command::new("qemu-img", "qemu-utils")
            .args(["resize", "-q"])
            .arg(&disk)
            .arg(larger(&machine, raw)?.to_string())
            .run()?;
        let firmware = Firmware::make(&machine, raw, dir, &site.keys_dir(), |file| {
            pipeline::package_file(&site, board, file, cache, progress)
        })?;
        Ok(Self {
            board: machine,
            disk,
            firmware,
            dir: dir.to_path_buf(),
            project: site,
            old_commit: built.checksum,
            port,
            cache,
            progress,
        })
    }

    /// The published directory of a server that offers `offer`, made on first use.
    fn offered(&self, offer: Offer) -> Result<PathBuf> {
        let updates = self.dir.join("servers").join(format!("{offer:?}"));
        if updates.exists() {
            return Ok(updates);
        }
        let overlay = self.dir.join("variants").join(format!("{offer:?}"));
        let product = variant::variant(&self.project.product, offer, &self.board.id, &overlay)?;
        let commit = match offer {
            Offer::NewLoader | Offer::BrokenLoader => self.commit_with_loader(&product, offer)?,
            _ => self.commit(&product)?,
        };
        self.publish(&product, &commit, &self.project.repo_dir(), &updates)?;
        Ok(updates)
    }

    /// The same with a board file that brings another boot loader; the board is as it was afterwards.
    fn commit_with_loader(
        &self,
        product: &crate::manifest::Product,
        offer: Offer,
    ) -> Result<String> {
        let dir = self.dir.join("boards");
        let file = dir.join(format!("{}.toml", self.board.id));
        let before = fs::read(&file).ok();
        super::loader::board_file(&self.board, offer, &dir)?;
        let commit = self.commit(product);
        match before {
            Some(text) => fs::write(&file, text),
            None => fs::remove_file(&file),
        }
        .with_context(|| format!("putting {} back", file.display()))?;
        commit
    }

    fn commit(&self, product: &crate::manifest::Product) -> Result<String> {
        let project = Project {
            dir: self.dir.clone(),
            product: product.clone(),
        };
        let built = pipeline::build(
            &project,
            &self.board.id,
            &BuildOptions::commit_only(),
            self.cache,
            self.progress,
        )
        .with_context(|| format!("building version {}", product.version))?;
        Ok(built.checksum)
    }

    /// Publishes the old version and `commit` into `updates`.
    fn publish(
        &self,
        product: &crate::manifest::Product,
        commit: &str,
        repo: &Path,
        updates: &Path,
    ) -> Result<()> {
        let mut request =
            release::Request::of(&self.project, &self.board.id, "stable", &self.old_commit)?;
        request.repo = repo.to_path_buf();
        request.updates = updates.to_path_buf();
        request.compression = Compression::Stored;
        // Throw-away keys have signed the commits: nobody will ask for these deltas again.
        let cache = Cache::at(self.dir.join("cache"))?;
        release::publish(&request, &cache, Progress::Quiet)
            .context("publishing the old version")?;
        request.commit = commit.to_string();
        request.version = product.version.clone();
        release::publish(&request, &cache, Progress::Quiet)
            .context("publishing the new version")?;
        Ok(())
    }

    /// The published directory for a scenario: a copy of the offer, with the fault's change.
    pub fn server_dir(&self, offer: Offer, fault: Fault, scratch: &Path) -> Result<PathBuf> {
        let offered = self.offered(offer)?;
        let dir = scratch.join("updates");
        Command::new("cp", "coreutils")
            .args(["-a", "--reflink=auto"])
            .arg(&offered)
            .arg(&dir)
            .run()?;
        match fault {
            Fault::TamperedDelta => self.tamper_deltas(&dir)?,
            Fault::TamperedMetadata => tamper_metadata(&dir.join("tuf"))?,
            Fault::ForeignCommit => self.foreign_commit(&dir, scratch)?,
            Fault::ExpiredMetadata => self.republish(&dir, &self.project.keys_dir(), past())?,
            Fault::ForeignMetadata => self.foreign_metadata(&dir, scratch)?,
            Fault::WrongBoard => self.reissue(&dir, |release| {
                release.boards = vec!["another-board".into()];
            })?,
            Fault::NoDelta => {
                self.reissue(&dir, |release| release.deltas.clear())?;
                // Only single objects are left.
                fs::remove_dir_all(dir.join("deltas")).context("removing the deltas")?;
            }
            _ => {}
        }
        Ok(dir)
    }

    /// Whether the devices reach a server; otherwise updates come on a disk.
    pub fn has_network(&self) -> bool {
        self.board.qemu.as_ref().is_some_and(|qemu| qemu.network)
    }

    /// Whether QEMU can save the state of the board's machine.
    pub fn has_snapshots(&self) -> bool {
        self.board.qemu.as_ref().is_some_and(|qemu| qemu.snapshots)
    }

    /// Starts the update server over `dir`.
    pub fn serve(&self, dir: &Path) -> Result<Running> {
        let tls = tls::ensure(&self.project.keys_dir().join("tls"), &[])?;
        let mut config = serve::Config::new(dir, tls);
        config.port = self.port;
        serve::start(config).with_context(|| {
            format!(
                "starting the update server on port {}; is another test running?",
                self.port
            )
        })
    }

    fn release_of(&self, updates: &Path) -> Result<Release> {
        let name = release_target(&self.board.id, variant::NEW_VERSION);
        let root = self.root_json(&self.project.keys_dir())?;
        let text = author::target(&root, &updates.join("tuf"), &name)?
            .with_context(|| format!("the repository has no target {name}"))?;
        serde_json::from_slice(&text).with_context(|| format!("reading {name}"))
    }

    fn root_json(&self, keys: &Path) -> Result<Vec<u8>> {
        let path = keys.join("root.json");
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }

    fn tamper_deltas(&self, updates: &Path) -> Result<()> {
        let release = self.release_of(updates)?;
        ensure!(
            !release.deltas.is_empty(),
            "the release has no delta to tamper with"
        );
        for artifact in release
            .deltas
            .iter()
            .flat_map(|d| [Some(&d.file), d.compact.as_ref().map(|c| &c.file)])
            .flatten()
            .chain([&release.full])
        {
            flip_byte(&updates.join(&artifact.path), artifact.length / 2)?;
        }
        Ok(())
    }

    /// Everything as it should be, but the commit bears only a signature by an unknown key.
    fn foreign_commit(&self, updates: &Path, scratch: &Path) -> Result<()> {
        let release = self.release_of(updates)?;
        let repo = scratch.join("foreign-repo");
        Command::new("cp", "coreutils")
            .args(["-a", "--reflink=auto"])
            .arg(self.project.repo_dir())
            .arg(&repo)
            .run()?;
        let (first, rest) = release.commit.split_at(2);
        let metadata = repo.join(format!("objects/{first}/{rest}.commitmeta"));
        fs::remove_file(&metadata).with_context(|| format!("removing {}", metadata.display()))?;
        let foreign = PrivateKey::generate()?;
        crate::commit::sign(&repo, &release.commit, &foreign)?;
        fs::remove_dir_all(updates).context("clearing the server's directory")?;
        let mut request =
            release::Request::of(&self.project, &self.board.id, "stable", &self.old_commit)?;
        request.repo = repo;
        request.updates = updates.to_path_buf();
        request.compression = Compression::Stored;
        // Deltas are cached by their commits, and this one carries another signature.
        let cache = Cache::at(scratch.join("cache"))?;
        release::publish(&request, &cache, Progress::Quiet)?;
        request.version = variant::NEW_VERSION.into();
        request.commit = release.commit;
        request.commit_keys = vec![foreign.public_base64()];
        release::publish(&request, &cache, Progress::Quiet)?;
        Ok(())
    }

    fn foreign_metadata(&self, updates: &Path, scratch: &Path) -> Result<()> {
        let keys = scratch.join("foreign-keys");
        make_keys(&keys)?;
        self.republish(updates, &keys, Expiry::from(SystemTime::now()))
    }

    /// Publishes the offered release with a change of its description.
    fn reissue(&self, updates: &Path, change: impl FnOnce(&mut Release)) -> Result<()> {
        let mut release = self.release_of(updates)?;
        change(&mut release);
        let name = release_target(&self.board.id, variant::NEW_VERSION);
        let keys = self.project.keys_dir();
        let text = serde_json::to_vec(&release).context("writing a release")?;
        author::publish(
            &self.root_json(&keys)?,
            &Keyring::in_dir(&keys),
            &updates.join("tuf"),
            vec![(name, text)],
            &Expiry::from(SystemTime::now()),
        )?;
        Ok(())
    }

    /// Publishes the same targets anew with the keys in `keys` and this expiry.
    fn republish(&self, updates: &Path, keys: &Path, expiry: Expiry) -> Result<()> {
        let tuf = updates.join("tuf");
        let own_root = self.root_json(&self.project.keys_dir())?;
        let mut targets = Vec::new();
        for name in author::target_names(&own_root, &tuf)? {
            let content = author::target(&own_root, &tuf, &name)?
                .with_context(|| format!("the repository has no target {name}"))?;
            targets.push((name, content));
        }
        fs::remove_dir_all(&tuf).with_context(|| format!("clearing {}", tuf.display()))?;
        author::publish(
            &self.root_json(keys)?,
            &Keyring::in_dir(keys),
            &tuf,
            targets,
            &expiry,
        )?;
        Ok(())
    }
}

/// Bytes of a disk that is larger than the image.
fn larger(board: &Board, image: &Path) -> Result<u64> {
    let image = fs::metadata(image).with_context(|| format!("reading {}", image.display()))?;
    // Room on the data partition for a whole release as one file, which may have more than half a gigabyte.
    let bytes = image.len() + (1 << 30);
    Ok(match board.qemu.as_ref().map(|qemu| qemu.disk) {
        Some(DiskBus::Sd) => bytes.next_power_of_two(),
        _ => bytes,
    })
}

/// A product's keys and certificates, made for the test.
fn make_keys(dir: &Path) -> Result<()> {
    crate::project::secrets::init(dir).map(drop)
}

/// Yesterday, for every role but the root.
fn past() -> Expiry {
    let now = SystemTime::now();
    let yesterday = now - Duration::from_secs(24 * 3600);
    Expiry {
        targets: yesterday,
        snapshot: yesterday,
        timestamp: yesterday,
        ..Expiry::from(now)
    }
}

fn flip_byte(path: &Path, offset: u64) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .with_context(|| format!("opening {}", path.display()))?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset)
        .and_then(|()| file.write_all_at(&[byte[0] ^ 1], offset))
        .with_context(|| format!("changing a byte of {}", path.display()))
}

/// Changes a digit inside the newest targets metadata, so that it stays well-formed.
fn tamper_metadata(tuf: &Path) -> Result<()> {
    for entry in fs::read_dir(tuf).with_context(|| format!("listing {}", tuf.display()))? {
        let path = entry.context("listing metadata")?.path();
        if path.to_string_lossy().ends_with(".targets.json") {
            let text =
                fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            let changed = text.replacen("\"length\":", "\"length\":1", 1);
            let changed = if changed == text {
                text.replacen("\"length\": ", "\"length\": 1", 1)
            } else {
                changed
            };
            ensure!(
                changed != text,
                "{} has no length to change",
                path.display()
            );
            fs::write(&path, changed).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}
