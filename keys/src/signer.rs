//! Who signs: a key file, a key on a token (PKCS#11), or a program that keeps the key elsewhere.
//!
//! Wherever a key file `ROLE.pem` is wanted, `ROLE.toml` may stand in its place, with one of the last two lines:
//!
//! ```toml
//! public = "base64 of the 32 bytes of the ed25519 public key"
//! pkcs11 = "pkcs11:token=Release;object=targets?module-path=/usr/lib/softhsm/libsofthsm2.so"
//! command = ["program", "argument"]
//! ```
//!
//! The program gets the message on its standard input and prints the signature: 64 bytes, or the
//! same in hex. A remote signing service fits behind this. Every signature is checked before it is used.

mod token;
mod uri;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use aws_lc_rs::signature::{UnparsedPublicKey, ED25519};
use base64::engine::general_purpose::STANDARD;
use base64::Engine as _;
use serde::Deserialize;

use crate::keyfile::{KeyFileError, PrivateKey};

pub use token::{TokenKey, MODULE_VARIABLE, PIN_VARIABLE};

/// Whatever signs with one ed25519 key.
pub trait Sign {
    /// Signs bytes (plain ed25519, RFC 8032).
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], KeyFileError>;
}

impl Sign for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], KeyFileError> {
        Ok(PrivateKey::sign(self, message))
    }
}

impl Sign for Signer {
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], KeyFileError> {
        Signer::sign(self, message)
    }
}

/// Something that signs with one ed25519 key.
#[derive(Debug)]
pub enum Signer {
    /// A key in a file.
    Key(PrivateKey),
    /// A key on a token.
    Token(Box<TokenKey>),
    /// A program.
    Program(Program),
}

/// A program that signs.
#[derive(Debug)]
pub struct Program {
    file: PathBuf,
    public: [u8; 32],
    command: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    public: String,
    pkcs11: Option<String>,
    #[serde(default)]
    command: Vec<String>,
}

/// Whether this is the name of a key on a token.
pub fn is_uri(text: &str) -> bool {
    text.starts_with(uri::SCHEME)
}

/// The content of a `ROLE.toml` for a key on a token.
pub fn description(uri: &str, public: &str) -> String {
    // TOML's basic strings escape as JSON's do.
    format!("public = {}\npkcs11 = {}\n", quoted(public), quoted(uri))
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Signer {
    /// The key on a token that a `pkcs11:` URI names; the token must be there.
    pub fn on_token(uri: &str) -> Result<Self, KeyFileError> {
        TokenKey::find(uri).map(Box::new).map(Self::Token)
    }

    /// The signer for the key file `path` (`ROLE.pem`): that file, else what `ROLE.toml` beside it
    /// describes.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        let description = path.with_extension("toml");
        if path.exists() || !description.exists() {
            return PrivateKey::load(path).map(Self::Key);
        }
        Self::described(&description)
    }

    /// The public key.
    pub fn public_bytes(&self) -> [u8; 32] {
        match self {
            Self::Key(key) => key.public_bytes(),
            Self::Token(key) => key.public_bytes(),
            Self::Program(program) => program.public,
        }
    }

    /// The public key, 32 bytes as base64.
    pub fn public_base64(&self) -> String {
        STANDARD.encode(self.public_bytes())
    }

    /// Signs bytes (plain ed25519, RFC 8032).
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 64], KeyFileError> {
        match self {
            Self::Key(key) => Ok(key.sign(message)),
            Self::Token(key) => key.sign(message),
            Self::Program(program) => program.sign(message),
        }
    }

    fn described(file: &Path) -> Result<Self, KeyFileError> {
        let text = std::fs::read_to_string(file).map_err(|source| KeyFileError::Io {
            doing: "reading",
            path: file.to_owned(),
            source,
        })?;
        let wrong = |reason: String| KeyFileError::Program {
            path: file.to_owned(),
            reason,
        };
        let found: Description = toml::from_str(&text).map_err(|e| wrong(e.to_string()))?;
        let public = STANDARD.decode(&found.public).ok();
        let public = public
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or_else(|| wrong("'public' is not the base64 of 32 bytes".to_owned()))?;
        match (found.pkcs11, found.command.is_empty()) {
            (Some(uri), true) => {
                let key = TokenKey::known(&uri, public)?;
                Ok(Self::Token(Box::new(key)))
            }
            (Some(_), false) => Err(wrong(
                "'pkcs11' and 'command' exclude each other".to_owned(),
            )),
            (None, true) => Err(wrong(
                "'command' is empty, and there is no 'pkcs11'".to_owned(),
            )),
            (None, false) => Ok(Self::Program(Program {
                file: file.to_owned(),
                public,
                command: found.command,
            })),
        }
    }
}

