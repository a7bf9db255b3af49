//! Releases: a signed commit becomes something devices can fetch.
//!
//! The published directory (`out/updates`) is plain files for any web server:
//!
//! ```text
//! tuf/      metadata of The Update Framework; one target a release, one a channel
//! deltas/   <board>/full-<to>.delta and <board>/<from>-<to>.delta: one file is one update;
//!           <board>/<from>-<to>.compact: the same in Treeline's own format
//! repo/     archive-mode OSTree repository for plain `ostree` clients,
//!           ref <product>/<board>/<channel>
//! ```
//!
//! Files are written before the metadata that names them, metadata appears by one rename. Nothing is
//! taken away: deltas from releases that are no longer among the last few stay where they are and
//! stay in their release's description, so a device that is fetching one can finish.

mod checks;
pub mod compact;
mod contents;
pub mod cost;
mod delta;
pub mod diff;
pub mod field;
mod full;
mod list;
mod published;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use keys::author::{self, Expiry, Keyring};
use keys::release::{
    channel_target, is_target_name, release_target, Artifact, Channel, Delta, Release, FORMAT,
};
use keys::signer::Signer;
use serde::Serialize;

use crate::cache::Cache;
use crate::progress::Progress;
use crate::project::{ceremony, Project};
use contents::Commit;
use delta::{Job, Maker};
pub use list::{list, ChannelList, Released};
use published::Site;

/// Earlier releases that deltas are made from unless told otherwise.
pub const DEFAULT_DELTAS: usize = 3;

/// How hard the whole commit is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// As small as is reasonable.
    #[default]
    Small,
    /// Four times as fast for some 10 % more bytes: for tests and trials.
    Fast,
    /// Not at all: where only the way of a release matters, as in `builder test`.
    Stored,
}

impl Compression {
    fn as_str(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Fast => "fast",
            Self::Stored => "stored",
        }
    }
}

/// What to release.
#[derive(Debug, Clone)]
pub struct Request {
    /// Archive repository that holds the commit (`out/repo`).
    pub repo: PathBuf,
    /// The published directory (`out/updates`); made if it is not there.
    pub updates: PathBuf,
    /// The product's keys: `root.json`, `targets.pem`, `snapshot.pem`, `timestamp.pem`.
    pub keys: PathBuf,
    /// Public commit keys, base64; one of them must have signed the commit.
    pub commit_keys: Vec<String>,
    /// Product name.
    pub product: String,
    /// Board id.
    pub board: String,
    /// Channel that offers the release.
    pub channel: String,
    /// Version.
    pub version: String,
    /// Commit checksum, 64 hex digits.
    pub commit: String,
    /// Anti-rollback floor.
    pub epoch: u64,
    /// Free text for people; empty keeps that of an earlier publication.
    pub notes: String,
    /// Earlier releases of the channel that deltas are made from.
    pub deltas: usize,
    /// How hard the whole commit is compressed.
    pub compression: Compression,
    /// Makes every delta in Treeline's own format, too.
    pub compact: bool,
    /// The time of day.
    pub now: SystemTime,
}

impl Request {
    /// The release of `commit` as the product's description has it. The commit key is
    /// `keys/commit.pem`.
    pub fn of(project: &Project, board: &str, channel: &str, commit: &str) -> Result<Self> {
        let keys = project.keys_dir();
        let commit_key = Signer::open(&keys.join("commit.pem"))?;
        Ok(Self {
            repo: project.repo_dir(),
            updates: project.updates_dir(),
            keys,
            commit_keys: vec![commit_key.public_base64()],
            product: project.product.name.clone(),
            board: board.to_string(),
            channel: channel.to_string(),
            version: project.product.version.clone(),
            commit: commit.to_string(),
            epoch: project.product.epoch,
            notes: String::new(),
            deltas: DEFAULT_DELTAS,
            compression: Compression::Small,
            compact: true,
            now: SystemTime::now(),
        })
    }
}

/// What was published. `Display` is a table.
#[derive(Debug, Clone, Serialize)]
pub struct Published {
    /// Product name.
    pub product: String,
    /// Board id.
    pub board: String,
    /// Channel.
    pub channel: String,
    /// Version.
    pub version: String,
    /// Commit checksum.
    pub commit: String,
    /// Whether this release was in the channel before.
    pub repeated: bool,
    /// Bytes it takes on the device, at most.
    pub installed_bytes: u64,
    /// The whole first, then the deltas from the newest release backwards.
    pub files: Vec<File>,
    /// Version of the new timestamp metadata.
    pub timestamp_version: u64,
}

