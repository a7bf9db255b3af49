//! Downloads one artefact: resumed after any interruption, bounded, and never read by anything before its
//! length and SHA-256 are those of the signed release.
//!
//! Files are named by their SHA-256, so a half file can only be continued by the same content; the ETag
//! merely spares the transfer of bytes that the final check would throw away.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::{header, StatusCode};
use sha2::{Digest, Sha256};
use url::Url;

use crate::problem::{Kind, Problem};
use crate::stop_point;
use crate::transport::{innermost, Transport};

/// Attempts in a row that may bring no new byte.
const FRUITLESS: u32 = 6;
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What is fetched, from where, and where to.
#[derive(Debug)]
pub struct Order<'a> {
    /// Address: `https://` or `file://`.
    pub url: Url,
    /// Bytes, from signed metadata.
    pub length: u64,
    /// SHA-256 in hex, from signed metadata.
    pub sha256: &'a str,
    /// Directory of downloads.
    pub dir: &'a Path,
    /// Pause after the first fruitless attempt; doubles up to a minute.
    pub pause: Duration,
}

/// How one attempt ended without completing the file.
enum Broken {
    /// Worth another attempt.
    Retry(String),
    /// What stands on disk is of no use; start from nothing.
    Restart(String),
    /// No attempt will help.
    Fatal(Problem),
}

impl Order<'_> {
    /// Where the complete, verified file stands.
    pub fn file(&self) -> PathBuf {
        self.dir.join(self.sha256)
    }

    fn part(&self) -> PathBuf {
        self.dir.join(format!("{}.part", self.sha256))
    }

    fn tag(&self) -> PathBuf {
        self.dir.join(format!("{}.etag", self.sha256))
    }

    /// Bytes of the file that are here already.
    pub fn present(&self) -> u64 {
        [self.file(), self.part()]
            .iter()
            .filter_map(|file| fs::metadata(file).ok())
            .map(|meta| meta.len().min(self.length))
            .max()
            .unwrap_or(0)
    }

    fn problem(&self, kind: Kind, what: impl std::fmt::Display) -> Problem {
        Problem::new(kind, format!("downloading {}: {what}", self.url))
    }
}

