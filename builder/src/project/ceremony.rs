//! Replacing keys: a change of root metadata is drafted, carried from root key to root key as a file, and taken
//! over when enough of them have signed. Nothing here uses a network.
//!
//! ```text
//! keys/root.json          what devices trust today
//! keys/root.draft.json    what shall follow it, not signed enough yet
//! keys/root.draft.toml    what the draft changes, for the last step
//! keys/roots/N.root.json  every version there has been: devices follow them one by one
//! keys/new/               keys that the draft brings in
//! keys/retired/           keys that it took out
//! ```

use std::fs;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{bail, Context, Result};
use keys::author::root::{self, Change, Progress, TopRole};
use keys::author::Expiry;
use keys::signer::{self, Signer};
use serde::{Deserialize, Serialize};

use super::incoming::{self, Incoming};
use super::secrets;

/// What a change does with the key that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is kept in `keys/retired/`.
    Retired,
    /// It was lost or stolen: the file is removed.
    Destroyed,
}

/// How a ceremony stands.
#[derive(Debug)]
pub enum Outcome {
    /// The new root metadata is in force.
    Done {
        /// Its version.
        version: u64,
    },
    /// More signatures are wanted.
    Waiting(Progress),
}

/// What the draft changes in the directory of keys.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Note {
    /// Name of the key file (without extension) that goes; none if only root metadata changes.
    key: Option<String>,
    /// Whether a file of that name in `new/` takes its place.
    replaced: bool,
    /// Whether the old file is removed.
    destroyed: bool,
}

/// The draft in a directory of keys.
pub fn draft_path(dir: &Path) -> PathBuf {
    dir.join("root.draft.json")
}

/// The role that a key file is for.
fn top_role(key: &str) -> Result<TopRole> {
    Ok(match key {
        "targets" => TopRole::Targets,
        "snapshot" => TopRole::Snapshot,
        "timestamp" => TopRole::Timestamp,
        name if name == "root" || name.starts_with("root-") => TopRole::Root,
        other => bail!(
            "there is no role '{other}': root-1, root-2, …, targets, snapshot, timestamp and commit have keys"
        ),
    })
}

/// Drafts root metadata in which another key stands for `key`. A root key whose file is elsewhere is named
/// by `old`, its public key in base64.
pub fn replace(
    dir: &Path,
    key: &str,
    old: Option<&str>,
    new: &Incoming<'_>,
    fate: Fate,
) -> Result<Outcome> {
    let role = top_role(key)?;
    no_draft(dir)?;
    let old = match (role, old) {
        (_, Some(old)) => Some(named(dir, key, old)?),
        (TopRole::Root, None) => {
            let signer = Signer::open(&dir.join(format!("{key}.pem"))).context(
                "the root key that goes is named by its file, or by --old with its public key",
            )?;
            Some(signer.public_bytes())
        }
        _ => None,
    };
    let place = dir.join("new").join(format!("{key}.pem"));
    let comes = match new.put(dir, key, &place) {
        Ok(comes) => comes,
        Err(error) => {
            forget_new(dir)?;
            return Err(error);
        }
    };
    let change = Change::Replace {
        role,
        old,
        new: Some(comes),
    };
    // Of a key that stays elsewhere there is no file to put in place.
    let replaced = ["pem", "toml"]
        .iter()
        .any(|kind| place.with_extension(kind).exists());
    begin(dir, &change, note(key, replaced, fate))
}

/// Drafts root metadata without the root key `key`.
pub fn drop_root_key(dir: &Path, key: &str, old: Option<&str>, fate: Fate) -> Result<Outcome> {
    no_draft(dir)?;
    let old = match old {
        Some(old) => named(dir, key, old)?,
        None => Signer::open(&dir.join(format!("{key}.pem")))?.public_bytes(),
    };
    let change = Change::Replace {
        role: top_role(key)?,
        old: Some(old),
        new: None,
    };
    begin(dir, &change, note(key, false, fate))
}

/// Drafts root metadata that differs in its time of validity only.
pub fn renew(dir: &Path) -> Result<Outcome> {
    no_draft(dir)?;
    begin(dir, &Change::Renew, Note::default())
}

