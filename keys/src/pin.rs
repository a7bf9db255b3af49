//! Pins of TLS servers: the SHA-256 of a public key, written as curl's `--pinnedpubkey` takes it.
//!
//! The key is the whole SubjectPublicKeyInfo (RFC 5280, 4.1.2.7) in DER, so that a pin survives a new certificate
//! for the same key.

use std::fmt;

use base64::engine::general_purpose::STANDARD;
use base64::Engine as _;
use sha2::{Digest as _, Sha256};

const PREFIX: &str = "sha256//";

/// One pin: `sha256//` and the base64 of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin([u8; 32]);

impl Pin {
    /// The pin of a public key: its SubjectPublicKeyInfo in DER.
    pub fn of_spki(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// Reads a pin; the error says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wanted =
            "wanted is sha256// and the base64 of the SHA-256 of a public key (44 characters)";
        let digest = text
            .strip_prefix(PREFIX)
            .ok_or_else(|| format!("\"{text}\" does not begin with {PREFIX}; {wanted}"))?;
        STANDARD
            .decode(digest)
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or_else(|| format!("\"{text}\" is no pin; {wanted}"))
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", STANDARD.encode(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_again_and_nothing_else() {
        let pin = Pin::of_spki(b"key");
        assert_eq!(Pin::parse(&pin.to_string()), Ok(pin));
        let shown = pin.to_string();
        for wrong in [
            "",
            "sha256//",
            shown.trim_start_matches(PREFIX),
            shown.trim_end_matches('='),
            &format!("{shown} "),
            "sha256//AA==",
        ] {
            let error = Pin::parse(wrong).unwrap_err();
            assert!(error.contains("44 characters"), "{error}");
        }
    }
}
