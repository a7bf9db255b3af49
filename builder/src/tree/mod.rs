//! A root file system as a value: paths with owner, mode, extended attributes and content.
//!
//! The builder never unpacks a tree: it reads the tar that the base stage made, changes this value,
//! and commits from it. So no root, no user namespace and no host file system has a say in the result.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{bail, Context, Result};

mod accounts;
mod agent;
mod assemble;
mod clean;
mod content;
mod emergency;
mod hostname;
pub mod initramfs;
mod integrity;
pub mod kernel;
pub mod layout;
mod loader;
mod overlay;
mod packages;
mod pattern;
mod read;
#[cfg(test)]
mod sample;
mod seal;
mod ssh;
mod storage;
mod system;
mod sysusers;
mod units;
mod users;

pub use agent::{kargs, AgentFiles, GRUB_MENU, KARGS_PATH};
pub use assemble::assemble;
pub use content::Reader;

/// Symbolic links followed before a path counts as a loop, as in the kernel.
const MAX_LINKS: usize = 40;

/// A root file system. Paths are relative, without leading or trailing slash; the root itself is `""`.
/// The `BTreeMap` keeps parents before children.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

/// A tree that is ready to be committed.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// The tree, in OSTree's layout.
    pub tree: Tree,
    /// Its kernel's version, as in `/usr/lib/modules/<version>`.
    pub kernel_version: String,
}

/// One path of a [`Tree`].
#[derive(Debug, Clone)]
pub struct Node {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Extended attributes (name without terminating NUL).
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// What it is.
    pub kind: Kind,
}

/// What a node is. Device nodes, FIFOs and sockets do not exist in a tree.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file. Hard links of the base become files that share a content.
    File(Content),
    /// A symbolic link and its target.
    Symlink(String),
}

/// Content of a regular file.
#[derive(Debug, Clone)]
pub enum Content {
    /// Held in memory.
    Bytes(Arc<[u8]>),
    /// A range of an uncompressed tar file.
    Slice {
        /// The tar file.
        archive: Arc<File>,
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// A file on the host (overlay).
    Host {
        /// Its path.
        path: PathBuf,
        /// Bytes.
        len: u64,
    },
}

impl Node {
    /// A directory of root's.
    pub fn dir(mode: u32) -> Self {
        Self::new(mode, Kind::Dir)
    }

    /// A file of root's.
    pub fn file(bytes: impl Into<Vec<u8>>, mode: u32) -> Self {
        Self::new(mode, Kind::File(Content::bytes(bytes)))
    }

    /// A symbolic link of root's.
    pub fn symlink(target: impl Into<String>) -> Self {
        Self::new(0o777, Kind::Symlink(target.into()))
    }

    fn new(mode: u32, kind: Kind) -> Self {
        Self {
            uid: 0,
            gid: 0,
            mode,
            xattrs: BTreeMap::new(),
            kind,
        }
    }

    /// The same node with another owner.
    pub fn owned(mut self, uid: u32, gid: u32) -> Self {
        self.uid = uid;
        self.gid = gid;
        self
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir)
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        matches!(self.kind, Kind::File(_))
    }

    /// The target, if it is a symbolic link.
    pub fn link_target(&self) -> Option<&str> {
        match &self.kind {
            Kind::Symlink(target) => Some(target),
            _ => None,
        }
    }
}

/// The directory of a path; `""` for a path at the top.
pub fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// The last component of a path.
pub fn file_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

/// `dir` and `name` joined; `dir` may be the root `""`.
pub fn join(dir: &str, name: &str) -> String {
    if dir.is_empty() {
        name.to_string()
    } else {
        format!("{dir}/{name}")
    }
}

/// `path` without leading and trailing slashes, as a tree names it.
pub fn relative(path: &str) -> &str {
    path.trim_matches('/')
}

/// The relative symbolic-link target that leads from the link at `link` to `target`, both tree paths.
pub fn relative_target(link: &str, target: &str) -> String {
    let from: Vec<&str> = parent(link).split('/').filter(|c| !c.is_empty()).collect();
    let to: Vec<&str> = target.split('/').collect();
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let mut parts = vec![".."; from.len() - common];
    parts.extend(&to[common..]);
    parts.join("/")
}

impl Tree {
    /// A tree that holds only its root directory.
    pub fn new() -> Self {
        let mut nodes = BTreeMap::new();
        nodes.insert(String::new(), Node::dir(0o755));
        Self { nodes }
    }

    /// The node at exactly this path; symbolic links on the way are not followed.
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// As [`Tree::get`], to change it.
    pub fn get_mut(&mut self, path: &str) -> Option<&mut Node> {
        self.nodes.get_mut(path)
    }

    /// Whether there is a node at exactly this path.
    pub fn contains(&self, path: &str) -> bool {
        self.nodes.contains_key(path)
    }

