//! cpio archives in the `newc` format, as the kernel unpacks them
//! (Documentation/driver-api/early-userspace/buffer-format.rst). Sorted, without times: the same files
//! give the same bytes.

use anyhow::{Context, Result};

use super::super::{Kind, Tree};

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;
/// The archive's length is a multiple of this, as cpio's own.
const BLOCK: usize = 512;

struct Entry<'a> {
    name: &'a str,
    mode: u32,
    device: (u32, u32),
    data: Vec<u8>,
}

/// The whole archive. `/dev/console` is added, so that the kernel can give `/init` a console.
pub(super) fn write(files: &Tree) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut inode = 1;
    for (path, node) in files.iter().filter(|(path, _)| !path.is_empty()) {
        let (kind, data) = match &node.kind {
            Kind::Dir => (S_IFDIR, Vec::new()),
            Kind::File(content) => (S_IFREG, content.read()?),
            Kind::Symlink(target) => (S_IFLNK, target.clone().into_bytes()),
        };
        let entry = Entry {
            name: path,
            mode: kind | node.mode,
            device: (0, 0),
            data,
        };
        append(&mut out, inode, &entry)?;
        inode += 1;
        if path == "dev" {
            let console = Entry {
                name: "dev/console",
                mode: S_IFCHR | 0o600,
                device: (5, 1),
                data: Vec::new(),
            };
            append(&mut out, inode, &console)?;
            inode += 1;
        }
    }
    let trailer = Entry {
        name: "TRAILER!!!",
        mode: 0,
        device: (0, 0),
        data: Vec::new(),
    };
    append(&mut out, 0, &trailer)?;
    pad(&mut out, BLOCK);
    Ok(out)
}

fn append(out: &mut Vec<u8>, inode: u32, entry: &Entry<'_>) -> Result<()> {
    let links = if entry.mode & S_IFDIR != 0 && entry.mode & S_IFREG == 0 {
        2
    } else {
        1
    };
    let size = u32::try_from(entry.data.len())
        .with_context(|| format!("{} is larger than 4 GiB", entry.name))?;
    let name_size = u32::try_from(entry.name.len() + 1)?;
    let (major, minor) = entry.device;
    out.extend(b"070701");
    // Inode, mode, uid, gid, links, time, size, device of the file system, device, name, checksum.
    for field in [
        inode, entry.mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0,
    ] {
        out.extend(format!("{field:08x}").bytes());
    }
    out.extend(entry.name.bytes());
    out.push(0);
    pad(out, 4);
    out.extend(&entry.data);
    pad(out, 4);
    Ok(())
}

fn pad(out: &mut Vec<u8>, to: usize) {
    out.resize(out.len().next_multiple_of(to), 0);
}
