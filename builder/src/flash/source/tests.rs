use super::*;
use crate::command::Command;
use crate::image::bmap;
use crate::image::ranges::Ranges;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

const MIB: u64 = 1 << 20;

/// What a test image holds at a place: never zero, never the same twice in a row.
pub fn byte_at(at: u64) -> u8 {
    ((at / 512).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 | 1
}

/// A raw image of `size` bytes in `dir` with content in `ranges`, and its map.
pub fn raw_image(dir: &Path, size: u64, ranges: &[Range<u64>]) -> PathBuf {
    let path = dir.join("demo-1.0-rpi4.raw");
    let file = File::options()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    file.set_len(size).unwrap();
    for range in ranges {
        let content: Vec<u8> = range.clone().map(byte_at).collect();
        file.write_all_at(&content, range.start).unwrap();
    }
    let about = bmap::About {
        product: "demo".into(),
        version: "1.0".into(),
        board: "rpi4".into(),
    };
    let map = bmap::describe(&file, &Ranges::of(ranges.to_vec()), Some(&about)).unwrap();
    fs::write(dir.join("demo-1.0-rpi4.raw.bmap"), map).unwrap();
    path
}

/// The same, opened.
pub fn image(dir: &Path, size: u64, ranges: &[Range<u64>]) -> Image {
    Image::open(&raw_image(dir, size, ranges), &[]).unwrap()
}

fn sums(dir: &Path) {
    let mut text = String::new();
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains("demo"))
        .collect();
    names.sort();
    for path in names {
        let sum = crate::cache::sha256_file(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        text += &format!("{sum}  {name}\n");
    }
    fs::write(dir.join(sides::SUMS), text).unwrap();
}

fn packed(raw: &Path) -> Vec<PathBuf> {
    let to = |ending: &str| raw.with_extension(ending);
    let run = |program: &str, package, args: &[&std::ffi::OsStr]| {
        Command::new(program, package).args(args).run().unwrap();
    };
    let (zst, xz, qcow2) = (to("raw.zst"), to("raw.xz"), to("qcow2"));
    run(
        "zstd",
        "zstd",
        &["-qf".as_ref(), raw.as_ref(), "-o".as_ref(), zst.as_ref()],
    );
    run("xz", "xz-utils", &["-kf1".as_ref(), raw.as_ref()]);
    run(
        "qemu-img",
        "qemu-utils",
        &[
            "convert".as_ref(),
            "-O".as_ref(),
            "qcow2".as_ref(),
            raw.as_ref(),
            qcow2.as_ref(),
        ],
    );
    vec![raw.to_path_buf(), zst, xz, qcow2]
}

fn everything(image: &Image) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    image
        .play(&Stock::new(2, CHUNK), true, &mut |chunk| {
            all.push((chunk.at, chunk.data().to_vec()));
            Flow::On
        })
        .unwrap();
    all
}

#[test]
fn every_format_gives_the_same_bytes_whatever_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let ranges = [0..20480, 2 * MIB..7 * MIB, 9 * MIB..9 * MIB + 4096];
    let raw = raw_image(dir.path(), 10 * MIB, &ranges);
    let wanted = everything(&Image::open(&raw, &[]).unwrap());
    let length: usize = wanted.iter().map(|(_, data)| data.len()).sum();
    assert_eq!(length as u64, 20480 + 5 * MIB + 4096);
    for (at, data) in &wanted {
        assert!(data
            .iter()
            .enumerate()
            .all(|(n, b)| *b == byte_at(at + n as u64)));
    }
    for path in packed(&raw) {
        let image = Image::open(&path, &[]).unwrap();
        assert!(image.mapped, "{}", path.display());
        assert_eq!(image.about.as_ref().unwrap().board, "rpi4");
        assert!(everything(&image) == wanted, "{}", path.display());
        // Without map and under a name that says nothing.
        let bare = tempfile::tempdir().unwrap();
        let other = bare.path().join("card.bin");
        fs::copy(&path, &other).unwrap();
        let image = Image::open(&other, &[]).unwrap();
        assert!(!image.mapped);
        assert_eq!((image.size, image.mapped_bytes()), (10 * MIB, 10 * MIB));
        assert_eq!(image.head[..20480], wanted[0].1[..]);
    }
}

