//! Everything a build depends on, as one hash.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};

use super::locked::Locked;
use crate::cache::{sha256_file, Cache, Inputs};
use crate::project::Merged;
use crate::secure_boot::Pair;
use crate::tree::AgentFiles;

/// Hash of all inputs of the commit: description, lock, overlays, agent, public keys, this program.
pub fn commit_key(
    merged: &Merged,
    locked: &Locked,
    agent: &AgentFiles,
    pair: Option<&Pair>,
    cache: &Cache,
) -> Result<String> {
    let mut inputs = Inputs::new("build", 1)
        .add(own_revision(cache)?)
        .json(merged)?
        .json(&locked.board)?
        .add(locked.source_date_epoch.to_le_bytes())
        .add(sha256_once(&agent.binary, cache)?)
        .add(&agent.root_json)
        .json(&agent.commit_keys)?
        .json(&agent.ca_pem)?;
    if let Some(pair) = pair {
        inputs = inputs.add(pair.certificate());
    }
    for overlay in &merged.overlays {
        inputs = directory(inputs, &merged.dir.join(&overlay.path))?;
    }
    for path in merged.board.user_files() {
        inputs = inputs.file(&merged.dir.join(path))?;
    }
    if let Some(rootfs) = &merged.product.base.rootfs {
        inputs = inputs.add(sha256_once(&merged.dir.join(rootfs), cache)?);
    }
    if let Some(oci) = &merged.product.base.oci {
        // The index names everything else by digest.
        inputs = inputs.file(&merged.dir.join(oci).join("index.json"))?;
    }
    Ok(inputs.key())
}

/// Adds a directory: names, kinds, modes, contents and link targets of everything below, in order.
/// Owners and times are left out, because the tree takes neither from the host.
pub fn directory(mut inputs: Inputs, dir: &Path) -> Result<Inputs> {
    let list = || format!("listing {}", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).with_context(list)? {
        names.push(entry.with_context(list)?.file_name());
    }
    names.sort();
    inputs = inputs.add((names.len() as u64).to_le_bytes());
    for name in names {
        let path = dir.join(&name);
        let meta =
            fs::symlink_metadata(&path).with_context(|| format!("reading {}", path.display()))?;
        inputs = inputs
            .add(name.as_encoded_bytes())
            .add(meta.permissions().mode().to_le_bytes());
        if meta.is_dir() {
            inputs = directory(inputs, &path)?;
        } else if meta.is_symlink() {
            let target =
                fs::read_link(&path).with_context(|| format!("reading {}", path.display()))?;
            inputs = inputs.add(target.as_os_str().as_encoded_bytes());
        } else if meta.is_file() {
            inputs = inputs.file(&path)?;
        }
    }
    Ok(inputs)
}

/// The revision of this program: the hash of its own file, so that a changed builder never takes what
/// another one made.
fn own_revision(cache: &Cache) -> Result<String> {
    let exe = std::env::current_exe().context("finding the running program")?;
    sha256_once(&exe, cache)
}

/// SHA-256 of a large file that seldom changes, remembered by its place, size, inode and times.
fn sha256_once(path: &Path, cache: &Cache) -> Result<String> {
    let meta = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?;
    let modified = meta
        .modified()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .unwrap_or_default();
    let key = Inputs::new("file hash", 1)
        .add(path.as_os_str().as_encoded_bytes())
        .add(meta.len().to_le_bytes())
        .add(meta.ino().to_le_bytes())
        .add(modified.as_nanos().to_le_bytes())
        .add(meta.ctime_nsec().to_le_bytes())
        .add(meta.ctime().to_le_bytes())
        .key();
    let entry = cache.get_or_make("hashes", &key, |made| {
        fs::write(made, sha256_file(path)?).with_context(|| format!("writing {}", made.display()))
    })?;
    fs::read_to_string(&entry).with_context(|| format!("reading {}", entry.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(dir: &Path) -> String {
        directory(Inputs::new("t", 1), dir).unwrap().key()
    }

    #[test]
    fn every_change_of_a_directory_changes_its_hash() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/f"), "1").unwrap();
        std::os::unix::fs::symlink("f", root.join("a/l")).unwrap();
        let changes: [(&str, &dyn Fn()); 5] = [
            ("content", &|| fs::write(root.join("a/f"), "2").unwrap()),
            ("mode", &|| {
                let mode = fs::Permissions::from_mode(0o755);
                fs::set_permissions(root.join("a/f"), mode).unwrap();
            }),
            ("target", &|| {
                fs::remove_file(root.join("a/l")).unwrap();
                std::os::unix::fs::symlink("b", root.join("a/l")).unwrap();
            }),
            ("place", &|| {
                fs::rename(root.join("a/f"), root.join("a/b/f")).unwrap();
            }),
            ("directory", &|| {
                fs::remove_dir_all(root.join("a/b")).unwrap()
            }),
        ];
        let mut before = key(root);
        assert_eq!(key(root), before);
        for (what, change) in changes {
            change();
            let after = key(root);
            assert_ne!(before, after, "{what}");
            before = after;
        }
    }
}
