//! What has been released: channels and their releases, from the signed metadata.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use keys::author;
use keys::release::{Channel, Release};
use serde::Serialize;

use super::published::Site;
use super::{delta, table};

/// A channel with its releases, newest first.
#[derive(Debug, Clone, Serialize)]
pub struct ChannelList {
    /// Board id.
    pub board: String,
    /// Channel name.
    pub channel: String,
    /// Releases, newest first.
    pub releases: Vec<Release>,
}

/// Everything that is released, sorted by board and channel. `Display` is a table.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Released(pub Vec<ChannelList>);

/// Reads what stands in the published directory `updates`, checked against the root metadata in
/// `keys`. Nothing published is an empty list.
pub fn list(updates: &Path, keys: &Path) -> Result<Released> {
    let site = Site::open(updates, keys)?;
    let tuf = site.tuf();
    let mut channels = Vec::new();
    for name in author::target_names(&site.root, &tuf)? {
        if !name.starts_with("channel.") {
            continue;
        }
        let bytes = author::target(&site.root, &tuf, &name)?
            .with_context(|| format!("reading the published {name}: it is gone"))?;
        let channel =
            Channel::parse(&bytes).with_context(|| format!("reading the published {name}"))?;
        let mut releases = Vec::new();
        for version in &channel.versions {
            releases.push(site.release(&channel.board, version)?.with_context(|| {
                format!("reading the published {name}: it lists {version}, which is not published")
            })?);
        }
        channels.push(ChannelList {
            board: channel.board,
            channel: channel.channel,
            releases,
        });
    }
    channels.sort_by(|a, b| (&a.board, &a.channel).cmp(&(&b.board, &b.channel)));
    Ok(Released(channels))
}

impl fmt::Display for Released {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return writeln!(f, "nothing released yet");
        }
        for channel in &self.0 {
            writeln!(f, "{} in {}", channel.board, channel.channel)?;
            writeln!(
                f,
                "  {:<16} {:<8} {:<10} {:>5} {:>10}  deltas",
                "version", "commit", "date", "epoch", "full"
            )?;
            for release in &channel.releases {
                let deltas: Vec<String> = release
                    .deltas
                    .iter()
                    .map(|delta| {
                        let from = channel.releases.iter().find(|r| r.commit == delta.from);
                        let from = from.map_or(delta::short(&delta.from), |r| &r.version);
                        format!("{from}: {}", table::size(delta.file.length))
                    })
                    .collect();
                writeln!(
                    f,
                    "  {:<16} {:<8} {:<10} {:>5} {:>10}  {}",
                    release.version,
                    delta::short(&release.commit),
                    date(release.created),
                    release.epoch,
                    table::size(release.full.length),
                    deltas.join(", ")
                )?;
            }
        }
        Ok(())
    }
}

fn date(seconds: u64) -> String {
    i64::try_from(seconds)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(
            || "?".to_string(),
            |time| time.strftime("%Y-%m-%d").to_string(),
        )
}
