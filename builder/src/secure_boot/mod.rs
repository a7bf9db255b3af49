//! Secure Boot with keys of one's own: the certificates that go into a machine's firmware, and the signatures that
//! the firmware and GRUB check.
//!
//! There are three keys, as UEFI wants them. PK says who owns the machine: it signs changes of itself and of KEK.
//! KEK signs changes of db. db signs what is started. The same db key signs for GRUB, which has a trust of its own
//! (OpenPGP signatures beside the files): one key, two containers.
//!
//! Everything here is a pure function of key and content: a product that is built twice carries the same bytes. So
//! no signature has a time, and the signing programs of the distribution, which all write one, are not used.

mod make;
pub mod openpgp;
pub mod pe;
mod signed_data;
mod variable;

use std::fs;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use rcgen::{KeyPair, PublicKeyData, SigningKey, PKCS_RSA_SHA256};
use rustls::pki_types::{pem::PemObject, CertificateDer};
use yasna::Tag;

use crate::serve::tls;
pub use make::{make, DIRECTORY, UBOOT_KEYS};

/// The names of the three keys, as UEFI calls the variables that hold their certificates.
pub const NAMES: [&str; 3] = ["PK", "KEK", "db"];

/// An RSA key with its certificate.
#[derive(Debug)]
pub struct Pair {
    key: KeyPair,
    /// The certificate, DER.
    certificate: Vec<u8>,
    /// Its issuer and serial number, each as DER: what signatures name it by.
    issuer: Vec<u8>,
    serial: Vec<u8>,
}

impl Pair {
    /// Reads `<name>.key` (PKCS#8, PEM, for its owner only) and `<name>.pem` in `dir`.
    pub fn open(dir: &Path, name: &str) -> Result<Self> {
        let (key, certificate) = (
            dir.join(format!("{name}.key")),
            dir.join(format!("{name}.pem")),
        );
        tls::refuse_readable_by_others(&key)
            .context("reading a key for Secure Boot; `builder keys secureboot` makes them")?;
        let text =
            fs::read_to_string(&key).with_context(|| format!("reading {}", key.display()))?;
        let pair = KeyPair::from_pem_and_sign_algo(&text, &PKCS_RSA_SHA256).with_context(|| {
            format!("reading {}: it holds no RSA key in PEM form", key.display())
        })?;
        let der = CertificateDer::from_pem_file(&certificate)
            .with_context(|| format!("reading the certificate {}", certificate.display()))?;
        Self::new(pair, der.to_vec())
            .with_context(|| format!("reading the certificate {}", certificate.display()))
    }

    fn new(key: KeyPair, certificate: Vec<u8>) -> Result<Self> {
        let (issuer, serial, public) =
            names(&certificate).context("it is no X.509 certificate in DER form")?;
        ensure!(
            public == key.subject_public_key_info(),
            "it belongs to another key than the one beside it"
        );
        Ok(Self {
            key,
            certificate,
            issuer,
            serial,
        })
    }

    /// RSA signature (PKCS#1 1.5 over SHA-256).
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        self.key.sign(message).context("signing for Secure Boot")
    }

    /// Modulus and exponent of the public key, big-endian, without leading zeros.
    pub fn numbers(&self) -> Result<(Vec<u8>, Vec<u8>)> {
        // RSAPublicKey of RFC 8017, A.1.1.
        yasna::parse_der(self.key.der_bytes(), |reader| {
            reader.read_sequence(|reader| {
                let modulus = reader.next().read_bigint_bytes()?.0;
                Ok((modulus, reader.next().read_bigint_bytes()?.0))
            })
        })
        .map(|(modulus, exponent)| (without_zeros(modulus), without_zeros(exponent)))
        .context("reading the public half of a key for Secure Boot")
    }

    /// The certificate, DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }
}

/// The GUID that the keys in `dir` are enrolled under.
pub fn owner(dir: &Path) -> Result<String> {
    let path = dir.join("PK.pem");
    let der = CertificateDer::from_pem_file(&path)
        .with_context(|| format!("reading the certificate {}", path.display()))?;
    Ok(variable::text(variable::owner(&der)))
}

fn without_zeros(number: Vec<u8>) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number[zeros..].to_vec()
}

/// Issuer, serial number and subject public key of a certificate (RFC 5280, 4.1), each as DER.
fn names(certificate: &[u8]) -> yasna::ASN1Result<(Vec<u8>, Vec<u8>, Vec<u8>)> {
    yasna::parse_der(certificate, |reader| {
        reader.read_sequence(|reader| {
            let found = reader.next().read_sequence(|reader| {
                reader
                    .read_optional(|reader| reader.read_tagged(Tag::context(0), |r| r.read_u8()))?;
                let serial = reader.next().read_der()?;
                let _algorithm = reader.next().read_der()?;
                let issuer = reader.next().read_der()?;
                let _validity = reader.next().read_der()?;
                let _subject = reader.next().read_der()?;
                let public = reader.next().read_der()?;
                while reader.read_optional(|reader| reader.read_der())?.is_some() {}
                Ok((issuer, serial, public))
            })?;
            let _algorithm = reader.next().read_der()?;
            let _signature = reader.next().read_der()?;
            Ok(found)
        })
    })
}

#[cfg(test)]
mod tests;
