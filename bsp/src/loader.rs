//! Boot loaders that a device can replace: what a commit brings ([`Manifest`]), and what stands behind every copy
//! on a device ([`Record`]). The builder writes both; the agent reads them, and writes the second.
//!
//! A copy has a slot for itself: its file from the first byte on, filled up to a whole sector, and in the last
//! [`RECORD_BYTES`] the record. What the record says counts only where the file has the hash that it names: so no
//! torn copy is ever taken for a whole one.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::board::{Magic, Medium, RawArea, UpdateWay, RECORD_BYTES};
use crate::efi::EfiSet;

/// The manifest, in the tree.
pub const MANIFEST_PATH: &str = "usr/lib/device-agent/loader.toml";
/// Directory of the files that it names.
pub const BLOB_DIR: &str = "usr/lib/device-agent/loader";
/// Bytes that are written at once, or not at all.
pub const SECTOR: usize = 512;
/// Format number of [`Manifest`] and [`Record`].
const FORMAT: u32 = 1;
/// The first bytes of a record.
const TAG: &[u8; 16] = b"treeline loader\n";
/// Bytes of a record that its own hash is over.
const HASHED: usize = 64;

/// The boot loaders of a commit: `loader.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// Format number.
    format: u32,
    /// Each file of the boot loader that has an edition.
    #[serde(default, rename = "blob", skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<Blob>,
    /// The programs that UEFI firmware starts, if devices replace them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub efi: Option<EfiSet>,
}

/// A file of the boot loader that has an edition. It stands in the tree as `<BLOB_DIR>/<name>` if there is a
/// safe way to install it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Blob {
    /// Name of the raw area.
    pub name: String,
    /// Its edition, from 1 on.
    pub edition: u32,
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 of the file, 64 hex digits.
    pub sha256: String,
    /// Which memory it is in.
    pub place: Medium,
    /// The safe way to replace it.
    pub update: UpdateWay,
    /// First byte of each copy; one if there is no safe way.
    pub offsets: Vec<u64>,
    /// Bytes that a copy has for itself, record included.
    pub slot: u64,
    /// By what a copy is known to whoever starts it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub magic: Option<Magic>,
}

