//! The way to the update server: HTTPS with the system's and the product's own certificate authorities (and who
//! else the configuration wants, see [`tls`]), or a directory of the same files (`file://`, a USB stick).

mod signer;
mod tls;

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bsp::device::Update;
use futures_util::TryStreamExt;
use keys::client::{
    async_trait, FilesystemTransport, TransportError, TransportErrorKind, TransportStream,
};
use reqwest::StatusCode;
use url::Url;

use crate::paths::Paths;
use crate::problem::{Kind, Problem};

const CONNECT: Duration = Duration::from_secs(30);
/// Longest silence within a transfer.
const READ: Duration = Duration::from_secs(60);
/// Attempts for each small file (metadata); big ones are resumed by `fetch`.
const ATTEMPTS: u32 = 3;

/// A client for one update server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Transport {
    client: reqwest::Client,
    /// Pause before the second attempt; doubles with each further one.
    pause: Duration,
}

impl Transport {
    /// The transport of a device: HTTPS only, TLS 1.2 or newer; certificate, pinned keys and proxy as configured
    /// (without one, the environment's).
    ///
    /// # Errors
    /// [`Kind::Config`] if one of the files or values cannot be used.
    pub fn new(paths: &Paths, update: &Update) -> Result<Self> {
        let mut builder = client()
            .https_only(true)
            .tls_backend_preconfigured(tls::config(paths, update)?);
        if let Some(proxy) = &update.proxy {
            builder = builder.proxy(self::proxy(proxy)?);
        }
        Ok(Self {
            client: builder.build().context("preparing the HTTPS client")?,
            pause: Duration::from_secs(2),
        })
    }

    /// For tests against a plain local server.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Self::over(client().no_proxy().build().unwrap())
    }

    /// The same transport over an HTTP client of the caller's making, without a pause between attempts: for
    /// judges of the verifier that speak plain HTTP. A device uses [`Transport::new`].
    pub fn over(client: reqwest::Client) -> Self {
        Self {
            client,
            pause: Duration::from_millis(1),
        }
    }

    /// The HTTP client itself.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Reads a file of unknown length into `sink`, which takes no more than `limit` bytes.
    ///
    /// # Errors
    /// [`Kind::Network`] if the file or its server is out of reach, [`Kind::Trust`] beyond the limit,
    /// [`Kind::Room`] if there is none.
    pub async fn read(&self, url: &Url, limit: u64, sink: &mut impl Write) -> Result<()> {
        let problem = |kind, what: String| Problem::new(kind, format!("downloading {url}: {what}"));
        let mut stream = keys::client::Transport::fetch(self, url.clone())
            .await
            .map_err(|error| {
                let kind = match error.kind() {
                    TransportErrorKind::Untrusted => Kind::Trust,
                    _ => Kind::Network,
                };
                problem(kind, tail(&error))
            })?;
        let mut done = 0;
        while let Some(chunk) = stream
            .try_next()
            .await
            .map_err(|error| problem(Kind::Network, tail(&error)))?
        {
            done += chunk.len() as u64;
            if done > limit {
                return Err(problem(
                    Kind::Trust,
                    format!("it has more than the {limit} bytes it can have"),
                )
                .into());
            }
            sink.write_all(&chunk).map_err(|error| {
                let kind = match error.kind() {
                    std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                        Kind::Room
                    }
                    _ => Kind::Other,
                };
                problem(kind, format!("keeping it: {error}"))
            })?;
        }
        Ok(())
    }

    async fn open(&self, url: &Url) -> Result<reqwest::Response, TransportError> {
        let mut pause = self.pause;
        let mut attempt = 1;
        loop {
            let error = match self.client.get(url.clone()).send().await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => {
                    let status = response.status();
                    let kind = match status {
                        StatusCode::NOT_FOUND | StatusCode::FORBIDDEN | StatusCode::GONE => {
                            TransportErrorKind::FileNotFound
                        }
                        _ => TransportErrorKind::Other,
                    };
                    let error = TransportError::new_with_cause(kind, url, status.to_string());
                    if !status.is_server_error() {
                        return Err(error);
                    }
                    error
                }
                Err(error) => {
                    let other = || (TransportErrorKind::Other, innermost(&error));
                    let (kind, reason) = tls::own_reason(&error).unwrap_or_else(other);
                    let error = TransportError::new_with_cause(kind, url, reason);
                    if kind == TransportErrorKind::Untrusted {
                        return Err(error);
                    }
                    error
                }
            };
            if attempt == ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
            attempt += 1;
        }
    }
}

#[async_trait]
impl keys::client::Transport for Transport {
    async fn fetch(&self, url: Url) -> Result<TransportStream, TransportError> {
        if url.scheme() == "file" {
            return FilesystemTransport.fetch(url).await;
        }
        let response = self.open(&url).await?;
        Ok(Box::pin(response.bytes_stream().map_err(move |error| {
            TransportError::new_with_cause(TransportErrorKind::Other, &url, innermost(&error))
        })))
    }
}

fn client() -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("device-agent/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .read_timeout(READ)
}

/// The cause at the end of an error's chain, or the error itself.
fn tail(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// reqwest's own text repeats the address and hides the cause at the end of the chain.
pub fn innermost(error: &reqwest::Error) -> String {
    tail(error)
}

/// A proxy for everything but what `NO_PROXY` names. Its address may hold a password, so no error shows it.
fn proxy(address: &str) -> Result<reqwest::Proxy, Problem> {
    let proxy = reqwest::Proxy::all(address).map_err(|error| {
        let text = format!("update.proxy: {}", innermost(&error));
        Problem::new(Kind::Config, text).hint("it looks like http://proxy.example:3128")
    })?;
    Ok(proxy.no_proxy(reqwest::NoProxy::from_env()))
}

/// The base address with a slash at its end, so that paths join below it.
pub fn base_url(text: &str) -> Result<Arc<Url>> {
    if text.is_empty() {
        return Err(Problem::new(Kind::Config, "no update source is configured")
            .hint("set update.url in /etc/device-agent/config.toml, or in product.toml")
            .into());
    }
    let slashed = format!("{}/", text.trim_end_matches('/'));
    Url::parse(&slashed).map(Arc::new).map_err(|error| {
        Problem::new(Kind::Config, format!("update.url \"{text}\": {error}")).into()
    })
}
