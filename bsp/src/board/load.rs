//! Reading and checking board files.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::check::check;
use super::extends::{self, Find};
use super::Board;

/// Files of `boards/` by id.
macro_rules! boards {
    ($($id:literal)*) => {
        &[$(($id, include_str!(concat!("../../../boards/", $id, ".toml")))),*]
    };
}

/// The boards that come with the program, by id.
const BUILTIN: &[(&str, &str)] = boards![
    "a10-olinuxino-lime"
    "a10s-olinuxino-micro"
    "a20-olimex-som-evb"
    "a20-olinuxino-lime"
    "a20-olinuxino-lime2"
    "a20-olinuxino-lime2-emmc"
    "a20-olinuxino-micro"
    "a20-olinuxino-micro-emmc"
    "a64-olinuxino"
    "a64-olinuxino-emmc"
    "aarch64-uefi"
    "am57xx-idk"
    "bananapi"
    "bananapi-m2-berry"
    "bananapi-m2-ultra"
    "bananapi-m3"
    "bananapro"
    "beagleboard-x15"
    "beaglebone"
    "beaglebone-ai"
    "cubieboard"
    "cubieboard2"
    "cubieboard4"
    "cubietruck"
    "cubietruck-plus"
    "cubox-i"
    "dra7-evm"
    "firefly-rk3288"
    "firefly-rk3399"
    "lamobo-r1"
    "mini-x"
    "nanopc-t4"
    "nanopi-neo"
    "nanopi-neo-air"
    "nanopi-neo-plus2"
    "nanopi-neo2"
    "nanopi-neo4"
    "openpower"
    "orangepi-one-plus"
    "orangepi-pc"
    "orangepi-plus"
    "orangepi-zero"
    "orangepi-zero-plus2"
    "pcduino"
    "pcduino3"
    "pine64-lts"
    "pine64-plus"
    "pinebook"
    "pinebook-pro"
    "pinephone"
    "pinetab"
    "puma-haikou"
    "qemu-aarch64"
    "qemu-armhf"
    "qemu-pseries"
    "roc-pc"
    "rock-4se"
    "rock-pi-4"
    "rock-pi-e"
    "rock64"
    "rockpro64"
    "rpi2"
    "rpi3"
    "rpi3-armhf"
    "rpi4"
    "sopine-baseboard"
    "teres-i"
    "udoo"
    "wandboard"
    "x86_64"
    "x86_64-bios"
    "x86_64-uefi"
];

/// A board that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// No built-in board has this id.
    #[error("there is no board \"{id}\"; {}", hint(near))]
    Unknown {
        /// The id that was asked for.
        id: String,
        /// Ids that look like it.
        near: Vec<&'static str>,
    },
    /// Not TOML, or not the schema.
    #[error("reading the board file {file}: {detail}")]
    Parse {
        /// The file.
        file: String,
        /// What the parser says, with line and column.
        detail: String,
    },
    /// Well-formed, but makes no sense.
    #[error("checking the board file {file}: {problem}")]
    Invalid {
        /// The file.
        file: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

fn hint(near: &[&str]) -> String {
    if near.is_empty() {
        "`builder boards` lists those that there are".into()
    } else {
        format!("did you mean {}?", near.join(" or "))
    }
}

/// Ids of the built-in boards, sorted.
pub fn list() -> Vec<&'static str> {
    let mut ids: Vec<_> = BUILTIN.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    ids
}

/// The built-in board `id`.
pub fn builtin(id: &str) -> Result<Board, BoardError> {
    match builtin_text(id) {
        Some(text) => from_toml(text, &builtin_file(id)),
        None => Err(BoardError::Unknown {
            id: id.into(),
            near: near(id),
        }),
    }
}

/// The file of the built-in board `id`.
pub(super) fn builtin_text(id: &str) -> Option<&'static str> {
    let found = BUILTIN.iter().find(|(known, _)| *known == id);
    found.map(|(_, text)| *text)
}

/// Its name.
pub(super) fn builtin_file(id: &str) -> PathBuf {
    PathBuf::from(format!("boards/{id}.toml"))
}

/// What somebody who wrote `id` may have meant.
pub(super) fn hint_for(id: &str) -> String {
    hint(&near(id))
}

