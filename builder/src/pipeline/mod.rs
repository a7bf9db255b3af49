//! The whole way from a product to an image: resolve → compose → assemble → commit → sign → image.
//!
//! The stages keep what they make by the hash of its inputs. On top of that a build leaves a stamp in
//! `out/<board>/`: if the hash of everything that goes in is the stamp's, and everything that came out
//! is still there, nothing is done at all.

mod agent;
mod inputs;
pub mod locked;
mod stamp;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bsp::board::PackageFile;
use bsp::disk::{self, FieldLayout};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;

use crate::cache::{Cache, Inputs};
use crate::commit::{self, CommitMeta};
use crate::compose;
use crate::flash::source::sides;
use crate::image::{self, Format, ImageFiles, ImageRequest};
use crate::lock::{self, LockDiff};
use crate::progress::Progress;
use crate::project::{Merged, Project};
use crate::secure_boot::{self, Pair};
use crate::tree::{self, Assembled};
use locked::Locked;
use stamp::{Committed, Stamp};

/// How far and in which way to build.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Image formats; none: the commit only.
    pub formats: Vec<Format>,
    /// A lock that does not fit is an error; otherwise it is made anew.
    pub frozen: bool,
}

impl BuildOptions {
    /// Up to the signed commit.
    pub fn commit_only() -> Self {
        Self::default()
    }

    /// Up to a raw disk image.
    pub fn raw_image() -> Self {
        Self {
            formats: vec![Format::Raw],
            frozen: false,
        }
    }
}

/// What was built.
#[derive(Debug, Clone, Serialize)]
pub struct Built {
    /// Board id.
    pub board: String,
    /// Product version.
    pub version: String,
    /// OSTree ref of the commit in `out/repo`.
    pub reference: String,
    /// Checksum of the signed commit, 64 hex digits.
    pub checksum: String,
    /// Kernel version.
    pub kernel_version: String,
    /// What changed in the lock, if it was made anew.
    pub lock_changes: Option<LockDiff>,
    /// The images, if any was asked for.
    pub image: Option<ImageFiles>,
    /// Whether everything was there already.
    pub cached: bool,
}

impl Built {
    /// The raw disk image, if it was asked for.
    pub fn raw_image(&self) -> Option<&Path> {
        let images = &self.image.as_ref()?.images;
        let raw = images.iter().find(|image| image.format == Format::Raw)?;
        Some(&raw.path)
    }
}

/// The stages before there is a commit, for looking at what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Early {
    /// Packages and their versions.
    Resolve,
    /// A disk with the boot loader and no system; no later stage needs it.
    Boot,
    /// The base tree.
    Compose,
    /// The tree in OSTree's layout.
    Assemble,
}

/// Builds a product for a board.
pub fn build(
    project: &Project,
    board: &str,
    options: &BuildOptions,
    cache: &Cache,
    progress: Progress,
) -> Result<Built> {
    let build = Build::new(project, board, cache, progress)?;
    let _alone = build.alone()?;
    let signer = agent::signer(project)?;
    let locked = build.resolve(options.frozen)?;
    let files = agent::files(project, &build.merged, &signer)?;
    let key = inputs::commit_key(&build.merged, &locked, &files, build.pair.as_ref(), cache)?;

    let mut stamp = Stamp::read(&build.dir);
    let repo = project.repo_dir();
    let found = stamp.committed(&key, &repo, &build.merged.reference());
    let committed_before = found.is_some();
    let committed = match found {
        Some(found) => {
            let stage = progress.stage("commit");
            stage.done(format_args!("{} (cached)", found.checksum));
            found
        }
        None => {
            let base = build.compose(&locked)?;
            let assembled = build.assemble(&base, &locked, &files)?;
            let checksum = build.commit(&assembled, &locked, &signer)?;
            Committed {
                key,
                checksum,
                kernel_version: assembled.kernel_version,
            }
        }
    };
    if !committed_before {
        stamp = Stamp::of(committed.clone());
        stamp.write(&build.dir)?;
    }
    let (image, image_before) = build.image(options, &locked, &committed, &mut stamp, &signer)?;
    Ok(Built {
        board: board.to_string(),
        version: project.product.version.clone(),
        reference: build.merged.reference(),
        checksum: committed.checksum,
        kernel_version: committed.kernel_version,
        cached: committed_before && image_before && locked.renewed.is_none(),
        lock_changes: locked.renewed,
        image,
    })
}

/// Builds only up to a stage before the commit; later builds find what it made.
pub fn build_until(
    project: &Project,
    board: &str,
    stage: Early,
    frozen: bool,
    cache: &Cache,
    progress: Progress,
) -> Result<()> {
    let build = Build::new(project, board, cache, progress)?;
    let _alone = build.alone()?;
    let locked = build.resolve(frozen)?;
    match stage {
        Early::Resolve => return Ok(()),
        Early::Boot => return build.boot_only(&locked),
        Early::Compose | Early::Assemble => {}
    }
    let base = build.compose(&locked)?;
    if stage == Early::Compose {
        return Ok(());
    }
    let files = agent::files(project, &build.merged, &agent::signer(project)?)?;
    build.assemble(&base, &locked, &files)?;
    Ok(())
}

/// A file of a firmware package that `product.lock` names for a board, unpacked in the cache.
pub fn package_file(
    project: &Project,
    board: &str,
    wanted: &PackageFile,
    cache: &Cache,
    progress: Progress,
) -> Result<PathBuf> {
    let merged = project.merged(&project.board(board)?);
    let locked = locked::current(project, &merged, false, cache, progress)?;
    let mut packages = locked.board.firmware;
    packages.retain(|package| package.name == wanted.package);
    let debs = lock::fetch(&packages, &merged, cache, progress)?;
    let deb = debs.first().with_context(|| {
        format!(
            "looking for package {}: it is not locked; run `builder update-lock`",
            wanted.package
        )
    })?;
    Ok(lock::unpack(deb, cache)?.join(&wanted.file))
}