/// Drafts root metadata that wants another number of root signatures.
pub fn threshold(dir: &Path, wanted: NonZeroU64) -> Result<Outcome> {
    no_draft(dir)?;
    begin(dir, &Change::Threshold(wanted), Note::default())
}

fn note(key: &str, replaced: bool, fate: Fate) -> Note {
    Note {
        key: Some(key.to_owned()),
        replaced,
        destroyed: fate == Fate::Destroyed,
    }
}

/// The public key `old`, which must be that of the file `key` if there is one: its file goes with it.
fn named(dir: &Path, key: &str, old: &str) -> Result<[u8; 32]> {
    let (old, file) = (incoming::public(old)?, dir.join(format!("{key}.pem")));
    let here = file.exists() || file.with_extension("toml").exists();
    if here && Signer::open(&file)?.public_bytes() != old {
        bail!(
            "{key} in {} is not the key that --old names; name the key that goes by its own file, or by a name \
             that no file here has",
            dir.display()
        );
    }
    Ok(old)
}

/// No ceremony is under way; what an earlier one has left in `new/` is of no use.
fn no_draft(dir: &Path) -> Result<()> {
    let draft = draft_path(dir);
    if draft.exists() {
        bail!(
            "{} is there: a ceremony is under way; finish it (`builder keys ceremony` tells the steps) or end it \
             with `builder keys ceremony --discard`",
            draft.display()
        );
    }
    forget_new(dir)
}

/// Writes the draft and signs it with the root keys that are here.
fn begin(dir: &Path, change: &Change, note: Note) -> Result<Outcome> {
    let draft = match drafted(dir, change) {
        Ok(draft) => draft,
        Err(error) => {
            forget_new(dir)?;
            return Err(error);
        }
    };
    let note = toml::to_string(&note).context("writing what the draft changes")?;
    write(&dir.join("root.draft.toml"), note.as_bytes())?;
    write(&draft_path(dir), &draft)?;
    finish(dir)
}

fn drafted(dir: &Path, change: &Change) -> Result<Vec<u8>> {
    let previous = read(&dir.join("root.json"))?;
    let mut draft = root::following(&previous, change, &Expiry::from(SystemTime::now()))?;
    let mut signers = secrets::root_keys(dir);
    signers.extend(secrets::root_keys(&dir.join("new")));
    for file in signers {
        draft = root::sign(&draft, &Signer::open(&file)?)?;
    }
    Ok(draft)
}

/// Ends a ceremony without a result. A draft that has all its signatures is only given up by force: elsewhere it
/// may be in force already, and half the files of a cut-off exchange may have changed places.
pub fn discard(dir: &Path, force: bool) -> Result<()> {
    // A draft that nobody can judge is of no use to anybody.
    let complete = progress(dir).is_ok_and(|found| found.is_some_and(|draft| draft.complete()));
    if complete && !force {
        bail!(
            "giving up {}: it has all its signatures, and whoever has a copy may have published it; \
             `builder keys ceremony` puts it in force, `--discard --force` gives it up all the same",
            draft_path(dir).display()
        );
    }
    clear(dir)
}

fn clear(dir: &Path) -> Result<()> {
    forget_new(dir)?;
    for file in [draft_path(dir), dir.join("root.draft.toml")] {
        if file.exists() {
            fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
        }
    }
    Ok(())
}

/// A key that no root metadata has named is of no use.
fn forget_new(dir: &Path) -> Result<()> {
    let new = dir.join("new");
    if new.exists() {
        fs::remove_dir_all(&new).with_context(|| format!("removing {}", new.display()))?;
    }
    Ok(())
}

/// Adds a signature to a draft, wherever it stands: on a machine with one root key and nothing else.
pub fn sign(draft: &Path, key: &Path) -> Result<()> {
    let signer = match key.to_str() {
        Some(uri) if signer::is_uri(uri) => Signer::on_token(uri)?,
        _ => Signer::open(&key.with_extension("pem"))?,
    };
    let signed = root::sign(&read(draft)?, &signer)?;
    write(draft, &signed)
}

