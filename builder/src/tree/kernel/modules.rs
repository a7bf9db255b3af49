//! Kernel modules are stored uncompressed, so that a delta between two kernels is small. Their index
//! files are made anew by `depmod`; both are cached by the content of the module directory.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Cursor, Read};
use std::path::Path;

use anyhow::{bail, Context, Result};

use super::super::{file_name, join, Kind, Tree};
use super::module_dir;
use crate::cache::{Cache, Inputs};
use crate::command::Command;

/// Bump when the stored form changes.
const REVISION: u32 = 1;

/// Replaces the modules of `version` by uncompressed ones, with the index files that go with them.
pub fn unpack(tree: &mut Tree, version: &str, cache: &Cache) -> Result<()> {
    let dir = module_dir(version);
    let depmod = Command::new("depmod", "kmod").arg("--version").text()?;
    let mut inputs = Inputs::new("modules", REVISION).add(version).add(depmod);
    for (path, node) in tree.below(&dir) {
        if let Kind::File(content) = &node.kind {
            if is_input(file_name(path)) {
                inputs = inputs.add(path).add(content.read()?);
            }
        }
    }
    let tar = cache
        .get_or_make("modules", &inputs.key(), |entry| make(tree, version, entry))
        .with_context(|| format!("unpacking the modules of kernel {version}"))?;
    let stale: Vec<String> = tree
        .below(&dir)
        .filter(|(path, node)| node.is_file() && is_input(file_name(path)) || is_index(path))
        .map(|(path, _)| path.to_string())
        .collect();
    for path in stale {
        tree.remove(&path);
    }
    for (path, node) in Tree::from_tar(&tar)?.iter() {
        if node.is_file() {
            tree.insert(&join(&dir, path), node.clone())?;
        }
    }
    Ok(())
}

/// Modules, and what depmod reads besides them.
fn is_input(name: &str) -> bool {
    module_name(name).is_some()
        || [
            "modules.order",
            "modules.builtin",
            "modules.builtin.modinfo",
        ]
        .contains(&name)
}

fn is_index(path: &str) -> bool {
    file_name(path).starts_with("modules.") && !is_input(file_name(path))
}

/// Name of the module in a file `name`, as the kernel writes it (`_` for `-`).
fn module_name(name: &str) -> Option<String> {
    let (stem, rest) = name.split_once(".ko")?;
    ["", ".xz", ".zst", ".gz"]
        .contains(&rest)
        .then(|| stem.replace('-', "_"))
}

/// Writes a tar of the whole module directory in its new form, paths relative to it.
fn make(tree: &Tree, version: &str, entry: &Path) -> Result<()> {
    let scratch = tempfile::tempdir().context("creating a scratch directory")?;
    let root = scratch.path().join("lib/modules").join(version);
    let dir = module_dir(version);
    for (path, node) in tree.below(&dir) {
        let Kind::File(content) = &node.kind else {
            continue;
        };
        let name = file_name(path);
        if !is_input(name) {
            continue;
        }
        let (bytes, plain) =
            decompress(name, content.read()?).with_context(|| format!("decompressing /{path}"))?;
        let to = root.join(&path[dir.len() + 1..]).with_file_name(plain);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        fs::write(&to, bytes).with_context(|| format!("writing {}", to.display()))?;
    }
    fs::create_dir_all(&root).with_context(|| format!("creating {}", root.display()))?;
    Command::new("depmod", "kmod")
        .args(["-b".as_ref(), scratch.path().as_os_str()])
        .arg(version)
        .run()?;
    let file = fs::File::create(entry).with_context(|| format!("creating {}", entry.display()))?;
    let mut builder = tar::Builder::new(std::io::BufWriter::new(file));
    builder.mode(tar::HeaderMode::Deterministic);
    append_dir(&mut builder, &root, "").with_context(|| format!("writing {}", entry.display()))?;
    std::io::Write::flush(&mut builder.into_inner()?)?;
    Ok(())
}

fn append_dir<W: std::io::Write>(
    builder: &mut tar::Builder<W>,
    dir: &Path,
    prefix: &str,
) -> Result<()> {
    let mut entries = BTreeMap::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_str().context("a file name is not UTF-8")?;
        entries.insert(join(prefix, name), entry.path());
    }
    for (name, path) in entries {
        if path.is_dir() {
            append_dir(builder, &path, &name)?;
        } else {
            let bytes = fs::read(&path)?;
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_uid(0);
            header.set_gid(0);
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, &name, bytes.as_slice())?;
        }
    }
    Ok(())
}

