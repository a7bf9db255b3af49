//! Certificates of the development server: a small authority of the product's own and a server
//! certificate signed by it, in `keys/tls/`.
//!
//! Devices trust `ca.pem` (the builder puts it into the tree), so the server certificate can be
//! renewed, for another name or address, without touching a device. Keys are ECDSA P-256 in PKCS#8
//! PEM, mode 0600; the authority's key never leaves this directory.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{bail, Context, Result};
use keys::pin::Pin;
use rcgen::{
    date_time_ymd, BasicConstraints, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{pem::PemObject, CertificateDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::RootCertStore;
use sha2::{Digest, Sha256};

/// Names that every server certificate carries: the host itself, and the host as a guest of QEMU's
/// user-mode network sees it.
pub const DEFAULT_NAMES: [&str; 4] = ["localhost", "127.0.0.1", "::1", "10.0.2.2"];

/// The certificate files of the development server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate of the authority: what clients trust.
    pub ca: PathBuf,
    /// Certificate of the server.
    pub cert: PathBuf,
    /// Key of the server.
    pub key: PathBuf,
    /// SHA-256 of the server certificate (DER), upper-case hex pairs with colons, as `openssl x509
    /// -fingerprint -sha256` prints it.
    pub fingerprint: String,
}

/// Returns the certificate files in `dir`, made if they are not there.
///
/// `names` are the DNS names and addresses the server is reached by, besides [`DEFAULT_NAMES`].
/// A server certificate that lacks one of them is made anew with the same authority; names that it
/// has already are kept.
pub fn ensure(dir: &Path, names: &[String]) -> Result<TlsFiles> {
    make_private_dir(dir)?;
    let authority = ensure_authority(dir)?;
    let (cert, key, list) = (
        dir.join("server.pem"),
        dir.join("server.key"),
        dir.join("server.names"),
    );
    let had: BTreeSet<String> = match fs::read_to_string(&list) {
        Ok(text) => text.lines().map(str::to_string).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeSet::new(),
        Err(error) => return Err(error).with_context(|| format!("reading {}", list.display())),
    };
    let mut wanted = had.clone();
    wanted.extend(DEFAULT_NAMES.iter().map(ToString::to_string));
    wanted.extend(names.iter().cloned());
    if wanted != had || authority.new || !cert.exists() || !key.exists() {
        // The list goes last: cut before it, the next run makes the certificate again.
        remove_if_there(&list)?;
        let (cert_pem, key_pem) = server_certificate(&authority, &wanted)?;
        write_new(&key, key_pem.as_bytes(), 0o600)?;
        write_new(&cert, cert_pem.as_bytes(), 0o644)?;
        let mut text: String = wanted.into_iter().collect::<Vec<_>>().join("\n");
        text.push('\n');
        write_new(&list, text.as_bytes(), 0o644)?;
    }
    refuse_readable_by_others(&key)?;
    Ok(TlsFiles {
        fingerprint: fingerprint(&cert)?,
        ca: dir.join("ca.pem"),
        cert,
        key,
    })
}

/// SHA-256 of the first certificate in a PEM file, as `openssl x509 -fingerprint` prints it.
pub fn fingerprint(cert: &Path) -> Result<String> {
    let der = CertificateDer::from_pem_file(cert)
        .with_context(|| format!("reading the certificate {}", cert.display()))?;
    let pairs: Vec<String> = Sha256::digest(&der)
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect();
    Ok(pairs.join(":"))
}

/// The pin of the first certificate in a PEM file, for `update.pinned-keys`.
pub fn pin(cert: &Path) -> Result<Pin> {
    let der = CertificateDer::from_pem_file(cert)
        .with_context(|| format!("reading the certificate {}", cert.display()))?;
    let parsed = ParsedCertificate::try_from(&der)
        .with_context(|| format!("reading the certificate {}", cert.display()))?;
    Ok(Pin::of_spki(&parsed.subject_public_key_info()))
}

/// Accepts clients with a certificate of one of the authorities in a PEM file, and no others.
pub(super) fn clients_of(
    file: &Path,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    let found = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(|| format!("reading the authorities {}", file.display()))?;
    for certificate in found {
        roots
            .add(certificate)
            .with_context(|| format!("reading the authorities {}", file.display()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .with_context(|| {
            format!(
                "reading the authorities {}: no certificate in it?",
                file.display()
            )
        })
}

struct Authority {
    params: CertificateParams,
    key: KeyPair,
    new: bool,
}

/// Reads the authority's key, or makes key and certificate. The certificate's parameters follow
/// from the key, so it need not be parsed to sign with it.
fn ensure_authority(dir: &Path) -> Result<Authority> {
    let (cert, key_path) = (dir.join("ca.pem"), dir.join("ca.key"));
    let had_key = key_path.exists();
    if cert.exists() && !had_key {
        bail!(
            "reading the certificate authority in {}: ca.pem is there but ca.key is missing; \
             put the key back, or remove ca.pem to begin a new authority that devices built \
             so far will not trust",
            dir.display()
        );
    }
    let key = if had_key {
        refuse_readable_by_others(&key_path)?;
        let text = fs::read_to_string(&key_path)
            .with_context(|| format!("reading {}", key_path.display()))?;
        KeyPair::from_pem(&text)
            .with_context(|| format!("reading the private key {}", key_path.display()))?
    } else {
        let key = KeyPair::generate().context("generating the authority's key")?;
        write_new(&key_path, key.serialize_pem().as_bytes(), 0o600)?;
        key
    };
    let params = authority_params(&key);
    let new = !cert.exists();
    if new {
        let pem = params
            .self_signed(&key)
            .context("making the authority's certificate")?
            .pem();
        write_new(&cert, pem.as_bytes(), 0o644)?;
    }
    Ok(Authority { params, key, new })
}

fn authority_params(key: &KeyPair) -> CertificateParams {
    let mut params = lasting();
    // Two products' authorities have different names, so that a trust store can hold both.
    let short = hex::encode(&Sha256::digest(key.public_key_raw())[..4]);
    params.distinguished_name = common_name(&format!("Treeline development CA {short}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn server_certificate(authority: &Authority, names: &BTreeSet<String>) -> Result<(String, String)> {
    let key = KeyPair::generate().context("generating the server's key")?;
    let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())
        .with_context(|| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            format!("making a server certificate for {}", names.join(", "))
        })?;
    let dates = lasting();
    (params.not_before, params.not_after) = (dates.not_before, dates.not_after);
    params.distinguished_name = common_name("Treeline development server");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let issuer = Issuer::from_params(&authority.params, &authority.key);
    let cert = params
        .signed_by(&key, &issuer)
        .context("signing the server certificate")?;
    Ok((cert.pem(), key.serialize_pem()))
}

/// Valid from long ago: a device without a battery-backed clock boots with an old date.
fn lasting() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut full = DistinguishedName::new();
    full.push(DnType::CommonName, name);
    full
}

fn make_private_dir(dir: &Path) -> Result<()> {
    if !dir.is_dir() {
        fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
            .with_context(|| format!("making {} private", dir.display()))?;
    }
    Ok(())
}

/// Refuses a private key that others than its owner may read.
pub(crate) fn refuse_readable_by_others(path: &Path) -> Result<()> {
    let mode = fs::metadata(path)
        .with_context(|| format!("reading {}", path.display()))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        bail!(
            "refusing the private key {}: others may read it (mode {:04o}); run: chmod 600 {}",
            path.display(),
            mode & 0o7777,
            path.display()
        );
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Writes a file whole or not at all.
fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let scratch = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let _ = fs::remove_file(&scratch);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&scratch)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&scratch, path)
    };
    write().with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;

    fn openssl(args: &[&str]) -> String {
        Command::new("openssl", "openssl")
            .args(args)
            .text()
            .unwrap()
    }

    #[test]
    fn openssl_accepts_the_chain_and_agrees_on_the_fingerprint() {
        let dir = tempfile::tempdir().unwrap();
        let files = ensure(dir.path(), &["updates.example".into()]).unwrap();
        let (ca, cert) = (files.ca.to_str().unwrap(), files.cert.to_str().unwrap());
        for (kind, name) in [
            ("-verify_hostname", "localhost"),
            ("-verify_hostname", "updates.example"),
            ("-verify_ip", "10.0.2.2"),
            ("-verify_ip", "::1"),
        ] {
            openssl(&[
                "verify",
                "-x509_strict",
                "-purpose",
                "sslserver",
                "-CAfile",
                ca,
                kind,
                name,
                cert,
            ]);
        }
        let printed = openssl(&["x509", "-in", cert, "-noout", "-fingerprint", "-sha256"]);
        assert!(printed.ends_with(&files.fingerprint), "{printed}");
        let key = openssl(&["x509", "-in", cert, "-noout", "-pubkey"]);
        let file = dir.path().join("public.pem");
        fs::write(&file, key).unwrap();
        let digest = std::process::Command::new("sh")
            .args(["-c", "openssl pkey -pubin -in \"$0\" -outform der | openssl dgst -sha256 -binary | base64"])
            .arg(&file)
            .output()
            .unwrap();
        let digest = String::from_utf8(digest.stdout).unwrap();
        let wanted = format!("sha256//{}", digest.trim());
        assert_eq!(pin(&files.cert).unwrap().to_string(), wanted);
    }

    #[test]
    fn a_new_name_renews_the_server_certificate_and_keeps_the_authority() {
        let dir = tempfile::tempdir().unwrap();
        let first = ensure(dir.path(), &[]).unwrap();
        let ca = fs::read(&first.ca).unwrap();
        assert_eq!(ensure(dir.path(), &[]).unwrap(), first);
        let second = ensure(dir.path(), &["192.0.2.7".into()]).unwrap();
        assert_ne!(second.fingerprint, first.fingerprint);
        assert_eq!(fs::read(&second.ca).unwrap(), ca);
        // A name asked for once stays.
        assert_eq!(ensure(dir.path(), &[]).unwrap(), second);
        openssl(&[
            "verify",
            "-CAfile",
            second.ca.to_str().unwrap(),
            "-verify_ip",
            "192.0.2.7",
            second.cert.to_str().unwrap(),
        ]);
    }

    #[test]
    fn keys_are_private_and_a_readable_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let tls = dir.path().join("tls");
        let files = ensure(&tls, &[]).unwrap();
        assert_eq!(
            fs::metadata(&tls).unwrap().permissions().mode() & 0o777,
            0o700
        );
        for key in [files.key, tls.join("ca.key")] {
            assert_eq!(
                fs::metadata(&key).unwrap().permissions().mode() & 0o777,
                0o600
            );
            fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
            let error = ensure(&tls, &[]).unwrap_err().to_string();
            assert!(error.contains("chmod 600"), "{error}");
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    #[test]
    fn a_lost_authority_key_is_told_apart_and_a_bad_name_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = ensure(dir.path(), &["ümlaut.example".into()]).unwrap_err();
        assert!(format!("{error:#}").contains("ümlaut.example"), "{error:#}");
        fs::remove_file(dir.path().join("ca.key")).unwrap();
        let error = ensure(dir.path(), &[]).unwrap_err().to_string();
        assert!(error.contains("ca.key is missing"), "{error}");
    }
}
