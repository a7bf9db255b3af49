//! Making the keys and what a machine's firmware is given of them: `keys/secureboot/`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use jiff::Timestamp;
use rcgen::{
    date_time_ymd, CertificateParams, DistinguishedName, DnType, KeyPair, RsaKeySize,
    PKCS_RSA_SHA256,
};

use bsp::boot::uboot;

use super::{variable, Pair, NAMES};
use crate::project::secrets;

/// Where the keys stand, below the product's key directory.
pub const DIRECTORY: &str = "secureboot";

/// The public half of db there, as source of U-Boot's own device tree.
pub const UBOOT_KEYS: &str = "u-boot.dtsi";

/// Makes the keys of `product` in `keys` and the files for enrolment; whether there were none before. Files that
/// are missing beside the keys are made again; a key never is.
pub fn make(keys: &Path, product: &str) -> Result<bool> {
    let dir = keys.join(DIRECTORY);
    let (there, missing): (Vec<PathBuf>, Vec<PathBuf>) = NAMES
        .iter()
        .flat_map(|name| ["key", "pem"].map(|kind| dir.join(format!("{name}.{kind}"))))
        .partition(|path| path.exists());
    match (there.first(), missing.first()) {
        (Some(there), Some(missing)) => bail!(
            "making keys for Secure Boot: {} is there, but {} is missing; put it back, or move {} away to begin with \
             new keys, which no machine knows",
            there.display(),
            missing.display(),
            dir.display()
        ),
        (None, _) => new(&dir, product)?,
        (Some(_), None) => {}
    }
    enrolment(&dir)?;
    Ok(there.is_empty())
}

/// Keys and certificates; all of them or none.
fn new(dir: &Path, product: &str) -> Result<()> {
    let parent = dir.parent().unwrap_or(dir);
    secrets::private_dir(parent)?;
    let scratch = secrets::scratch(parent)?;
    for name in NAMES {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
            .with_context(|| format!("generating {name} for Secure Boot"))?;
        let certificate = parameters(&format!("{product} Secure Boot {name}"))
            .self_signed(&key)
            .with_context(|| format!("making the certificate of {name}"))?;
        let place = |kind: &str| scratch.path().join(format!("{name}.{kind}"));
        secrets::write_new(&place("key"), key.serialize_pem().as_bytes(), 0o600)?;
        secrets::write_new(&place("pem"), certificate.pem().as_bytes(), 0o644)?;
    }
    secrets::move_new(scratch.path(), dir)
}

/// Firmware looks at no dates, but tools do.
fn parameters(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

/// Three forms of each certificate, for what different firmware takes: the certificate itself (`.cer`, DER), a list
/// of it (`.esl`), and a signed change of the variable (`.auth`). PK signs itself and KEK, KEK signs db.
fn enrolment(dir: &Path) -> Result<()> {
    let [platform, exchange, signing] = NAMES.map(|name| Pair::open(dir, name));
    let (platform, exchange, signing) = (platform?, exchange?, signing?);
    let owner = variable::owner(&platform.certificate);
    let chain = [
        (&platform, &platform),
        (&exchange, &platform),
        (&signing, &exchange),
    ];
    for (name, (pair, signer)) in NAMES.iter().zip(chain) {
        let list = variable::list(owner, &pair.certificate)?;
        let change = variable::change(name, &list, Timestamp::now(), signer)?;
        for (kind, content) in [
            ("cer", &pair.certificate),
            ("esl", &list),
            ("auth", &change),
        ] {
            let path = dir.join(format!("{name}.{kind}"));
            if !path.exists() {
                fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
            }
        }
    }
    let path = dir.join(UBOOT_KEYS);
    if !path.exists() {
        let (modulus, exponent) = signing.numbers()?;
        let text = uboot::fit::keys::source(&modulus, &exponent)
            .context("writing db for U-Boot: it takes RSA keys only")?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}
