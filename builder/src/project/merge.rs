//! Folding a board's section into the product: the board's word wins over the product's.

use std::path::Path;

use bsp::board::Board;

use super::Merged;
use crate::manifest::{Packages, Product, Units};

/// The product for one board.
pub(super) fn merge(product: &Product, board: &Board, dir: &Path) -> Merged {
    let mut product = product.clone();
    let mut board = board.clone();
    let section = product.board.remove(&board.id).unwrap_or_default();
    product.board.clear();

    merge_packages(&mut product.packages, &section.packages);
    merge_units(&mut product.units, &section.units);
    product.kernel_args.extend(section.kernel_args);
    product.partitions.extend(section.partitions);
    if let Some(whose) = section.secure_boot {
        board.boot.secure_boot = whose;
    }
    for partition in &mut board.disk.partitions {
        if let Some(size) = product.partitions.get(&partition.label) {
            partition.size = *size;
        }
    }
    let overlays = product
        .overlay
        .clone()
        .into_iter()
        .chain(section.overlay)
        .collect();
    Merged {
        product,
        board,
        dir: dir.to_path_buf(),
        overlays,
    }
}

fn merge_packages(into: &mut Packages, from: &Packages) {
    into.add.retain(|name| !from.drop.contains(name));
    into.drop.retain(|name| !from.add.contains(name));
    extend(&mut into.add, &from.add);
    extend(&mut into.drop, &from.drop);
}

fn merge_units(into: &mut Units, from: &Units) {
    for named in [&from.enable, &from.disable, &from.mask] {
        for list in [&mut into.enable, &mut into.disable, &mut into.mask] {
            list.retain(|unit| !named.contains(unit));
        }
    }
    extend(&mut into.enable, &from.enable);
    extend(&mut into.disable, &from.disable);
    extend(&mut into.mask, &from.mask);
}

/// Appends what is not there yet, in order.
fn extend(into: &mut Vec<String>, from: &[String]) {
    for item in from {
        if !into.contains(item) {
            into.push(item.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::boards;

    const TEXT: &str = r#"
name = "demo"
version = "1.0.0"
kernel-args = ["quiet"]
[base]
suite = "trixie"
[packages]
add = ["curl", "nano"]
drop = ["tzdata"]
[overlay]
path = "overlay"
[units]
enable = ["a.service"]
mask = ["b.service"]
[partitions]
root = "3GiB"
data = "64MiB"
[board.x86_64-uefi]
kernel-args = ["nomodeset"]
packages.add = ["tzdata", "curl", "gdb"]
packages.drop = ["nano"]
overlay.path = "overlay-pc"
partitions.data = "1GiB"
units.enable = ["b.service"]
units.disable = ["a.service"]
[board.elsewhere]
kernel-args = ["no"]
"#;

    #[test]
    fn the_boards_word_wins() {
        let product: Product = toml::from_str(TEXT).unwrap();
        let board = boards::find(Path::new("/nonexistent"), "x86_64-uefi").unwrap();
        let merged = merge(&product, &board, Path::new("/p"));
        let p = &merged.product;
        assert!(p.board.is_empty());
        assert_eq!(p.kernel_args, ["quiet", "nomodeset"]);
        assert_eq!(p.packages.add, ["curl", "tzdata", "gdb"]);
        assert_eq!(p.packages.drop, ["nano"]);
        assert_eq!(p.units.enable, ["b.service"]);
        assert_eq!(p.units.disable, ["a.service"]);
        assert!(p.units.mask.is_empty());
        let sizes: Vec<(String, String)> = merged
            .board
            .disk
            .partitions
            .iter()
            .map(|part| (part.label.clone(), part.size.to_string()))
            .collect();
        let expected = [("firmware", "64MiB"), ("root", "3GiB"), ("data", "1GiB")]
            .map(|(label, size)| (label.to_string(), size.to_string()));
        assert_eq!(sizes, expected);
        let paths: Vec<&str> = merged.overlays.iter().map(|o| o.path.as_str()).collect();
        assert_eq!(paths, ["overlay", "overlay-pc"]);
    }

    #[test]
    fn the_directory_is_no_input() {
        let product: Product = toml::from_str(TEXT).unwrap();
        let board = boards::find(Path::new("/nonexistent"), "x86_64-uefi").unwrap();
        let [a, b] = ["/p", "/q"]
            .map(|dir| serde_json::to_string(&merge(&product, &board, Path::new(dir))).unwrap());
        assert_eq!(a, b);
    }
}
