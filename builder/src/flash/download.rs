//! Images from the web: only over https, only with a signature, and wholly here and checked before anything
//! is written.
//!
//! Beside `…/x.raw.zst` must stand `SHA256SUMS`, `SHA256SUMS.sig` and may stand `x.raw.bmap`, as
//! `builder build` writes them. The signature is checked first; then every file must have its checksum.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use futures_util::StreamExt;
use sha2::{Digest, Sha256};
use url::Url;

use super::source::sides::{map_names, parse_sums, verify, SIGNATURE, SUMS};
use crate::cache::sha256_file;
use crate::progress::{Progress, Stage};

/// Checksums, signatures and block maps are smaller than this, bytes.
const SMALL: u64 = 64 << 20;

/// Brings the image at `address` and what belongs to it into a directory below `dir`; returns the image's
/// path. `ca` holds further certificate authorities, PEM.
pub fn fetch(
    address: &str,
    keys: &[String],
    ca: Option<&Path>,
    dir: &Path,
    progress: Progress,
) -> Result<PathBuf> {
    let url = Url::parse(address).with_context(|| format!("reading the address {address}"))?;
    ensure!(
        url.scheme() == "https",
        "{address} is not an https:// address"
    );
    let name = url
        .path_segments()
        .and_then(|mut parts| parts.next_back())
        .filter(|name| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+~-".contains(&b);
            !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
        })
        .with_context(|| format!("{address} names no file"))?
        .to_string();
    ensure!(
        !keys.is_empty(),
        "fetching {address}: no key is known that could have signed it; give --key, or stand in the product's directory"
    );
    let stage = progress.stage("fetch");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the download")?;
    let web = Web {
        client: client(ca)?,
        base: url,
    };
    let path = runtime
        .block_on(web.all(&name, keys, dir, &stage))
        .with_context(|| format!("fetching {address}"))?;
    stage.done(format_args!("{name}, signed"));
    Ok(path)
}

fn client(ca: Option<&Path>) -> Result<reqwest::Client> {
    // An error means that somebody has installed one already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut builder = reqwest::Client::builder()
        .https_only(true)
        .connect_timeout(Duration::from_secs(20))
        .read_timeout(Duration::from_secs(60));
    if let Some(path) = ca {
        let pem = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let all = reqwest::Certificate::from_pem_bundle(&pem)
            .with_context(|| format!("reading {}", path.display()))?;
        builder = builder.tls_certs_merge(all);
    }
    builder.build().context("starting the download")
}

struct Web {
    client: reqwest::Client,
    /// Address of the image; the other files stand beside it.
    base: Url,
}

impl Web {
    async fn all(&self, name: &str, keys: &[String], dir: &Path, stage: &Stage) -> Result<PathBuf> {
        stage.note("signature");
        let sums = self.small(SUMS).await?;
        let signature = self.small(SIGNATURE).await?;
        verify(&sums, &String::from_utf8_lossy(&signature), keys)?;
        let listed = parse_sums(&String::from_utf8_lossy(&sums));
        let wanted = listed
            .get(name)
            .with_context(|| format!("{SUMS} does not list {name}"))?;
        let dir = dir.join(hex::encode(Sha256::digest(&sums)));
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        for map in map_names(name) {
            if let Some(wanted) = listed.get(&map) {
                let content = self.small(&map).await?;
                let is = hex::encode(Sha256::digest(&content));
                ensure!(is == *wanted, "{map} does not have the signed checksum");
                write(&dir.join(map), &content)?;
            }
        }
        write(&dir.join(SUMS), &sums)?;
        write(&dir.join(SIGNATURE), &signature)?;
        let path = dir.join(name);
        if path.is_file() && sha256_file(&path)? == *wanted {
            return Ok(path);
        }
        let part = dir.join(format!("{name}.part"));
        self.large(name, &part, stage).await?;
        if sha256_file(&part)? != *wanted {
            // Beginning anew is the only thing that can help.
            let _ = fs::remove_file(&part);
            bail!("{name} does not have the signed checksum: it was altered or damaged on the way");
        }
        fs::rename(&part, &path).with_context(|| format!("moving to {}", path.display()))?;
        Ok(path)
    }

    async fn get(&self, name: &str, from: u64) -> Result<reqwest::Response> {
        let url = self.base.join(name).context("making the address")?;
        let mut request = self.client.get(url);
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        Ok(request.send().await?.error_for_status()?)
    }

