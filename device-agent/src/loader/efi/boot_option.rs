//! A line of firmware's list of what it starts: `EFI_LOAD_OPTION` (UEFI specification 2.10, 3.1.3) with the short
//! device path of a file on a partition: a hard-drive node (10.3.5.1) and a file-path node (10.3.5.4).

/// `LOAD_OPTION_ACTIVE`.
const ACTIVE: u32 = 1;
/// Type of device-path nodes for media.
const MEDIA: u8 = 4;
/// Sub-type: hard drive.
const HARD_DRIVE: u8 = 1;
/// Sub-type: file path.
const FILE_PATH: u8 = 4;
/// The node that ends a path.
const END: [u8; 4] = [0x7f, 0xff, 4, 0];
/// `PartitionFormat`: GUID partition table.
const GPT: u8 = 2;
/// `SignatureType`: GUID.
const GUID: u8 = 2;

/// A partition as the hard-drive node names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    /// Its number in the table, from 1.
    pub number: u32,
    /// First block, in the disk's logical blocks.
    pub start: u64,
    /// Blocks.
    pub blocks: u64,
    /// Identity of the partition in the GUID partition table, as it stands there.
    pub guid: [u8; 16],
}

/// A program that firmware starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootOption {
    /// What the firmware's menu shows.
    pub description: String,
    /// The partition it is on.
    pub partition: Partition,
    /// The file, with slashes, from the root directory on: `EFI/BOOT/BOOTX64.EFI`.
    pub path: String,
}

impl BootOption {
    /// As the variable has it.
    pub fn render(&self) -> Vec<u8> {
        let mut drive = Vec::new();
        drive.extend(self.partition.number.to_le_bytes());
        drive.extend(self.partition.start.to_le_bytes());
        drive.extend(self.partition.blocks.to_le_bytes());
        drive.extend(self.partition.guid);
        drive.extend([GPT, GUID]);
        let path = wide(&format!("/{}", self.path).replace('/', "\\"));
        let mut list = node(HARD_DRIVE, &drive);
        list.extend(node(FILE_PATH, &path));
        list.extend(END);
        let mut bytes = ACTIVE.to_le_bytes().to_vec();
        bytes.extend(short(list.len()));
        bytes.extend(wide(&self.description));
        bytes.extend(list);
        bytes
    }

    /// Reads one; `None` if it is not such a file on a partition of a GUID partition table (a network card, a
    /// disk as a whole, the firmware's own menu), or not active.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let attributes = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
        let length = usize::from(u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?));
        let (description, rest) = narrow(bytes.get(6..)?)?;
        let mut list = rest.get(..length)?;
        let (mut partition, mut path) = (None, None);
        while !list.starts_with(&END[..2]) {
            let size = usize::from(u16::from_le_bytes(list.get(2..4)?.try_into().ok()?));
            let body = list.get(4..size)?;
            match (list[0], list[1]) {
                (MEDIA, HARD_DRIVE) => partition = Some(drive(body)?),
                (MEDIA, FILE_PATH) => path = Some(narrow(body)?.0),
                _ => {}
            }
            list = list.get(size..)?;
        }
        let path = path?.replace('\\', "/");
        (attributes & ACTIVE != 0).then_some(Self {
            description,
            partition: partition?,
            path: path.trim_start_matches('/').to_string(),
        })
    }

    /// Whether both mean the same file. Numbers and places of a partition follow from its identity.
    pub fn is_same(&self, other: &Self) -> bool {
        self.partition.guid == other.partition.guid && self.path.eq_ignore_ascii_case(&other.path)
    }
}

fn drive(body: &[u8]) -> Option<Partition> {
    let number = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
    (body.get(36..38)? == [GPT, GUID]).then_some(())?;
    Some(Partition {
        number: u32::from_le_bytes(body.get(..4)?.try_into().ok()?),
        start: number(4)?,
        blocks: number(12)?,
        guid: body.get(20..36)?.try_into().ok()?,
    })
}

fn node(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![MEDIA, kind];
    bytes.extend(short(body.len() + 4));
    bytes.extend(body);
    bytes
}

/// Sizes here are those of a name and a fixed node: far below the limit.
fn short(size: usize) -> [u8; 2] {
    u16::try_from(size).unwrap_or(u16::MAX).to_le_bytes()
}

/// UCS-2 with its end.
fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16()
        .chain([0])
        .flat_map(u16::to_le_bytes)
        .collect()
}

/// The text up to its end, and what stands behind.
fn narrow(bytes: &[u8]) -> Option<(String, &[u8])> {
    let units: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    let rest = bytes.get(units.len() * 2 + 2..)?;
    Some((String::from_utf16_lossy(&units), rest))
}

/// A partition's identity as it stands in the table: the first three groups are numbers, smallest byte first (UEFI
/// specification 2.10, appendix A).
pub fn guid(text: &str) -> Option<[u8; 16]> {
    let plain: String = text.chars().filter(|c| *c != '-').collect();
    let mut bytes: [u8; 16] = hex::decode(plain).ok()?.try_into().ok()?;
    bytes[..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option() -> BootOption {
        BootOption {
            description: "Treeline A".into(),
            partition: Partition {
                number: 1,
                start: 2048,
                blocks: 131_072,
                guid: guid("0b7f3b20-9f5e-4f5c-8d3b-2c1f2f3e4d5c").unwrap(),
            },
            path: "EFI/treeline/a/BOOTX64.EFI".into(),
        }
    }

    #[test]
    fn an_option_is_read_back() {
        let bytes = option().render();
        assert_eq!(BootOption::parse(&bytes), Some(option()));
        // Optional data may follow.
        let more: Vec<u8> = bytes.iter().copied().chain([1, 2, 3]).collect();
        assert_eq!(BootOption::parse(&more), Some(option()));
        let mut inactive = bytes.clone();
        inactive[0] = 0;
        assert_eq!(BootOption::parse(&inactive), None);
        for length in 0..bytes.len() {
            assert_eq!(BootOption::parse(&bytes[..length]), None, "{length}");
        }
        // A node of no length does not lead in a circle.
        let at = bytes
            .windows(4)
            .position(|four| four == [4, 1, 42, 0])
            .unwrap();
        let mut circle = bytes;
        circle[at + 2] = 0;
        assert_eq!(BootOption::parse(&circle), None);
    }

    #[test]
    fn the_place_of_a_partition_does_not_matter_and_neither_does_case() {
        let mut other = option();
        other.partition.start = 1;
        other.path = "efi/TREELINE/a/bootx64.efi".into();
        assert!(other.is_same(&option()));
        other.partition.guid[0] ^= 1;
        assert!(!other.is_same(&option()));
    }

    /// The example of the specification's appendix A.
    #[test]
    fn identities_are_numbers_first() {
        let bytes = guid("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!(hex::encode(bytes), "33221100554477668899aabbccddeeff");
        assert_eq!(guid("0011"), None);
    }
}
