//! Judged by other people's programs: openssl, sbsigntool, efitools, gpgv.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::*;
use crate::command::Command;

/// Keys, made once: RSA keys take their time.
struct Keys {
    scratch: tempfile::TempDir,
    dir: PathBuf,
}

impl Keys {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        assert!(make(scratch.path(), "shop").unwrap());
        let dir = scratch.path().join(DIRECTORY);
        Self { scratch, dir }
    }

    fn pair(&self, name: &str) -> Pair {
        Pair::open(&self.dir, name).unwrap()
    }

    /// Writes a file for a judge.
    fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.scratch.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

fn openssl(args: &[&dyn AsRef<std::ffi::OsStr>]) -> String {
    let command = Command::new("openssl", "openssl");
    command
        .args(args.iter().map(|arg| arg.as_ref()))
        .text()
        .unwrap()
}

#[test]
fn keys_are_made_once_and_firmware_can_take_them() {
    let keys = Keys::new();
    let before = fs::read(keys.dir.join("db.key")).unwrap();
    fs::remove_file(keys.dir.join("KEK.esl")).unwrap();
    assert!(!make(keys.scratch.path(), "shop").unwrap());
    assert_eq!(fs::read(keys.dir.join("db.key")).unwrap(), before);
    for name in NAMES {
        let path = |kind: &str| keys.dir.join(format!("{name}.{kind}"));
        let mode = fs::metadata(path("key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = openssl(&[
            &"x509",
            &"-inform",
            &"DER",
            &"-noout",
            &"-text",
            &"-in",
            &path("cer"),
        ]);
        assert!(
            text.contains("Public-Key: (2048 bit)") && text.contains(&format!("Boot {name}")),
            "{text}"
        );
        // efitools: the certificate comes out of the list as it went in.
        let out = keys.scratch.path().join(format!("{name}-"));
        Command::new("sig-list-to-certs", "efitools")
            .arg(path("esl"))
            .arg(&out)
            .run()
            .unwrap();
        let cert = keys.scratch.path().join(format!("{name}--0.der"));
        assert_eq!(fs::read(cert).unwrap(), fs::read(path("cer")).unwrap());
    }
    let key = keys.dir.join("db.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let error = format!("{:#}", Pair::open(&keys.dir, "db").unwrap_err());
    assert!(error.contains("chmod 600"), "{error}");
    fs::remove_file(key).unwrap();
    let error = make(keys.scratch.path(), "shop").unwrap_err().to_string();
    assert!(error.contains("db.key is missing"), "{error}");
}

#[test]
fn each_variable_is_signed_by_the_key_above_it() {
    let keys = Keys::new();
    for (name, signer, vendor) in [
        ("PK", "PK", "61dfe48bca93d211aa0d00e098032b8c"),
        ("KEK", "PK", "61dfe48bca93d211aa0d00e098032b8c"),
        ("db", "KEK", "cbb219d73a3d9645a3bcdad00e67656f"),
    ] {
        let change = fs::read(keys.dir.join(format!("{name}.auth"))).unwrap();
        let list = fs::read(keys.dir.join(format!("{name}.esl"))).unwrap();
        let length = u32::from_le_bytes(change[16..20].try_into().unwrap()) as usize;
        let (signature, content) = change[40..].split_at(length - 24);
        assert_eq!(content, list, "{name}");
        // openssl wants the wrapping that UEFI leaves out.
        let wrapped = signed_data::content_info(|writer| writer.write_der(signature));
        let mut signed: Vec<u8> = name.encode_utf16().flat_map(u16::to_le_bytes).collect();
        signed.extend(hex::decode(vendor).unwrap());
        signed.extend([0x27, 0, 0, 0]);
        signed.extend(&change[..16]);
        signed.extend(content);
        let signed = keys.file("signed", &signed);
        let wrapped = keys.file("wrapped", &wrapped);
        let verify = |by: &str| {
            Command::new("openssl", "openssl")
                .args([
                    "smime",
                    "-verify",
                    "-binary",
                    "-inform",
                    "DER",
                    "-noverify",
                    "-nointern",
                ])
                .arg("-in")
                .arg(&wrapped)
                .arg("-content")
                .arg(&signed)
                .arg("-certfile")
                .arg(keys.dir.join(format!("{by}.pem")))
                .run()
        };
        verify(signer).unwrap();
        let other = if signer == "PK" { "db" } else { "PK" };
        verify(other).unwrap_err();
    }
}

#[test]
fn sbverify_accepts_signed_programs_and_no_changed_ones() {
    let keys = Keys::new();
    let verify = |file: &Path, by: &str| {
        Command::new("sbverify", "sbsigntool")
            .arg("--cert")
            .arg(keys.dir.join(format!("{by}.pem")))
            .arg(file)
            .run()
    };
    let program = keys.file("bare", &program());
    let bare = fs::read(&program).unwrap();
    let signed = pe::sign(&bare, &keys.pair("db")).unwrap();
    let file = keys.file("signed.efi", &signed);
    verify(&file, "db").unwrap();
    verify(&file, "KEK").unwrap_err();
    // The same again, also over a signature of somebody else's.
    assert_eq!(pe::sign(&bare, &keys.pair("db")).unwrap(), signed);
    let other = pe::sign(&bare, &keys.pair("PK")).unwrap();
    assert_eq!(pe::sign(&other, &keys.pair("db")).unwrap(), signed);
    let mut changed = signed;
    changed[0x400] ^= 1;
    verify(&keys.file("changed.efi", &changed), "db").unwrap_err();
}

#[test]
fn what_is_no_program_is_refused() {
    let keys = Keys::new();
    let pair = keys.pair("db");
    let bare = program();
    for length in 0..bare.len() {
        assert!(pe::sign(&bare[..length], &pair).is_err(), "{length}");
    }
    for (at, value, says) in [
        (0x98, 7, "optional header begins"),
        (0x98 + 108, 4, "no place for signatures"),
        (0x98 + 60, 8, "a section begins"),
        (0x98 + 144 + 4, 8, "do not stand at its end"),
    ] {
        let mut image = bare.clone();
        image[at] = value;
        let error = format!("{:#}", pe::sign(&image, &pair).unwrap_err());
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn gpgv_accepts_what_grub_checks() {
    let keys = Keys::new();
    let pair = keys.pair("db");
    let ring = keys.file("ring.pgp", &openpgp::public_key(&pair).unwrap());
    let file = keys.file("kernel", b"a kernel");
    let signature = openpgp::signature(&pair, b"a kernel").unwrap();
    assert_eq!(openpgp::signature(&pair, b"a kernel").unwrap(), signature);
    let signature = keys.file("kernel.sig", &signature);
    let verify = || {
        let command = Command::new("gpgv", "gpgv").arg("--keyring").arg(&ring);
        command.arg(&signature).arg(&file).run()
    };
    verify().unwrap();
    fs::write(&file, "another").unwrap();
    verify().unwrap_err();
}

/// The least that is a UEFI program: one section behind the headers.
fn program() -> Vec<u8> {
    let mut image = vec![0; 0x600];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x80u32.to_le_bytes());
    put(0x80, b"PE\0\0");
    // x86-64, one section, an optional header of 240 bytes; executable.
    put(0x84, &0x8664u16.to_le_bytes());
    put(0x86, &1u16.to_le_bytes());
    put(0x94, &240u16.to_le_bytes());
    put(0x96, &2u16.to_le_bytes());
    let optional = 0x98;
    put(optional, &0x20bu16.to_le_bytes());
    put(optional + 32, &0x1000u32.to_le_bytes());
    put(optional + 36, &0x200u32.to_le_bytes());
    put(optional + 56, &0x2000u32.to_le_bytes());
    put(optional + 60, &0x200u32.to_le_bytes());
    put(optional + 68, &10u16.to_le_bytes());
    put(optional + 108, &16u32.to_le_bytes());
    let section = optional + 240;
    put(section, b".text");
    put(section + 8, &0x400u32.to_le_bytes());
    put(section + 12, &0x1000u32.to_le_bytes());
    put(section + 16, &0x400u32.to_le_bytes());
    put(section + 20, &0x200u32.to_le_bytes());
    put(0x200, &[0xc3; 0x400]);
    image
}
