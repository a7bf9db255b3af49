//! The boards: those compiled in from `boards/`, and a product's own files.

use std::fs;
use std::path::Path;

use anyhow::{bail, Context, Result};
use bsp::board::{self, Board, BoardFile};

use super::board_schema;
use crate::manifest::{nearest, read, shown};

/// The board `id` as seen from the product in `dir`.
pub fn find(dir: &Path, id: &str) -> Result<Board> {
    if let Some((file, text)) = own(dir, id)? {
        return read(dir, &file, &text);
    }
    if board::list().contains(&id) {
        return Ok(board::builtin(id)?);
    }
    let known = ids(dir)?;
    let hint = match nearest(id, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "`builder boards` lists those that there are".to_string(),
    };
    bail!(
        "looking for board `{id}`: no such board; {hint} (your own boards stand in boards/<id>.toml)"
    )
}

/// The product's own file of the board `id`.
fn own(dir: &Path, id: &str) -> Result<Option<BoardFile>> {
    let file = dir.join("boards").join(format!("{id}.toml"));
    // An id is never a path: `../x` must not reach another file.
    if !is_id(id) || !file.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    Ok(Some((file, text)))
}

/// First with places and suggestions, then for what it means.
fn read(dir: &Path, file: &Path, text: &str) -> Result<Board> {
    let extends = text
        .parse::<toml::Table>()
        .is_ok_and(|table| table.contains_key("extends"));
    let schema = if extends {
        board_schema::extending()
    } else {
        board_schema::whole()
    };
    read::structure(&shown(file), text, &schema)?;
    let find = |id: &str| own(dir, id).map_err(|error| format!("{error:#}"));
    Ok(board::from_toml_beside(text, file, &find)?)
}

/// All boards as seen from a product's directory, sorted by id.
pub fn all(dir: Option<&Path>) -> Result<Vec<Board>> {
    let dir = dir.unwrap_or(Path::new("/nonexistent"));
    ids(dir)?.iter().map(|id| find(dir, id)).collect()
}

fn ids(dir: &Path) -> Result<Vec<String>> {
    let mut ids: Vec<String> = board::list().into_iter().map(str::to_string).collect();
    let own = dir.join("boards");
    if own.is_dir() {
        let entries = fs::read_dir(&own)
            .with_context(|| format!("listing the boards in {}", own.display()))?;
        for entry in entries {
            let name = entry
                .with_context(|| format!("listing the boards in {}", own.display()))?
                .file_name();
            if let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".toml")) {
                ids.push(id.to_string());
            }
        }
    }
    ids.sort();
    ids.dedup();
    Ok(ids)
}

fn is_id(id: &str) -> bool {
    !id.is_empty()
        && id
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_in_boards_is_built_in_and_readable() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards");
        let mut files: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter_map(|name| name.strip_suffix(".toml").map(str::to_string))
            .collect();
        files.sort();
        let boards = all(None).unwrap();
        let ids: Vec<String> = boards.iter().map(|board| board.id.clone()).collect();
        assert_eq!(ids, files);
    }

    #[test]
    fn an_unknown_board_names_the_nearest() {
        let dir = tempfile::tempdir().unwrap();
        let error = find(dir.path(), "x86-64-uefi").unwrap_err().to_string();
        assert!(error.contains("did you mean `x86_64-uefi`?"), "{error}");
        let error = find(dir.path(), "../../etc/passwd")
            .unwrap_err()
            .to_string();
        assert!(error.contains("`builder boards` lists"), "{error}");
    }

    #[test]
    fn a_products_own_board_wins_and_must_carry_its_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("boards")).unwrap();
        let built_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../boards/x86_64-uefi.toml");
        let own = fs::read_to_string(built_in)
            .unwrap()
            .replace("tier = \"tested\"", "tier = \"built\"");
        fs::write(dir.path().join("boards/x86_64-uefi.toml"), &own).unwrap();
        fs::write(dir.path().join("boards/other.toml"), &own).unwrap();
        let board = find(dir.path(), "x86_64-uefi").unwrap();
        assert_eq!(board.tier, bsp::board::Tier::Built);
        let error = find(dir.path(), "other").unwrap_err().to_string();
        assert!(error.contains("id is \"x86_64-uefi\""), "{error}");
    }

    #[test]
    fn a_products_board_extends_another_one_in_four_lines() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("boards")).unwrap();
        let write = |id: &str, text: &str| {
            fs::write(dir.path().join(format!("boards/{id}.toml")), text).unwrap();
        };
        write(
            "carrier",
            "id = \"carrier\"\ndescription = \"Ours\"\nextends = \"rpi4\"\n",
        );
        write(
            "wide",
            "id = \"wide\"\ndescription = \"Ours\"\nextends = \"carrier\"\nkernel-args = [\"quiet\"]\n",
        );
        let board = find(dir.path(), "wide").unwrap();
        assert_eq!((board.arch.as_str(), board.kernel_args.len()), ("arm64", 1));
        write(
            "bare",
            "id = \"bare\"\ndescription = \"Ours\"\nextends = \"carrier\"\nremove = [\"qemu\"]\n",
        );
        assert!(find(dir.path(), "bare").unwrap().qemu.is_none());
        // What is wrong in it is shown in its place.
        write(
            "wide",
            "id = \"wide\"\ndescription = \"Ours\"\nextends = \"carrier\"\nkernel-argz = []\n",
        );
        let error = find(dir.path(), "wide").unwrap_err().to_string();
        assert!(
            error.contains("wide.toml:4:1: unknown key `kernel-argz`"),
            "{error}"
        );
        assert!(error.contains("did you mean `kernel-args`?"), "{error}");
    }
}
