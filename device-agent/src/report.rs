//! What happened, as one JSON document: kept on the device, and posted if the product has a place for it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::health::Finding;
use crate::paths::Paths;
use crate::problem::{Kind, Problem};
use crate::record;
use crate::transport::{innermost, Transport};

/// Reports that wait for the server, at most; the oldest go first.
const WAITING: usize = 20;

/// How a judged boot ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// A trial was confirmed.
    Confirmed,
    /// A trial failed and the device runs the deployment before.
    FellBack,
    /// The boot state was lost and written anew.
    Healed,
}

/// One report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Format number of this document: 1.
    pub format: u32,
    /// What happened.
    pub event: Event,
    /// Seconds since 1970, by the device's clock.
    pub time: u64,
    /// Product name.
    pub product: String,
    /// Board id.
    pub board: String,
    /// Machine id, to tell devices apart.
    pub machine: String,
    /// Version that runs now.
    pub running_version: String,
    /// Identity of the deployment the event is about.
    pub id: String,
    /// Its commit.
    pub commit: String,
    /// Its version.
    pub version: String,
    /// Boots it was given, and those of them that reached user space.
    pub tries: u8,
    /// See `tries`.
    pub boots_in_user_space: usize,
    /// What was not good: the reason of a rejection.
    #[serde(default)]
    pub findings: Vec<Finding>,
    /// What was not good but did not matter.
    #[serde(default)]
    pub warnings: Vec<Finding>,
    /// What is known about the last reset, e.g. `watchdog`.
    #[serde(default)]
    pub reset_cause: Option<String>,
    /// Directory on the device with journal and kernel messages.
    #[serde(default)]
    pub evidence: Option<PathBuf>,
}

fn waiting(paths: &Paths) -> PathBuf {
    paths.state().join("reports")
}

impl Report {
    /// Keeps the report as `report.json`; with `post` also for the server.
    pub fn save(&self, paths: &Paths, post: bool) -> Result<()> {
        record::write_json(&paths.state().join("report.json"), self)?;
        if post {
            let name = format!("{}-{:?}.json", self.time, self.event).to_lowercase();
            record::write_json(&waiting(paths).join(name), self)?;
        }
        Ok(())
    }

    /// The last report, if there is one.
    pub fn last(paths: &Paths) -> Option<Self> {
        record::read_json(&paths.state().join("report.json"))
    }
}

/// Posts the reports that wait, oldest first, and removes those the server has taken. What fails stays for
/// the next run.
pub async fn post_waiting(paths: &Paths, transport: &Transport, url: &str) -> Result<usize> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(waiting(paths))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    let surplus = files.len().saturating_sub(WAITING);
    for old in files.drain(..surplus) {
        record::remove(&old)?;
    }
    let count = files.len();
    for file in files {
        let body = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        let network = |what: String| {
            Problem::new(Kind::Network, format!("posting a report to {url}: {what}"))
                .hint("it is kept; the next run of the timer tries again")
        };
        let response = transport
            .client()
            .post(url)
            .header(reqwest::header::CONTENT_TYPE, "application/json")
            .timeout(Duration::from_secs(60))
            .body(body)
            .send()
            .await
            .map_err(|error| network(innermost(&error)))?;
        if !response.status().is_success() {
            return Err(network(format!("the server says {}", response.status())).into());
        }
        record::remove(&file)?;
    }
    Ok(count)
}