/// One build under way.
struct Build<'a> {
    project: &'a Project,
    merged: Merged,
    /// The db key, if the board starts what is signed with it.
    pair: Option<Pair>,
    /// `out/<board>`.
    dir: PathBuf,
    cache: &'a Cache,
    progress: Progress,
}

impl<'a> Build<'a> {
    fn new(
        project: &'a Project,
        board: &str,
        cache: &'a Cache,
        progress: Progress,
    ) -> Result<Self> {
        let merged = project.merged(&project.board(board)?);
        let keys = project.keys_dir().join(secure_boot::DIRECTORY);
        let own = merged.board.starts_own();
        let pair = own.then(|| Pair::open(&keys, "db"));
        let dir = project.out_dir().join(board);
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(Self {
            project,
            merged,
            pair: pair.transpose()?,
            dir,
            cache,
            progress,
        })
    }

    /// Waits until no other builder works on this board's results.
    fn alone(&self) -> Result<Flock<fs::File>> {
        let path = self.dir.join(".lock");
        let file =
            fs::File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        let file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((file, Errno::EWOULDBLOCK)) => file,
            Err((_, error)) => {
                return Err(error).with_context(|| format!("locking {}", path.display()))
            }
        };
        let stage = self.progress.stage("wait");
        stage.note("another builder is at work here");
        let lock = Flock::lock(file, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .with_context(|| format!("locking {}", path.display()))?;
        stage.done("another builder was at work here");
        Ok(lock)
    }

    fn resolve(&self, frozen: bool) -> Result<Locked> {
        let locked = locked::current(
            self.project,
            &self.merged,
            frozen,
            self.cache,
            self.progress,
        )?;
        if locked.renewed.is_none() {
            let stage = self.progress.stage("resolve");
            stage.done(format_args!(
                "{} packages (product.lock)",
                locked.board.packages.len()
            ));
        }
        Ok(locked)
    }

    fn boot_only(&self, locked: &Locked) -> Result<()> {
        image::boot_only(
            &self.merged,
            &locked.board,
            locked.source_date_epoch,
            self.pair.as_ref(),
            &self.dir,
            self.cache,
            self.progress,
        )
        .map(drop)
    }

    fn compose(&self, locked: &Locked) -> Result<compose::BaseTar> {
        compose::base(
            &self.merged,
            &locked.board,
            locked.source_date_epoch,
            self.cache,
            self.progress,
        )
    }

    fn assemble(
        &self,
        base: &compose::BaseTar,
        locked: &Locked,
        files: &tree::AgentFiles,
    ) -> Result<Assembled> {
        tree::assemble(
            base,
            &self.merged,
            &locked.board,
            files,
            self.pair.as_ref(),
            self.cache,
            self.progress,
        )
    }

    fn commit(
        &self,
        assembled: &Assembled,
        locked: &Locked,
        signer: &keys::signer::Signer,
    ) -> Result<String> {
        let meta = CommitMeta {
            reference: self.merged.reference(),
            version: self.merged.product.version.clone(),
            timestamp: locked.source_date_epoch,
            metadata: metadata(&self.merged, locked)?,
        };
        let repo = self.project.repo_dir();
        let checksum = commit::commit(&repo, assembled, &meta, self.progress)?;
        commit::sign(&repo, &checksum, signer)?;
        if let Some(former) = agent::former(self.project)? {
            commit::sign(&repo, &checksum, &former)?;
        }
        Ok(checksum)
    }

    /// The images, and whether they were there already.
    fn image(
        &self,
        options: &BuildOptions,
        locked: &Locked,
        committed: &Committed,
        stamp: &mut Stamp,
        signer: &keys::signer::Signer,
    ) -> Result<(Option<ImageFiles>, bool)> {
        if options.formats.is_empty() {
            return Ok((None, true));
        }
        if let Some(files) = stamp.images(&options.formats) {
            let stage = self.progress.stage("image");
            stage.done("all there (cached)");
            return Ok((Some(files), true));
        }
        // Before the first byte is written: half a set of files must not pass for a whole one.
        stamp.forget_images(&self.dir)?;
        let request = ImageRequest {
            merged: &self.merged,
            lock: &locked.board,
            repo: &self.project.repo_dir(),
            checksum: &committed.checksum,
            source_date_epoch: locked.source_date_epoch,
            out_dir: &self.dir,
            formats: &options.formats,
            secure_boot: self.pair.as_ref(),
        };
        let files = image::build(&request, self.cache, self.progress)?;
        sides::sign_beside(&files.sums, signer)?;
        stamp.set_images(&files, &self.dir)?;
        Ok((Some(files), false))
    }
}

/// What a commit says of itself besides its version (all strings; see the book, "Releases").
fn metadata(merged: &Merged, locked: &Locked) -> Result<BTreeMap<String, String>> {
    let packages: String = locked
        .board
        .packages
        .iter()
        .map(|package| format!("{} {} {}\n", package.name, package.version, package.arch))
        .collect();
    let lock = Inputs::new("lock", 1).json(&locked.board)?.key();
    let layout = disk::plan(&merged.board, &BTreeMap::new()).context("planning the disk")?;
    Ok([
        ("treeline.product", merged.product.name.clone()),
        ("treeline.board", merged.board.id.clone()),
        ("treeline.arch", merged.board.arch.clone()),
        ("treeline.lock", lock),
        ("treeline.packages", packages),
        (disk::METADATA_KEY, FieldLayout::of(&layout).to_json()?),
    ]
    .map(|(key, value)| (key.to_string(), value))
    .into())
}