/// A delta file of a release.
#[derive(Debug, Clone, Serialize)]
pub struct File {
    /// Version of the release it starts from; none for the whole.
    pub from_version: Option<String>,
    /// Commit it starts from; none for the whole.
    pub from: Option<String>,
    /// Bytes.
    pub bytes: u64,
    /// Bytes by those of the whole.
    pub ratio: f64,
    /// Whether it is offered; a delta not smaller than the whole is not.
    pub offered: bool,
    /// Whether it was there already.
    pub cached: bool,
    /// Seconds spent on it.
    pub seconds: f64,
    /// The same delta in Treeline's own format.
    pub compact: Option<CompactFile>,
}

/// A delta in Treeline's own format, and what a device needs to apply it.
#[derive(Debug, Clone, Serialize)]
pub struct CompactFile {
    /// Bytes.
    pub bytes: u64,
    /// Bytes on disk for a while, besides the new version.
    pub scratch_bytes: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// How long it takes.
    pub time: bsp::device::DeltaTime,
}

/// The checksum of the commit that a ref, a checksum or the unique beginning of one names.
pub fn resolve(repo: &Path, name: &str) -> Result<String> {
    let commit = contents::open(repo)?
        .resolve_rev(name, false)
        .with_context(|| format!("looking for {name} in {}", repo.display()))?
        .with_context(|| format!("looking for {name} in {}: there is none", repo.display()))?;
    Ok(commit.to_string())
}

/// Publishes a release. Doing it again with the same commit changes nothing but the time until which
/// the metadata is valid (and adds deltas that were not asked for before).
pub fn publish(request: &Request, cache: &Cache, progress: Progress) -> Result<Published> {
    for (what, name) in [
        ("board", &request.board),
        ("channel", &request.channel),
        ("version", &request.version),
    ] {
        anyhow::ensure!(
            is_target_name(name),
            "releasing {what} '{name}': use letters, digits and . _ + ~ - only, not beginning with a dot"
        );
    }
    let site = Site::open(&request.updates, &request.keys)?;
    let _lock = site.lock()?;
    let commit = Commit::load(&contents::open(&request.repo)?, &request.commit)?;
    checks::commit(request, &commit)?;
    let before = site.release(&request.board, &request.version)?;
    checks::same(request, before.as_ref())?;
    let channel = site.channel(&request.board, &request.channel)?;
    let earlier = checks::earlier(request, &site, channel.as_ref())?;
    checks::epoch(request, &earlier)?;
    checks::layout(&commit, &earlier, &site)?;

    let stage = progress.stage("release");
    stage.note("copying the commit");
    site.take_commit(&request.repo, &request.commit)?;
    let (release, files) = describe(request, &site, &commit, before, &earlier, cache, &stage)?;
    let (channel, repeated) = with_release(request, channel);
    stage.note("signing");
    ceremony::publish_roots(&request.keys, &site.tuf())?;
    let signed = author::publish(
        &site.root,
        &Keyring::in_dir(&request.keys),
        &site.tuf(),
        vec![
            (
                release_target(&request.board, &request.version),
                release.to_json()?,
            ),
            (
                channel_target(&request.board, &request.channel),
                channel.to_json()?,
            ),
        ],
        &Expiry::from(request.now),
    )?;
    // The channel's newest, which is not this one if an older release is published again.
    if channel.versions.first() == Some(&request.version) {
        let reference = format!("{}/{}/{}", request.product, request.board, request.channel);
        site.set_ref(&reference, &request.commit)?;
    }
    let published = Published {
        product: request.product.clone(),
        board: request.board.clone(),
        channel: request.channel.clone(),
        version: request.version.clone(),
        commit: request.commit.clone(),
        repeated,
        installed_bytes: release.installed_bytes,
        files,
        timestamp_version: signed.timestamp_version,
    };
    stage.done(format_args!(
        "{} {} for {} in {}",
        request.product, request.version, request.board, request.channel
    ));
    Ok(published)
}

