//! What the update server offers, and whether this device may take it.

use std::cmp::Ordering;

use anyhow::{Context, Result};
use keys::client::{Client, ClientError};
use keys::release::{Channel, Release};
use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::failed::Memory;
use crate::paths::Paths;
use crate::problem::{Kind, Problem};
use crate::transport::{base_url, Transport};
use crate::{clock, record, system, version};

/// What a look at the channel brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Offer {
    /// Nothing newer.
    UpToDate,
    /// A newer release that this device may take.
    Newer(Box<Release>),
    /// A newer release that this device must not take; why.
    Withheld {
        /// Its version.
        version: String,
        /// Why.
        reason: String,
    },
}

/// The result of the last look, for `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastCheck {
    /// Seconds since 1970.
    pub time: u64,
    /// `up-to-date`, `available`, `withheld` or `failed`.
    pub result: String,
    /// Version offered, if there was one.
    #[serde(default)]
    pub version: Option<String>,
    /// More, for people.
    #[serde(default)]
    pub detail: String,
}

fn last_file(paths: &Paths) -> std::path::PathBuf {
    paths.state().join("last-check.json")
}

impl LastCheck {
    /// Reads the last one.
    pub fn load(paths: &Paths) -> Option<Self> {
        record::read_json(&last_file(paths))
    }

    /// Records how a look ended.
    pub fn save(paths: &Paths, outcome: &Result<Offer>) -> Result<()> {
        let (result, version, detail) = match outcome {
            Ok(Offer::UpToDate) => ("up-to-date", None, String::new()),
            Ok(Offer::Newer(release)) => (
                "available",
                Some(release.version.clone()),
                release.notes.clone(),
            ),
            Ok(Offer::Withheld { version, reason }) => {
                ("withheld", Some(version.clone()), reason.clone())
            }
            Err(error) => ("failed", None, format!("{error:#}")),
        };
        let last = Self {
            time: system::now(),
            result: result.into(),
            version,
            detail,
        };
        record::write_json(&last_file(paths), &last)
    }
}

/// The update server, with verified metadata.
#[derive(Debug)]
pub struct Server {
    client: Client,
}

impl Server {
    /// Fetches and verifies the metadata.
    pub async fn open(device: &Device, transport: &Transport) -> Result<Self> {
        let paths = &device.paths;
        let base = base_url(&device.config.update.url)?;
        let root = paths.at(bsp::device::ROOT_JSON_PATH);
        let trusted = std::fs::read(&root).map_err(|error| {
            Problem::new(Kind::Config, format!("reading {}: {error}", root.display()))
        })?;
        let datastore = paths.state().join("tuf");
        let client = Client::open(&trusted, &datastore, &base, transport.clone())
            .await
            .map_err(problem)?;
        // The time was good enough for unexpired signatures: never wake up before it again.
        clock::record(paths)?;
        Ok(Self { client })
    }

    /// Looks at the channel for something newer.
    pub async fn newest(&self, device: &Device, floor: u64, memory: &Memory) -> Result<Offer> {
        let config = &device.config;
        let channel = self
            .client
            .channel(&config.board, &config.update.channel)
            .await
            .map_err(problem)
            .with_context(|| format!("reading channel \"{}\"", config.update.channel))?;
        let Some(version) = choose(&channel, &config.version) else {
            return Ok(Offer::UpToDate);
        };
        let release = self.release(device, version).await?;
        if release.commit == device.booted_commit() {
            return Ok(Offer::UpToDate);
        }
        Ok(match admit(&release, device, floor, memory, false) {
            Ok(()) => Offer::Newer(Box::new(release)),
            Err(problem) => Offer::Withheld {
                version: release.version,
                reason: problem.text,
            },
        })
    }

    /// One release by its version.
    pub async fn release(&self, device: &Device, version: &str) -> Result<Release> {
        self.client
            .release(&device.config.board, version)
            .await
            .map_err(problem)
            .with_context(|| format!("reading release {version}"))
    }
}

/// The version a device should move to: the newest of the channel, unless the device runs that or a newer one.
fn choose<'a>(channel: &'a Channel, running: &str) -> Option<&'a str> {
    let newest = channel.versions.first()?;
    let listed = channel.versions.iter().any(|v| v == running);
    // A version that the channel lists further down is older, whatever the numbers say.
    let older = newest != running && listed;
    // The same version again may be another commit; the caller compares.
    let not_newer = version::compare(newest, running) != Ordering::Less;
    (older || not_newer).then_some(newest)
}

/// Whether this device may take the release. With `insist` (an operator's word) an earlier failure counts for nothing.
pub fn admit(
    release: &Release,
    device: &Device,
    floor: u64,
    memory: &Memory,
    insist: bool,
) -> Result<(), Problem> {
    let refused = |text: String| {
        Problem::new(
            Kind::Refused,
            format!("release {}: {text}", release.version),
        )
    };
    let config = &device.config;
    if release.product != config.product {
        return Err(refused(format!(
            "it is for product \"{}\", this device is \"{}\"",
            release.product, config.product
        )));
    }
    if !release.boards.contains(&config.board) {
        return Err(refused(format!(
            "it is for {}, this device is \"{}\"",
            release.boards.join(", "),
            config.board
        )));
    }
    if release.epoch < floor {
        return Err(refused(format!(
            "its epoch {} is below {floor}, which this device has confirmed",
            release.epoch
        ))
        .hint("it has known faults; a later release is needed"));
    }
    if let Some(failure) = memory.commits.get(&release.commit).filter(|_| !insist) {
        return Err(refused(format!("it failed on this device ({})", failure.reason))
            .hint("a newer release is taken by itself; `device-agent deploy VERSION --retry` tries this one again"));
    }
    Ok(())
}

/// The anti-rollback floor: the highest epoch confirmed here. Kept with the agent's state and, against its
/// loss, in the origin of the running deployment.
pub fn epoch_floor(paths: &Paths, booted: Option<u64>) -> u64 {
    let kept: Option<u64> = record::read_json(&paths.state().join("epoch.json"));
    kept.unwrap_or(0).max(booted.unwrap_or(0))
}

/// Raises the floor after a confirmed boot.
pub fn raise_epoch_floor(paths: &Paths, confirmed: Option<u64>) -> Result<()> {
    let floor = epoch_floor(paths, confirmed);
    record::write_json(&paths.state().join("epoch.json"), &floor)
}

fn problem(error: ClientError) -> anyhow::Error {
    let kind = match &error {
        ClientError::Network { .. } | ClientError::NotOnServer { .. } => Kind::Network,
        ClientError::MissingTarget { .. } => Kind::Refused,
        ClientError::Datastore(_) | ClientError::Other(_) => Kind::Other,
        _ => Kind::Trust,
    };
    Problem::new(kind, error.to_string()).into()
}

#[cfg(test)]
mod tests;
