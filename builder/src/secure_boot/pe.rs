//! Signatures in UEFI programs (PE images): GRUB and kernels.
//!
//! Offsets are those of Microsoft's "PE Format"; what is hashed is described in "Windows Authenticode Portable
//! Executable Signature Format" and in the UEFI specification, 32.2.3.

use std::ops::Range;

use anyhow::{ensure, Context, Result};
use sha2::{Digest, Sha256};

use super::{signed_data, Pair};

/// Where the offset of the PE header stands.
const HEADER_AT: usize = 0x3c;
/// Bytes of the PE signature and the COFF header.
const COFF: usize = 24;
/// In the optional header: size of all headers, checksum.
const HEADERS_SIZE: usize = 60;
const CHECKSUM: usize = 64;
/// In the optional header of PE32 and of PE32+: the number of data directories; they follow it.
const DIRECTORIES: [(u16, usize); 2] = [(0x10b, 92), (0x20b, 108)];
/// The data directory of signatures, 8 bytes: file offset and size.
const SECURITY: usize = 4;
/// Bytes of a section header, and in it size and place of the section in the file.
const SECTION: usize = 40;
const SECTION_SIZE: usize = 16;
const SECTION_AT: usize = 20;
/// `WIN_CERT_REVISION_2_0` and `WIN_CERT_TYPE_PKCS_SIGNED_DATA` (UEFI, 32.2.4).
const REVISION: u16 = 0x0200;
const PKCS_SIGNED_DATA: u16 = 0x0002;
/// Bytes of `WIN_CERTIFICATE` before the signature.
const CERTIFICATE_HEAD: usize = 8;
/// Signatures begin and end at multiples of this.
const ALIGNMENT: usize = 8;

/// The same program with our signature, and without any other.
pub fn sign(image: &[u8], pair: &Pair) -> Result<Vec<u8>> {
    let (mut image, places) = bare(image)?;
    let signature = signed_data::authenticode(pair, &digest(&image, &places))?;
    let start = image.len();
    let length = CERTIFICATE_HEAD + signature.len();
    image.extend(u32::try_from(length)?.to_le_bytes());
    image.extend(REVISION.to_le_bytes());
    image.extend(PKCS_SIGNED_DATA.to_le_bytes());
    image.extend(signature);
    image.resize(image.len().next_multiple_of(ALIGNMENT), 0);
    let size = u32::try_from(image.len() - start)?;
    let start = u32::try_from(start)?;
    image[places.directory.clone()][..4].copy_from_slice(&start.to_le_bytes());
    image[places.directory.clone()][4..].copy_from_slice(&size.to_le_bytes());
    Ok(image)
}

/// Parts of a program that its digest leaves out. Both lie within it.
struct Places {
    checksum: Range<usize>,
    directory: Range<usize>,
}

/// The program without signatures, filled up to where one may begin.
fn bare(image: &[u8]) -> Result<(Vec<u8>, Places)> {
    let places = places(image).context("it is no UEFI program (PE image)")?;
    let mut image = image.to_vec();
    let at = number32(&image, places.directory.start)? as usize;
    let size = number32(&image, places.directory.start + 4)? as usize;
    if size > 0 {
        ensure!(
            at.checked_add(size) == Some(image.len()),
            "its signatures do not stand at its end"
        );
        image.truncate(at);
    }
    ensure!(
        places.directory.end <= image.len(),
        "its signatures stand within its headers"
    );
    image[places.directory.clone()].fill(0);
    contiguous(&image)?;
    image.resize(image.len().next_multiple_of(ALIGNMENT), 0);
    Ok((image, places))
}

fn places(image: &[u8]) -> Result<Places> {
    let optional = optional(image)?;
    let magic = number16(image, optional)?;
    let count = DIRECTORIES
        .iter()
        .find(|(kind, _)| *kind == magic)
        .map(|(_, at)| optional + at)
        .with_context(|| format!("its optional header begins with {magic:#06x}"))?;
    ensure!(
        number32(image, count)? as usize > SECURITY,
        "it has no place for signatures"
    );
    let directory = count + 4 + 8 * SECURITY;
    ensure!(directory + 8 <= image.len(), "it ends within its headers");
    let checksum = optional + CHECKSUM;
    Ok(Places {
        checksum: checksum..checksum + 4,
        directory: directory..directory + 8,
    })
}

/// Where the optional header begins.
fn optional(image: &[u8]) -> Result<usize> {
    let header = number32(image, HEADER_AT)? as usize;
    let signature = image.get(header..).and_then(|rest| rest.get(..4));
    ensure!(
        image.starts_with(b"MZ") && signature == Some(b"PE\0\0"),
        "it has no PE header"
    );
    Ok(header + COFF)
}

/// Firmware hashes headers, sections by their place, and what follows: that is the whole file in order, if there is
/// no gap and no overlap.
fn contiguous(image: &[u8]) -> Result<()> {
    let optional = optional(image)?;
    let count = usize::from(number16(image, optional - 18)?);
    let table = optional + usize::from(number16(image, optional - 4)?);
    let mut sections = Vec::new();
    for index in 0..count {
        let header = table + index * SECTION;
        let size = number32(image, header + SECTION_SIZE)? as usize;
        let at = number32(image, header + SECTION_AT)? as usize;
        if size > 0 {
            sections.push((at, size));
        }
    }
    sections.sort_unstable();
    let mut end = number32(image, optional + HEADERS_SIZE)? as usize;
    for (at, size) in sections {
        ensure!(
            at == end,
            "a section begins at byte {at}, and what stands before it ends at {end}"
        );
        end = at + size;
    }
    ensure!(
        end <= image.len(),
        "its sections end at byte {end}, and it has {}",
        image.len()
    );
    Ok(())
}

/// The Authenticode digest of a program without signatures.
fn digest(image: &[u8], places: &Places) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(&image[..places.checksum.start]);
    hash.update(&image[places.checksum.end..places.directory.start]);
    hash.update(&image[places.directory.end..]);
    hash.finalize().into()
}

fn number32(image: &[u8], at: usize) -> Result<u32> {
    bytes(image, at).map(u32::from_le_bytes)
}

fn number16(image: &[u8], at: usize) -> Result<u16> {
    bytes(image, at).map(u16::from_le_bytes)
}

fn bytes<const N: usize>(image: &[u8], at: usize) -> Result<[u8; N]> {
    let found = image.get(at..).and_then(|rest| rest.first_chunk::<N>());
    found
        .copied()
        .with_context(|| format!("it ends before byte {at}"))
}