/// Makes and places the files; returns the release's description and what was done.
fn describe(
    request: &Request,
    site: &Site,
    commit: &Commit,
    before: Option<Release>,
    earlier: &[Release],
    cache: &Cache,
    stage: &crate::progress::Stage,
) -> Result<(Release, Vec<File>)> {
    let known: Vec<Delta> = before.as_ref().map_or_else(Vec::new, |r| r.deltas.clone());
    let mut seen = BTreeSet::from([request.commit.as_str()]);
    let sources: Vec<&Release> = earlier
        .iter()
        .filter(|release| seen.insert(&release.commit))
        .take(request.deltas)
        .collect();
    let repo_path = site.repo();
    let maker = Maker {
        path: &repo_path,
        commit,
        compression: request.compression,
        cache,
        stage,
    };
    let mut files = Files {
        request,
        site,
        maker: &maker,
        rows: Vec::new(),
    };
    let full = files.full(before.as_ref().map(|release| &release.full))?;
    let mut deltas = files.deltas(&full, &sources, known)?;
    let mut rows = files.rows;
    if request.compact {
        compact::add(&maker, &site.dir, &request.board, &mut deltas, &mut rows)?;
    }
    stage.note("measuring");
    let repo = contents::open(&repo_path)?;
    let installed_bytes = commit.contents(&repo)?.installed_bytes(&repo)?;
    let (created, notes) = match before {
        Some(before) => (before.created, before.notes),
        None => (seconds(request.now), String::new()),
    };
    let release = Release {
        format: FORMAT,
        product: request.product.clone(),
        version: request.version.clone(),
        boards: vec![request.board.clone()],
        arch: commit.text("treeline.arch").unwrap_or_default(),
        commit: request.commit.clone(),
        epoch: request.epoch,
        created,
        full,
        deltas,
        installed_bytes,
        notes: match request.notes.is_empty() {
            true => notes,
            false => request.notes.clone(),
        },
    };
    Ok((release, rows))
}

/// Places delta files and notes what was done.
struct Files<'a> {
    request: &'a Request,
    site: &'a Site,
    maker: &'a Maker<'a>,
    rows: Vec<File>,
}

impl Files<'_> {
    /// The whole. A published file that is intact is left alone: a file that metadata names never
    /// changes.
    fn full(&mut self, known: Option<&Artifact>) -> Result<Artifact> {
        let (artifact, seconds, cached) = match known {
            Some(known) if delta::is_intact(&self.site.dir, known) => (known.clone(), 0.0, true),
            _ => {
                let made = self.maker.make_all(&[Job { from: None }])?;
                let made = made.first().context("making the whole: nothing was made")?;
                let place = delta::place(&self.request.board, None, &self.request.commit);
                let artifact = delta::put(&self.site.dir, &place, &made.file)?;
                (artifact, made.seconds, made.cached)
            }
        };
        self.rows.push(File {
            from_version: None,
            from: None,
            bytes: artifact.length,
            ratio: 1.0,
            offered: true,
            cached,
            seconds,
            compact: None,
        });
        Ok(artifact)
    }

    /// Deltas from `sources`, and those that were published before.
    fn deltas(
        &mut self,
        full: &Artifact,
        sources: &[&Release],
        known: Vec<Delta>,
    ) -> Result<Vec<Delta>> {
        let mut kept: Vec<Delta> = known
            .into_iter()
            .filter(|delta| delta::is_intact(&self.site.dir, &delta.file))
            .collect();
        let missing: Vec<Job> = sources
            .iter()
            .filter(|source| kept.iter().all(|delta| delta.from != source.commit))
            .map(|source| Job {
                from: Some(source.commit.clone()),
            })
            .collect();
        let made = self.maker.make_all(&missing)?;
        for source in sources {
            let new = made
                .iter()
                .find(|made| made.from.as_ref() == Some(&source.commit));
            let old = kept.iter().find(|delta| delta.from == source.commit);
            let bytes = match (new, old) {
                (Some(new), _) => new.bytes,
                (None, Some(old)) => old.file.length,
                (None, None) => continue,
            };
            let offered = bytes < full.length;
            self.rows.push(File {
                from_version: Some(source.version.clone()),
                from: Some(source.commit.clone()),
                bytes,
                ratio: bytes as f64 / full.length.max(1) as f64,
                offered,
                cached: new.is_none_or(|new| new.cached),
                seconds: new.map_or(0.0, |new| new.seconds),
                compact: None,
            });
            if let (Some(new), true) = (new, offered) {
                let from = Some(source.commit.as_str());
                let place = delta::place(&self.request.board, from, &self.request.commit);
                kept.push(Delta {
                    from: source.commit.clone(),
                    file: delta::put(&self.site.dir, &place, &new.file)?,
                    compact: None,
                });
            }
        }
        kept.sort_by(|a, b| a.from.cmp(&b.from));
        Ok(kept)
    }
}

/// The channel with this release as the newest, unless it was in it before.
fn with_release(request: &Request, channel: Option<Channel>) -> (Channel, bool) {
    let mut channel = channel.unwrap_or_else(|| Channel {
        format: FORMAT,
        product: request.product.clone(),
        channel: request.channel.clone(),
        board: request.board.clone(),
        versions: Vec::new(),
    });
    let repeated = channel.versions.contains(&request.version);
    if !repeated {
        channel.versions.insert(0, request.version.clone());
    }
    (channel, repeated)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
