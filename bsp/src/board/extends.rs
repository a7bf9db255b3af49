//! `extends = "other-board"`: a board file that says only what differs from another one.
//!
//! Tables merge, key by key; everything else (a value, a list, an array of tables) takes the place of what the
//! other file has. What a board *is* never comes from another file: `id`, `description` and `tier`.
//! `remove = ["qemu", "boot.load-addresses"]` takes keys of the other file away before that.

use std::path::{Path, PathBuf};

use toml::Table;

use super::load::{self, BoardError};

/// The key.
pub(super) const KEY: &str = "extends";
/// The key that takes away what the other file has.
const REMOVE: &str = "remove";
/// Keys that a file has for itself.
const OWN: [&str; 3] = ["id", "description", "tier"];

/// A board file: its name for messages, and its text.
pub type BoardFile = (PathBuf, String);

/// Finds the file of a board besides the built-in ones; `Err` is why it cannot be read.
pub type Find<'a> = &'a dyn Fn(&str) -> Result<Option<BoardFile>, String>;

/// The whole table of the board in `text`, with everything that it takes over; `None` if it extends nothing.
pub(super) fn whole(text: &str, file: &Path, find: Find<'_>) -> Result<Option<Table>, BoardError> {
    let table = parse(text, file)?;
    if !table.contains_key(KEY) {
        if table.contains_key(REMOVE) {
            return Err(BoardError::Invalid {
                file: file.display().to_string(),
                problem: format!("{REMOVE} is for a board that extends another one; without {KEY}, leave the keys out"),
            });
        }
        return Ok(None);
    }
    extend(table, file, find, &mut Vec::new()).map(Some)
}

fn extend(
    mut table: Table,
    file: &Path,
    find: Find<'_>,
    files: &mut Vec<PathBuf>,
) -> Result<Table, BoardError> {
    let invalid = |problem: String| BoardError::Invalid {
        file: file.display().to_string(),
        problem,
    };
    let Some(parent) = table.remove(KEY) else {
        return Ok(table);
    };
    let removed = table.remove(REMOVE);
    let Some(parent) = parent.as_str() else {
        return Err(invalid(format!(
            "{KEY} must be the id of a board, e.g. {KEY} = \"rpi4\""
        )));
    };
    files.push(file.to_path_buf());
    let (parent_file, text) = look_up(parent, file, find).map_err(invalid)?;
    if files.contains(&parent_file) {
        let chain: Vec<String> = files.iter().map(|file| stem(file)).collect();
        return Err(invalid(format!(
            "{KEY} = \"{parent}\" goes in a circle: {} → {parent}",
            chain.join(" → ")
        )));
    }
    let mut whole = extend(parse(&text, &parent_file)?, &parent_file, find, files)?;
    whole.retain(|key, _| !OWN.contains(&key));
    if let Some(removed) = removed {
        remove_keys(&mut whole, removed, parent).map_err(invalid)?;
    }
    merge(&mut whole, table);
    Ok(whole)
}

/// The file that `parent` means. One that extends its own id means the built-in board.
fn look_up(parent: &str, file: &Path, find: Find<'_>) -> Result<BoardFile, String> {
    if stem(file) != parent {
        if let Some(found) = find(parent)? {
            return Ok(found);
        }
    }
    let found = load::builtin_text(parent).map(|text| (load::builtin_file(parent), text.into()));
    found.ok_or_else(|| {
        format!(
            "{KEY} = \"{parent}\": there is no such board; {}",
            load::hint_for(parent)
        )
    })
}