impl Program {
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], KeyFileError> {
        let wrong = |reason: String| KeyFileError::Program {
            path: self.file.clone(),
            reason: format!("running {:?}: {reason}", self.command),
        };
        let printed = self.run(message).map_err(|e| wrong(e.to_string()))?;
        let signature = signature(&printed).ok_or_else(|| {
            wrong(format!(
                "it printed {} bytes, which are no signature",
                printed.len()
            ))
        })?;
        // A token with another key in it is found here, not in the field.
        check(&self.public, message, &signature).map_err(|e| wrong(e.to_owned()))?;
        Ok(signature)
    }

    fn run(&self, message: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut child = Command::new(&self.command[0])
            .args(&self.command[1..])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // One that reads no more has what it wants, or fails by its exit code.
            let _ = input.write_all(message);
        }
        let mut printed = Vec::new();
        if let Some(output) = child.stdout.take() {
            output.take(4096).read_to_end(&mut printed)?;
        }
        let status = child.wait()?;
        if !status.success() {
            return Err(std::io::Error::other(status.to_string()));
        }
        Ok(printed)
    }
}

/// Whether a signature is by the key that it should be.
fn check(public: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> Result<(), &'static str> {
    UnparsedPublicKey::new(&ED25519, public)
        .verify(message, signature)
        .map_err(|_| "its signature does not fit 'public'")
}

fn signature(printed: &[u8]) -> Option<[u8; 64]> {
    if let Ok(raw) = printed.try_into() {
        return Some(raw);
    }
    let text = std::str::from_utf8(printed).ok()?;
    hex::decode(text.trim()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(command: &[&str], public: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("public = {public:?}\ncommand = {command:?}\n");
        std::fs::write(dir.path().join("targets.toml"), text).unwrap();
        let path = dir.path().join("targets.pem");
        (dir, path)
    }

    #[test]
    fn openssl_signs_for_us() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("elsewhere.pem");
        let key = PrivateKey::generate().unwrap();
        key.save_new(&file).unwrap();
        // `openssl pkeyutl -rawin` wants a file for ed25519.
        let script = format!(
            "cat > {0}/m && openssl pkeyutl -sign -rawin -inkey {0}/elsewhere.pem -in {0}/m",
            dir.path().display()
        );
        for script in [
            script.clone(),
            format!("({script}) | od -An -v -tx1 | tr -d ' \\n'"),
        ] {
            let (_dir, path) = program(&["sh", "-c", &script], &key.public_base64());
            let signer = Signer::open(&path).unwrap();
            assert_eq!(signer.sign(b"message").unwrap(), key.sign(b"message"));
            assert_eq!(signer.public_bytes(), key.public_bytes());
        }
    }

    #[test]
    fn a_description_of_a_token_key_is_read_without_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("targets.pem");
        let public = PrivateKey::generate().unwrap().public_base64();
        let uri = "pkcs11:token=a%20\\b;object=k?module-path=/none.so";
        let write = |text: &str| std::fs::write(path.with_extension("toml"), text).unwrap();
        write(&description(uri, &public));
        let signer = Signer::open(&path).unwrap();
        assert_eq!(signer.public_base64(), public);
        assert!(matches!(&signer, Signer::Token(key) if key.uri() == uri));
        let error = signer.sign(b"m").unwrap_err().to_string();
        assert!(error.contains("/none.so"), "{error}");
        write(&(description(uri, &public) + "command = [\"true\"]\n"));
        let error = Signer::open(&path).unwrap_err().to_string();
        assert!(error.contains("exclude each other"), "{error}");
    }

    #[test]
    fn a_program_that_does_not_sign_is_named() {
        let public = PrivateKey::generate().unwrap().public_base64();
        for (command, public, says) in [
            (&["true"][..], public.as_str(), "no signature"),
            (&["false"], &public, "exit status"),
            (&["head", "-c64", "/dev/zero"], &public, "does not fit"),
            (&["/no/such/program"], &public, "No such file"),
            (&[], &public, "empty"),
            (&["true"], "AA==", "32 bytes"),
        ] {
            let (_dir, path) = program(command, public);
            let error = Signer::open(&path).and_then(|signer| signer.sign(b"message"));
            let text = error.unwrap_err().to_string();
            assert!(
                text.contains(says) && text.contains("targets.toml"),
                "{text}"
            );
        }
    }
}
