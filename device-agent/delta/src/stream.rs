//! The order of things in a delta, written once for both directions.

use std::collections::{HashMap, HashSet};

use crate::code::BitCoder;
use crate::content::{Content, Models};
use crate::elf::Elf;
use crate::layout::Layout;
use crate::object::{root_of, Checksum, Directory, Kind};
use crate::packed::Packed;
use crate::plan::Plan;
use crate::sites::Sites;
use crate::source::{Buffered, Scratch, Source};
use crate::tape::Tape;
use crate::zstd::decisions::Decisions;
use crate::Error;

/// The first bytes of a delta; the last is the version.
pub(crate) const MAGIC: [u8; 8] = [b'T', b'L', b'D', b'E', b'L', b'T', b'A', VERSION];
/// The version of the format.
pub const VERSION: u8 = 5;
/// Bytes of a commit or directory at most.
pub(crate) const METADATA_LIMIT: u64 = 8 << 20;
/// Bytes of a file's header (owner, mode, link, attributes) at most.
pub(crate) const HEADER_LIMIT: u64 = 1 << 18;
/// Directories below each other.
const DEPTH: usize = 256;

/// Kinds of numbers.
pub(crate) const LENGTH: u32 = 1;
pub(crate) const SOURCE: u32 = 2;
pub(crate) const MODE: u32 = 3;
pub(crate) const HEADER: u32 = 4;

/// How a blob is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Bytes that no model helps: compressed data.
    Stored,
    /// By steps.
    Steps,
    /// By steps, with the addresses of an ELF file predicted.
    Elf,
    /// A file with a compressed part: that part's content, and how it was compressed.
    #[cfg_attr(
        not(feature = "make"),
        expect(dead_code, reason = "a reader has a way of its own")
    )]
    Packed,
}

/// What an encoder knows of a blob.
pub(crate) struct Given<'a> {
    pub bytes: &'a [u8],
    pub mode: Mode,
    pub plan: &'a Plan,
    /// With [`Mode::Packed`]: the rest of what is known.
    pub packed: Option<&'a Packed>,
}

/// Makes room for content that is needed for a while.
pub(crate) type Room<'a> = &'a dyn Fn() -> std::io::Result<Box<dyn Scratch>>;

/// Reads a directory object, given its path.
type Load<'a> = dyn FnMut(Kind, &Checksum, &str) -> Result<Vec<u8>, Error> + 'a;

/// The coder and its statistics.
pub(crate) struct Stream<C> {
    pub(crate) coder: C,
    pub(crate) models: Models,
    /// Statistics of compressed parts; made when the first comes.
    pub(crate) decisions: Option<Decisions>,
    /// Bytes of memory held now for the file that is made, and at most so far; without the statistics.
    pub(crate) held: u64,
    pub(crate) most: u64,
}

impl<C: BitCoder> Stream<C> {
    pub(crate) fn new(coder: C) -> Self {
        Self {
            coder,
            models: Models::new(),
            decisions: None,
            held: 0,
            most: 0,
        }
    }

    /// More bytes of memory are in use for a while.
    pub(crate) fn holds(&mut self, bytes: u64) {
        self.most = self.most.max(self.held.saturating_add(bytes));
    }

    /// Bytes of memory of the statistics.
    pub(crate) fn memory(&self) -> u64 {
        let decisions = self.decisions.as_ref().map_or(0, Decisions::memory);
        self.models.memory() + decisions
    }

    pub(crate) fn number(&mut self, kind: u32, context: u32, value: u64) -> Result<u64, Error> {
        let value = self
            .models
            .numbers
            .code(&mut self.coder, kind, context, value);
        self.coder.check().map_err(Error::Delta)?;
        Ok(value)
    }

    pub(crate) fn signed(&mut self, kind: u32, value: i64) -> Result<i64, Error> {
        let value = self.models.numbers.signed(&mut self.coder, kind, 0, value);
        self.coder.check().map_err(Error::Delta)?;
        Ok(value)
    }

