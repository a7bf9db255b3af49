//! The agent's notes about a trial: what is being tried, how often it booted, why it was given up. Notes
//! only: the boot environment decides; without them a report merely knows less.

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::health::Finding;
use crate::paths::Paths;
use crate::{record, system};

/// Notes about one trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// Identity on trial.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Version it came from.
    pub from_version: String,
    /// Boots it was given.
    pub tries: u8,
    /// When it was armed, seconds since 1970.
    pub armed: u64,
    /// Kernel boot ids of the trial boots that reached user space.
    #[serde(default)]
    pub boots: Vec<String>,
    /// Why it was given up, if the agent did so itself.
    #[serde(default)]
    pub rejected: Option<Vec<Finding>>,
}

fn file(paths: &Paths) -> std::path::PathBuf {
    paths.state().join("trial.json")
}

impl Trial {
    /// The notes about `id`, if there are any.
    pub fn load(paths: &Paths, id: &str) -> Option<Self> {
        record::read_json::<Self>(&file(paths)).filter(|trial| trial.id == id)
    }

    /// Writes the notes.
    pub fn save(&self, paths: &Paths) -> Result<()> {
        record::write_json(&file(paths), self)
    }

    /// Notes of a trial about which nothing is known any more.
    pub fn unknown(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            version: "unknown".into(),
            from_version: "unknown".into(),
            tries: 0,
            armed: system::now(),
            boots: Vec::new(),
            rejected: None,
        }
    }

    /// Counts this boot; a second call in the same boot changes nothing.
    pub fn count_boot(&mut self, paths: &Paths) {
        let boot = std::fs::read_to_string(paths.at("proc/sys/kernel/random/boot_id"))
            .unwrap_or_default()
            .trim()
            .to_owned();
        if !self.boots.contains(&boot) {
            self.boots.push(boot);
        }
    }
}

/// Removes the notes: the trial is over.
pub fn clear(paths: &Paths) -> Result<()> {
    record::remove(&file(paths))
}
