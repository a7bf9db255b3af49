//! The header of a file object, `(uuuusa(ayay))`: what OSTree's checksum of a file covers besides the content.

use crate::Error;

const SHAPE: Error = Error::Damaged("a file's header is not what OSTree makes");

/// A file object's header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Header {
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Type and permissions, as in `st_mode`.
    pub mode: u32,
    /// Target of a symbolic link; empty for a regular file.
    pub target: String,
    /// Extended attributes: a serialised `a(ayay)`.
    pub xattrs: Vec<u8>,
}

impl Header {
    /// The serialised form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [self.uid, self.gid, self.mode, 0] {
            bytes.extend(number.to_be_bytes());
        }
        bytes.extend(self.target.as_bytes());
        bytes.push(0);
        let end = bytes.len() as u64;
        bytes.extend(&self.xattrs);
        let size = match bytes.len() {
            0..=0xfe => 1,
            0xff..=0xfffd => 2,
            _ => 4,
        };
        bytes.extend(&end.to_le_bytes()[..size]);
        bytes
    }

    /// Reads the serialised form.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let number = |at: usize| -> Result<u32, Error> {
            let raw = bytes.get(at..at + 4).ok_or(SHAPE)?;
            Ok(u32::from_be_bytes(raw.try_into().map_err(|_| SHAPE)?))
        };
        let size = match bytes.len() {
            0..=0xff => 1,
            0x100..=0xffff => 2,
            _ => 4,
        };
        let tail = bytes.len().checked_sub(size).ok_or(SHAPE)?;
        let end = bytes[tail..]
            .iter()
            .rev()
            .fold(0usize, |sum, b| sum << 8 | usize::from(*b));
        let (last, target) = bytes
            .get(16..end)
            .and_then(<[u8]>::split_last)
            .ok_or(SHAPE)?;
        if *last != 0 || end > tail || number(12)? != 0 {
            return Err(SHAPE);
        }
        Ok(Self {
            uid: number(0)?,
            gid: number(4)?,
            mode: number(8)?,
            target: String::from_utf8(target.to_vec()).map_err(|_| SHAPE)?,
            xattrs: bytes[end..tail].to_vec(),
        })
    }

    /// Whether it is that of a symbolic link.
    pub fn is_link(&self) -> bool {
        self.mode & 0o170_000 == 0o120_000
    }
}
