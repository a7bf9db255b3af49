//! Boot scripts as U-Boot wants them: the "legacy" image format, type script.
//!
//! 64 bytes of header, all numbers big-endian, then for scripts a table of the lengths of its parts, ended
//! by zero, then the parts (U-Boot's `include/image.h`; `mkimage -T script` makes the same).

const MAGIC: u32 = 0x2705_1956;
const NAME_LENGTH: usize = 32;
const OS_LINUX: u8 = 5;
const ARCH_ARM: u8 = 2;
const TYPE_SCRIPT: u8 = 6;
const COMPRESSION_NONE: u8 = 0;
const NAME: &str = "Treeline";

/// The image of the script `text`, made at `time` (seconds since 1970; U-Boot shows it and no more).
pub(super) fn image(text: &str, time: u32) -> Vec<u8> {
    let mut data = Vec::with_capacity(text.len() + 8);
    // Scripts are a few kilobytes, generated here: the length always fits.
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    data.extend(length.to_be_bytes());
    data.extend(0u32.to_be_bytes());
    data.extend(text.bytes());

    let mut image = header(time, &data, 0);
    let crc = crc32fast::hash(&image);
    image = header(time, &data, crc);
    image.append(&mut data);
    image
}

/// The header; its own CRC is taken with that field being zero.
fn header(time: u32, data: &[u8], own_crc: u32) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let (load_address, entry_point) = (0, 0);
    let mut header = Vec::with_capacity(64 + data.len());
    for number in [
        MAGIC,
        own_crc,
        time,
        length,
        load_address,
        entry_point,
        crc32fast::hash(data),
    ] {
        header.extend(number.to_be_bytes());
    }
    header.extend([OS_LINUX, ARCH_ARM, TYPE_SCRIPT, COMPRESSION_NONE]);
    let mut name = NAME.as_bytes().to_vec();
    name.resize(NAME_LENGTH, 0);
    header.append(&mut name);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn run(program: &str, args: &[&std::ffi::OsStr]) -> String {
        let output = Command::new(program)
            .args(args)
            .output()
            .unwrap_or_else(|e| panic!("{program}: {e}; install u-boot-tools"));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn mkimage_makes_the_same_and_dumpimage_takes_it_apart() {
        let dir = tempfile::tempdir().unwrap();
        let [text, own, theirs, back] =
            ["text", "own", "theirs", "back"].map(|name| dir.path().join(name));
        std::fs::write(&text, "echo hello\n").unwrap();
        let made = image("echo hello\n", 1_700_000_000);
        std::fs::write(&own, &made).unwrap();
        let shown = run("mkimage", &["-l".as_ref(), own.as_os_str()]);
        for line in [
            "Image Name:   Treeline",
            "ARM Linux Script (uncompressed)",
            "Data Size:    19 Bytes",
            "Image 0: 11 Bytes",
        ] {
            assert!(shown.contains(line), "{shown}");
        }
        run(
            "dumpimage",
            &[
                "-T".as_ref(),
                "script".as_ref(),
                "-p".as_ref(),
                "0".as_ref(),
                "-o".as_ref(),
                back.as_os_str(),
                own.as_os_str(),
            ],
        );
        // It leaves the table of lengths in front.
        assert_eq!(std::fs::read(&back).unwrap()[8..], *b"echo hello\n");
        let output = Command::new("mkimage")
            .args([
                "-A", "arm", "-O", "linux", "-T", "script", "-C", "none", "-n", NAME, "-d",
            ])
            .args([&text, &theirs])
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(made, std::fs::read(&theirs).unwrap());
    }

    /// mkimage takes what it does not recognise for some other format, and succeeds.
    #[test]
    fn a_damaged_image_would_be_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        for at in [20, 70] {
            let mut damaged = image("echo hello\n", 0);
            damaged[at] ^= 1;
            std::fs::write(&path, damaged).unwrap();
            let output = Command::new("mkimage")
                .arg("-l")
                .arg(&path)
                .output()
                .unwrap();
            let shown = String::from_utf8_lossy(&output.stdout);
            assert!(!shown.contains("Image Name"), "{at}: {shown}");
        }
    }
}
