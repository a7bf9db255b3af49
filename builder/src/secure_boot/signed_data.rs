//! PKCS#7 `SignedData` (RFC 2315, 9) with one signer and no time, in the two forms that UEFI reads: detached for
//! changes of variables, and Authenticode for programs.

use anyhow::Result;
use sha2::{Digest, Sha256};
use yasna::models::ObjectIdentifier;
use yasna::{construct_der, DERWriter, DERWriterSeq, Tag};

use super::Pair;

/// `id-data`, RFC 2315, 14.
const DATA: &[u64] = &[1, 2, 840, 113549, 1, 7, 1];
/// `id-signedData`, RFC 2315, 14.
const SIGNED_DATA: &[u64] = &[1, 2, 840, 113549, 1, 7, 2];
/// `contentType` and `messageDigest`, RFC 2985, 5.3.
const CONTENT_TYPE: &[u64] = &[1, 2, 840, 113549, 1, 9, 3];
const MESSAGE_DIGEST: &[u64] = &[1, 2, 840, 113549, 1, 9, 4];
/// `id-sha256`, RFC 5754, 2.
const SHA256: &[u64] = &[2, 16, 840, 1, 101, 3, 4, 2, 1];
/// `rsaEncryption`, RFC 8017, A.1.
const RSA: &[u64] = &[1, 2, 840, 113549, 1, 1, 1];
/// `SPC_INDIRECT_DATA_OBJID` and `SPC_PE_IMAGE_DATAOBJ`: Microsoft, "Windows Authenticode Portable Executable
/// Signature Format".
const INDIRECT_DATA: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 2, 1, 4];
const PE_IMAGE_DATA: &[u64] = &[1, 3, 6, 1, 4, 1, 311, 2, 1, 15];
/// What stands where a file name once stood, in that paper.
const OBSOLETE: &str = "<<<Obsolete>>>";

/// A bare `SignedData` over `content`, which is not in it and is signed directly.
pub(super) fn detached(pair: &Pair, content: &[u8]) -> Result<Vec<u8>> {
    let signature = pair.sign(content)?;
    Ok(construct_der(|writer| {
        signed_data(writer, pair, &signature, &[], |writer| {
            oid(writer.next(), DATA);
        });
    }))
}

/// The `ContentInfo` that vouches for a program with this Authenticode digest.
pub(super) fn authenticode(pair: &Pair, digest: &[u8]) -> Result<Vec<u8>> {
    // What is hashed is the content of the sequence, without its tag and length.
    let parts = [image_data(), digest_info(digest)].concat();
    let hash = Sha256::digest(&parts);
    let attributes = [
        attribute(CONTENT_TYPE, |writer| oid(writer, INDIRECT_DATA)),
        attribute(MESSAGE_DIGEST, |writer| writer.write_bytes(&hash)),
    ];
    let signature = pair.sign(&construct_der(|writer| set_of(writer, &attributes)))?;
    Ok(content_info(|writer| {
        signed_data(writer, pair, &signature, &attributes, |writer| {
            oid(writer.next(), INDIRECT_DATA);
            let content = writer.next();
            content.write_tagged(Tag::context(0), |writer| {
                writer.write_sequence(|writer| writer.next().write_der(&parts));
            });
        });
    }))
}

/// `signed_data` in the wrapping that files have.
pub(super) fn content_info(signed_data: impl FnOnce(DERWriter<'_>)) -> Vec<u8> {
    construct_der(|writer| {
        writer.write_sequence(|writer| {
            oid(writer.next(), SIGNED_DATA);
            writer.next().write_tagged(Tag::context(0), signed_data);
        });
    })
}

fn oid(writer: DERWriter<'_>, numbers: &[u64]) {
    writer.write_oid(&ObjectIdentifier::from_slice(numbers));
}

fn algorithm(writer: DERWriter<'_>, numbers: &[u64]) {
    writer.write_sequence(|writer| {
        oid(writer.next(), numbers);
        writer.next().write_null();
    });
}

fn attribute(kind: &[u64], value: impl FnOnce(DERWriter<'_>)) -> Vec<u8> {
    construct_der(|writer| {
        writer.write_sequence(|writer| {
            oid(writer.next(), kind);
            writer.next().write_set(|writer| value(writer.next()));
        });
    })
}

/// `content` writes what is signed: its type, and itself unless it is kept apart.
fn signed_data(
    writer: DERWriter<'_>,
    pair: &Pair,
    signature: &[u8],
    attributes: &[Vec<u8>],
    content: impl FnOnce(&mut DERWriterSeq<'_>),
) {
    writer.write_sequence(|writer| {
        writer.next().write_u8(1);
        let digests = writer.next();
        digests.write_set(|writer| algorithm(writer.next(), SHA256));
        writer.next().write_sequence(content);
        let certificates = writer.next();
        certificates.write_tagged(Tag::context(0), |writer| {
            writer.write_der(&pair.certificate);
        });
        let signers = writer.next();
        signers.write_set(|writer| signer(writer.next(), pair, signature, attributes));
    });
}

fn signer(writer: DERWriter<'_>, pair: &Pair, signature: &[u8], attributes: &[Vec<u8>]) {
    writer.write_sequence(|writer| {
        writer.next().write_u8(1);
        writer.next().write_sequence(|writer| {
            writer.next().write_der(&pair.issuer);
            writer.next().write_der(&pair.serial);
        });
        algorithm(writer.next(), SHA256);
        if !attributes.is_empty() {
            let signed = writer.next();
            signed.write_tagged_implicit(Tag::context(0), |writer| set_of(writer, attributes));
        }
        algorithm(writer.next(), RSA);
        writer.next().write_bytes(signature);
    });
}

fn set_of(writer: DERWriter<'_>, values: &[Vec<u8>]) {
    writer.write_set_of(|writer| {
        for value in values {
            writer.next().write_der(value);
        }
    });
}

/// `SpcAttributeTypeAndOptionalValue` with an `SpcPeImageData` that says nothing.
fn image_data() -> Vec<u8> {
    let name: Vec<u8> = OBSOLETE.encode_utf16().flat_map(u16::to_be_bytes).collect();
    construct_der(|writer| {
        writer.write_sequence(|writer| {
            oid(writer.next(), PE_IMAGE_DATA);
            writer.next().write_sequence(|writer| {
                // No flags; the file is a string.
                writer.next().write_bitvec_bytes(&[], 0);
                writer.next().write_tagged(Tag::context(0), |writer| {
                    writer.write_tagged(Tag::context(2), |writer| {
                        writer.write_tagged_implicit(Tag::context(0), |writer| {
                            writer.write_bytes(&name);
                        });
                    });
                });
            });
        });
    })
}

fn digest_info(digest: &[u8]) -> Vec<u8> {
    construct_der(|writer| {
        writer.write_sequence(|writer| {
            algorithm(writer.next(), SHA256);
            writer.next().write_bytes(digest);
        });
    })
}