/// A manifest that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not TOML, or not of this kind.
    #[error("{0}")]
    Toml(#[from] toml::de::Error),
    /// Written by a newer builder.
    #[error("it has format {0}, this agent reads format {FORMAT}")]
    Format(u32),
    /// What it says of UEFI's programs makes no sense.
    #[error("the programs for UEFI: {0}")]
    Efi(&'static str),
    /// It makes no sense.
    #[error("\"{name}\": {problem}")]
    Blob {
        /// The raw area.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Manifest {
    /// The manifest of these.
    pub fn new(blobs: Vec<Blob>, efi: Option<EfiSet>) -> Self {
        Self {
            format: FORMAT,
            blobs,
            efi,
        }
    }

    /// As it stands in the tree.
    pub fn render(&self) -> Result<String, toml::ser::Error> {
        toml::to_string(self)
    }

    /// Reads what [`Manifest::render`] has written; every blob makes sense.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let head: Head = toml::from_str(text)?;
        if head.format != FORMAT {
            return Err(ManifestError::Format(head.format));
        }
        let manifest: Self = toml::from_str(text)?;
        for blob in &manifest.blobs {
            blob.check().map_err(|problem| ManifestError::Blob {
                name: blob.name.clone(),
                problem,
            })?;
        }
        let efi = manifest.efi.as_ref().map_or(Ok(()), EfiSet::check);
        efi.map_err(ManifestError::Efi)?;
        Ok(manifest)
    }
}

impl Blob {
    /// What a commit says of a raw area with this content; `None` if it has no edition.
    pub fn of(area: &RawArea, content: &[u8]) -> Option<Self> {
        if area.edition == 0 {
            return None;
        }
        let copies = area.copies();
        Some(Self {
            name: area.name.clone(),
            edition: area.edition,
            size: content.len() as u64,
            sha256: hex(&Sha256::digest(content)),
            place: area.place,
            update: area.update,
            offsets: copies.map_or(vec![area.offset.0], |copies| copies.offsets.to_vec()),
            slot: copies.map_or(area.size.0, |copies| copies.slot),
            magic: area.magic.clone(),
        })
    }

    /// Where its file stands in the tree, if it is there.
    pub fn path(&self) -> Option<String> {
        (self.update != UpdateWay::None).then(|| format!("{BLOB_DIR}/{}", self.name))
    }

    /// Whether `content` is its file.
    pub fn is(&self, content: &[u8]) -> bool {
        content.len() as u64 == self.size && hex(&Sha256::digest(content)) == self.sha256
    }

    /// Whether its magic is in the first sector of a copy.
    pub fn is_taken(&self, first: &[u8]) -> bool {
        self.magic.as_ref().is_some_and(|magic| magic.is_in(first))
    }

    fn check(&self) -> Result<(), &'static str> {
        let plain =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-');
        if self.name.is_empty() || !self.name.chars().all(plain) {
            return Err("its name is not that of a raw area");
        }
        let copies = match self.update {
            UpdateWay::None => 1,
            _ => 2,
        };
        if self.offsets.len() != copies {
            return Err("it has the wrong number of places");
        }
        let fits = match self.update {
            UpdateWay::None => self.size <= self.slot,
            _ => {
                padded(self.size).is_some_and(|size| size <= self.slot.saturating_sub(RECORD_BYTES))
            }
        };
        let ends = self
            .offsets
            .iter()
            .all(|at| at.checked_add(self.slot).is_some());
        // What a device reads of it at once.
        if !fits || !ends || self.size == 0 || self.slot > (1 << 30) {
            return Err("it does not fit its place");
        }
        let (first, second) = (self.offsets[0], *self.offsets.last().unwrap_or(&0));
        match (self.update, self.place) {
            (UpdateWay::None, _) | (UpdateWay::EmmcBoot, Medium::EmmcBoot) => Ok(()),
            (UpdateWay::TwoPlaces, Medium::Disk) if first + self.slot > second => {
                Err("its second place must stand behind its first")
            }
            (UpdateWay::TwoPlaces, Medium::Disk) if self.magic.is_none() => {
                Err("without a magic nobody knows which of its places is taken")
            }
            (UpdateWay::TwoPlaces, Medium::Disk) => Ok(()),
            _ => Err("the way to replace it is not one for its memory"),
        }
    }
}

/// What stands behind a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its edition.
    pub edition: u32,
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: [u8; 32],
    /// The first sector of the copy: kept here when it was taken away so that nobody starts the copy.
    pub first: Vec<u8>,
}

impl Record {
    /// The record of a file.
    pub fn of(edition: u32, content: &[u8]) -> Self {
        let mut first = content[..content.len().min(SECTOR)].to_vec();
        first.resize(SECTOR, 0);
        Self {
            edition,
            size: content.len() as u64,
            sha256: Sha256::digest(content).into(),
            first,
        }
    }

    /// As it stands in the last [`RECORD_BYTES`] of the slot.
    pub fn render(&self) -> Vec<u8> {
        let mut bytes = TAG.to_vec();
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(self.edition.to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.sha256);
        let own = Sha256::digest(&bytes);
        bytes.extend(own);
        bytes.resize(SECTOR, 0);
        bytes.extend(&self.first);
        bytes
    }

    /// Reads one; `None` if there is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..HASHED)?;
        if !head.starts_with(TAG)
            || bytes.get(HASHED..HASHED + 32)? != Sha256::digest(head).as_slice()
        {
            return None;
        }
        let number = |at: usize| Some(u32::from_le_bytes(head.get(at..at + 4)?.try_into().ok()?));
        (number(16)? == FORMAT).then_some(())?;
        Some(Self {
            edition: number(20)?,
            size: u64::from_le_bytes(head.get(24..32)?.try_into().ok()?),
            sha256: head.get(32..64)?.try_into().ok()?,
            first: bytes.get(SECTOR..2 * SECTOR)?.to_vec(),
        })
    }

    /// Whether `content` (the file, without filling) is what it was written for.
    pub fn is_for(&self, content: &[u8]) -> bool {
        content.len() as u64 == self.size && Sha256::digest(content).as_slice() == self.sha256
    }
}

