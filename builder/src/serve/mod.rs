//! The HTTPS development server: a published directory (`out/updates`) for devices and `ostree`
//! clients, with a certificate of the product's own authority.
//!
//! It is a plain file server with range requests and strong validators; nothing is computed on
//! request, so any web server can take its place. Directories are never listed, no path leaves the
//! directory by `..`, and TLS 1.3 is required unless 1.2 is allowed expressly.

mod body;
pub mod fault;
mod files;
pub mod report;
#[cfg(test)]
mod tests;
pub mod tls;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use axum_server::tls_rustls::RustlsConfig;
use axum_server::Handle;
use rustls::pki_types::{pem::PemObject, CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::WebPkiClientVerifier;
use serde::Serialize;

use fault::Faults;
use tls::TlsFiles;

/// Port unless another is asked for.
pub const DEFAULT_PORT: u16 = 8443;
/// Requests that [`Running::served`] remembers.
const REMEMBERED: usize = 10_000;
/// How long running transfers may take after the server was asked to stop.
const GRACE: Duration = Duration::from_secs(3);

/// What to serve, and where.
#[derive(Debug, Clone)]
pub struct Config {
    /// The directory that is served.
    pub dir: PathBuf,
    /// Address to listen on; [`ANY`] for all.
    pub bind: IpAddr,
    /// Port to listen on; 0 takes a free one.
    pub port: u16,
    /// Certificate and key, from [`tls::ensure`].
    pub tls: TlsFiles,
    /// Authorities (PEM) one of which must vouch for a client's certificate; none: clients need no certificate.
    pub client_ca: Option<PathBuf>,
    /// Allows TLS 1.2 besides 1.3, for old clients.
    pub allow_tls12: bool,
    /// File that `POST /report` appends to; none: reports are not taken.
    pub reports: Option<PathBuf>,
    /// One line a request on standard output.
    pub print_requests: bool,
    /// Faults for tests; empty otherwise.
    pub faults: Faults,
}

/// All IPv4 addresses.
pub const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

impl Config {
    /// Serves `dir` on all addresses at [`DEFAULT_PORT`], TLS 1.3 only, silent, without reports.
    pub fn new(dir: impl Into<PathBuf>, tls: TlsFiles) -> Self {
        Self {
            dir: dir.into(),
            bind: ANY,
            port: DEFAULT_PORT,
            tls,
            client_ca: None,
            allow_tls12: false,
            reports: None,
            print_requests: false,
            faults: Faults::default(),
        }
    }
}

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Served {
    /// HTTP method.
    pub method: String,
    /// Path as it was asked for, still percent-encoded.
    pub path: String,
    /// The `Range` header, if any.
    pub range: Option<String>,
    /// HTTP status.
    pub status: u16,
    /// Bytes of the body that were handed to the connection.
    pub bytes: u64,
}

/// Where answered requests are noted.
#[derive(Debug, Clone)]
struct Log {
    print: bool,
    seen: Arc<Mutex<VecDeque<Served>>>,
}

impl Log {
    fn add(&self, served: Served) {
        if self.print {
            use std::io::Write;
            // A closed standard output is no reason to stop serving.
            let _ = writeln!(
                std::io::stdout(),
                "{} {} {} {}{}",
                served.method,
                served.path,
                served.status,
                served.bytes,
                served
                    .range
                    .as_deref()
                    .map_or(String::new(), |r| format!(" ({r})"))
            );
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() == REMEMBERED {
            seen.pop_front();
        }
        seen.push_back(served);
    }
}

/// A running server. It stops when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// The address it listens on, with the port it got.
    pub addr: SocketAddr,
    /// Faults of the running server.
    pub faults: Faults,
    log: Log,
    handle: Handle<SocketAddr>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Running {
    /// Base address for clients on this host.
    pub fn url(&self) -> String {
        format!("https://localhost:{}/", self.addr.port())
    }

    /// Base address for guests of QEMU's user-mode network.
    pub fn guest_url(&self) -> String {
        format!("https://10.0.2.2:{}/", self.addr.port())
    }

    /// The requests answered so far (the last 10,000), oldest first.
    pub fn served(&self) -> Vec<Served> {
        let seen = self.log.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().cloned().collect()
    }

    /// Stops it: no new requests; running transfers may take three seconds more.
    pub fn stop(mut self) -> Result<()> {
        self.handle.graceful_shutdown(Some(GRACE));
        self.join()
    }

    /// Stops it at once: running transfers are cut, as if the host had lost its power.
    pub fn kill(mut self) -> Result<()> {
        self.handle.shutdown();
        self.join()
    }

    fn join(&mut self) -> Result<()> {
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(ended)) => ended.with_context(|| format!("serving on {}", self.addr)),
            Some(Err(_)) => anyhow::bail!("serving on {}: the server's thread panicked", self.addr),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.shutdown();
        let _ = self.join();
    }
}

/// Starts a server in a thread of its own and returns when it listens.
pub fn start(config: Config) -> Result<Running> {
    let dir = config
        .dir
        .canonicalize()
        .with_context(|| format!("opening the directory to serve, {}", config.dir.display()))?;
    anyhow::ensure!(
        dir.is_dir(),
        "opening the directory to serve, {}: not a directory",
        dir.display()
    );
    let rustls = RustlsConfig::from_config(Arc::new(server_config(&config)?));
    let asked = SocketAddr::new(config.bind, config.port);
    let listener = TcpListener::bind(asked).with_context(|| {
        format!("listening on {asked}; another server may hold the port (choose one with --port)")
    })?;
    listener
        .set_nonblocking(true)
        .with_context(|| format!("listening on {asked}"))?;
    let addr = listener
        .local_addr()
        .with_context(|| format!("listening on {asked}"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting the server's threads")?;
    let log = Log {
        print: config.print_requests,
        seen: Arc::default(),
    };
    let service = files::router(files::Site {
        dir,
        reports: config.reports,
        faults: config.faults.clone(),
        log: log.clone(),
    })
    .into_make_service_with_connect_info::<SocketAddr>();
    let handle = Handle::new();
    let inner = handle.clone();
    let thread = std::thread::spawn(move || {
        let result = runtime.block_on(async move {
            axum_server::from_tcp_rustls(listener, rustls)?
                .handle(inner)
                .serve(service)
                .await
        });
        // A file read that hangs must not keep the program alive.
        runtime.shutdown_timeout(Duration::from_secs(1));
        result
    });
    Ok(Running {
        addr,
        faults: config.faults,
        log,
        handle,
        thread: Some(thread),
    })
}

/// `builder serve`: starts a server, prints where it is, and serves until SIGINT or SIGTERM.
pub fn serve(config: Config) -> Result<()> {
    let (dir, tls) = (config.dir.clone(), config.tls.clone());
    let (reports, client_ca) = (config.reports.clone(), config.client_ca.clone());
    // Before the server, so that no signal can fall between start and wait.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("waiting for signals")?;
    let mut signals = {
        use tokio::signal::unix::{signal, SignalKind};
        let _context = runtime.enter();
        (
            signal(SignalKind::interrupt()).context("waiting for SIGINT")?,
            signal(SignalKind::terminate()).context("waiting for SIGTERM")?,
        )
    };
    let running = start(config)?;
    tell(format_args!(
        "Serving {} on {}",
        dir.display(),
        running.addr
    ));
    tell(format_args!("  on this host     {}", running.url()));
    tell(format_args!("  for QEMU guests  {}", running.guest_url()));
    tell(format_args!("  authority        {}", tls.ca.display()));
    tell(format_args!(
        "  fingerprint      SHA-256 {}",
        tls.fingerprint
    ));
    tell(format_args!("  pinned key       {}", tls::pin(&tls.cert)?));
    if let Some(file) = client_ca {
        tell(format_args!("  for devices of   {}", file.display()));
    }
    if let Some(file) = reports {
        tell(format_args!("  reports          {}", file.display()));
    }
    runtime.block_on(async {
        tokio::select! {
            _ = signals.0.recv() => {}
            _ = signals.1.recv() => {}
        }
    });
    tell(format_args!("Stopping"));
    running.stop()
}

/// Prints a line; a reader that went away does not stop the server.
fn tell(line: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn server_config(config: &Config) -> Result<rustls::ServerConfig> {
    let versions: &[&rustls::SupportedProtocolVersion] = if config.allow_tls12 {
        &[&rustls::version::TLS13, &rustls::version::TLS12]
    } else {
        &[&rustls::version::TLS13]
    };
    let (cert, key) = (&config.tls.cert, &config.tls.key);
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("reading the certificate {}", cert.display()))?;
    let private = PrivateKeyDer::from_pem_file(key)
        .with_context(|| format!("reading the private key {}", key.display()))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients: Arc<dyn ClientCertVerifier> = match &config.client_ca {
        Some(file) => tls::clients_of(file, provider.clone())?,
        None => WebPkiClientVerifier::no_client_auth(),
    };
    let mut server = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .context("choosing TLS versions")?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, private)
        .with_context(|| format!("using {} with {}", cert.display(), key.display()))?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(server)
}
