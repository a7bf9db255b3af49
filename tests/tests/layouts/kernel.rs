//! A board held against its kernel package: the device trees and modules that it names are there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use bsp::board::Board;

use super::storage::{self, Modules};
use super::Packages;

/// The modules of each kernel package, by its name, found out once.
pub type Known = Mutex<BTreeMap<String, Arc<OnceLock<Arc<Modules>>>>>;

pub fn judge(board: &Board, packages: &Packages<'_>) {
    // The kernel itself, not the package that always depends on the newest one.
    let versioned = |name: &str| {
        let rest = name.strip_prefix("linux-image-");
        rest.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let (name, dir) = packages.unpacked(versioned).unwrap();
    let kinds = packages
        .known
        .lock()
        .unwrap()
        .entry(name.clone())
        .or_default()
        .clone();
    let kinds = kinds.get_or_init(|| {
        let out = tempfile::tempdir().unwrap();
        Arc::new(Modules::of(&dir, out.path()))
    });
    for file in board.device_trees.iter().flat_map(|trees| trees.files()) {
        let path = dir.join("usr/lib").join(&name).join(file);
        let content = fs::read(&path);
        let content = content.unwrap_or_else(|e| panic!("{}: {name}: {file}: {e}", board.id));
        storage::judge(board, kinds, file, &content);
    }
    let known = modules(&dir);
    for module in board
        .initramfs_modules
        .iter()
        .chain(&board.watchdog_modules)
    {
        assert!(
            known.contains(module),
            "{}: {name} has no {module}",
            board.id
        );
    }
}

/// Names of all modules, those that are built in too.
fn modules(package: &Path) -> BTreeSet<String> {
    let root = package.join("usr/lib/modules");
    let mut names = BTreeSet::new();
    let mut todo = vec![root];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else if path.ends_with("modules.builtin") {
                let text = fs::read_to_string(&path).unwrap();
                names.extend(text.lines().filter_map(|line| module(Path::new(line))));
            } else {
                names.extend(module(&path));
            }
        }
    }
    names
}

fn module(path: &Path) -> Option<String> {
    let file = PathBuf::from(path.file_name()?);
    let (name, _) = file.to_str()?.split_once(".ko")?;
    Some(name.replace('-', "_"))
}
