//! The files beside an image: `SHA256SUMS`, its signature `SHA256SUMS.sig`, and the block map.
//!
//! The signature is plain ed25519 (RFC 8032) over the bytes of `SHA256SUMS`, in base64, by the product's
//! commit key: who may say what a device runs may say what is written to its disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure, Context, Result};
use base64::engine::general_purpose::STANDARD;
use base64::Engine as _;
use sha2::{Digest, Sha256};

use super::Trust;
use crate::cache::sha256_file;
use crate::image::bmap::{self, BlockMap};

/// Name of the checksum file.
pub const SUMS: &str = "SHA256SUMS";
/// Name of its signature.
pub const SIGNATURE: &str = "SHA256SUMS.sig";

/// What stands beside an image.
#[derive(Debug, Default)]
pub struct Sides {
    /// The block map.
    pub map: Option<BlockMap>,
    listed: bool,
    signed: bool,
}

impl Sides {
    /// Looks beside `image` and checks what is there: a listed file must have the listed checksum, and a
    /// signature, where there are keys, must be by one of them.
    pub fn find(image: &Path, keys: &[String]) -> Result<Self> {
        let dir = match image.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir,
            _ => Path::new("."),
        };
        let sums_path = dir.join(SUMS);
        let sums = read_optional(&sums_path)?;
        let signed = match &sums {
            Some(text) => check_signature(text, &dir.join(SIGNATURE), keys)?,
            None => false,
        };
        let sums = parse_sums(sums.as_deref().unwrap_or_default());
        let name = file_name(image);
        let map_path = map_names(&name)
            .into_iter()
            .map(|name| dir.join(name))
            .find(|path| path.is_file());
        let map = match &map_path {
            Some(path) => Some(
                read_map(path, &sums)
                    .with_context(|| format!("reading its block map {}", path.display()))?,
            ),
            None => None,
        };
        let listed_map = map_path.is_some_and(|path| sums.contains_key(&file_name(&path)));
        let listed = match sums.get(&name) {
            // The map has the checksum of every byte that will be written.
            Some(_) if listed_map => true,
            Some(sum) => {
                let is = sha256_file(image)?;
                ensure!(
                    is == *sum,
                    "it does not have the checksum in {}: it was altered, damaged or truncated",
                    sums_path.display()
                );
                true
            }
            None => listed_map,
        };
        Ok(Self {
            map,
            listed,
            signed,
        })
    }

    /// Who vouches for the image.
    pub fn trust(&self) -> Trust {
        match (self.listed, self.signed) {
            (true, true) => Trust::Signature,
            (true, false) => Trust::Checksums,
            (false, _) => Trust::Nothing,
        }
    }
}

/// Where the map of an image may stand: `x.raw.zst` → `x.raw.zst.bmap`, `x.raw.bmap`, `x.bmap`.
pub fn map_names(name: &str) -> Vec<String> {
    let mut names = vec![format!("{name}.bmap")];
    let mut stem = name;
    while let Some((shorter, ending)) = stem.rsplit_once('.') {
        if !["raw", "img", "zst", "xz", "qcow2"].contains(&ending) {
            break;
        }
        stem = shorter;
        if ending == "qcow2" {
            names.push(format!("{stem}.raw.bmap"));
        }
        names.push(format!("{stem}.bmap"));
    }
    names
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn read_optional(path: &PathBuf) -> Result<Option<String>> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
    }
}

fn read_map(path: &Path, sums: &BTreeMap<String, String>) -> Result<BlockMap> {
    let text = std::fs::read_to_string(path)?;
    if let Some(sum) = sums.get(&file_name(path)) {
        ensure!(
            hex::encode(Sha256::digest(&text)) == *sum,
            "it does not have the checksum in {SUMS}: it was altered or belongs to another build"
        );
    }
    bmap::parse(&text)
}

/// Checksum by file name, as `sha256sum` writes them.
pub fn parse_sums(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter_map(|line| {
        let (sum, name) = line.split_once(' ')?;
        let name = name.strip_prefix([' ', '*'])?;
        let fits = sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit());
        fits.then(|| (name.to_string(), sum.to_ascii_lowercase()))
    });
    lines.collect()
}

/// Whether `text` is signed by one of `keys`; a signature that does not fit is an error, a missing one is not.
pub fn check_signature(text: &str, path: &Path, keys: &[String]) -> Result<bool> {
    let Some(signature) = read_optional(&path.to_path_buf())? else {
        return Ok(false);
    };
    if keys.is_empty() {
        return Ok(false);
    }
    verify(text.as_bytes(), &signature, keys)
        .with_context(|| format!("checking {}", path.display()))?;
    Ok(true)
}

/// Checks a base64 signature over `message`.
pub fn verify(message: &[u8], signature: &str, keys: &[String]) -> Result<()> {
    let Ok(signature) = STANDARD.decode(signature.trim()) else {
        bail!("the signature is not base64");
    };
    // The same form as a commit's signature: plain ed25519 by any one of the keys.
    keys::commit::verify(keys, message, &[signature]).map_err(|_| {
        anyhow::anyhow!(
            "the signature is by none of the {} key(s) that are trusted, or the checksums were changed after signing",
            keys.len()
        )
    })
}

/// The text of `SHA256SUMS.sig` for the text of `SHA256SUMS`.
pub fn sign(sums: &str, key: &dyn keys::signer::Sign) -> Result<String> {
    Ok(STANDARD.encode(key.sign(sums.as_bytes())?) + "\n")
}

/// Signs the checksum file `sums`: writes `SHA256SUMS.sig` beside it.
pub fn sign_beside(sums: &Path, key: &dyn keys::signer::Sign) -> Result<()> {
    let path = sums.with_file_name(SIGNATURE);
    let text = std::fs::read_to_string(sums);
    let text = text.with_context(|| format!("reading {}", sums.display()))?;
    std::fs::write(&path, sign(&text, key)?).with_context(|| format!("writing {}", path.display()))
}
