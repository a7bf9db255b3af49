//! The parts of an ELF file (or of a kernel image, [`crate::image`]) that tell how its bytes depend on each other's places (formats: System V ABI,
//! "Object Files"; little-endian only). What cannot be read is not an error: the file is then plain bytes.

use crate::image;
use crate::source::{number_at, Source};

/// Sections read at most; a file with more is taken as plain bytes.
const SECTIONS: u64 = 4096;

pub(crate) const SYMTAB: u32 = 2;
pub(crate) const RELA: u32 = 4;
pub(crate) const NOBITS: u32 = 8;
pub(crate) const REL: u32 = 9;
pub(crate) const DYNSYM: u32 = 11;
const EXECUTABLE: u64 = 4;
const ALLOCATED: u64 = 2;

/// Processors whose machine code is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
    X86,
    Arm,
    Arm64,
    Ppc64,
    Other,
}

/// A section header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Section {
    pub name: u32,
    pub kind: u32,
    pub flags: u64,
    pub addr: u64,
    pub offset: u64,
    pub size: u64,
    pub link: u32,
    pub info: u32,
    pub align: u64,
}

impl Section {
    /// Bytes in the file.
    pub(crate) fn stored(&self) -> u64 {
        if self.kind == NOBITS || self.kind == 0 {
            0
        } else {
            self.size
        }
    }

    pub(crate) fn is_code(&self) -> bool {
        self.flags & EXECUTABLE != 0 && self.stored() > 0
    }

    pub(crate) fn is_loaded(&self) -> bool {
        self.flags & ALLOCATED != 0
    }
}

/// An ELF file's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Elf {
    pub wide: bool,
    pub machine: Machine,
    /// Whether addresses are relative to sections (object files, kernel modules).
    pub relocatable: bool,
    pub headers: u64,
    /// The section with the sections' names.
    pub names: u32,
    pub sections: Vec<Section>,
    /// It is none, but a kernel image: there are no headers, and names are those of [`crate::image::NAMES`].
    pub image: bool,
}

impl Elf {
    /// Reads the section headers; `None` if this is no ELF file that is understood.
    pub(crate) fn parse(source: &dyn Source) -> Option<Self> {
        let mut ident = [0u8; 16];
        source.read_at(0, &mut ident).ok()?;
        if ident[..4] != *b"\x7fELF" {
            return image::parse(source).filter(|_| source.len() <= u64::from(u32::MAX));
        }
        if ident[..4] != *b"\x7fELF" || ident[5] != 1 || source.len() > u64::from(u32::MAX) {
            return None;
        }
        let wide = match ident[4] {
            1 => false,
            2 => true,
            _ => return None,
        };
        let at = |offset, width| number_at(source, offset, width);
        let machine = match at(18, 2)? {
            62 => Machine::X86,
            40 => Machine::Arm,
            183 => Machine::Arm64,
            21 => Machine::Ppc64,
            _ => Machine::Other,
        };
        let (headers, count) = if wide {
            (at(40, 8)?, at(60, 2)?)
        } else {
            (at(32, 4)?, at(48, 2)?)
        };
        if count == 0 || count > SECTIONS || headers == 0 {
            return None;
        }
        let mut elf = Self {
            wide,
            machine,
            relocatable: at(16, 2)? == 1,
            headers,
            names: at(if wide { 62 } else { 50 }, 2)? as u32,
            sections: Vec::with_capacity(count as usize),
            image: false,
        };
        for index in 0..count {
            let section = elf.section(source, index)?;
            let end = section.offset.checked_add(section.stored())?;
            if end > source.len() || section.addr.checked_add(section.size).is_none() {
                return None;
            }
            elf.sections.push(section);
        }
        Some(elf)
    }

    /// Whether a part of an image has this name.
    pub(crate) fn is_named(&self, section: &Section, name: &[u8]) -> bool {
        self.label(section) == Some(name)
    }

    /// The name of a part of an image.
    pub(crate) fn label(&self, section: &Section) -> Option<&'static [u8]> {
        let name = image::NAMES.get(section.name as usize).copied();
        name.filter(|_| self.image)
    }

    /// Where whole words follow the section headers up to the end of the file, as in a kernel that can be
    /// moved.
    pub(crate) fn trailer(&self, length: u64) -> Option<u64> {
        let begin = self.headers + self.sections.len() as u64 * self.header_size();
        let behind = self.sections.iter().all(|s| s.offset + s.stored() <= begin);
        let fits = self.machine == Machine::X86 && !self.relocatable && self.wide;
        (fits && behind && begin + 8 <= length && (length - begin) % 4 == 0).then_some(begin)
    }

    pub(crate) fn header_size(&self) -> u64 {
        if self.wide {
            64
        } else {
            40
        }
    }

    fn section(&self, source: &dyn Source, index: u64) -> Option<Section> {
        let base = self.headers.checked_add(index * self.header_size())?;
        let mut raw = [0u8; 64];
        source
            .read_at(base, &mut raw[..self.header_size() as usize])
            .ok()?;
        let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Some(if self.wide {
            Section {
                name: word(0),
                kind: word(4),
                flags: long(8),
                addr: long(16),
                offset: long(24),
                size: long(32),
                link: word(40),
                info: word(44),
                align: long(48),
            }
        } else {
            Section {
                name: word(0),
                kind: word(4),
                flags: u64::from(word(8)),
                addr: u64::from(word(12)),
                offset: u64::from(word(16)),
                size: u64::from(word(20)),
                link: word(24),
                info: word(28),
                align: u64::from(word(32)),
            }
        })
    }
}
