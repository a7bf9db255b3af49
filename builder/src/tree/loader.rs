//! The boot loaders that devices can replace: they travel in the tree, so that the commit's signature and the
//! deltas cover them.

use std::path::PathBuf;

use anyhow::{Context, Result};
use bsp::board::Board;
use bsp::loader::{Blob, Manifest, MANIFEST_PATH};

use super::{Node, Tree};
use crate::cache::Cache;
use crate::image::sources::{DeviceTrees, Sources};
use crate::image::unpack;
use crate::lock::BoardLock;
use crate::progress::Progress;
use crate::project::Merged;

/// Puts manifest and files into the tree, if the board has boot loaders with an edition.
pub fn apply(
    tree: &mut Tree,
    merged: &Merged,
    lock: &BoardLock,
    cache: &Cache,
    progress: Progress,
) -> Result<()> {
    if !has_edition(&merged.board) {
        return Ok(());
    }
    let unpacked = unpack(&lock.firmware, merged, cache, progress)?;
    place(tree, merged, lock, &unpacked)
}

fn has_edition(board: &Board) -> bool {
    board.disk.raw.iter().any(|area| area.edition > 0) || board.replaced_programs().is_some()
}

fn place(
    tree: &mut Tree,
    merged: &Merged,
    lock: &BoardLock,
    unpacked: &[(String, PathBuf)],
) -> Result<()> {
    let sources = Sources {
        unpacked,
        dir: &merged.dir,
        files: &lock.files,
        device_trees: DeviceTrees::Packages(&[]),
    };
    let mut blobs = Vec::new();
    for area in merged.board.disk.raw.iter().filter(|area| area.edition > 0) {
        let content = sources.area(area)?;
        let Some(blob) = Blob::of(area, &content) else {
            continue;
        };
        if let Some(path) = blob.path() {
            tree.insert(&path, Node::file(content, 0o644))?;
        }
        blobs.push(blob);
    }
    let efi = sources.efi_set(&merged.board)?;
    if let Some((set, files)) = &efi {
        for (file, content) in set.files.iter().zip(files) {
            tree.insert(&file.tree_path(), Node::file(content.clone(), 0o644))?;
        }
    }
    let manifest = Manifest::new(blobs, efi.map(|(set, _)| set))
        .render()
        .context("writing the manifest of the boot loaders")?;
    tree.insert(MANIFEST_PATH, Node::file(manifest, 0o644))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::Project;
    use bsp::board::RawArea;

    fn merged() -> Merged {
        let text = "name = \"demo\"\nversion = \"1.0.0\"\nbase = { suite = \"trixie\" }\n";
        let project = Project {
            dir: "/nonexistent".into(),
            product: toml::from_str(text).unwrap(),
        };
        project.merged(&project.board("beaglebone").unwrap())
    }

    fn file(area: &RawArea, size: usize) -> Vec<u8> {
        let mut content = vec![0x5a; size];
        if let Some(magic) = &area.magic {
            let bytes = magic.bytes().unwrap();
            content[magic.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
        }
        content
    }

    #[test]
    fn what_has_an_edition_travels_in_the_tree() {
        let mut merged = merged();
        let lock = BoardLock::default();
        let dir = tempfile::tempdir().unwrap();
        let unpacked = [("u-boot-omap".to_string(), dir.path().to_path_buf())];
        for area in &merged.board.disk.raw {
            let path = dir.path().join(area.file.as_ref().unwrap());
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, file(area, 5000)).unwrap();
        }
        let mut tree = Tree::new();
        place(&mut tree, &merged, &lock, &unpacked).unwrap();
        let manifest = Manifest::parse(&tree.read_text(MANIFEST_PATH).unwrap()).unwrap();
        let [mlo] = manifest.blobs.as_slice() else {
            panic!("{manifest:?}");
        };
        assert_eq!((mlo.name.as_str(), mlo.edition), ("mlo", 1));
        assert_eq!(mlo.offsets, [128 << 10, 256 << 10]);
        let content = tree.read(&mlo.path().unwrap()).unwrap();
        assert!(mlo.is(&content));
        // Without a safe way only the manifest knows of it, so that devices can refuse.
        merged.board.disk.raw[1].edition = 4;
        let mut tree = Tree::new();
        place(&mut tree, &merged, &lock, &unpacked).unwrap();
        let manifest = Manifest::parse(&tree.read_text(MANIFEST_PATH).unwrap()).unwrap();
        assert_eq!(
            (manifest.blobs[1].edition, manifest.blobs[1].path()),
            (4, None)
        );
        assert!(tree.get("usr/lib/device-agent/loader/u-boot").is_none());
        // The record of its edition must have room behind it.
        let path = dir
            .path()
            .join(merged.board.disk.raw[0].file.as_ref().unwrap());
        std::fs::write(path, file(&merged.board.disk.raw[0], 130_500)).unwrap();
        let error = place(&mut tree, &merged, &lock, &unpacked).unwrap_err();
        assert!(
            format!("{error:#}").contains("the area 127KiB"),
            "{error:#}"
        );
    }

    #[test]
    fn programs_for_uefi_travel_together() {
        let mut merged = merged();
        merged.board = bsp::board::builtin("x86_64-uefi").unwrap();
        merged.board.efi_loader = Some(bsp::board::EfiLoader { edition: 3 });
        let dir = tempfile::tempdir().unwrap();
        let mut unpacked = Vec::new();
        for file in &merged.board.firmware {
            let (package, name) = (file.package.clone().unwrap(), file.file.as_ref().unwrap());
            let root = dir.path().join(&package);
            let path = root.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, &file.path).unwrap();
            unpacked.push((package, root));
        }
        let mut tree = Tree::new();
        place(&mut tree, &merged, &BoardLock::default(), &unpacked).unwrap();
        let manifest = Manifest::parse(&tree.read_text(MANIFEST_PATH).unwrap()).unwrap();
        let set = manifest.efi.unwrap();
        assert_eq!(
            (set.edition, set.files.len(), manifest.blobs.len()),
            (3, 3, 0)
        );
        for file in &set.files {
            let content = tree.read(&file.tree_path()).unwrap();
            assert_eq!(content, format!("EFI/BOOT/{}", file.name).as_bytes());
            assert!(file.is(&content));
        }
    }

    #[test]
    fn most_boards_have_none() {
        let boards = bsp::board::list();
        let with = boards
            .iter()
            .filter(|id| has_edition(&bsp::board::builtin(id).unwrap()));
        let with: Vec<_> = with.collect();
        assert_eq!(
            with,
            [
                &"aarch64-uefi",
                &"am57xx-idk",
                &"beagleboard-x15",
                &"beaglebone",
                &"beaglebone-ai",
                &"x86_64",
                &"x86_64-uefi"
            ]
        );
    }
}
