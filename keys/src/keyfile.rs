//! Private keys in files: ed25519, PKCS#8, PEM.
//!
//! The form is that of RFC 8410 without the public half (PKCS#8 version 1), because OpenSSL and
//! aws-lc both read it; with a passphrase that of RFC 8018 (PBES2 with scrypt and AES-256). A key file belongs to its owner alone: it is written with mode 0600,
//! never over another file, and refused when others may read it.

pub mod passphrase;

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::engine::general_purpose::STANDARD;
use base64::Engine as _;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, KeypairBytes};
use ed25519_dalek::{Signer as _, SigningKey};

/// A key file is a few lines; more than this is something else.
const MAX_KEY_FILE: u64 = 64 * 1024;
const ENCRYPTED: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";

/// What can be wrong with a key file.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The system gave no random bytes.
    #[error("making a key: the system gives no random bytes: {0}")]
    Random(String),
    /// The key has no PEM form; it would be a defect of this program.
    #[error("writing a key as PEM: {0}")]
    Encode(String),
    /// There is a file already.
    #[error(
        "writing the key file {path}: it exists; a key is never overwritten, move it away first"
    )]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("{doing} the key file {path}: {source}")]
    Io {
        /// "reading" or "writing".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not a regular file.
    #[error("reading the key file {path}: it is not a regular file")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// Others than the owner may read or write it.
    #[error(
        "reading the key file {path}: others may use it (mode {mode:04o}); try: chmod 600 {path}"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Not an ed25519 private key in PKCS#8 PEM.
    #[error("reading the key file {path}: {reason}; wanted is an ed25519 key as PKCS#8 PEM (openssl genpkey -algorithm ed25519)")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A passphrase is wanted and not to be had, or is wrong.
    #[error("opening the encrypted key file {path}: {reason}")]
    Passphrase {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key on a token cannot be used.
    #[error("using the key {uri}: {reason}")]
    Token {
        /// Its name (RFC 7512).
        uri: String,
        /// What is wrong.
        reason: String,
    },
    /// A program that should sign does not.
    #[error("signing as {path} says: {reason}")]
    Program {
        /// The description of the program.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// An ed25519 private key. Its `Debug` shows the public half only; the memory is wiped on drop.
pub struct PrivateKey(SigningKey);

impl PrivateKey {
    /// Makes a new key from the system's random numbers.
    pub fn generate() -> Result<Self, KeyFileError> {
        let mut secret = [0u8; 32];
        getrandom::fill(&mut secret).map_err(|e| KeyFileError::Random(e.to_string()))?;
        Ok(Self(SigningKey::from_bytes(&secret)))
    }

    /// Reads a key file; refuses one that the group or others may read or write. For an encrypted
    /// one the passphrase is read as [`passphrase::get`] says.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let text = read_private(path)?;
        if text.contains(ENCRYPTED) {
            return Self::decrypt(path, &text, &passphrase::get(path)?);
        }
        Self::parse(&text).map_err(|reason| KeyFileError::Format {
            path: path.to_owned(),
            reason,
        })
    }

    /// Writes the key as a new file of mode 0600, complete or not at all; never over another file.
    pub fn save_new(&self, path: &Path) -> Result<(), KeyFileError> {
        save_new(path, &self.pkcs8_pem()?)
    }

    /// The same, encrypted with a passphrase.
    pub fn save_new_encrypted(&self, path: &Path, passphrase: &str) -> Result<(), KeyFileError> {
        let pem = self
            .bytes()
            .to_pkcs8_encrypted_pem(passphrase, LineEnding::LF)
            .map_err(|e| KeyFileError::Encode(e.to_string()))?;
        save_new(path, &pem)
    }

    fn decrypt(path: &Path, text: &str, passphrase: &str) -> Result<Self, KeyFileError> {
        SigningKey::from_pkcs8_encrypted_pem(text.trim_start(), passphrase)
            .map(Self)
            .map_err(|e| KeyFileError::Passphrase {
                path: path.to_owned(),
                reason: format!("the passphrase does not open it ({e})"),
            })
    }

    /// The public key, 32 bytes as base64: what goes into a device's configuration.
    pub fn public_base64(&self) -> String {
        STANDARD.encode(self.public_bytes())
    }

    /// The public key.
    pub fn public_bytes(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs bytes (plain ed25519, RFC 8032).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }

    /// The key as PKCS#8 PEM. This is the secret itself.
    pub fn pkcs8_pem(&self) -> Result<String, KeyFileError> {
        let pem = self
            .bytes()
            .to_pkcs8_pem(LineEnding::LF)
            .map_err(|e| KeyFileError::Encode(e.to_string()))?;
        Ok(pem.as_str().to_owned())
    }

    fn bytes(&self) -> KeypairBytes {
        KeypairBytes {
            secret_key: self.0.to_bytes(),
            public_key: None,
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        if text.contains("-----BEGIN OPENSSH PRIVATE KEY-----") {
            return Err("the key is in OpenSSH's format".to_owned());
        }
        if !text.contains("-----BEGIN PRIVATE KEY-----") {
            return Err("no 'BEGIN PRIVATE KEY' line in it".to_owned());
        }
        SigningKey::from_pkcs8_pem(text.trim_start())
            .map(Self)
            .map_err(|e| e.to_string())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKey")
            .field("public", &self.public_base64())
            .finish_non_exhaustive()
    }
}

/// Whether a file is a key with a passphrase; what cannot be read is none.
pub fn is_encrypted(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.contains(ENCRYPTED))
}

/// Writes a new file of mode 0600, complete or not at all.
fn save_new(path: &Path, pem: &str) -> Result<(), KeyFileError> {
    let failed = |source| KeyFileError::Io {
        doing: "writing",
        path: path.to_owned(),
        source,
    };
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    // tempfile makes its files with mode 0600.
    let mut file = tempfile::Builder::new()
        .prefix(".key-")
        .tempfile_in(dir)
        .map_err(failed)?;
    file.write_all(pem.as_bytes()).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist_noclobber(path)
        .map_err(|e| match e.error.kind() {
            io::ErrorKind::AlreadyExists => KeyFileError::Exists {
                path: path.to_owned(),
            },
            _ => failed(e.error),
        })?;
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed)
}

/// Reads the text of a file that only its owner may use. The permissions are those of the opened
/// file, so that nobody can swap it between the look and the read.
pub(crate) fn read_private(path: &Path) -> Result<String, KeyFileError> {
    let failed = |source| KeyFileError::Io {
        doing: "reading",
        path: path.to_owned(),
        source,
    };
    // A FIFO would block the open; a key is never behind one.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(KeyFileError::NotAFile {
            path: path.to_owned(),
        });
    }
    let file = File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeyFileError::Exposed {
            path: path.to_owned(),
            mode,
        });
    }
    let mut bytes = Vec::new();
    file.take(MAX_KEY_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    let wrong = |reason: &str| KeyFileError::Format {
        path: path.to_owned(),
        reason: reason.to_owned(),
    };
    if bytes.len() as u64 > MAX_KEY_FILE {
        return Err(wrong("it is far too large"));
    }
    String::from_utf8(bytes).map_err(|_| wrong("it is not text"))
}

#[cfg(test)]
mod tests;
