//! Who the server must be, and who the device is: TLS with pinned keys and a certificate of the device's own.

use std::error::Error as _;
use std::fmt;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use bsp::device::Update;
use keys::client::TransportErrorKind;
use keys::pin::Pin;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, OtherError, SignatureScheme};
use rustls_platform_verifier::Verifier;

use super::signer;
use crate::paths::Paths;
use crate::problem::{Kind, Problem};

/// TLS 1.2 or newer, as configured.
pub(super) fn config(paths: &Paths, update: &Update) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let own = authorities(&paths.at(bsp::device::CA_PATH))?;
    let verifier = Named {
        chain: Verifier::new_with_extra_roots(own, provider.clone())
            .context("reading the certificate authorities")?,
        pins: pins(update)?,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .context("choosing TLS versions")?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut tls = match identity(paths, update)? {
        Some(Identity::Signer(own)) => builder.with_client_cert_resolver(Arc::new(own)),
        Some(Identity::Key(chain, key)) => {
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                wrong(format!("using update.client-certificate: {error}"))
                    .hint("certificate and private key must belong together")
            })?
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(tls)
}

fn wrong(text: String) -> Problem {
    Problem::new(Kind::Config, text)
}

fn pins(update: &Update) -> Result<Vec<Pin>, Problem> {
    let pins = update.pinned_keys.iter().map(|text| Pin::parse(text));
    pins.collect::<Result<_, _>>()
        .map_err(|error| wrong(format!("update.pinned-keys: {error}")))
}

/// The product's own authorities; none if there is no such file. One that cannot be looked at is not taken for none: the
/// public authorities would stand in for it.
fn authorities(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    match file.try_exists() {
        Ok(true) => certificates(file),
        Ok(false) => Ok(Vec::new()),
        Err(error) => Err(wrong(format!("reading {}: {error}", file.display())).into()),
    }
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let problem = match read {
        Ok(found) if !found.is_empty() => return Ok(found),
        Ok(_) => wrong(format!(
            "reading {}: no certificate is in it",
            file.display()
        )),
        Err(error) => wrong(format!("reading {}: {error}", file.display())),
    };
    Err(problem.hint("it must hold certificates in PEM form").into())
}

/// The device's own certificates and the key of the first.
enum Identity {
    /// The key is in a file.
    Key(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
    /// A command signs with it.
    Signer(signer::Identity),
}

fn identity(paths: &Paths, update: &Update) -> Result<Option<Identity>> {
    let Some(certificate) = &update.client_certificate else {
        return Ok(None);
    };
    let chain = certificates(&paths.at(certificate.trim_start_matches('/')))?;
    if !update.client_signer.is_empty() {
        let own = signer::Identity::new(chain, &update.client_signer).map_err(|problem| {
            wrong(format!(
                "using update.client-certificate {certificate}: {problem}"
            ))
        })?;
        return Ok(Some(Identity::Signer(own)));
    }
    let key = update.client_key.as_ref().unwrap_or(certificate);
    let key = paths.at(key.trim_start_matches('/'));
    private(&key)?;
    let key = PrivateKeyDer::from_pem_file(&key).map_err(|error| {
        wrong(format!("reading the private key {}: {error}", key.display()))
            .hint("it must be in PEM form, not encrypted; update.client-key names it if it is not in the certificate's file")
    })?;
    Ok(Some(Identity::Key(chain, key)))
}

/// A private key that others can read is none.
fn private(key: &Path) -> Result<(), Problem> {
    let found = std::fs::metadata(key).map_err(|error| {
        wrong(format!(
            "reading the private key {}: {error}",
            key.display()
        ))
    })?;
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let text = format!(
        "reading the private key {}: others may use it (mode {mode:04o})",
        key.display()
    );
    Err(wrong(text).hint(format!("chmod 600 {}", key.display())))
}

/// Accepts what the certificate authorities vouch for, if its key is one of the pinned ones (or none is pinned).
#[derive(Debug)]
struct Named {
    chain: Verifier,
    pins: Vec<Pin>,
}

/// The server has a good certificate, but not a pinned key.
#[derive(Debug)]
pub(super) struct NotPinned(Pin);

impl fmt::Display for NotPinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the server's key {} is none of update.pinned-keys",
            self.0
        )
    }
}

impl std::error::Error for NotPinned {}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let good = self
            .chain
            .verify_server_cert(certificate, intermediates, server, ocsp, now)?;
        if self.pins.is_empty() {
            return Ok(good);
        }
        // The server's own key and no other in the chain: what a server sends along proves nothing.
        let found =
            Pin::of_spki(&ParsedCertificate::try_from(certificate)?.subject_public_key_info());
        if self.pins.contains(&found) {
            return Ok(good);
        }
        Err(OtherError(Arc::new(NotPinned(found))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

/// Our own reason in an error's chain: the refusal of a server's key, or why the device's own did not sign (a chip may
/// be busy: that is tried again).
pub(super) fn own_reason(error: &reqwest::Error) -> Option<(TransportErrorKind, String)> {
    let mut cause: &(dyn std::error::Error + 'static) = error.source()?;
    loop {
        if let Some(rustls::Error::Other(OtherError(other))) = cause.downcast_ref() {
            let pinned = other.downcast_ref::<NotPinned>();
            let signed = other.downcast_ref::<signer::Failed>();
            return pinned
                .map(|refused| (TransportErrorKind::Untrusted, refused.to_string()))
                .or(signed.map(|failed| (TransportErrorKind::Other, failed.to_string())));
        }
        // An `io::Error` passes over the error that it carries, and tells of that one's cause only.
        let carried = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        cause = match carried {
            Some(carried) => carried,
            None => cause.source()?,
        };
    }
}
