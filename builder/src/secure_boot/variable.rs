//! What firmware takes: lists of certificates, and signed changes of the variables that hold them.
//!
//! Formats of the UEFI specification: `EFI_SIGNATURE_LIST` (32.4.1) and `EFI_VARIABLE_AUTHENTICATION_2` (8.2.6).

use anyhow::{Context, Result};
use jiff::{tz::TimeZone, Timestamp};
use sha2::{Digest, Sha256};

use super::{signed_data, Pair};

/// A GUID in the byte order of UEFI.
type Guid = [u8; 16];

/// `EFI_GLOBAL_VARIABLE`: the variables PK and KEK.
const GLOBAL: Guid = guid(0x8be4_df61, 0x93ca, 0x11d2, 0xaa0d_00e0_9803_2b8c);
/// `EFI_IMAGE_SECURITY_DATABASE_GUID`: the variable db.
const DATABASE: Guid = guid(0xd719_b2cb, 0x3d3a, 0x4596, 0xa3bc_dad0_0e67_656f);
/// `EFI_CERT_X509_GUID`
const X509: Guid = guid(0xa5c0_59a1, 0x94e4, 0x4aa7, 0x87b5_ab15_5c2b_f072);
/// `EFI_CERT_TYPE_PKCS7_GUID`
const PKCS7: Guid = guid(0x4aaf_d29d, 0x68df, 0x49ee, 0x8aa9_347d_3756_65a7);
/// Non-volatile, for boot and run time, signed with a time.
const ATTRIBUTES: u32 = 0x27;
/// Bytes of `EFI_SIGNATURE_LIST` before the signatures, and of one before its data.
const LIST_HEAD: usize = 28;
const SIGNATURE_HEAD: usize = 16;
/// `WIN_CERT_REVISION_2_0`, `WIN_CERT_TYPE_EFI_GUID` (32.2.4), and bytes before the signature.
const REVISION: u16 = 0x0200;
const EFI_GUID: u16 = 0x0ef1;
const CERTIFICATE_HEAD: usize = 24;

const fn guid(a: u32, b: u16, c: u16, d: u64) -> Guid {
    let (a, b, c, d) = (
        a.to_le_bytes(),
        b.to_le_bytes(),
        c.to_le_bytes(),
        d.to_be_bytes(),
    );
    [
        a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6],
        d[7],
    ]
}

/// Who put a certificate there: a GUID (version 8) that follows from the certificate of the platform key.
pub(super) fn owner(platform_key: &[u8]) -> Guid {
    let hash = Sha256::digest(platform_key);
    let mut owner = [0; 16];
    owner.copy_from_slice(&hash[..16]);
    // Version and variant, in UEFI's byte order.
    owner[7] = owner[7] & 0x0f | 0x80;
    owner[8] = owner[8] & 0x3f | 0x80;
    owner
}

/// A GUID as people write it.
pub(super) fn text(guid: Guid) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = guid;
    let (tail, node) = rest.split_at(2);
    format!(
        "{}-{}-{}-{}-{}",
        hex::encode([d, c, b, a]),
        hex::encode([f, e]),
        hex::encode([h, g]),
        hex::encode(tail),
        hex::encode(node)
    )
}

/// A list of one certificate.
pub(super) fn list(owner: Guid, certificate: &[u8]) -> Result<Vec<u8>> {
    let size = SIGNATURE_HEAD + certificate.len();
    let mut list = X509.to_vec();
    for number in [LIST_HEAD + size, 0, size] {
        list.extend(
            u32::try_from(number)
                .context("writing a list of certificates")?
                .to_le_bytes(),
        );
    }
    list.extend(owner);
    list.extend(certificate);
    Ok(list)
}

/// The signed change that makes `content` the value of the variable `name`. Firmware refuses a time that is not
/// later than that of the last change.
pub(super) fn change(
    name: &str,
    content: &[u8],
    time: Timestamp,
    signer: &Pair,
) -> Result<Vec<u8>> {
    let time = efi_time(time);
    let vendor = if name == "db" { DATABASE } else { GLOBAL };
    let mut signed: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
    signed.extend(vendor);
    signed.extend(ATTRIBUTES.to_le_bytes());
    signed.extend(time);
    signed.extend(content);
    let signature = signed_data::detached(signer, &signed)?;
    let mut change = time.to_vec();
    let length = CERTIFICATE_HEAD + signature.len();
    change.extend(
        u32::try_from(length)
            .context("signing a variable")?
            .to_le_bytes(),
    );
    change.extend(REVISION.to_le_bytes());
    change.extend(EFI_GUID.to_le_bytes());
    change.extend(PKCS7);
    change.extend(signature);
    change.extend(content);
    Ok(change)
}

/// `EFI_TIME` in UTC, to the second; everything else in it must be zero.
fn efi_time(time: Timestamp) -> [u8; 16] {
    let time = time.to_zoned(TimeZone::UTC);
    let year = time.year().to_le_bytes();
    let small = [
        time.month(),
        time.day(),
        time.hour(),
        time.minute(),
        time.second(),
    ];
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&year);
    for (byte, number) in bytes[2..].iter_mut().zip(small) {
        *byte = number.unsigned_abs();
    }
    bytes
}