/// Takes over the signatures of a draft that comes back.
pub fn take(dir: &Path, file: &Path) -> Result<Outcome> {
    let own = draft_path(dir);
    let merged = root::merge(&read(&own)?, &read(file)?)
        .with_context(|| format!("taking over the signatures of {}", file.display()))?;
    write(&own, &merged)?;
    finish(dir)
}

/// How the draft stands; none if no ceremony is under way.
pub fn progress(dir: &Path) -> Result<Option<Progress>> {
    let draft = draft_path(dir);
    if !draft.exists() {
        return Ok(None);
    }
    let (previous, draft) = (read(&dir.join("root.json"))?, read(&draft)?);
    if previous == draft {
        // Cut off when all was done but to clear away.
        clear(dir)?;
        return Ok(None);
    }
    Ok(Some(root::progress(Some(&previous), &draft)?))
}

/// Puts a draft in force that has all its signatures. Cut off, it can be called again.
pub fn finish(dir: &Path) -> Result<Outcome> {
    let previous = read(&dir.join("root.json"))?;
    let draft = read(&draft_path(dir))?;
    let progress = root::progress(Some(&previous), &draft)?;
    if !progress.complete() {
        return Ok(Outcome::Waiting(progress));
    }
    let history = dir.join("roots");
    make_dir(&history)?;
    for content in [&previous, &draft] {
        let version = root::version(content)?;
        write(&history.join(format!("{version}.root.json")), content)?;
    }
    let note = read(&dir.join("root.draft.toml"))?;
    let note = toml::from_str(&String::from_utf8_lossy(&note))
        .context("reading what the draft changes")?;
    exchange(dir, &note, progress.version)?;
    write(&dir.join("root.json"), &draft)?;
    clear(dir)?;
    Ok(Outcome::Done {
        version: progress.version,
    })
}

/// The key files change places.
fn exchange(dir: &Path, note: &Note, version: u64) -> Result<()> {
    let Some(key) = &note.key else {
        return Ok(());
    };
    let files = |dir: &Path| ["pem", "toml"].map(|kind| dir.join(format!("{key}.{kind}")));
    let (old, new) = (files(dir), files(&dir.join("new")));
    // Once the new one has its place, the old one is gone: nothing to do a second time.
    if !note.replaced || new.iter().any(|file| file.exists()) {
        for file in old.iter().filter(|file| file.exists()) {
            retire(dir, file, note.destroyed, version)?;
        }
    }
    for (new, old) in new.iter().zip(&old).filter(|(new, _)| new.exists()) {
        fs::rename(new, old).with_context(|| format!("writing {}", old.display()))?;
    }
    Ok(())
}

fn retire(dir: &Path, file: &Path, destroyed: bool, version: u64) -> Result<()> {
    if destroyed {
        return fs::remove_file(file).with_context(|| format!("removing {}", file.display()));
    }
    let retired = dir.join("retired");
    make_dir(&retired)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let place = retired.join(format!("until-{version}.{name}"));
    fs::rename(file, &place).with_context(|| format!("writing {}", place.display()))
}

/// Puts every version of root metadata that there has been beside the published metadata, so that a device of any
/// age finds the next one.
pub fn publish_roots(dir: &Path, tuf: &Path) -> Result<()> {
    let history = dir.join("roots");
    if !history.exists() {
        return Ok(());
    }
    let entries =
        fs::read_dir(&history).with_context(|| format!("reading {}", history.display()))?;
    fs::create_dir_all(tuf).with_context(|| format!("creating {}", tuf.display()))?;
    for entry in entries.flatten() {
        let place = tuf.join(entry.file_name());
        if !place.exists() {
            write(&place, &read(&entry.path())?)?;
        }
    }
    Ok(())
}

fn make_dir(dir: &Path) -> Result<()> {
    secrets::private_dir(dir)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// Writes by rename: the old content or the new one is there.
fn write(path: &Path, content: &[u8]) -> Result<()> {
    let new = path.with_extension("writing");
    fs::write(&new, content)
        .and_then(|()| fs::File::open(&new)?.sync_all())
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
#[path = "ceremony_test.rs"]
mod tests;