/// Ids that look like what was typed, in order of likeness.
fn near(id: &str) -> Vec<&'static str> {
    let mut found: Vec<_> = list()
        .into_iter()
        .map(|known| (distance(id, known), known))
        .filter(|(distance, known)| {
            *distance <= 3 || (id.len() >= 3 && (known.contains(id) || id.contains(known)))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().take(3).map(|(_, known)| known).collect()
}

/// Levenshtein distance of two short names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replace = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Reads a board from the text of its file and checks it; `file` is named in errors, and its stem
/// must be the board's id. It may extend built-in boards.
pub fn from_toml(text: &str, file: &Path) -> Result<Board, BoardError> {
    from_toml_beside(text, file, &|_| Ok(None))
}

/// The same for a file that may extend those that `find` knows; they come before the built-in ones.
pub fn from_toml_beside(text: &str, file: &Path, find: Find<'_>) -> Result<Board, BoardError> {
    let read = match extends::whole(text, file, find)? {
        Some(table) => Board::deserialize(table),
        // From the text: then the error tells line and column.
        None => toml::from_str(text),
    };
    let board = read.map_err(|error| BoardError::Parse {
        file: file.display().to_string(),
        detail: error.to_string().trim_end().to_owned(),
    })?;
    check(&board, file).map_err(|problem| BoardError::Invalid {
        file: file.display().to_string(),
        problem,
    })?;
    Ok(board)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../../boards/x86_64-uefi.toml");

    const UBOOT: &str = include_str!("../../../boards/qemu-aarch64.toml");

    fn problem_in(good: &str, id: &str, from: &str, to: &str) -> String {
        assert!(good.contains(from), "{from} is not in the board file");
        let text = good.replacen(from, to, 1);
        from_toml(&text, Path::new(&format!("boards/{id}.toml")))
            .unwrap_err()
            .to_string()
    }

    fn problem(from: &str, to: &str) -> String {
        problem_in(GOOD, "x86_64-uefi", from, to)
    }

    #[test]
    fn every_file_in_boards_is_built_in_and_valid() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards");
        let mut stems: Vec<_> = std::fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "toml"))
            .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
            .collect();
        stems.sort();
        assert_eq!(list(), stems);
        for id in list() {
            assert_eq!(builtin(id).unwrap().id, id);
        }
    }

    #[test]
    fn a_misspelt_board_gets_a_suggestion() {
        let text = builtin("x86-64-uefi").unwrap_err().to_string();
        assert!(text.contains("did you mean x86_64-uefi?"), "{text}");
        let text = builtin("toaster").unwrap_err().to_string();
        assert!(text.contains("`builder boards` lists"), "{text}");
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let cases = [
            ("id = \"x86_64-uefi\"", "id = \"other\"", "file's name"),
            ("arch = \"amd64\"", "arch = \"x86\"", "none of amd64"),
            ("size = \"64MiB\"", "size = \"0MiB\"", "has size 0"),
            ("size = \"64MiB\"", "size = \"64MB\"", "unknown unit"),
            ("label = \"root\"", "label = \"firmware\"", "two partitions"),
            (
                "role = \"root\"",
                "role = \"data\"",
                "exactly one partition with role \"root\"",
            ),
            (
                "size = \"64MiB\"",
                "size = \"64MiB\"\ngrow = true",
                "only the last",
            ),
            ("\"console\", \"serial\"", "\"vt100\"", "boot.consoles"),
            ("console=tty0", "treeline.id=1", "set by the builder"),
            ("EFI/BOOT/BOOTX64.EFI", "../BOOTX64.EFI", "relative path"),
            ("EFI/BOOT/BOOTX64.EFI", "Treeline/State.env", "taken twice"),
            ("tier = ", "teir = ", "unknown field `teir`"),
            ("tier = ", "watchdog-max-seconds = 0\ntier = ", "no time"),
            (
                "[boot]\n",
                "[boot]\nwatchdog-start = [{ address = 4, value = 1 }]\n",
                "GRUB writes no registers",
            ),
        ];
        for (from, to, want) in cases {
            let text = problem(from, to);
            assert!(text.contains(want), "{to}: {text}");
            assert!(text.contains("boards/x86_64-uefi.toml"), "{to}: {text}");
        }
    }
    #[test]
    fn refuses_boot_loaders_and_environments_in_wrong_places() {
        let area = |text: &str| {
            format!("[[disk.raw]]\nname = \"spl\"\npackage = \"p\"\nfile = \"f\"\n{text}\n[[disk.partitions]]")
        };
        let first = "[[disk.partitions]]";
        let device_trees = |text: &str| format!("[device-trees]\n{text}\n[boot]");
        let firmware = |text: &str| format!("[[firmware]]\npath = \"x\"\n{text}\n[qemu]");
        let cases = [
            (
                first,
                area("offset = \"8KiB\"\nsize = \"1MiB\""),
                "raw area \"spl\" (bytes 8192 to 1056768) overlap",
            ),
            (
                first,
                area("offset = \"1MiB\"\nsize = \"3073KiB\""),
                "boot environment, first copy",
            ),
            (
                first,
                area("offset = \"4224KiB\"\nsize = \"512B\""),
                "raw area \"spl\" (bytes 4325376 to 4325888) overlap",
            ),
            (
                first,
                area("offset = \"15MiB\"\nsize = \"2MiB\""),
                "partition \"firmware\"",
            ),
            (
                first,
                area("offset = \"1000\"\nsize = \"512B\""),
                "multiples of 512 bytes",
            ),
            (
                first,
                area("offset = \"1MiB\"\nsize = \"16EiB\""),
                "unknown unit",
            ),
            (
                first,
                area("offset = \"1MiB\"\nsize = \"9000000TiB\""),
                "does not fit",
            ),
            (
                first,
                area("offset = \"1MiB\"\nsize = \"1MiB\"\nuser-file = \"u\""),
                "exactly one source",
            ),
            (
                first,
                area("offset = \"1MiB\"\nsize = \"1MiB\"\nmagic = { hex = \"0g\" }"),
                "hex digits",
            ),
            (
                first,
                area("offset = \"1MiB\"\nsize = \"1MiB\"\nblob = 1"),
                "unknown field `blob`",
            ),
            (
                "offset = \"4MiB\"",
                "offset = \"4100KiB\"".into(),
                "is not aligned",
            ),
            (
                "offset = \"4MiB\"",
                "offset = \"20MiB\"".into(),
                "partition \"firmware\"",
            ),
            (
                "offset = \"4MiB\"",
                "offset = \"12MiB\"".into(),
                "both copies",
            ),
            (
                "offset = \"4MiB\"",
                "offset = \"0B\"".into(),
                "protective MBR",
            ),
            (
                "size = \"16KiB\"",
                "size = \"1MiB\"".into(),
                "at most 512KiB",
            ),
            (
                "size = \"16KiB\"",
                "size = \"1000\"".into(),
                "multiple of 512",
            ),
            (
                "first-partition = \"16MiB\"",
                "first-partition = \"3000KiB\"".into(),
                "multiple of 1MiB",
            ),
            (
                "first-partition = \"16MiB\"",
                "first-partition = \"12MiB\"".into(),
                "boot environment, second copy",
            ),
            (
                "table = \"gpt\"",
                "table = \"mbr\"".into(),
                "nothing can grow",
            ),
            (
                "table = \"gpt\"",
                "table = \"gpt\"\ntable-entries = 57".into(),
                "multiple of 4",
            ),
            (
                "table = \"gpt\"",
                "table = \"gpt\"\ntable-entries-offset = \"1MiB\"".into(),
                "from 1KiB to 1008KiB",
            ),
            (
                first,
                area("offset = \"1KiB\"\nsize = \"60KiB\""),
                "primary partition table (bytes 512 to 17408)",
            ),
            (
                "backend = \"uboot\"",
                "backend = \"grub\"".into(),
                "is for the backend \"uboot\"",
            ),
            ("[boot]", device_trees("default = \"x\""), ".dtb"),
            (
                "[boot]",
                device_trees("default = \"x.dtb\"\nothers = [\"x.dtb\"]"),
                "named once",
            ),
            (
                "[boot]",
                device_trees("default = \"x.dtb\"\noverlays = [\"/x.dtbo\"]"),
                "relative path",
            ),
            (
                "[qemu]",
                firmware("device-tree = \"x.dtb\""),
                "not in device-trees",
            ),
            ("[qemu]", firmware("package = \"p\""), "exactly one source"),
            (
                "[qemu]",
                firmware("text = \"t\"\nfile = \"f\""),
                "exactly one source",
            ),
            ("[qemu]", firmware("user-file = \"../f\""), "relative path"),
            (
                "arch = ",
                "components = [\"Non Free\"]\narch = ".into(),
                "no component",
            ),
        ];
        for (from, to, want) in cases {
            let text = problem_in(UBOOT, "qemu-aarch64", from, &to);
            assert!(text.contains(want), "{to}: {text}");
        }
    }

    #[test]
    fn everything_a_boot_loader_is_made_of_is_listed() {
        let text = UBOOT.replace(
            "[qemu]",
            "[[firmware]]\npath = \"a\"\nuser-file = \"mine/a\"\n[[firmware]]\npath = \"b\"\npackage = \"p\"\nfile = \"f\"\n[qemu]",
        );
        let board = from_toml(&text, Path::new("boards/qemu-aarch64.toml")).unwrap();
        let packages: Vec<_> = board.firmware_packages().into_iter().collect();
        assert_eq!(packages, ["p", "u-boot-qemu"]);
        let files: Vec<_> = board.user_files().into_iter().collect();
        assert_eq!(files, ["mine/a"]);
    }
}
