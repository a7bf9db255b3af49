//! A product's keys: made once, never overwritten.
//!
//! `keys/` holds the ed25519 keys that sign releases and commits, the public `root.json` that devices
//! trust, and in `tls/` a certificate authority and a server certificate for `builder serve`.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{bail, Context, Result};
use keys::author::{create_root, Expiry, Keyring};
use keys::keyfile::PrivateKey;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// The private keys by file name without extension, in the order they are shown.
pub const ROLES: [&str; 5] = ["root", "targets", "snapshot", "timestamp", "commit"];

/// Names that the development server answers to besides this machine's own: the last one is the host
/// as a device in QEMU's user network sees it.
const SERVER_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "10.0.2.2"];

/// Years that the development certificates are valid.
const YEARS: i16 = 20;

/// What [`init`] made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// The signing keys and `root.json`.
    pub signing: bool,
    /// The certificates for `builder serve`.
    pub tls: bool,
}

/// Makes what is missing in `dir`: the signing keys if there are none, the certificates if there are
/// none. What is there stays as it is; half a set of signing keys is an error, because a new key
/// beside an old `root.json` would be of no use.
pub fn init(dir: &Path, product: &str) -> Result<Made> {
    let present: Vec<PathBuf> = ROLES
        .iter()
        .map(|role| dir.join(format!("{role}.pem")))
        .chain([dir.join("root.json")])
        .filter(|path| path.exists())
        .collect();
    if !present.is_empty() && !dir.join("root.json").exists() {
        bail!(
            "making keys in {}: {} is there, but no root.json that says who may sign; \
             restore root.json from a copy, or move the directory away to begin with new keys",
            dir.display(),
            present[0].display()
        );
    }
    private_dir(dir)?;
    let made = Made {
        signing: present.is_empty(),
        tls: !dir.join("tls").exists(),
    };
    if made.signing {
        signing_keys(dir)?;
    }
    if made.tls {
        tls(dir, product)?;
    }
    Ok(made)
}

/// Writes the five keys, then `root.json`: its presence says that the set is complete.
fn signing_keys(dir: &Path) -> Result<()> {
    // In a scratch directory first, so that an interruption leaves no half a set.
    let scratch = scratch(dir)?;
    for role in ROLES {
        PrivateKey::generate()?.save_new(&scratch.path().join(format!("{role}.pem")))?;
    }
    let keyring = Keyring::in_dir(scratch.path());
    let root = create_root(&keyring, &Expiry::from(SystemTime::now()))
        .context("making root.json, which says whose signatures devices trust")?;
    for role in ROLES {
        let name = format!("{role}.pem");
        move_new(&scratch.path().join(&name), &dir.join(&name))?;
    }
    write_new(&dir.join("root.json"), &root, 0o644)
}

/// Writes a certificate authority and a server certificate signed by it.
fn tls(dir: &Path, product: &str) -> Result<()> {
    let scratch = scratch(dir)?;
    let made = certificates(product).context("making certificates for `builder serve`")?;
    for (name, text, mode) in [
        ("ca.pem", &made.ca, 0o644),
        ("ca.key", &made.ca_key, 0o600),
        ("server.pem", &made.server, 0o644),
        ("server.key", &made.server_key, 0o600),
    ] {
        write_new(&scratch.path().join(name), text.as_bytes(), mode)?;
    }
    // One rename: there is a whole set or none.
    move_new(scratch.path(), &dir.join("tls"))
}

struct Certificates {
    ca: String,
    ca_key: String,
    server: String,
    server_key: String,
}

fn certificates(product: &str) -> Result<Certificates> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.distinguished_name = name(&format!("{product} development CA"));
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut ca);
    let ca_certificate = ca.self_signed(&ca_key)?;

    let server_key = KeyPair::generate()?;
    let mut server = CertificateParams::new(server_names())?;
    server.distinguished_name = name(&format!("{product} development server"));
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    validity(&mut server);
    let server_certificate =
        server.signed_by(&server_key, &Issuer::from_params(&ca, &ca_key))?;
    Ok(Certificates {
        ca: ca_certificate.pem(),
        ca_key: ca_key.serialize_pem(),
        server: server_certificate.pem(),
        server_key: server_key.serialize_pem(),
    })
}

fn name(text: &str) -> rcgen::DistinguishedName {
    let mut name = rcgen::DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// From well before now, because a device without a clock battery may be behind.
fn validity(params: &mut CertificateParams) {
    let year = jiff::Zoned::now().year();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(i32::from(year + YEARS), 1, 1);
}

fn server_names() -> Vec<String> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim().to_lowercase();
    let usable = !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    let mut names: Vec<String> = SERVER_NAMES.iter().map(|name| (*name).to_string()).collect();
    if usable && !names.contains(&host) {
        names.push(host);
    }
    names
}

fn private_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .with_context(|| format!("creating the key directory {}", dir.display()))
}

fn scratch(dir: &Path) -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix(".making-")
        .tempdir_in(dir)
        .with_context(|| format!("creating a scratch directory in {}", dir.display()))
}

/// Moves, unless there is something of that name already.
fn move_new(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        bail!("writing {}: it exists; keys are never overwritten", to.display());
    }
    fs::rename(from, to).with_context(|| format!("writing {}", to.display()))
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("creating {}", path.display()))?;
    std::io::Write::write_all(&mut file, content)
        .and_then(|()| file.sync_all())
        .with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn keys_are_made_once_and_belong_to_their_owner() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let both = Made {
            signing: true,
            tls: true,
        };
        assert_eq!(init(&keys, "demo").unwrap(), both);
        assert_eq!(mode(&keys), 0o700);
        for file in ["root.pem", "commit.pem", "tls/ca.key", "tls/server.key"] {
            assert_eq!(mode(&keys.join(file)), 0o600, "{file}");
        }
        let before = fs::read(keys.join("root.json")).unwrap();
        let none = Made {
            signing: false,
            tls: false,
        };
        assert_eq!(init(&keys, "demo").unwrap(), none);
        assert_eq!(fs::read(keys.join("root.json")).unwrap(), before);
        let left: Vec<_> = fs::read_dir(&keys)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with('.'))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    #[test]
    fn keys_without_their_root_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("commit.pem"), "x").unwrap();
        let error = init(dir.path(), "demo").unwrap_err().to_string();
        assert!(error.contains("no root.json"), "{error}");
    }

    #[test]
    fn openssl_accepts_the_certificates() {
        let dir = tempfile::tempdir().unwrap();
        init(dir.path(), "demo").unwrap();
        let verify = |host: &str, option: &str| {
            crate::command::Command::new("openssl", "openssl")
                .args(["verify", "-purpose", "sslserver", "-x509_strict", option, host])
                .args(["-CAfile", "tls/ca.pem", "tls/server.pem"])
                .dir(dir.path())
                .run()
        };
        verify("localhost", "-verify_hostname").unwrap();
        verify("10.0.2.2", "-verify_ip").unwrap();
        assert!(verify("example.com", "-verify_hostname").is_err());
    }
}
