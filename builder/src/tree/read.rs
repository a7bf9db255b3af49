//! A tree from a tar file. Contents stay in the tar; only their places are kept.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{bail, Context, Result};
use tar::{Archive, Entry, EntryType};

use super::{Content, Kind, Node, Tree};

/// PAX records that carry extended attributes as they are: the prefix GNU tar and most others write.
const PAX_XATTR: &str = "SCHILY.xattr.";
/// libarchive's own prefix; its values are base64, its names may be percent-encoded.
const PAX_XATTR_LIBARCHIVE: &str = "LIBARCHIVE.xattr.";

impl Tree {
    /// Reads a plain (uncompressed) tar file. Device nodes, FIFOs and sockets are left out: a device
    /// makes them at boot. Paths that run through a symbolic link land where it leads.
    pub fn from_tar(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
        let shared = Arc::new(
            file.try_clone()
                .with_context(|| format!("opening {}", path.display()))?,
        );
        let mut tree = Self::new();
        let mut archive = Archive::new(file);
        let entries = archive
            .entries_with_seek()
            .with_context(|| format!("reading {}", path.display()))?;
        for entry in entries {
            let mut entry = entry.with_context(|| {
                format!("reading {}: it must be a plain tar file", path.display())
            })?;
            let name = entry_path(&entry.path_bytes())
                .with_context(|| format!("reading {}", path.display()))?;
            tree.add_entry(&name, &mut entry, &shared)
                .with_context(|| format!("reading /{name} in {}", path.display()))?;
        }
        Ok(tree)
    }

    fn add_entry(
        &mut self,
        name: &str,
        entry: &mut Entry<'_, File>,
        archive: &Arc<File>,
    ) -> Result<()> {
        let kind = match entry.header().entry_type() {
            EntryType::Directory => Kind::Dir,
            EntryType::Symlink => Kind::Symlink(link_target(entry)?),
            EntryType::Link => return self.add_hard_link(name, &link_target(entry)?),
            EntryType::Regular | EntryType::Continuous => Kind::File(Content::Slice {
                archive: archive.clone(),
                offset: entry.raw_file_position(),
                len: entry.size(),
            }),
            EntryType::GNUSparse => {
                let mut bytes = Vec::new();
                entry.read_to_end(&mut bytes)?;
                Kind::File(Content::bytes(bytes))
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => return Ok(()),
            EntryType::XGlobalHeader => return Ok(()),
            other => bail!("entry type {other:?} is not known"),
        };
        let xattrs = xattrs(entry)?;
        let header = entry.header();
        let node = Node {
            uid: u32::try_from(header.uid()?).context("the user id is larger than 32 bits")?,
            gid: u32::try_from(header.gid()?).context("the group id is larger than 32 bits")?,
            mode: header.mode()? & 0o7777,
            xattrs,
            kind,
        };
        if name.is_empty() {
            if node.is_dir() {
                self.nodes.insert(String::new(), node);
            }
            return Ok(());
        }
        self.insert(name, node)
    }

    fn add_hard_link(&mut self, name: &str, target: &str) -> Result<()> {
        let target = entry_path(target.as_bytes())?;
        let node = self
            .resolve(super::parent(&target))
            .and_then(|dir| self.get(&super::join(&dir, super::file_name(&target))))
            .with_context(|| format!("hard link to /{target}, which is not before it in the tar"))?
            .clone();
        self.insert(name, node)
    }
}

/// Path of an entry as the tree names it: without `./`, without slashes at the ends.
fn entry_path(bytes: &[u8]) -> Result<String> {
    let path = std::str::from_utf8(bytes).with_context(|| {
        format!(
            "the path {:?} is not UTF-8; rename the file in the base",
            String::from_utf8_lossy(bytes)
        )
    })?;
    let parts: Vec<&str> = path
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.contains(&"..") {
        bail!("the path {path:?} leads out of the tree");
    }
    Ok(parts.join("/"))
}

fn link_target(entry: &Entry<'_, File>) -> Result<String> {
    let bytes = entry.link_name_bytes().context("a link without a target")?;
    String::from_utf8(bytes.into_owned()).context("the link's target is not UTF-8")
}

fn xattrs(entry: &mut Entry<'_, File>) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let Some(extensions) = entry.pax_extensions()? else {
        return Ok(found);
    };
    for extension in extensions {
        let extension = extension?;
        let key = extension.key().unwrap_or_default();
        if let Some(name) = key.strip_prefix(PAX_XATTR) {
            found.insert(name.into(), extension.value_bytes().to_vec());
        } else if let Some(name) = key.strip_prefix(PAX_XATTR_LIBARCHIVE) {
            use base64::Engine;
            let text: Vec<u8> = extension
                .value_bytes()
                .iter()
                .copied()
                .filter(|byte| *byte != b'=')
                .collect();
            let value = base64::engine::general_purpose::STANDARD_NO_PAD
                .decode(text)
                .with_context(|| format!("extended attribute {name}: its value is not base64"))?;
            found.entry(name.into()).or_insert(value);
        }
    }
    // Labels of the build host's security module would never match a device's.
    found.remove(b"security.selinux".as_slice());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tar_of_gnu_tar_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let long = format!("usr/{}/file", "long-name-".repeat(20));
        std::fs::create_dir_all(root.join(&long).parent().unwrap()).unwrap();
        std::fs::create_dir_all(root.join("usr/bin")).unwrap();
        std::fs::write(root.join(&long), "content").unwrap();
        std::fs::write(root.join("usr/bin/a"), vec![7; 5000]).unwrap();
        std::fs::hard_link(root.join("usr/bin/a"), root.join("usr/bin/b")).unwrap();
        symlink("usr/bin", root.join("bin")).unwrap();
        let tar = dir.path().join("t.tar");
        Command::new("mkfifo", "coreutils")
            .arg(root.join("pipe"))
            .run()
            .unwrap();
        Command::new("tar", "tar")
            .args(["--owner=5", "--group=6", "--format=pax", "-cf"])
            .arg(&tar)
            .args(["-C".as_ref(), root.as_os_str(), ".".as_ref()])
            .run()
            .unwrap();

