//! The packages of a lock, brought into the cache and checked.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use futures_util::{StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use super::archive::Archive;
use super::{apt, parse, LockedPackage};
use crate::cache::Cache;
use crate::progress::{Progress, Stage};
use crate::project::Merged;

const AT_ONCE: usize = 6;
const ATTEMPTS: u32 = 3;
/// Wait after the first failed attempt; doubled after each.
const WAIT: Duration = Duration::from_millis(if cfg!(test) { 1 } else { 1000 });

/// Brings `packages` into the cache and returns their files in the same order. What is there already is not
/// fetched again; what arrives is kept only if length and SHA-256 are those of the lock.
pub fn fetch(
    packages: &[LockedPackage],
    merged: &Merged,
    cache: &Cache,
    progress: Progress,
) -> Result<Vec<PathBuf>> {
    let paths: Vec<PathBuf> = packages
        .iter()
        .map(|package| path(package, cache))
        .collect();
    let mut missing: Vec<&LockedPackage> = packages
        .iter()
        .zip(&paths)
        .filter(|(package, path)| {
            fs::metadata(path).map_or(true, |found| found.len() != package.size)
        })
        .map(|(package, _)| package)
        .collect();
    missing.sort_by_key(|package| &package.sha256);
    missing.dedup_by_key(|package| &package.sha256);
    if missing.is_empty() {
        return Ok(paths);
    }
    let archive = Archive::of(merged)?;
    let dir = cache.root().join("debs");
    fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let stage = progress.stage("fetch");
    let total: u64 = missing.iter().map(|package| package.size).sum();
    stage.bytes(total);
    fetch_all(&missing, &archive, cache, &stage)?;
    stage.done(format_args!(
        "{} packages, {:.1} MB",
        missing.len(),
        total as f64 / 1e6
    ));
    Ok(paths)
}

fn path(package: &LockedPackage, cache: &Cache) -> PathBuf {
    cache.path("debs", &format!("{}.deb", package.sha256))
}

fn fetch_all(
    missing: &[&LockedPackage],
    archive: &Archive,
    cache: &Cache,
    stage: &Stage,
) -> Result<()> {
    let client = client()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the downloads")?;
    runtime.block_on(
        futures_util::stream::iter(missing.iter().map(|package| {
            let client = &client;
            async move {
                let address = address(archive, package)?;
                one(client, package, &address, &path(package, cache), stage)
                    .await
                    .with_context(|| {
                        format!(
                            "fetching {} {} from {address}",
                            package.name, package.version
                        )
                    })
            }
        }))
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>(),
    )
}

fn client() -> Result<reqwest::Client> {
    // An error means that somebody has installed one already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(20))
        .read_timeout(Duration::from_secs(60));
    for (key, value) in apt::proxies()? {
        let proxy = if key == "http" {
            reqwest::Proxy::http(&value)
        } else {
            reqwest::Proxy::https(&value)
        };
        builder = builder.proxy(proxy.with_context(|| format!("using apt's {key} proxy {value}"))?);
    }
    builder.build().context("starting the downloads")
}

/// The full address: characters that a URL path gives a meaning to are escaped, as apt does.
fn address(archive: &Archive, package: &LockedPackage) -> Result<String> {
    let mut address = archive.address(&package.archive)?.to_string();
    for byte in package.filename.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            address.push(char::from(byte));
        } else {
            address.push_str(&format!("%{byte:02x}"));
        }
    }
    Ok(address)
}

async fn one(
    client: &reqwest::Client,
    package: &LockedPackage,
    address: &str,
    path: &Path,
    stage: &Stage,
) -> Result<()> {
    if let Some(file) = address.strip_prefix("file://") {
        let content = fs::read(parse::percent_decode(file)?)?;
        let mut incoming = Incoming::new(package, path)?;
        incoming.add(&content)?;
        stage.advance(content.len() as u64);
        return incoming.finish(path);
    }
    let mut attempt = 1;
    loop {
        match download(client, package, address, path, stage).await {
            Ok(()) => return Ok(()),
            Err(error) if attempt == ATTEMPTS || error.is::<Gone>() => return Err(error),
            Err(_) => {
                tokio::time::sleep(WAIT * (1 << (attempt - 1))).await;
                attempt += 1;
            }
        }
    }
}

async fn download(
    client: &reqwest::Client,
    package: &LockedPackage,
    address: &str,
    path: &Path,
    stage: &Stage,
) -> Result<()> {
    let response = match client.get(address).send().await {
        Err(error) if error.is_connect() => {
            return Err(anyhow::Error::new(error)
                .context("no network, or the archive is down; what was fetched so far is kept"));
        }
        response => response?,
    };
    if matches!(response.status().as_u16(), 404 | 410) {
        bail!(Gone);
    }
    let response = response.error_for_status()?;
    let mut incoming = Incoming::new(package, path)?;
    let mut body = response.bytes_stream();
    while let Some(chunk) = body.next().await {
        incoming.add(&chunk?)?;
    }
    incoming.finish(path)?;
    stage.advance(package.size);
    Ok(())
}

/// The archive does not have the file any more.
#[derive(Debug, thiserror::Error)]
#[error(
    "the archive has moved on and no longer has this version: run `builder update-lock`, or set base.mirror \
     in product.toml to a snapshot of the archive"
)]
struct Gone;

/// A file on its way into the cache; it gets its name only when it is what the lock says.
struct Incoming<'a> {
    package: &'a LockedPackage,
    file: tempfile::NamedTempFile,
    hash: Sha256,
    len: u64,
}

impl<'a> Incoming<'a> {
    fn new(package: &'a LockedPackage, path: &Path) -> Result<Self> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let file = tempfile::Builder::new()
            .prefix(".fetching-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .tempfile_in(dir)
            .with_context(|| format!("creating a file in {}", dir.display()))?;
        Ok(Self {
            package,
            file,
            hash: Sha256::new(),
            len: 0,
        })
    }

    fn add(&mut self, bytes: &[u8]) -> Result<()> {
        self.len += bytes.len() as u64;
        ensure!(
            self.len <= self.package.size,
            "it is longer than the {} bytes of the lock",
            self.package.size
        );
        self.hash.update(bytes);
        self.file
            .write_all(bytes)
            .with_context(|| format!("writing {}", self.file.path().display()))
    }

    fn finish(self, path: &Path) -> Result<()> {
        ensure!(
            self.len == self.package.size,
            "it ended after {} of {} bytes",
            self.len,
            self.package.size
        );
        let hash = hex::encode(self.hash.finalize());
        ensure!(
            hash == self.package.sha256,
            "its SHA-256 is {hash}, the lock says {}",
            self.package.sha256
        );
        self.file
            .persist(path)
            .with_context(|| format!("moving it to {}", path.display()))?;
        Ok(())
    }
}

#[cfg(test)]
#[path = "fetch_test.rs"]
mod tests;