#[test]
fn truncated_and_altered_images_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let ranges = [0..20480, 2 * MIB..7 * MIB];
    let raw = raw_image(dir.path(), 10 * MIB, &ranges);
    let all = packed(&raw);
    for path in &all {
        let good = fs::read(path).unwrap();
        for cut in [good.len() / 2, good.len() - 9] {
            fs::write(path, &good[..cut]).unwrap();
            let error = Image::open(path, &[]).map(drop);
            // A qcow2 may end early where nothing is mapped.
            let qcow2 = path.extension().is_some_and(|e| e == "qcow2") && cut > good.len() / 2;
            assert!(error.is_err() || qcow2, "{} cut to {cut}", path.display());
        }
        let mut altered = good.clone();
        let middle = if path == &raw {
            3 << 20
        } else {
            good.len() / 2
        };
        altered[middle] ^= 0x10;
        fs::write(path, &altered).unwrap();
        let error = Image::open(path, &[]).unwrap_err();
        assert!(
            format!("{error:#}").contains("reading the image"),
            "{error:#}"
        );
        fs::write(path, &good).unwrap();
    }
    fs::write(&raw, []).unwrap();
    let error = format!("{:#}", Image::open(&raw, &[]).unwrap_err());
    assert!(error.contains("empty"), "{error}");
}

#[test]
fn checksums_and_signature_vouch_for_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_image(dir.path(), 4 * MIB, &[0..4096]);
    assert_eq!(Image::open(&raw, &[]).unwrap().trust, Trust::Nothing);
    sums(dir.path());
    assert_eq!(Image::open(&raw, &[]).unwrap().trust, Trust::Checksums);
    let key = keys::keyfile::PrivateKey::generate().unwrap();
    let text = fs::read_to_string(dir.path().join(sides::SUMS)).unwrap();
    fs::write(
        dir.path().join(sides::SIGNATURE),
        sides::sign(&text, &key).unwrap(),
    )
    .unwrap();
    let known = [key.public_base64()];
    assert_eq!(Image::open(&raw, &known).unwrap().trust, Trust::Signature);
    assert_eq!(Image::open(&raw, &[]).unwrap().trust, Trust::Checksums);
    let other = [keys::keyfile::PrivateKey::generate()
        .unwrap()
        .public_base64()];
    let error = format!("{:#}", Image::open(&raw, &other).unwrap_err());
    assert!(error.contains("none of the 1 key(s)"), "{error}");
    // A map that fits itself, but is not the listed one.
    raw_image(dir.path(), 4 * MIB, &[0..8192]);
    let error = format!("{:#}", Image::open(&raw, &[]).unwrap_err());
    assert!(error.contains("SHA256SUMS"), "{error}");
}

/// Somebody else's image has no block map: the checksum of the whole is all there is.
#[test]
fn a_listed_image_without_a_map_must_have_its_checksum() {
    let dir = tempfile::tempdir().unwrap();
    let raw = raw_image(dir.path(), 2 * MIB, &[0..4096]);
    let image = dir.path().join("card.img");
    fs::rename(&raw, &image).unwrap();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path != image {
            fs::remove_file(path).unwrap();
        }
    }
    let list = |sum: &str| {
        fs::write(dir.path().join(sides::SUMS), format!("{sum}  card.img\n")).unwrap();
    };
    list(&crate::cache::sha256_file(&image).unwrap());
    assert_eq!(Image::open(&image, &[]).unwrap().trust, Trust::Checksums);
    list(&"0".repeat(64));
    let error = format!("{:#}", Image::open(&image, &[]).unwrap_err());
    assert!(error.contains("does not have the checksum"), "{error}");
}

#[test]
fn a_qcow2_that_refers_to_other_files_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("secret");
    fs::write(&secret, vec![1; 1 << 20]).unwrap();
    let image = dir.path().join("x.img");
    let make = |args: &[&std::ffi::OsStr]| {
        Command::new("qemu-img", "qemu-utils")
            .args(args)
            .run()
            .unwrap();
    };
    make(&[
        "create".as_ref(),
        "-q".as_ref(),
        "-f".as_ref(),
        "qcow2".as_ref(),
        "-F".as_ref(),
        "raw".as_ref(),
        "-b".as_ref(),
        secret.as_ref(),
        image.as_ref(),
    ]);
    let error = format!("{:#}", Image::open(&image, &[]).unwrap_err());
    assert!(error.contains("difference to another image"), "{error}");
    let data = format!("data_file={}", dir.path().join("data").display());
    make(&[
        "create".as_ref(),
        "-q".as_ref(),
        "-f".as_ref(),
        "qcow2".as_ref(),
        "-o".as_ref(),
        data.as_ref(),
        image.as_ref(),
        "1M".as_ref(),
    ]);
    let error = format!("{:#}", Image::open(&image, &[]).unwrap_err());
    assert!(error.contains("another file"), "{error}");
}

#[test]
fn maps_are_looked_for_under_the_names_they_have() {
    assert_eq!(
        sides::map_names("a-1.0-b.raw.zst"),
        ["a-1.0-b.raw.zst.bmap", "a-1.0-b.raw.bmap", "a-1.0-b.bmap"]
    );
    assert!(sides::map_names("a.qcow2").contains(&"a.raw.bmap".to_string()));
}