/// Fetches and verifies; `progress` is called with bytes done. Returns the verified file.
pub async fn fetch(
    transport: &Transport,
    order: &Order<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<PathBuf> {
    fs::create_dir_all(order.dir).with_context(|| format!("creating {}", order.dir.display()))?;
    if order.file().exists() {
        if hash(&order.file())? == (order.length, order.sha256.to_ascii_lowercase()) {
            return Ok(order.file());
        }
        fs::remove_file(order.file())?;
    }
    let mut restarts = 0;
    loop {
        complete(transport, order, progress).await?;
        let (length, sha256) = hash(&order.part())?;
        if length == order.length && sha256 == order.sha256.to_ascii_lowercase() {
            break;
        }
        forget(order)?;
        // A resumed file may have been spoilt by what stood here before: once from nothing.
        restarts += 1;
        if restarts > 1 {
            return Err(order
                .problem(
                    Kind::Trust,
                    format!(
                        "the file has SHA-256 {sha256}, the signed release says {}",
                        order.sha256
                    ),
                )
                .hint("the server holds a damaged or foreign file; publish the release again")
                .into());
        }
    }
    let synced = File::open(order.part()).and_then(|file| file.sync_all());
    synced
        .and_then(|()| fs::rename(order.part(), order.file()))
        .with_context(|| format!("keeping {}", order.file().display()))?;
    crate::record::remove(&order.tag())?;
    stop_point::reach("downloaded");
    Ok(order.file())
}

/// Removes every download except those of `order` (halves of releases that nobody wants any more).
pub fn clear_others(order: &Order<'_>) {
    let Ok(entries) = fs::read_dir(order.dir) else {
        return;
    };
    for entry in entries.flatten() {
        if !entry
            .file_name()
            .to_string_lossy()
            .starts_with(order.sha256)
        {
            // What cannot be removed only takes room; the room is checked next.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn forget(order: &Order<'_>) -> Result<()> {
    crate::record::remove(&order.part())?;
    crate::record::remove(&order.tag())
}

/// Repeats attempts until the part has its full length.
async fn complete(
    transport: &Transport,
    order: &Order<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut fruitless = 0;
    let mut pause = order.pause;
    loop {
        let before = part_length(order);
        if before == order.length {
            return Ok(());
        }
        let outcome = if order.url.scheme() == "file" {
            copy(order, progress)
        } else {
            attempt(transport, order, before, progress).await
        };
        let reason = match outcome {
            Ok(()) => continue,
            Err(Broken::Fatal(problem)) => return Err(problem.into()),
            Err(Broken::Retry(reason)) => reason,
            Err(Broken::Restart(reason)) => {
                forget(order)?;
                reason
            }
        };
        if part_length(order) > before {
            fruitless = 0;
            pause = order.pause;
        }
        fruitless += 1;
        if fruitless >= FRUITLESS {
            return Err(order
                .problem(Kind::Network, reason)
                .hint("what has arrived is kept; the next attempt goes on from there")
                .into());
        }
        tokio::time::sleep(pause + jitter(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn part_length(order: &Order<'_>) -> u64 {
    fs::metadata(order.part()).map_or(0, |meta| meta.len())
}

/// Up to half of `pause`, so that a fleet does not come back in step.
fn jitter(pause: Duration) -> Duration {
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.subsec_nanos());
    pause.mul_f64(f64::from(nanos % 1000) / 2000.0)
}

async fn attempt(
    transport: &Transport,
    order: &Order<'_>,
    have: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Broken> {
    if have > order.length {
        return Err(Broken::Restart(
            "the half file was longer than the whole one".into(),
        ));
    }
    let mut request = transport.client().get(order.url.clone());
    if have > 0 {
        request = request.header(header::RANGE, format!("bytes={have}-"));
        if let Ok(tag) = fs::read_to_string(order.tag()) {
            request = request.header(header::IF_RANGE, tag);
        }
    }
    let mut response = request
        .send()
        .await
        .map_err(|e| Broken::Retry(innermost(&e)))?;
    let resumed = match response.status() {
        StatusCode::PARTIAL_CONTENT => range_starts_at(&response, have)?,
        StatusCode::OK => false,
        StatusCode::RANGE_NOT_SATISFIABLE => {
            return Err(Broken::Restart("the server refused the range".into()))
        }
        status @ (StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE) => {
            return Err(Broken::Fatal(
                order
                    .problem(Kind::Network, format!("the server says {status}"))
                    .hint(
                        "the release names a file that the server does not have; publish it again",
                    ),
            ))
        }
        status => return Err(Broken::Retry(format!("the server says {status}"))),
    };
    keep_tag(order, &response);
    let mut sink = Sink::open(order, if resumed { have } else { 0 })?;
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|e| Broken::Retry(innermost(&e)))?
    {
        sink.write(order, &chunk)?;
        progress(sink.done);
    }
    sink.end(order)
}

fn range_starts_at(response: &reqwest::Response, have: u64) -> Result<bool, Broken> {
    let range = response
        .headers()
        .get(header::CONTENT_RANGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("bytes "))
        .and_then(|value| value.split_once('-'))
        .and_then(|(start, _)| start.trim().parse::<u64>().ok());
    if range == Some(have) {
        Ok(true)
    } else {
        Err(Broken::Restart(
            "the server sent another range than the one asked for".into(),
        ))
    }
}

fn keep_tag(order: &Order<'_>, response: &reqwest::Response) {
    let tag = response
        .headers()
        .get(header::ETAG)
        .and_then(|value| value.to_str().ok())
        // A weak tag does not promise the same bytes.
        .filter(|tag| !tag.starts_with("W/"));
    // A lost tag costs at most a transfer from the beginning.
    let _ = match tag {
        Some(tag) => fs::write(order.tag(), tag),
        None => fs::remove_file(order.tag()),
    };
}

fn copy(order: &Order<'_>, progress: &mut dyn FnMut(u64)) -> Result<(), Broken> {
    let fatal = |what: String| Broken::Fatal(order.problem(Kind::Network, what));
    let path = order
        .url
        .to_file_path()
        .map_err(|()| fatal("not an address of a local file".into()))?;
    let mut file = File::open(&path).map_err(|e| fatal(e.to_string()))?;
    let mut sink = Sink::open(order, 0)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = file.read(&mut buffer).map_err(|e| fatal(e.to_string()))?;
        if n == 0 {
            return sink.end(order);
        }
        sink.write(order, &buffer[..n])?;
        progress(sink.done);
    }
}

/// The half file: takes no byte beyond the promised length.
struct Sink {
    file: File,
    done: u64,
}

impl Sink {
    fn open(order: &Order<'_>, keep: u64) -> Result<Self, Broken> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .open(order.part())
            .and_then(|file| file.set_len(keep).map(|()| file))
            .map_err(|e| Self::failed(order, &e))?;
        Ok(Self { file, done: keep })
    }

    fn write(&mut self, order: &Order<'_>, chunk: &[u8]) -> Result<(), Broken> {
        let done = self.done + chunk.len() as u64;
        if done > order.length {
            return Err(Broken::Restart(format!(
                "the server sends more than the {} bytes of the signed release",
                order.length
            )));
        }
        self.file
            .write_all(chunk)
            .map_err(|e| Self::failed(order, &e))?;
        if self.done < order.length / 2 && done >= order.length / 2 {
            // The half that a power cut leaves is what the next boot goes on with.
            self.file.sync_data().map_err(|e| Self::failed(order, &e))?;
            stop_point::reach("download-half");
        }
        self.done = done;
        Ok(())
    }

    fn end(self, order: &Order<'_>) -> Result<(), Broken> {
        if self.done == order.length {
            return Ok(());
        }
        Err(Broken::Retry(format!(
            "the transfer ended after {} of {} bytes",
            self.done, order.length
        )))
    }

    fn failed(order: &Order<'_>, error: &std::io::Error) -> Broken {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Room,
            _ => Kind::Other,
        };
        Broken::Fatal(Problem::new(
            kind,
            format!("writing {}: {error}", order.part().display()),
        ))
    }
}

fn hash(path: &Path) -> Result<(u64, String)> {
    let inner = || -> std::io::Result<(u64, String)> {
        let mut file = File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 16];
        let mut length = 0;
        loop {
            let n = file.read(&mut buffer)?;
            if n == 0 {
                return Ok((length, hex::encode(hasher.finalize())));
            }
            hasher.update(&buffer[..n]);
            length += n as u64;
        }
    };
    inner().with_context(|| format!("reading {}", path.display()))
}

#[cfg(test)]
mod tests;
