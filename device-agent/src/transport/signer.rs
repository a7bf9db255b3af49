//! A private key that stays where it is, in a TPM or a PKCS#11 token: a command of the product's signs with it.
//!
//! The contract: ECDSA on P-256 with SHA-256. The command gets the digest (32 bytes) on standard input and writes the
//! signature to standard output, as `ECDSA-Sig-Value` in DER (RFC 3279, 2.2.3). `tpm2_sign` and `pkcs11-tool` do that.

use std::fmt;
use std::io::{Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{ensure, Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::CertificateDer;
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{OtherError, SignatureAlgorithm, SignatureScheme};
use sha2::{Digest, Sha256};

use crate::system;

/// The only way that the contract knows.
const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
/// `id-ecPublicKey` with the curve `prime256v1`, as a certificate's key has it (RFC 5480, 2.1).
const P256: [u8; 21] = [
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];
/// A chip takes a second; a server waits for ten or more.
const LIMIT: Duration = Duration::from_secs(10);
/// The most that is taken of a command's output, in bytes. A signature has 72 at most.
const OUTPUT: usize = 4096;

/// The device's certificates with a key that a command signs with.
#[derive(Debug)]
pub(super) struct Identity {
    key: Arc<CertifiedKey>,
}

impl Identity {
    /// `Err` says in words what is wrong with the certificate.
    pub(super) fn new(
        chain: Vec<CertificateDer<'static>>,
        command: &[String],
    ) -> Result<Self, &'static str> {
        let own = chain.first().ok_or("there is no certificate")?;
        if !own.windows(P256.len()).any(|bytes| bytes == P256) {
            return Err("its key is not one on the curve P-256, which update.client-signer needs");
        }
        let key: Arc<dyn SigningKey> = Arc::new(External {
            command: command.to_vec(),
        });
        Ok(Self {
            key: Arc::new(CertifiedKey::new(chain, key)),
        })
    }
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        schemes.contains(&SCHEME).then(|| self.key.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The command in place of a key.
#[derive(Debug, Clone)]
struct External {
    command: Vec<String>,
}

impl SigningKey for External {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let known = offered.contains(&SCHEME);
        known.then(|| Box::new(self.clone()) as Box<dyn Signer>)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for External {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let signed = signature(&self.command, &Sha256::digest(message), LIMIT);
        signed.map_err(|error| OtherError(Arc::new(Failed(format!("{error:#}")))).into())
    }

    fn scheme(&self) -> SignatureScheme {
        SCHEME
    }
}

/// The command did not sign.
#[derive(Debug)]
pub(super) struct Failed(String);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

fn signature(command: &[String], digest: &[u8], limit: Duration) -> Result<Vec<u8>> {
    let (program, args) = command
        .split_first()
        .context("update.client-signer is empty")?;
    let doing = || format!("signing with update.client-signer, {program}");
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(doing)?;
    if let Some(mut input) = child.stdin.take() {
        // 32 bytes fit into the pipe. One that reads none says by its end what is wrong.
        let _ = input.write_all(digest);
    }
    let Some(status) = system::end(&mut child, limit).with_context(doing)? else {
        anyhow::bail!("{}: no answer after {} s", doing(), limit.as_secs());
    };
    ensure!(
        status.success(),
        "{}: it ended with {status}; what it says of that is in the journal",
        doing()
    );
    let output = match child.stdout.take() {
        Some(pipe) => written(pipe).with_context(doing)?,
        None => Vec::new(),
    };
    ensure!(
        is_signature(&output),
        "{}: what it wrote ({} bytes) is no ECDSA signature in DER",
        doing(),
        output.len()
    );
    Ok(output)
}

/// What a command that has ended left in the pipe. Its end is not waited for: a daemon that the command has started
/// may keep the pipe open.
fn written(mut pipe: ChildStdout) -> std::io::Result<Vec<u8>> {
    let mut waiting = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    if nix::poll::poll(&mut waiting, PollTimeout::ZERO)? == 0 {
        return Ok(Vec::new());
    }
    let mut output = vec![0; OUTPUT];
    let length = pipe.read(&mut output)?;
    output.truncate(length);
    Ok(output)
}

/// A sequence that ends where it says, of two numbers by the look of it: whether it is the right one is for the server to say.
fn is_signature(bytes: &[u8]) -> bool {
    matches!(bytes, [0x30, length, 0x02, rest @ ..]
        if usize::from(*length) == rest.len() + 1 && (5..=70).contains(&rest.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Vec<String> {
        ["sh", "-c", script].map(String::from).to_vec()
    }

    fn signed(script: &str, limit: u64) -> Result<Vec<u8>> {
        signature(&shell(script), &[7; 32], Duration::from_millis(limit))
    }

    #[test]
    fn a_command_gets_the_digest_and_gives_the_signature() {
        let good = r"test $(wc -c) = 32 && printf '\060\006\002\001\001\002\001\001'";
        let signature = [0x30, 6, 2, 1, 1, 2, 1, 1];
        assert_eq!(signed(good, 10_000).unwrap(), signature);
        // One that leaves a daemon behind, which keeps the pipe.
        let daemon = format!("{good}; sleep 20 &");
        let start = std::time::Instant::now();
        assert_eq!(signed(&daemon, 10_000).unwrap(), signature);
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn what_is_no_signature_is_named() {
        for (script, says) in [
            ("exit 3", "exit status: 3"),
            ("echo hello", "no ECDSA signature"),
            (r"printf '\060\007\002\001\001\002\001\001'", "8 bytes"),
            ("true", "0 bytes"),
            ("sleep 60", "no answer"),
        ] {
            let limit = if says == "no answer" { 50 } else { 10_000 };
            let error = format!("{:#}", signed(script, limit).unwrap_err());
            assert!(
                error.contains(says) && error.contains("client-signer"),
                "{error}"
            );
        }
        let none = signature(&["/nonexistent/signer".into()], &[], LIMIT).unwrap_err();
        assert!(
            format!("{none:#}").contains("/nonexistent/signer"),
            "{none:#}"
        );
    }

    #[test]
    fn a_certificate_with_another_key_is_refused() {
        let rsa = CertificateDer::from(vec![0x30, 0x03, 0x01, 0x02, 0x03]);
        let error = Identity::new(vec![rsa], &shell("true")).unwrap_err();
        assert!(error.contains("P-256"), "{error}");
    }
}
