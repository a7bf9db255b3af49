//! Shared libraries that a program needs (ELF's `DT_NEEDED`, followed through the tree).

use std::collections::BTreeMap;

use anyhow::{bail, Context, Result};
use object::elf::{FileHeader32, FileHeader64, DT_NEEDED, DT_RPATH, DT_RUNPATH};
use object::read::elf::{ElfFile, FileHeader, ProgramHeader};
use object::{Endianness, FileKind};

use super::super::{join, parent, Tree};

/// A program or library as the dynamic linker sees it.
#[derive(Debug, PartialEq, Eq)]
struct Linked {
    /// ELF class and machine: only libraries of the same kind can serve.
    kind: (bool, u16),
    needed: Vec<String>,
    /// Directories it names itself (`DT_RUNPATH`), `$ORIGIN` not yet replaced.
    directories: Vec<String>,
    interpreter: Option<String>,
}

/// Collects programs and the libraries they need from a tree.
#[derive(Debug)]
pub(super) struct Libraries<'a> {
    tree: &'a Tree,
    directories: Vec<String>,
    /// What was collected: path and content.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl<'a> Libraries<'a> {
    /// Nothing collected yet. Libraries are looked for where Debian's dynamic linker does without a
    /// configuration: the multiarch directories, then the plain ones.
    pub fn of(tree: &'a Tree) -> Self {
        let mut directories: Vec<String> = tree
            .children("usr/lib")
            .filter(|(name, node)| node.is_dir() && name.contains("-linux-gnu"))
            .map(|(name, _)| join("usr/lib", name))
            .collect();
        directories.extend(["usr/lib64", "usr/lib"].map(str::to_string));
        Self {
            tree,
            directories,
            files: BTreeMap::new(),
        }
    }

    /// Adds the program at `path`, its dynamic linker and all libraries.
    pub fn add_program(&mut self, path: &str) -> Result<()> {
        let program = self.add(path)?;
        if let Some(interpreter) = &program.interpreter {
            self.add(interpreter.trim_start_matches('/'))
                .context("its dynamic linker")?;
        }
        let mut open = vec![(path.to_string(), program)];
        while let Some((user, linked)) = open.pop() {
            for name in &linked.needed {
                let found = self.find(name, &user, &linked)?;
                if !self.files.contains_key(&found) {
                    let library = self.add(&found)?;
                    open.push((found, library));
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, path: &str) -> Result<Linked> {
        let bytes = self.tree.read(path)?;
        let linked = parse(&bytes).with_context(|| format!("reading /{path} of the tree"))?;
        self.files.insert(path.to_string(), bytes);
        Ok(linked)
    }

    fn find(&self, name: &str, user: &str, linked: &Linked) -> Result<String> {
        let own = linked.directories.iter().map(|directory| {
            let origin = format!("/{}", parent(user));
            directory
                .replace("$ORIGIN", &origin)
                .replace("${ORIGIN}", &origin)
        });
        for directory in own.chain(self.directories.iter().cloned()) {
            let path = join(directory.trim_matches('/'), name);
            let Some(node) = self.tree.follow(&path) else {
                continue;
            };
            if node.is_file()
                && parse(&self.tree.read(&path)?).is_ok_and(|found| found.kind == linked.kind)
            {
                return Ok(path);
            }
        }
        bail!("/{user} needs the library {name}, which is not in the tree")
    }
}

fn parse(bytes: &[u8]) -> Result<Linked> {
    match FileKind::parse(bytes)? {
        FileKind::Elf32 => parse_as::<FileHeader32<Endianness>>(bytes, false),
        FileKind::Elf64 => parse_as::<FileHeader64<Endianness>>(bytes, true),
        _ => bail!("it is not an ELF file"),
    }
}

fn parse_as<H: FileHeader>(bytes: &[u8], wide: bool) -> Result<Linked> {
    let file = ElfFile::<H>::parse(bytes)?;
    let endian = file.endian();
    let mut linked = Linked {
        kind: (wide, file.elf_header().e_machine(endian).0),
        needed: Vec::new(),
        directories: Vec::new(),
        interpreter: None,
    };
    let dynamic = file.elf_dynamic_table()?;
    for entry in &dynamic {
        match entry.tag {
            DT_NEEDED => linked.needed.push(text(dynamic.string(entry)?)?),
            DT_RPATH | DT_RUNPATH => {
                let list = text(dynamic.string(entry)?)?;
                linked
                    .directories
                    .extend(list.split(':').map(str::to_string));
            }
            _ => {}
        }
    }
    for header in file.elf_program_headers() {
        if let Some(path) = header.interpreter(endian, bytes)? {
            linked.interpreter = Some(text(path)?);
        }
    }
    Ok(linked)
}

fn text(bytes: &[u8]) -> Result<String> {
    let bytes = bytes.strip_suffix(&[0]).unwrap_or(bytes);
    Ok(std::str::from_utf8(bytes)
        .context("a name in it is not UTF-8")?
        .to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use std::path::Path;

    #[test]
    fn a_program_of_the_host_is_read_as_readelf_reads_it() {
        let path = Path::new("/usr/bin/ls");
        let linked = parse(&std::fs::read(path).unwrap()).unwrap();
        let shown = Command::new("readelf", "binutils")
            .args(["-d", "-l", "-W"])
            .arg(path)
            .text()
            .unwrap();
        let bracketed = |line: &str| {
            let (_, rest) = line.split_once('[').unwrap();
            rest.split_once(']').unwrap().0.to_string()
        };
        let needed: Vec<String> = shown
            .lines()
            .filter(|line| line.contains("(NEEDED)"))
            .map(bracketed)
            .collect();
        assert!(!needed.is_empty(), "{shown}");
        assert_eq!(linked.needed, needed);
        let interpreter = linked.interpreter.unwrap();
        assert!(
            shown.contains(&format!("interpreter: {interpreter}]")),
            "{shown}"
        );
    }

    #[test]
    fn what_is_not_elf_is_said_to_be_so() {
        assert!(parse(b"#!/bin/sh\n").is_err());
        assert!(parse(b"").is_err());
        assert!(parse(b"\x7fELF\x02\x01\x01 cut").is_err());
    }
}