    /// Codes a blob whose length is known; returns how it is built.
    pub(crate) fn blob(
        &mut self,
        length: u64,
        old: &dyn Source,
        given: Option<&Given<'_>>,
        room: Room<'_>,
        out: &mut dyn FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<Plan, Error> {
        let mode = given.map_or(0, |g| g.mode as u64);
        let mode = match self.number(MODE, u32::from(old.is_empty()), mode)? {
            0 => Mode::Stored,
            1 => Mode::Steps,
            2 => Mode::Elf,
            3 => {
                self.packed(length, old, given.and_then(|g| g.packed), room, out)?;
                return Ok(Plan::default());
            }
            _ => return Err(Error::Damaged("a file is coded in an unknown way")),
        };
        let mut tape = Tape::new(given.map(|g| g.bytes), out);
        if mode == Mode::Stored {
            tape.stored(&mut self.coder, length)?;
            return Ok(Plan::default());
        }
        let tables = Buffered::new(old);
        let old: &dyn Source = &tables;
        let elf = match mode {
            Mode::Elf => Some(Elf::parse(old).ok_or(Error::Damaged("an old file is no ELF file"))?),
            _ => None,
        };
        let empty = Plan {
            length,
            ..Plan::default()
        };
        let plan = given.map_or(&empty, |g| g.plan);
        let plan = plan.code(
            &mut self.coder,
            &mut self.models.numbers,
            elf.as_ref(),
            old.len(),
        )?;
        let layout = elf
            .as_ref()
            .map(|elf| Layout::new(elf, plan.sections.clone(), plan.pairs.clone(), &plan.steps));
        let sites = elf.map(|elf| Sites::new(old, elf));
        let mut content = Content::new(&mut self.coder, &mut self.models, old, sites, layout);
        content.code(&plan, &mut tape)?;
        let memory = content.memory() + plan.memory();
        self.holds(memory);
        Ok(plan)
    }
}

/// Objects of a commit, in the order in which its tree is walked: directories before what is in them,
/// everything when it is met first.
#[derive(Debug, Default)]
pub(crate) struct Closure {
    pub(crate) files: Vec<Checksum>,
    pub(crate) trees: Vec<Checksum>,
    pub(crate) metas: Vec<Checksum>,
    /// By directory of this path: its place in `trees`.
    pub(crate) tree_at: HashMap<String, usize>,
    /// The paths of `files`, where asked for.
    pub(crate) paths: Vec<String>,
    seen: HashSet<(Kind2, Checksum)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind2 {
    File,
    Tree,
    Meta,
}

impl Closure {
    /// Bytes of memory, roughly.
    pub(crate) fn memory(&self) -> u64 {
        let objects = self.files.len() + self.trees.len() + self.metas.len();
        // In a list and in a set, of which a part is free; a directory's path, too.
        (objects * 4 * size_of::<Checksum>() + self.tree_at.len() * 128) as u64
    }

    pub(crate) fn has_tree(&self, name: &Checksum) -> bool {
        self.seen.contains(&(Kind2::Tree, *name))
    }

    pub(crate) fn has_meta(&self, name: &Checksum) -> bool {
        self.seen.contains(&(Kind2::Meta, *name))
    }

    pub(crate) fn has_file(&self, name: &Checksum) -> bool {
        self.seen.contains(&(Kind2::File, *name))
    }

    /// Walks a commit; `load` reads directory objects (with their path), and may make them.
    pub(crate) fn walk(commit: &[u8], paths: bool, load: &mut Load<'_>) -> Result<Self, Error> {
        let (tree, meta) = root_of(commit)?;
        let mut closure = Self::default();
        closure.meta(&meta, load)?;
        closure.tree(&tree, "", 0, paths, load)?;
        Ok(closure)
    }

    fn meta(&mut self, name: &Checksum, load: &mut Load<'_>) -> Result<(), Error> {
        if self.seen.insert((Kind2::Meta, *name)) {
            load(Kind::DirMeta, name, "")?;
            self.metas.push(*name);
        }
        Ok(())
    }

    fn tree(
        &mut self,
        name: &Checksum,
        path: &str,
        depth: usize,
        paths: bool,
        load: &mut Load<'_>,
    ) -> Result<(), Error> {
        if !self.seen.insert((Kind2::Tree, *name)) {
            return Ok(());
        }
        if depth > DEPTH {
            return Err(Error::Damaged("directories lie too deep"));
        }
        let directory = Directory::parse(&load(Kind::DirTree, name, path)?)?;
        self.tree_at.insert(path.to_owned(), self.trees.len());
        self.trees.push(*name);
        for (file, checksum) in &directory.files {
            if self.seen.insert((Kind2::File, *checksum)) {
                self.files.push(*checksum);
                if paths {
                    self.paths.push(format!("{path}/{file}"));
                }
            }
        }
        for (child, tree, meta) in &directory.directories {
            self.meta(meta, load)?;
            self.tree(tree, &format!("{path}/{child}"), depth + 1, paths, load)?;
        }
        Ok(())
    }
}