/// A file's bytes, filled up to whole sectors.
pub fn filled(content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.resize(content.len().div_ceil(SECTOR) * SECTOR, 0);
    bytes
}

fn padded(size: u64) -> Option<u64> {
    size.checked_next_multiple_of(SECTOR as u64)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{builtin, Size};

    fn area() -> RawArea {
        let mut area = builtin("beaglebone").unwrap().disk.raw[0].clone();
        area.edition = 2;
        area.update = UpdateWay::TwoPlaces;
        area.spare_offset = Some(Size(256 << 10));
        area
    }

    fn content(size: usize) -> Vec<u8> {
        (0..size).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn a_manifest_is_read_back() {
        let file = content(1000);
        let blob = Blob::of(&area(), &file).unwrap();
        assert!(blob.is(&file) && !blob.is(&file[1..]));
        assert_eq!(
            blob.path().as_deref(),
            Some("usr/lib/device-agent/loader/mlo")
        );
        let manifest = Manifest::new(vec![blob], None);
        let text = manifest.render().unwrap();
        assert_eq!(Manifest::parse(&text).unwrap(), manifest);
        assert_eq!(Manifest::parse("format = 1\n").unwrap().blobs, []);
        let mut none = area();
        none.edition = 0;
        assert_eq!(Blob::of(&none, &file), None);
    }

    #[test]
    fn manifests_that_make_no_sense_are_refused() {
        let good = Manifest::new(vec![Blob::of(&area(), &content(1000)).unwrap()], None);
        let said = |change: fn(&mut Blob)| {
            let mut bad = good.clone();
            change(&mut bad.blobs[0]);
            Manifest::parse(&bad.render().unwrap())
                .unwrap_err()
                .to_string()
        };
        assert!(said(|b| b.name = "../x".into()).contains("not that of a raw area"));
        assert!(said(|b| b.size = 131_073 - 1024).contains("does not fit"));
        assert!(said(|b| b.slot = u64::MAX).contains("does not fit"));
        assert!(said(|b| b.size = 0).contains("does not fit"));
        assert!(said(|b| b.offsets.truncate(1)).contains("number of places"));
        assert!(said(|b| b.offsets.swap(0, 1)).contains("behind its first"));
        assert!(said(|b| b.magic = None).contains("without a magic"));
        assert!(said(|b| b.place = Medium::EmmcBoot).contains("not one for its memory"));
        let newer = Manifest::parse("format = 2\nnew = 1\n").unwrap_err();
        assert!(newer.to_string().contains("format 2"), "{newer}");
        assert!(Manifest::parse("").is_err());
    }

    #[test]
    fn a_record_is_read_back_and_no_garbage_is_one() {
        for size in [1, 511, 512, 513, 5000] {
            let file = content(size);
            let record = Record::of(7, &file);
            let bytes = record.render();
            assert_eq!(bytes.len() as u64, RECORD_BYTES);
            assert_eq!(Record::parse(&bytes), Some(record.clone()));
            assert!(record.is_for(&file) && !record.is_for(&file[..size - 1]));
            assert_eq!(record.first, filled(&file)[..SECTOR]);
            for at in 0..HASHED + 32 {
                let mut bad = bytes.clone();
                bad[at] ^= 1;
                assert_eq!(Record::parse(&bad), None, "byte {at}");
            }
            for length in 0..bytes.len() {
                assert_eq!(Record::parse(&bytes[..length]), None);
            }
        }
        assert_eq!(Record::parse(&[0; 1024]), None);
    }
}
