//! Judged by mtools and fsck.fat. The power is cut after every sector, in both directions of writing.

use std::path::PathBuf;
use std::process::Command;

use super::*;

/// A medium in memory that loses its power after so many sectors.
#[derive(Debug, Clone)]
struct Memory {
    bytes: Vec<u8>,
    left: Option<usize>,
    backwards: bool,
    written: usize,
}

impl Medium for Memory {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }

    fn read(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let bytes = self.bytes.get(offset as usize..offset as usize + length);
        bytes
            .map(<[u8]>::to_vec)
            .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert_eq!((offset % 512, bytes.len() % 512), (0, 0), "whole sectors");
        let mut sectors: Vec<_> = bytes.chunks(SECTOR).enumerate().collect();
        if self.backwards {
            sectors.reverse();
        }
        for (index, sector) in sectors {
            if self.left == Some(self.written) {
                return Err(io::Error::other("the power is gone"));
            }
            self.written += 1;
            let at = offset as usize + index * SECTOR;
            self.bytes[at..at + SECTOR].copy_from_slice(sector);
        }
        Ok(())
    }
}

struct Judge {
    dir: tempfile::TempDir,
}

impl Judge {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("fat.img")
    }

    fn run(&self, program: &str, package: &str, args: &[&str]) -> Vec<u8> {
        let image = self.image();
        let args = args.iter().map(|arg| match *arg {
            "IMAGE" => image.as_os_str(),
            arg => arg.as_ref(),
        });
        let output = Command::new(program).args(args).output();
        let output = output.unwrap_or_else(|e| panic!("{program}: {e}; install {package}"));
        assert!(output.status.success(), "{program}: {output:?}");
        output.stdout
    }

    /// A file system with what a firmware partition has.
    fn make(&self, kib: &str, args: &[&str]) -> Memory {
        let _ = std::fs::remove_file(self.image());
        let words: Vec<&str> = args.iter().copied().chain(["-C", "IMAGE", kib]).collect();
        self.run("mkfs.fat", "dosfstools", &words);
        for dir in ["::EFI", "::EFI/BOOT", "::EFI/treeline", "::EFI/treeline/a"] {
            self.run("mmd", "mtools", &["-i", "IMAGE", dir]);
        }
        let source = self.dir.path().join("source");
        for (name, content) in others() {
            std::fs::write(&source, content).unwrap();
            let target = format!("::{name}");
            self.run(
                "mcopy",
                "mtools",
                &["-i", "IMAGE", source.to_str().unwrap(), &target],
            );
        }
        Memory {
            bytes: std::fs::read(self.image()).unwrap(),
            left: None,
            backwards: false,
            written: 0,
        }
    }

    fn content(&self, medium: &Memory, path: &str) -> Vec<u8> {
        std::fs::write(self.image(), &medium.bytes).unwrap();
        let target = format!("::{path}");
        self.run("mcopy", "mtools", &["-i", "IMAGE", &target, "-"])
    }

    fn is_clean(&self, medium: &Memory) {
        std::fs::write(self.image(), &medium.bytes).unwrap();
        self.run("fsck.fat", "dosfstools", &["-n", "IMAGE"]);
    }
}

fn bytes(length: u32, seed: u32) -> Vec<u8> {
    (0..length)
        .map(|at| (at.wrapping_mul(seed) >> 3) as u8)
        .collect()
}

const OURS: &str = "EFI/treeline/a/grubx64.efi";

fn others() -> [(&'static str, Vec<u8>); 3] {
    [
        ("EFI/BOOT/BOOTX64.EFI", bytes(9000, 3)),
        ("EFI/BOOT/grubx64.efi", bytes(30000, 5)),
        ("EFI/treeline/a/edition.toml", b"edition = 0\n".to_vec()),
    ]
}

fn others_are_whole(medium: &Memory) {
    for (path, content) in others() {
        let found = super::read(medium, path, 1 << 20).unwrap();
        assert!(found.as_deref() == Some(&content[..]), "{path} has changed");
    }
}

#[test]
fn files_are_replaced_on_every_kind_of_fat() {
    let judge = Judge::new();
    for (kib, args) in [
        ("1024", &["-F", "12"][..]),
        ("8192", &["-F", "16", "-s", "1"]),
        ("40000", &["-F", "32", "-s", "1"]),
    ] {
        let mut medium = judge.make(kib, args);
        for content in [bytes(20_000, 7), bytes(700, 9), bytes(50_001, 11)] {
            replace(&mut medium, OURS, &content).unwrap();
            assert!(judge.content(&medium, OURS) == content, "{args:?}");
            assert_eq!(super::read(&medium, OURS, 1 << 20).unwrap(), Some(content));
            others_are_whole(&medium);
            judge.is_clean(&medium);
        }
    }
}

#[test]
fn a_power_cut_leaves_every_other_file_and_is_made_good() {
    let judge = Judge::new();
    let empty = judge.make("2048", &["-F", "12", "-s", "1"]);
    let mut used = empty.clone();
    replace(&mut used, OURS, &bytes(14_000, 13)).unwrap();
    let content = bytes(20_000, 7);
    for begin in [empty, used] {
        for backwards in [false, true] {
            let run = |begin: &Memory, left| {
                let mut medium = Memory {
                    left,
                    backwards,
                    written: 0,
                    ..begin.clone()
                };
                let done = replace(&mut medium, OURS, &content).is_ok();
                others_are_whole(&medium);
                (done, medium)
            };
            let (done, whole) = run(&begin, None);
            assert!(done && whole.written > 40, "{}", whole.written);
            for left in 0..whole.written {
                let (done, torn) = run(&begin, Some(left));
                assert!(!done, "{left}");
                // Once more, cut again somewhere, and then to the end.
                let (_, torn) = run(&torn, Some((left * 7) % whole.written));
                let (done, good) = run(&torn, None);
                assert!(done, "{left}");
                assert!(
                    super::read(&good, OURS, 1 << 20).unwrap().as_deref() == Some(&content[..]),
                    "{left}"
                );
            }
        }
    }
}

#[test]
fn what_cannot_be_done_changes_nothing() {
    let judge = Judge::new();
    let begin = judge.make("1024", &["-F", "12"]);
    let refused = |path: &str, content: &[u8]| {
        let mut medium = begin.clone();
        let error = replace(&mut medium, path, content).unwrap_err();
        assert_eq!(medium.written, 0, "{path}: {error}");
        error
    };
    refused("EFI/none/x.efi", b"x");
    refused("EFI/treeline/a", b"x");
    refused(OURS, &bytes(2 << 20, 3));
    assert_eq!(super::read(&begin, "EFI/none", 10).unwrap(), None);
    let error = super::read(&begin, "EFI/BOOT/BOOTX64.EFI", 8999).unwrap_err();
    assert!(error.to_string().contains("more than 8999"), "{error}");
    let none = Memory {
        bytes: vec![0; 4096],
        ..begin
    };
    assert!(replace(&mut none.clone(), OURS, b"x").is_err());
    assert!(super::read(&none, OURS, 1).is_err());
}