/// The module's bytes and its name without the compression's suffix.
fn decompress(name: &str, bytes: Vec<u8>) -> Result<(Vec<u8>, &str)> {
    let mut plain = Vec::new();
    if let Some(stem) = name.strip_suffix(".xz") {
        liblzma::read::XzDecoder::new(Cursor::new(bytes)).read_to_end(&mut plain)?;
        Ok((plain, stem))
    } else if let Some(stem) = name.strip_suffix(".zst") {
        zstd::Decoder::new(Cursor::new(bytes))?.read_to_end(&mut plain)?;
        Ok((plain, stem))
    } else if name.ends_with(".gz") {
        bail!("modules compressed with gzip are not known; use a kernel whose modules are plain, .xz or .zst")
    } else {
        Ok((bytes, name))
    }
}

/// A kernel's modules by name, as depmod's index files tell (`modules.dep`, `modules.softdep`,
/// `modules.builtin`: kmod's text formats).
#[derive(Debug)]
pub struct Modules {
    dir: String,
    files: BTreeMap<String, String>,
    needs: BTreeMap<String, Vec<String>>,
    builtin: Vec<String>,
}

impl Modules {
    /// Reads the index files of `version`.
    pub fn of(tree: &Tree, version: &str) -> Result<Self> {
        let dir = module_dir(version);
        let name_of = |path: &str| {
            module_name(file_name(path))
                .with_context(|| format!("reading modules.dep: {path} is not a module's path"))
        };
        let mut modules = Self {
            files: BTreeMap::new(),
            needs: BTreeMap::new(),
            builtin: Vec::new(),
            dir,
        };
        for line in modules.index(tree, "modules.dep")?.lines() {
            let Some((path, needed)) = line.split_once(':') else {
                continue;
            };
            let name = name_of(path)?;
            let needed = needed
                .split_whitespace()
                // The nearest dependency stands first; the farthest must be loaded first.
                .rev()
                .map(name_of)
                .collect::<Result<_>>()?;
            modules.files.insert(name.clone(), path.to_string());
            modules.needs.insert(name, needed);
        }
        for line in modules.index(tree, "modules.builtin")?.lines() {
            modules.builtin.extend(module_name(file_name(line)));
        }
        modules.add_soft(tree)?;
        Ok(modules)
    }

    fn index(&self, tree: &Tree, name: &str) -> Result<String> {
        let path = join(&self.dir, name);
        if tree.contains(&path) {
            tree.read_text(&path)
        } else {
            Ok(String::new())
        }
    }

