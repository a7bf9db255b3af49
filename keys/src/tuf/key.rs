//! Public keys in metadata, and signatures by them.

use aws_lc_rs::signature::{
    UnparsedPublicKey, VerificationAlgorithm, ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1,
    ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
};
use base64::engine::general_purpose::STANDARD;
use base64::Engine as _;
use serde::Deserialize;

/// A public key as metadata has it. One of an unknown kind is kept and fits no signature.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Key {
    keytype: String,
    scheme: String,
    keyval: KeyValue,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct KeyValue {
    public: String,
}

impl Key {
    /// Whether `signature` over `message` is by this key.
    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let Some((algorithm, bytes)) = self.usable() else {
            return false;
        };
        UnparsedPublicKey::new(algorithm, bytes)
            .verify(message, signature)
            .is_ok()
    }

    /// The key's bytes, by which two entries are seen to be one key, whatever their ids.
    pub(crate) fn material(&self) -> Vec<u8> {
        bytes(&self.keyval.public).unwrap_or_else(|| self.keyval.public.clone().into_bytes())
    }

    fn usable(&self) -> Option<(&'static dyn VerificationAlgorithm, Vec<u8>)> {
        let algorithm: &'static dyn VerificationAlgorithm =
            match (self.keytype.as_str(), self.scheme.as_str()) {
                ("ed25519", "ed25519") => &ED25519,
                ("ecdsa" | "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp256") => &ECDSA_P256_SHA256_ASN1,
                ("ecdsa" | "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp384") => &ECDSA_P384_SHA384_ASN1,
                ("rsa", "rsassa-pss-sha256") => &RSA_PSS_2048_8192_SHA256,
                ("rsa", "rsa-pkcs1v15-sha256") => &RSA_PKCS1_2048_8192_SHA256,
                _ => return None,
            };
        Some((algorithm, bytes(&self.keyval.public)?))
    }
}

/// Hex (the bare key) or PEM (SubjectPublicKeyInfo, RFC 5280): both are forms that aws-lc reads.
fn bytes(public: &str) -> Option<Vec<u8>> {
    let Some(rest) = public.trim().strip_prefix("-----BEGIN PUBLIC KEY-----") else {
        return hex::decode(public).ok();
    };
    let (body, _) = rest.split_once("-----END PUBLIC KEY-----")?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).ok()
}