    async fn small(&self, name: &str) -> Result<Vec<u8>> {
        let inner = async {
            let mut body = self.get(name, 0).await?.bytes_stream();
            let mut content = Vec::new();
            while let Some(piece) = body.next().await {
                content.extend(piece?);
                ensure!(content.len() as u64 <= SMALL, "it is far too large");
            }
            Ok(content)
        };
        inner.await.with_context(|| format!("fetching {name}"))
    }

    /// Goes on where an earlier download stopped, if the server can.
    async fn large(&self, name: &str, part: &Path, stage: &Stage) -> Result<()> {
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(part)
            .with_context(|| format!("creating {}", part.display()))?;
        let mut have = file.seek(SeekFrom::End(0))?;
        let response = match self.get(name, have).await {
            // The part is as long as the file, or longer.
            Err(_) if have > 0 => {
                have = 0;
                self.get(name, 0).await?
            }
            response => response?,
        };
        if response.status().as_u16() != 206 {
            have = 0;
        }
        file.set_len(have)?;
        file.seek(SeekFrom::Start(have))?;
        stage.bytes(have + response.content_length().unwrap_or(0));
        stage.advance(have);
        let mut body = response.bytes_stream();
        while let Some(piece) = body.next().await {
            let piece = piece.context("the connection broke; begin again, it goes on from here")?;
            file.write_all(&piece)
                .with_context(|| format!("writing {}", part.display()))?;
            stage.advance(piece.len() as u64);
        }
        file.sync_all()?;
        Ok(())
    }
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    fs::write(path, content).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::super::source::sides::sign;
    use super::super::source::tests::raw_image;
    use super::super::source::{Image, Trust};
    use super::*;
    use crate::serve::{start, tls, Config};

    #[test]
    fn an_image_comes_with_its_signature_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let site = dir.path().join("site");
        fs::create_dir(&site).unwrap();
        let raw = raw_image(&site, 8 << 20, &[0..4096, 2 << 20..5 << 20]);
        let name = raw.file_name().unwrap().to_str().unwrap().to_string();
        let files = tls::ensure(&dir.path().join("tls"), &[]).unwrap();
        let mut config = Config::new(&site, files.clone());
        (config.port, config.bind) = (0, std::net::Ipv4Addr::LOCALHOST.into());
        let server = start(config).unwrap();
        let address = format!("{}{name}", server.url());
        let key = keys::keyfile::PrivateKey::generate().unwrap();
        let known = [key.public_base64()];
        let cache = dir.path().join("cache");
        let fetch = |keys: &[String]| {
            fetch(&address, keys, Some(&files.ca), &cache, Progress::Quiet)
                .map_err(|error| format!("{error:#}"))
        };
        let sums = || {
            let line = |name: &str| format!("{}  {name}\n", sha256_file(&site.join(name)).unwrap());
            line(&name) + &line(&format!("{name}.bmap"))
        };
        assert!(fetch(&known).unwrap_err().contains(SUMS));
        fs::write(site.join(SUMS), sums()).unwrap();
        assert!(fetch(&known).unwrap_err().contains(SIGNATURE));
        fs::write(site.join(SIGNATURE), sign(&sums(), &key).unwrap()).unwrap();
        assert!(fetch(&[]).unwrap_err().contains("no key"));
        let other = [keys::keyfile::PrivateKey::generate()
            .unwrap()
            .public_base64()];
        assert!(fetch(&other).unwrap_err().contains("none of the 1"));
        assert!(!cache.exists());

        let got = fetch(&known).unwrap();
        assert_eq!(Image::open(&got, &known).unwrap().trust, Trust::Signature);
        // What broke off goes on; a second time nothing is fetched.
        let whole = fs::read(&got).unwrap();
        fs::remove_file(&got).unwrap();
        fs::write(
            got.with_file_name(format!("{name}.part")),
            &whole[..1 << 20],
        )
        .unwrap();
        assert_eq!(fs::read(fetch(&known).unwrap()).unwrap(), whole);
        let before = server.served().len();
        fetch(&known).unwrap();
        assert!(server.served()[before..]
            .iter()
            .all(|s| !s.path.ends_with(".raw")));

        // Altered on the server, after it was signed.
        fs::remove_dir_all(&cache).unwrap();
        let mut altered = whole.clone();
        altered[3 << 20] ^= 1;
        fs::write(&raw, altered).unwrap();
        assert!(fetch(&known).unwrap_err().contains("signed checksum"));
        let http = address.replace("https", "http");
        assert!(super::fetch(&http, &known, None, &cache, Progress::Quiet).is_err());
    }
}