    /// `alias other-name module` without patterns: names under which modules ask for others.
    fn aliases(&self, tree: &Tree) -> Result<BTreeMap<String, Vec<String>>> {
        let mut aliases: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in self.index(tree, "modules.alias")?.lines() {
            let mut words = line.split_whitespace();
            let (Some("alias"), Some(alias), Some(name)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            if !alias.contains(['*', '?', '[', ':']) {
                let name = name.replace('-', "_");
                aliases
                    .entry(alias.replace('-', "_"))
                    .or_default()
                    .push(name);
            }
        }
        Ok(aliases)
    }

    /// `softdep a pre: b c post: d`: all of them are wanted where `a` is. What asks for an algorithm gets every
    /// module that has it: which of them the processor can run shows when they are loaded.
    fn add_soft(&mut self, tree: &Tree) -> Result<()> {
        let aliases = self.aliases(tree)?;
        for line in self.index(tree, "modules.softdep")?.lines() {
            let mut words = line.split_whitespace();
            let (Some("softdep"), Some(name)) = (words.next(), words.next()) else {
                continue;
            };
            let soft: Vec<String> = words
                .filter(|word| !word.ends_with(':'))
                .map(|word| word.replace('-', "_"))
                .flat_map(|word| match aliases.get(&word) {
                    Some(names) if !self.files.contains_key(&word) => names.clone(),
                    _ => vec![word],
                })
                .filter(|word| self.files.contains_key(word))
                .collect();
            if let Some(needs) = self.needs.get_mut(&name.replace('-', "_")) {
                needs.splice(0..0, soft);
            }
        }
        Ok(())
    }

    /// Tree paths of the named modules and of all they need, in the order in which they can be loaded.
    /// Built-in ones have none.
    pub fn closure(&self, names: &[String]) -> Result<Vec<String>> {
        let mut order = Vec::new();
        for name in names {
            let plain = name.replace('-', "_");
            if self.files.contains_key(&plain) {
                self.visit(&plain, &mut order, 0);
            } else if !self.builtin.contains(&plain) {
                bail!(
                    "collecting modules for the initramfs: kernel {} has no module {name}, neither as a file nor built in; \
                     correct the board's initramfs-modules or watchdog-modules, or take another kernel package",
                    file_name(&self.dir)
                );
            }
        }
        Ok(order
            .iter()
            .filter_map(|name| self.files.get(name))
            .map(|path| join(&self.dir, path))
            .collect())
    }

    fn visit(&self, name: &String, order: &mut Vec<String>, depth: usize) {
        // Soft dependencies may form a circle.
        if depth > 32 || order.contains(name) {
            return;
        }
        for needed in self.needs.get(name).into_iter().flatten() {
            if needed != name {
                self.visit(needed, order, depth + 1);
            }
        }
        if !order.contains(name) {
            order.push(name.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Node;
    use super::*;

    fn with_index(files: &[(&str, &str)]) -> Modules {
        let mut tree = Tree::new();
        for (name, text) in files {
            tree.insert(
                &format!("usr/lib/modules/6.1/{name}"),
                Node::file(*text, 0o644),
            )
            .unwrap();
        }
        Modules::of(&tree, "6.1").unwrap()
    }

    #[test]
    fn a_closure_has_dependencies_first_and_soft_ones_too() {
        let modules = with_index(&[
            (
                "modules.dep",
                "kernel/fs/ext4.ko: kernel/fs/jbd2.ko kernel/lib/crc16.ko\n\
                 kernel/fs/jbd2.ko: kernel/lib/crc16.ko\nkernel/lib/crc16.ko:\n\
                 kernel/crypto/crc32c-x86.ko:\nkernel/d/loop-a.ko:\n",
            ),
            (
                "modules.softdep",
                "# x\nsoftdep ext4 pre: crypto-crc32c absent\nsoftdep loop_a pre: loop_a\n",
            ),
            (
                "modules.alias",
                "alias crypto-crc32c crc32c_x86\nalias crypto-crc32c built_in\nalias pci:v*d* loop_a\n",
            ),
            ("modules.builtin", "kernel/drivers/sd_mod.ko\n"),
        ]);
        let names = |list: &[&str]| list.iter().map(|s| (*s).to_string()).collect::<Vec<_>>();
        let short: Vec<String> = modules
            .closure(&names(&["sd_mod", "ext4", "loop-a"]))
            .unwrap()
            .iter()
            .map(|path| file_name(path).to_string())
            .collect();
        assert_eq!(
            short,
            [
                "crc32c-x86.ko",
                "crc16.ko",
                "jbd2.ko",
                "ext4.ko",
                "loop-a.ko"
            ]
        );
        let error = modules.closure(&names(&["nvmee"])).unwrap_err().to_string();
        assert!(error.contains("nvmee") && error.contains("6.1"), "{error}");
    }

    #[test]
    fn compressed_modules_become_plain_and_depmod_indexes_them() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::at(dir.path()).unwrap();
        let mut packed = Vec::new();
        liblzma::read::XzEncoder::new(Cursor::new(b"not really ELF".to_vec()), 1)
            .read_to_end(&mut packed)
            .unwrap();
        let mut tree = Tree::new();
        let base = "usr/lib/modules/6.1";
        tree.insert(&format!("{base}/kernel/a.ko.xz"), Node::file(packed, 0o644))
            .unwrap();
        let zst = zstd::encode_all(&b"nor this"[..], 1).unwrap();
        tree.insert(&format!("{base}/kernel/b.ko.zst"), Node::file(zst, 0o644))
            .unwrap();
        tree.insert(&format!("{base}/modules.dep"), Node::file("stale", 0o644))
            .unwrap();
        tree.insert(&format!("{base}/vmlinuz"), Node::file("k", 0o644))
            .unwrap();
        for _ in 0..2 {
            unpack(&mut tree, "6.1", &cache).unwrap();
            assert_eq!(
                tree.read(&format!("{base}/kernel/a.ko")).unwrap(),
                b"not really ELF"
            );
            assert_eq!(
                tree.read(&format!("{base}/kernel/b.ko")).unwrap(),
                b"nor this"
            );
            assert!(!tree.contains(&format!("{base}/kernel/a.ko.xz")));
            assert!(tree.contains(&format!("{base}/vmlinuz")));
            assert_ne!(tree.read(&format!("{base}/modules.dep")).unwrap(), b"stale");
        }
    }
}
