//! A product's directory: where its files stand, and the description merged for one board.
//!
//! ```text
//! product.toml  product.lock  overlay/  boards/   what the maker writes (boards/ is optional)
//! keys/                                            secrets, never in version control
//! out/                                             results; may be deleted at any time
//! ```

pub mod board_schema;
pub mod board_sheet;
pub mod boards;
pub mod ceremony;
pub mod commit_key;
mod disk_drawing;
pub mod incoming;
mod merge;
pub mod scaffold;
pub mod secrets;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use bsp::board::Board;
use serde::Serialize;

use crate::manifest::{self, Overlay, Product};

/// File name of a product description.
pub const MANIFEST: &str = "product.toml";

/// A product's directory and its description.
#[derive(Debug, Clone)]
pub struct Project {
    /// The directory that holds `product.toml`.
    pub dir: PathBuf,
    /// The description, read and checked.
    pub product: Product,
}

/// A product description with everything one board adds folded in: what the stages work from.
///
/// The directory is not part of the serialised form, so a hash of it is the same in every directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Merged {
    /// The product; its `board` sections are folded in and emptied.
    pub product: Product,
    /// The board, with the product's partition sizes.
    pub board: Board,
    /// The directory that relative paths start from.
    #[serde(skip)]
    pub dir: PathBuf,
    /// The overlays in the order they are laid: the product's, then the board's.
    pub overlays: Vec<Overlay>,
}

/// The nearest directory with a `product.toml`: `dir` or one above it.
pub fn find(dir: &Path) -> Option<PathBuf> {
    let start = fs::canonicalize(dir).ok()?;
    let found = start
        .ancestors()
        .find(|dir| dir.join(MANIFEST).is_file())
        .map(Path::to_path_buf);
    found
}

impl Project {
    /// Finds `product.toml` in `dir` or the nearest directory above it and reads it.
    pub fn load(dir: &Path) -> Result<Self> {
        let found = find(dir).with_context(|| {
            format!(
                "looking for {MANIFEST} in {} and above: there is none; \
                 try `builder new NAME`, or name the product's directory with `-C DIR`",
                fs::canonicalize(dir).unwrap_or(dir.to_path_buf()).display()
            )
        })?;
        let product = manifest::load(&found.join(MANIFEST))?;
        Ok(Self {
            dir: found,
            product,
        })
    }

    /// The board `id`: `boards/<id>.toml` beside `product.toml` if it is there, else the built-in one.
    pub fn board(&self, id: &str) -> Result<Board> {
        boards::find(&self.dir, id)
    }

    /// The board to work on when none is named: the only one with a section in `product.toml`, else the
    /// only one there is.
    pub fn only_board(&self) -> Result<String> {
        let named: Vec<&String> = self.product.board.keys().collect();
        let all = boards::all(Some(&self.dir))?;
        match (named.as_slice(), all.as_slice()) {
            ([one], _) => Ok((*one).clone()),
            ([], [one]) => Ok(one.id.clone()),
            _ => {
                anyhow::bail!(
                    "choosing a board: name one with `--board ID`; `builder boards` lists them"
                )
            }
        }
    }

    /// `named`, or the only board.
    pub fn board_or_only(&self, named: Option<&str>) -> Result<String> {
        named.map_or_else(|| self.only_board(), |id| Ok(id.to_string()))
    }

    /// The description for one board.
    pub fn merged(&self, board: &Board) -> Merged {
        merge::merge(&self.product, board, &self.dir)
    }

    /// Where the keys stand.
    pub fn keys_dir(&self) -> PathBuf {
        self.dir.join("keys")
    }

    /// Where results go.
    pub fn out_dir(&self) -> PathBuf {
        self.dir.join("out")
    }

    /// The archive-mode OSTree repository of builds and releases.
    pub fn repo_dir(&self) -> PathBuf {
        self.out_dir().join("repo")
    }

    /// The published server directory.
    pub fn updates_dir(&self) -> PathBuf {
        self.out_dir().join("updates")
    }

    /// The lock file.
    pub fn lock_path(&self) -> PathBuf {
        self.dir.join("product.lock")
    }
}

impl Merged {
    /// The OSTree ref of this product on this board.
    pub fn reference(&self) -> String {
        format!("{}/{}", self.product.name, self.board.id)
    }

    /// File name of results without extension: `<name>-<version>-<board>`.
    pub fn stem(&self) -> String {
        format!(
            "{}-{}-{}",
            self.product.name, self.product.version, self.board.id
        )
    }
}
