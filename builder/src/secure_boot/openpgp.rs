//! Signatures that GRUB checks: OpenPGP version 4 (RFC 4880), made by the db key.
//!
//! GRUB looks for `<file>.sig` beside a file and takes RSA with SHA-256. It does not look at times, so every time is
//! the same and signatures are reproducible.

use anyhow::{Context, Result};
use aws_lc_rs::digest::{digest, SHA1_FOR_LEGACY_USE_ONLY};
use sha2::{Digest, Sha256};

use super::Pair;

/// Packets (4.3) in the old format with two bytes of length.
const SIGNATURE: u8 = 2;
const PUBLIC_KEY: u8 = 6;
const USER_ID: u8 = 13;
/// Kinds of signatures (5.2.1): of a file, of a user id by its own key.
const OF_FILE: u8 = 0x00;
const OF_USER_ID: u8 = 0x13;
/// RSA (9.1), SHA-256 (9.4).
const RSA: u8 = 1;
const SHA256: u8 = 8;
/// Subpackets (5.2.3.1): time of the signature, key that made it.
const TIME: u8 = 2;
const ISSUER: u8 = 16;
/// 1 January 2020, seconds since 1970.
const MOMENT: u32 = 1_577_836_800;
/// User id.
const NAME: &[u8] = b"Treeline db";

/// The public key as `grub-mkimage --pubkey` takes it.
pub fn public_key(pair: &Pair) -> Result<Vec<u8>> {
    let key = key_body(pair)?;
    let mut signed = hashed_key(&key)?;
    signed.push(0xb4);
    signed.extend(u32::try_from(NAME.len())?.to_be_bytes());
    signed.extend(NAME);
    let mut packets = packet(PUBLIC_KEY, &key)?;
    packets.extend(packet(USER_ID, NAME)?);
    packets.extend(signature_of(pair, &key, OF_USER_ID, signed)?);
    Ok(packets)
}

/// The content of `<file>.sig` for a file with this content.
pub fn signature(pair: &Pair, content: &[u8]) -> Result<Vec<u8>> {
    signature_of(pair, &key_body(pair)?, OF_FILE, content.to_vec())
}

/// 5.2.4: the content is followed by what the signature says of itself.
fn signature_of(pair: &Pair, key: &[u8], kind: u8, mut signed: Vec<u8>) -> Result<Vec<u8>> {
    let mut body = vec![4, kind, RSA, SHA256];
    body.extend(subpacket(TIME, &MOMENT.to_be_bytes())?);
    let head = u32::try_from(body.len())?;
    signed.extend(&body);
    signed.extend([4, 0xff]);
    signed.extend(head.to_be_bytes());
    body.extend(subpacket(ISSUER, &key_id(key)?)?);
    body.extend(&Sha256::digest(&signed)[..2]);
    body.extend(integer(&pair.sign(&signed)?)?);
    packet(SIGNATURE, &body)
}

/// 5.5.2
fn key_body(pair: &Pair) -> Result<Vec<u8>> {
    let (modulus, exponent) = pair.numbers()?;
    let mut body = vec![4];
    body.extend(MOMENT.to_be_bytes());
    body.push(RSA);
    body.extend(integer(&modulus)?);
    body.extend(integer(&exponent)?);
    Ok(body)
}

/// 12.2: what a key is named by.
fn key_id(key: &[u8]) -> Result<[u8; 8]> {
    let print = digest(&SHA1_FOR_LEGACY_USE_ONLY, &hashed_key(key)?);
    let id = print.as_ref().last_chunk().copied();
    id.context("naming the key for GRUB")
}

/// A key as it is hashed: 5.2.4.
fn hashed_key(key: &[u8]) -> Result<Vec<u8>> {
    let mut hashed = vec![0x99];
    hashed.extend(u16::try_from(key.len())?.to_be_bytes());
    hashed.extend(key);
    Ok(hashed)
}

/// 5.2.3.1, with the two bytes of length that stand before the subpackets of each kind: there is one of each.
fn subpacket(kind: u8, content: &[u8]) -> Result<Vec<u8>> {
    let length = u8::try_from(content.len() + 1)?;
    let mut bytes = (u16::from(length) + 1).to_be_bytes().to_vec();
    bytes.extend([length, kind]);
    bytes.extend(content);
    Ok(bytes)
}

/// 3.2: number of bits, then the number without leading zeros.
fn integer(number: &[u8]) -> Result<Vec<u8>> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let number = &number[zeros..];
    let unused = number
        .first()
        .map_or(0, |first| first.leading_zeros() as usize);
    let bits = u16::try_from(number.len() * 8 - unused)?;
    let mut bytes = bits.to_be_bytes().to_vec();
    bytes.extend(number);
    Ok(bytes)
}

/// 4.2.1
fn packet(kind: u8, body: &[u8]) -> Result<Vec<u8>> {
    let mut packet = vec![0x80 | kind << 2 | 1];
    packet.extend(u16::try_from(body.len())?.to_be_bytes());
    packet.extend(body);
    Ok(packet)
}
