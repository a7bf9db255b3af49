//! The memory of commits that failed here, so that a bad release is not installed again and again.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::paths::Paths;
use crate::record;

/// Most entries kept; the oldest go first.
const KEPT: usize = 50;

/// One commit that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Version it had, if known.
    pub version: Option<String>,
    /// Seconds since 1970.
    pub time: u64,
    /// Why, in a few words.
    pub reason: String,
}

/// All failures on record, by commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Commit checksum → what happened.
    pub commits: BTreeMap<String, Failure>,
}

fn file(paths: &Paths) -> std::path::PathBuf {
    paths.state().join("failed.json")
}

impl Memory {
    /// Reads the memory; a lost or damaged file is an empty memory.
    pub fn load(paths: &Paths) -> Self {
        record::read_json(&file(paths)).unwrap_or_default()
    }

    /// Adds a failure and writes the memory.
    pub fn add(&mut self, paths: &Paths, commit: &str, failure: Failure) -> Result<()> {
        self.commits.insert(commit.to_string(), failure);
        while self.commits.len() > KEPT {
            let oldest = self
                .commits
                .iter()
                .min_by_key(|(_, f)| f.time)
                .map(|(c, _)| c.clone());
            if let Some(oldest) = oldest {
                self.commits.remove(&oldest);
            }
        }
        record::write_json(&file(paths), self)
    }

    /// Forgets a commit (an operator wants it tried again) and writes the memory.
    pub fn forget(&mut self, paths: &Paths, commit: &str) -> Result<()> {
        if self.commits.remove(commit).is_some() {
            record::write_json(&file(paths), self)?;
        }
        Ok(())
    }
}

/// The commit of an identity: `<checksum>` or `<checksum>-N`.
pub fn commit_of(id: &str) -> &str {
    id.split_once('-').map_or(id, |(commit, _)| commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(time: u64) -> Failure {
        Failure {
            version: Some("1.1.0".into()),
            time,
            reason: "health check".into(),
        }
    }

    #[test]
    fn failures_are_remembered_and_can_be_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        assert_eq!(Memory::load(&paths), Memory::default());
        Memory::default().add(&paths, "abc", failure(5)).unwrap();
        let mut memory = Memory::load(&paths);
        assert_eq!(memory.commits["abc"], failure(5));
        memory.forget(&paths, "abc").unwrap();
        assert!(Memory::load(&paths).commits.is_empty());
        std::fs::write(file(&paths), b"{torn").unwrap();
        assert_eq!(Memory::load(&paths), Memory::default());
    }

    #[test]
    fn the_memory_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        let mut memory = Memory::default();
        for i in 0..60 {
            memory.add(&paths, &format!("c{i}"), failure(i)).unwrap();
        }
        assert_eq!(memory.commits.len(), KEPT);
        assert!(memory.commits.contains_key("c59") && !memory.commits.contains_key("c9"));
    }

    #[test]
    fn the_identity_names_the_commit() {
        assert_eq!(commit_of("abc"), "abc");
        assert_eq!(commit_of("abc-2"), "abc");
    }
}