    /// All paths in order, the root first.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// Everything below `dir` (without `dir` itself), in order.
    pub fn below<'a>(&'a self, dir: &str) -> impl Iterator<Item = (&'a str, &'a Node)> + 'a {
        let prefix = below_prefix(dir);
        self.nodes
            .range(prefix.clone()..)
            .skip_while(|(path, _)| path.is_empty())
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(|(path, node)| (path.as_str(), node))
    }

    /// Names and nodes directly in `dir`.
    pub fn children<'a>(&'a self, dir: &str) -> impl Iterator<Item = (&'a str, &'a Node)> + 'a {
        let skip = below_prefix(dir).len();
        self.below(dir)
            .map(move |(path, node)| (&path[skip..], node))
            .filter(|(name, _)| !name.contains('/'))
    }

    /// Where `path` leads, all symbolic links followed inside the tree; `None` if it does not exist.
    /// Absolute targets start at the tree's root, and `..` cannot leave it.
    pub fn resolve(&self, path: &str) -> Option<String> {
        let mut left: Vec<String> = components(path);
        left.reverse();
        let mut at = String::new();
        let mut links = 0;
        while let Some(name) = left.pop() {
            if name == ".." {
                at = parent(&at).to_string();
                continue;
            }
            let next = join(&at, &name);
            match &self.nodes.get(&next)?.kind {
                Kind::Symlink(target) => {
                    links += 1;
                    if links > MAX_LINKS {
                        return None;
                    }
                    if target.starts_with('/') {
                        at.clear();
                    }
                    left.extend(components(target).into_iter().rev());
                }
                _ => at = next,
            }
        }
        Some(at)
    }

    /// The node that `path` leads to, all symbolic links followed.
    pub fn follow(&self, path: &str) -> Option<&Node> {
        self.get(&self.resolve(path)?)
    }

    /// Content of the file that `path` leads to.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        match self.follow(path).map(|node| &node.kind) {
            Some(Kind::File(content)) => content
                .read()
                .with_context(|| format!("reading /{path} of the tree")),
            Some(_) => bail!("reading /{path} of the tree: it is not a regular file"),
            None => bail!("reading /{path} of the tree: there is no such file"),
        }
    }

    /// As [`Tree::read`], as text.
    pub fn read_text(&self, path: &str) -> Result<String> {
        String::from_utf8(self.read(path)?)
            .with_context(|| format!("reading /{path} of the tree: not UTF-8 text"))
    }

    /// Puts `node` at `path`. Symbolic links among the parents are followed, missing parents become
    /// directories of root's with mode 0755. Whatever was there goes, except that a directory put
    /// onto a directory only changes its owner and mode.
    pub fn insert(&mut self, path: &str, node: Node) -> Result<()> {
        let path = components(path).join("/");
        let dir = self.make_dirs(parent(&path))?;
        let path = join(&dir, file_name(&path));
        if !(node.is_dir() && self.get(&path).is_some_and(Node::is_dir)) {
            self.remove(&path);
        }
        self.nodes.insert(path, node);
        Ok(())
    }

    /// Makes sure that `dir` is a directory and returns its path with symbolic links resolved.
    pub fn make_dirs(&mut self, dir: &str) -> Result<String> {
        let mut at = String::new();
        for name in components(dir) {
            let next = join(&at, &name);
            match self.nodes.get(&next).map(|node| &node.kind) {
                None => {
                    self.nodes.insert(next.clone(), Node::dir(0o755));
                    at = next;
                }
                Some(Kind::Dir) => at = next,
                Some(Kind::File(_)) => {
                    bail!("creating /{dir} in the tree: /{next} is a file, not a directory")
                }
                Some(Kind::Symlink(target)) => {
                    let found = self.resolve(&next).with_context(|| {
                        format!("creating /{dir} in the tree: the link /{next} → {target} leads nowhere")
                    })?;
                    if !self.nodes.get(&found).is_some_and(Node::is_dir) {
                        bail!("creating /{dir} in the tree: /{next} leads to a file");
                    }
                    at = found;
                }
            }
        }
        Ok(at)
    }

    /// Takes away `path` and everything below it; says whether it was there.
    pub fn remove(&mut self, path: &str) -> bool {
        let below: Vec<String> = self.below(path).map(|(p, _)| p.to_string()).collect();
        for path in below {
            self.nodes.remove(&path);
        }
        !path.is_empty() && self.nodes.remove(path).is_some()
    }

    /// Takes away everything below `dir`.
    pub fn empty(&mut self, dir: &str) {
        let names: Vec<String> = self
            .children(dir)
            .map(|(name, _)| join(dir, name))
            .collect();
        for path in names {
            self.remove(&path);
        }
    }

    /// Moves `from` and everything below it to `to`, which must not exist.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        if self.contains(to) {
            bail!("moving /{from} to /{to} in the tree: /{to} exists already");
        }
        let node = self
            .nodes
            .remove(from)
            .with_context(|| format!("moving /{from} in the tree: there is no such path"))?;
        self.make_dirs(parent(to))?;
        let below: Vec<String> = self.below(from).map(|(p, _)| p.to_string()).collect();
        for path in below {
            if let Some(node) = self.nodes.remove(&path) {
                self.nodes
                    .insert(format!("{to}{}", &path[from.len()..]), node);
            }
        }
        self.nodes.insert(to.to_string(), node);
        Ok(())
    }

    /// Moves `from` and everything below it onto `to`. Directories that both have are united, with the
    /// owner and mode of `from`; any other path that `to` has already stays as it is.
    pub fn merge(&mut self, from: &str, to: &str) -> Result<()> {
        let paths: Vec<String> = std::iter::once(from.to_string())
            .chain(self.below(from).map(|(path, _)| path.to_string()))
            .collect();
        for path in paths {
            let Some(node) = self.nodes.remove(&path) else {
                continue;
            };
            let target = format!("{to}{}", &path[from.len()..]);
            if node.is_dir() || !self.contains(&target) {
                self.insert(&target, node)?;
            }
        }
        Ok(())
    }
}

fn below_prefix(dir: &str) -> String {
    if dir.is_empty() {
        String::new()
    } else {
        format!("{dir}/")
    }
}

fn components(path: &str) -> Vec<String> {
    path.split('/')
        .filter(|c| !c.is_empty() && *c != ".")
        .map(str::to_string)
        .collect()
}

#[cfg(test)]
mod tests;
