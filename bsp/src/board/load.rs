//! Reading and checking board files.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Board, Disk, Role};

/// The boards that come with the program, by id.
const BUILTIN: &[(&str, &str)] = &[(
    "x86_64-uefi",
    include_str!("../../../boards/x86_64-uefi.toml"),
)];

/// Debian architectures that a board may have.
const ARCHITECTURES: &[&str] = &["amd64", "arm64", "armhf", "ppc64el"];

/// GRUB terminals that the boot script knows how to set up.
const CONSOLES: &[&str] = &["console", "serial"];

/// Kernel arguments that the builder and libostree set themselves.
const RESERVED_KARGS: &[&str] = &[crate::device::ID_KARG, "ostree", "root"];

/// A board that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// No built-in board has this id.
    #[error("there is no board \"{id}\"; {}", hint(near, known))]
    Unknown {
        /// The id that was asked for.
        id: String,
        /// Ids that look like it.
        near: Vec<&'static str>,
        /// Every built-in id.
        known: Vec<&'static str>,
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

fn hint(near: &[&str], known: &[&str]) -> String {
    if near.is_empty() {
        format!("the built-in boards are: {}", known.join(", "))
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
    match BUILTIN.iter().find(|(known, _)| *known == id) {
        Some((id, text)) => from_toml(text, Path::new(&format!("boards/{id}.toml"))),
        None => Err(BoardError::Unknown {
            id: id.into(),
            near: near(id),
            known: list(),
        }),
    }
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
/// must be the board's id.
pub fn from_toml(text: &str, file: &Path) -> Result<Board, BoardError> {
    let board: Board = toml::from_str(text).map_err(|error| BoardError::Parse {
        file: file.display().to_string(),
        detail: error.to_string().trim_end().to_owned(),
    })?;
    check(&board, file).map_err(|problem| BoardError::Invalid {
        file: file.display().to_string(),
        problem,
    })?;
    Ok(board)
}

/// `Err` is the problem in words.
type Checked = Result<(), String>;

fn check(board: &Board, file: &Path) -> Checked {
    let stem = file.file_stem().and_then(|stem| stem.to_str());
    if stem != Some(board.id.as_str()) {
        return Err(format!(
            "id is \"{}\"; it must be the file's name without .toml",
            board.id
        ));
    }
    if !is_id(&board.id) {
        return Err(format!(
            "id \"{}\" may hold lower-case letters, digits, _ and - only, a letter first",
            board.id
        ));
    }
    if !ARCHITECTURES.contains(&board.arch.as_str()) {
        return Err(format!(
            "arch \"{}\" is none of {}",
            board.arch,
            ARCHITECTURES.join(", ")
        ));
    }
    if board.maintainers.is_empty() {
        return Err("maintainers is empty; somebody must answer for a board".into());
    }
    check_kargs(&board.kernel_args)?;
    for console in &board.boot.consoles {
        if !CONSOLES.contains(&console.as_str()) {
            return Err(format!(
                "boot.consoles: \"{console}\" is none of {}",
                CONSOLES.join(", ")
            ));
        }
    }
    check_disk(&board.disk)?;
    check_firmware(board)?;
    check_qemu(board)
}

fn is_id(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'))
}

fn check_kargs(args: &[String]) -> Checked {
    for arg in args {
        let key = arg.split('=').next().unwrap_or_default();
        if RESERVED_KARGS.contains(&key) {
            return Err(format!(
                "kernel-args: \"{arg}\" is set by the builder; leave it out"
            ));
        }
        if arg.trim() != arg || arg.is_empty() || arg.contains(['\n', '\'']) {
            return Err(format!(
                "kernel-args: \"{arg}\" is not one kernel argument; give each its own string, without single quotes"
            ));
        }
    }
    Ok(())
}

fn check_disk(disk: &Disk) -> Checked {
    let mut labels = BTreeSet::new();
    for partition in &disk.partitions {
        let label = &partition.label;
        // 11 is the length of a FAT volume label, the shortest of the places where a label stands.
        if !is_id(label) || label.len() > 11 {
            return Err(format!(
                "partition label \"{label}\" must be 1 to 11 lower-case letters, digits, _ or -, a letter first"
            ));
        }
        if !labels.insert(label) {
            return Err(format!("two partitions have the label \"{label}\""));
        }
        if partition.size.0 == 0 {
            return Err(format!("partition \"{label}\" has size 0"));
        }
    }
    for role in [Role::Firmware, Role::Root, Role::Data] {
        let count = disk.partitions.iter().filter(|p| p.role == role).count();
        if count != 1 {
            return Err(format!(
                "there must be exactly one partition with role \"{}\"; there are {count}",
                role.as_str()
            ));
        }
    }
    let last = disk.partitions.len().saturating_sub(1);
    match disk
        .partitions
        .iter()
        .enumerate()
        .find(|(index, p)| p.grow && *index != last)
    {
        Some((_, partition)) => Err(format!(
            "partition \"{}\" has grow = true, but only the last one on the disk can grow",
            partition.label
        )),
        None => Ok(()),
    }
}

fn check_firmware(board: &Board) -> Checked {
    // FAT does not tell upper from lower case.
    let mut taken: BTreeSet<String> = crate::boot::STATE_FILES
        .iter()
        .chain([&board.boot.config.as_str()])
        .map(|path| path.to_ascii_lowercase())
        .collect();
    check_path("boot.config", &board.boot.config)?;
    for file in &board.firmware {
        check_path("firmware path", &file.path)?;
        check_path("firmware file", &file.file)?;
        if !taken.insert(file.path.to_ascii_lowercase()) {
            return Err(format!(
                "firmware path \"{}\" is taken twice (the builder itself writes the boot configuration and the boot state)",
                file.path
            ));
        }
    }
    Ok(())
}

fn check_path(what: &str, path: &str) -> Checked {
    let sound = !path.is_empty()
        && path
            .split('/')
            .all(|part| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\n']));
    if sound {
        Ok(())
    } else {
        Err(format!(
            "{what} \"{path}\" must be a relative path without \"..\", e.g. \"EFI/BOOT/BOOTX64.EFI\""
        ))
    }
}

fn check_qemu(board: &Board) -> Checked {
    let Some(qemu) = &board.qemu else {
        return Ok(());
    };
    if qemu.memory_mib == 0 {
        return Err("qemu.memory-mib is 0".into());
    }
    if qemu.pflash.iter().any(Vec::is_empty) {
        return Err("qemu.pflash holds an empty list of candidates".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = include_str!("../../../boards/x86_64-uefi.toml");

    fn problem(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from} is not in the board file");
        let text = GOOD.replacen(from, to, 1);
        from_toml(&text, Path::new("boards/x86_64-uefi.toml"))
            .unwrap_err()
            .to_string()
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
        assert!(text.contains("built-in boards are: x86_64-uefi"), "{text}");
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
        ];
        for (from, to, want) in cases {
            let text = problem(from, to);
            assert!(text.contains(want), "{to}: {text}");
            assert!(text.contains("boards/x86_64-uefi.toml"), "{to}: {text}");
        }
    }
}