        let tree = Tree::from_tar(&tar).unwrap();
        assert_eq!(tree.read(&long).unwrap(), b"content");
        assert_eq!(tree.read("bin/b").unwrap(), vec![7; 5000]);
        assert_eq!(tree.get("usr/bin/b").unwrap().uid, 5);
        assert_eq!(tree.get("usr/bin/b").unwrap().gid, 6);
        assert_eq!(tree.get("bin").unwrap().link_target(), Some("usr/bin"));
        assert!(!tree.contains("pipe"));
    }

    #[test]
    fn extended_attributes_of_both_dialects_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.tar");
        let mut builder = tar::Builder::new(File::create(&path).unwrap());
        builder
            .append_pax_extensions([
                ("SCHILY.xattr.security.capability", [1u8, 0, 2].as_slice()),
                ("LIBARCHIVE.xattr.user.x", b"AQID".as_slice()),
                ("SCHILY.xattr.security.selinux", b"label".as_slice()),
            ])
            .unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        builder
            .append_data(&mut header, "ping", std::io::empty())
            .unwrap();
        builder.finish().unwrap();
        let tree = Tree::from_tar(&path).unwrap();
        let xattrs = &tree.get("ping").unwrap().xattrs;
        assert_eq!(xattrs[b"security.capability".as_slice()], [1, 0, 2]);
        assert_eq!(xattrs[b"user.x".as_slice()], [1, 2, 3]);
        assert_eq!(xattrs.len(), 2);
    }

    #[test]
    fn foreign_files_and_paths_are_errors_that_say_why() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.tar");
        std::fs::write(&path, vec![b'x'; 2048]).unwrap();
        let error = format!("{:#}", Tree::from_tar(&path).unwrap_err());
        assert!(error.contains("plain tar"), "{error}");
        let error = format!("{:#}", entry_path(b"./usr/\xff").unwrap_err());
        assert!(error.contains("UTF-8"), "{error}");
        assert!(entry_path(b"usr/../../x").is_err());
    }
}