fn stem(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

fn parse(text: &str, file: &Path) -> Result<Table, BoardError> {
    text.parse::<Table>().map_err(|error| BoardError::Parse {
        file: file.display().to_string(),
        detail: error.to_string().trim_end().to_owned(),
    })
}

/// Takes the keys of `list`, dotted where they are in tables, out of what `parent` has.
fn remove_keys(whole: &mut Table, list: toml::Value, parent: &str) -> Result<(), String> {
    let wrong = || {
        format!(
            "{REMOVE} must be a list of keys, e.g. {REMOVE} = [\"qemu\", \"boot.load-addresses\"]"
        )
    };
    let toml::Value::Array(list) = list else {
        return Err(wrong());
    };
    for path in list {
        let path = path.as_str().ok_or_else(wrong)?;
        let (tables, key) = match path.rsplit_once('.') {
            Some((tables, key)) => (Some(tables), key),
            None => (None, path),
        };
        let table = tables
            .into_iter()
            .flat_map(|tables| tables.split('.'))
            .try_fold(&mut *whole, |table, name| {
                table.get_mut(name)?.as_table_mut()
            });
        let known = match table {
            Some(table) => {
                if table.remove(key).is_some() {
                    continue;
                }
                table.keys().cloned().collect::<Vec<_>>().join(", ")
            }
            None => String::new(),
        };
        let hint = match (known.as_str(), tables) {
            ("", _) => "nor the table that it would be in; keys of tables within lists cannot be removed, the list is replaced as a whole".to_string(),
            (known, Some(tables)) => format!("[{tables}] has {known}"),
            (known, None) => format!("it has {known}"),
        };
        return Err(format!("{REMOVE}: {parent} has no key \"{path}\"; {hint}"));
    }
    Ok(())
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{builtin, from_toml, from_toml_beside, Board, Role, Tier};

    fn read(id: &str, text: &str) -> Result<Board, BoardError> {
        from_toml(text, Path::new(&format!("boards/{id}.toml")))
    }

    const MINE: &str = "id = \"mine\"\ndescription = \"Mine\"\nextends = \"rpi4\"\n";

    #[test]
    fn three_lines_are_a_board() {
        let mine = read("mine", MINE).unwrap();
        let theirs = builtin("rpi4").unwrap();
        assert_eq!(
            (mine.id.as_str(), mine.description.as_str()),
            ("mine", "Mine")
        );
        assert_eq!(mine.disk, theirs.disk);
        assert_eq!(mine.firmware, theirs.firmware);
        assert_eq!(mine.qemu, theirs.qemu);
    }

    #[test]
    fn tables_merge_and_everything_else_takes_its_place() {
        let text = format!(
            "{MINE}kernel-args = [\"quiet\"]\n[boot.environment]\nsize = \"32KiB\"\n[[disk.partitions]]\nlabel = \"firmware\"\nrole = \"firmware\"\nsize = \"64MiB\"\n[[disk.partitions]]\nlabel = \"root\"\nrole = \"root\"\nsize = \"6GiB\"\n[[disk.partitions]]\nlabel = \"data\"\nrole = \"data\"\nsize = \"1GiB\"\n"
        );
        let mine = read("mine", &text).unwrap();
        assert_eq!(mine.kernel_args, ["quiet"]);
        let environment = mine.boot.environment.unwrap();
        assert_eq!(environment.size.to_string(), "32KiB");
        assert_eq!(environment.redundant_offset.to_string(), "12MiB");
        assert_eq!(mine.disk.partitions.len(), 3);
        assert_eq!(mine.disk.partitions[1].role, Role::Root);
        assert_eq!(mine.disk.partitions[1].size.to_string(), "6GiB");
        assert!(!mine.disk.partitions[2].grow);
        assert_eq!(mine.disk.table, crate::board::Table::Hybrid);
    }

    #[test]
    fn what_a_board_is_is_not_taken_over() {
        let of_tested = MINE.replace("rpi4", "x86_64-uefi");
        assert_eq!(read("mine", &of_tested).unwrap().tier, Tier::Built);
        let error = read("mine", "id = \"mine\"\nextends = \"rpi4\"\n").unwrap_err();
        assert!(error.to_string().contains("description"), "{error}");
        let error = read("mine", "description = \"x\"\nextends = \"rpi4\"\n").unwrap_err();
        assert!(error.to_string().contains("`id`"), "{error}");
    }

    #[test]
    fn keys_can_be_taken_away() {
        let text = format!("{MINE}remove = [\"qemu\", \"boot.load-addresses\", \"components\"]\n");
        let mine = read("mine", &text).unwrap();
        assert_eq!(mine.qemu, None);
        assert_eq!(mine.boot.load_addresses, None);
        assert!(mine.components.is_empty());
        let theirs = builtin("rpi4").unwrap();
        assert!(theirs.qemu.is_some() && theirs.boot.load_addresses.is_some());
        assert_eq!(mine.boot.environment, theirs.boot.environment);
        // What is taken away can be put in its place: a table without the other one's keys.
        let text =
            format!("{MINE}remove = [\"device-trees\"]\n[device-trees]\ndefault = \"a.dtb\"\n");
        let text = text.replace("rpi4", "qemu-rpi4");
        let parent = "id = \"qemu-rpi4\"\ndescription = \"d\"\nextends = \"rpi4\"\nfirmware = []\n";
        let trees = beside(&[("mine", &text), ("qemu-rpi4", parent)], "mine")
            .unwrap()
            .device_trees
            .unwrap();
        assert_eq!(trees.default, "a.dtb");
        assert!(trees.others.is_empty() && !trees.detect);
    }

    #[test]
    fn a_key_that_is_not_there_cannot_be_taken_away() {
        let said = |list: &str| {
            let text = format!("{MINE}remove = {list}\n");
            read("mine", &text).unwrap_err().to_string()
        };
        let text = said("[\"qmeu\"]");
        assert!(text.contains("rpi4 has no key \"qmeu\"; it has "), "{text}");
        assert!(text.contains("qemu"), "{text}");
        let text = said("[\"boot.load-adresses\"]");
        assert!(
            text.contains("[boot] has ") && text.contains("load-addresses"),
            "{text}"
        );
        for path in ["nothing.here", "disk.partitions.label", "", "arch.x"] {
            let text = said(&format!("[\"{path}\"]"));
            assert!(text.contains("has no key"), "{path}: {text}");
        }
        assert!(said("[\"qemu\", \"qemu\"]").contains("has no key \"qemu\""));
        assert!(said("\"qemu\"").contains("must be a list"));
        assert!(said("[1]").contains("must be a list"));
        // What everybody needs is missed as usual.
        assert!(said("[\"disk.table\"]").contains("table"));
        let text = read("mine", "id = \"mine\"\nremove = [\"qemu\"]\n").unwrap_err();
        assert!(text.to_string().contains("without extends"), "{text}");
    }

    /// What stands beside the product, by id.
    fn beside(files: &[(&str, &str)], id: &str) -> Result<Board, BoardError> {
        let find = |wanted: &str| {
            let found = files.iter().find(|(id, _)| *id == wanted);
            Ok(found
                .map(|(id, text)| (PathBuf::from(format!("own/{id}.toml")), (*text).to_string())))
        };
        let (file, text) = find(id).unwrap().unwrap();
        from_toml_beside(&text, &file, &find)
    }

    #[test]
    fn own_boards_extend_each_other_and_their_namesakes() {
        let of_mine =
            "id = \"wide\"\ndescription = \"d\"\nextends = \"mine\"\npackages = [\"p\"]\n";
        let files = [("mine", MINE), ("wide", of_mine)];
        let wide = beside(&files, "wide").unwrap();
        assert_eq!(wide.packages, ["p"]);
        assert_eq!(wide.arch, "arm64");
        let namesake =
            "id = \"rpi4\"\ndescription = \"d\"\nextends = \"rpi4\"\npackages = [\"p\"]\n";
        let board = beside(&[("rpi4", namesake)], "rpi4").unwrap();
        assert_eq!(board.packages, ["p"]);
        // Another one that extends it gets the product's own.
        let files = [("rpi4", namesake), ("mine", MINE)];
        assert_eq!(beside(&files, "mine").unwrap().packages, ["p"]);
    }

    #[test]
    fn circles_and_unknown_parents_are_errors_that_say_where() {
        let to = |id: &str, parent: &str| {
            format!("id = \"{id}\"\ndescription = \"d\"\nextends = \"{parent}\"\n")
        };
        let (a, b) = (to("aa", "bb"), to("bb", "aa"));
        let text = beside(&[("aa", &a), ("bb", &b)], "aa")
            .unwrap_err()
            .to_string();
        assert!(text.contains("own/bb.toml"), "{text}");
        assert!(text.contains("in a circle: aa → bb → aa"), "{text}");
        let text = read("mine", &to("mine", "rpi44")).unwrap_err().to_string();
        assert!(text.contains("boards/mine.toml"), "{text}");
        assert!(text.contains("did you mean rpi4"), "{text}");
        // Itself, and there is no built-in one.
        let text = read("mine", &to("mine", "mine")).unwrap_err().to_string();
        assert!(text.contains("no such board"), "{text}");
        let text = read("mine", "extends = 1\n").unwrap_err().to_string();
        assert!(text.contains("must be the id"), "{text}");
        let broken = beside(&[("aa", &a), ("bb", "id = ")], "aa").unwrap_err();
        assert!(broken.to_string().contains("own/bb.toml"), "{broken}");
    }
}
