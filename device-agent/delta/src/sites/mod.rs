//! Fields whose value depends on where things stand: branches, addresses, relocations, symbols, headers.
//! They are found by looking at the old file alone, so that whoever applies a delta finds the same.

mod arm;
mod arm64;
pub(crate) mod btf;
mod field;
pub(crate) mod kernel;
mod power;
pub(crate) mod tables;
pub(crate) mod x86;

use crate::elf::{Elf, Machine, Section};
use crate::source::Source;
use tables::plain;

/// How a field's number stands in its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// The bytes themselves, little-endian, signed.
    Plain,
    /// Three bytes, the highest first.
    Big24,
    /// Bits 8–31 of a word, unsigned (symbol index of a 32-bit relocation).
    High24,
    /// An instruction of a fixed-width machine.
    Instruction(field::Field),
}

/// What a field's number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// An address, minus the field's own address plus so many bytes.
    Relative(i16),
    /// The same, but what is subtracted is rounded down to a multiple of four.
    Aligned(i16),
    /// Page of an address, minus the page of the field's own (pages of 4 KiB): the address is probably so many bytes
    /// behind the page's beginning.
    Page(u16),
    /// The lowest twelve bits of an address in the page that begins here.
    Low(u64),
    /// An address less such a base, of which these are the lower 16 bits (signed): the upper ones.
    Upper(Base, i16),
    /// An address less such a base, of which these are the upper bits: the lower 16 (signed).
    Lower(Base, i16),
    /// An address.
    Address,
    /// An address, minus this one.
    Based(u64),
    /// One less than this address, minus an address.
    Below(u64),
    /// Number of a word in the table that begins at this offset.
    Slot(u64),
    /// Bytes from this address to another.
    Extent(u64),
    /// Offset in this section, minus so many bytes.
    Within(u32, i8),
    /// Offset in the file.
    Offset,
    /// Bytes back from the field to a place in the file.
    Back,
    /// Number of a section.
    SectionIndex,
    /// Number of a symbol: section of the table, bytes of an entry.
    Symbol(u32, u8),
    /// A number of such a kind that neighbouring numbers are renumbered alike.
    Numbered(u8),
    /// Field of this section's header: where it stands, its size, its address.
    HeaderOffset(u32),
    HeaderSize(u32),
    HeaderAddress(u32),
}

/// What an address is told from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    /// The field's own address, plus so many bytes.
    Own(i16),
    /// 32 KiB behind the beginning of the section at this address.
    Toc(u64),
}

/// One such field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Site {
    /// Offset in the file.
    pub at: u64,
    /// Bytes.
    pub width: u8,
    pub form: Form,
    pub meaning: Meaning,
    /// Fields of a kind are predicted equally well.
    pub class: u8,
}

impl Form {
    /// The number in the first `width` bytes of `bytes`.
    pub(crate) fn get(self, bytes: u64, width: u8) -> i64 {
        match self {
            Self::Plain => {
                let unused = 64 - 8 * u32::from(width);
                ((bytes << unused) as i64) >> unused
            }
            Self::Big24 => ((bytes as u32).swap_bytes() >> 8).into(),
            Self::High24 => ((bytes as u32) >> 8).into(),
            Self::Instruction(field) => field.get(bytes),
        }
    }

    /// The bytes with another number in them; what does not fit is cut off.
    pub(crate) fn set(self, bytes: u64, number: i64) -> u64 {
        match self {
            Self::Plain => number as u64,
            Self::Big24 => ((number as u32) << 8).swap_bytes().into(),
            Self::High24 => (bytes & 0xff) | ((number as u64 & 0xff_ffff) << 8),
            Self::Instruction(field) => field.set(bytes, number),
        }
    }
}

fn instruction(at: u64, field: field::Field, meaning: Meaning, class: u8) -> Site {
    Site {
        at,
        width: 4,
        form: Form::Instruction(field),
        meaning,
        class,
    }
}

/// Bytes of code that are looked at together; each such piece is read independently of the others.
const PIECE: u64 = 1 << 10;
/// Bytes before a piece in which the decoder finds its step.
const LEAD: u64 = 48;
/// Bytes after a piece that its last instruction may need.
const TAIL: u64 = 64;

/// Finds the fields of one file.
pub(crate) struct Sites<'a> {
    source: &'a dyn Source,
    pub(crate) elf: Elf,
    /// Sections with content, by offset.
    order: Vec<usize>,
    /// Loaded sections' addresses.
    loaded: Vec<(u64, u64)>,
    tables: tables::Tables,
    piece: (u64, usize, Vec<Site>),
}

impl<'a> Sites<'a> {
    pub(crate) fn new(source: &'a dyn Source, elf: Elf) -> Self {
        let mut order: Vec<usize> = (0..elf.sections.len())
            .filter(|&i| elf.sections[i].stored() > 0)
            .collect();
        order.sort_by_key(|&i| (elf.sections[i].offset, i));
        let mut loaded: Vec<(u64, u64)> = elf
            .sections
            .iter()
            .filter(|s| s.is_loaded() && s.addr != 0 && s.size != 0)
            .map(|s| (s.addr, s.addr + s.size))
            .collect();
        loaded.sort_unstable();
        let tables = tables::Tables::read(source, &elf);
        Self {
            source,
            elf,
            order,
            loaded,
            tables,
            piece: (u64::MAX, usize::MAX, Vec::new()),
        }
    }

    /// Bytes of memory, at the most that there was while the tables were read.
    pub(crate) fn memory(&self) -> u64 {
        let sections = size_of_val(&*self.elf.sections) + size_of_val(&*self.order);
        sections as u64 + self.tables.memory()
    }

    /// Adds the fields that lie within a range of the file, in order.
    pub(crate) fn within(&mut self, from: u64, to: u64, out: &mut Vec<Site>) {
        let begin = out.len();
        tables::file_header(&self.elf, from, to, out);
        kernel::fields(&self.tables.kernel, from, to, out);
        let first = self
            .order
            .partition_point(|&i| self.elf.sections[i].offset <= from)
            .saturating_sub(1);
        let mut done = from;
        for place in first..self.order.len() {
            let index = self.order[place];
            let section = self.elf.sections[index].clone();
            if section.offset >= to {
                break;
            }
            let (a, b) = (
                done.max(section.offset),
                to.min(section.offset + section.stored()),
            );
            if a >= b {
                continue;
            }
            if section.is_code() {
                self.code(&section, index, a, b, out);
            } else {
                self.data(&section, index, a, b, out);
            }
            done = b;
        }
        tables::section_headers(&self.elf, from, to, out);
        out[begin..].sort_by_key(|site| site.at);
        // What overlaps is taken once.
        let mut free = from;
        let mut keep = begin;
        for i in begin..out.len() {
            let site = out[i];
            let end = site.at + u64::from(site.width);
            if site.at >= free && end <= to {
                out[keep] = site;
                keep += 1;
                free = end;
            }
        }
        out.truncate(keep);
    }

    fn code(&mut self, section: &Section, index: usize, from: u64, to: u64, out: &mut Vec<Site>) {
        let mut number = (from - section.offset) / PIECE;
        if number > 0 && (from - section.offset) % PIECE < 8 {
            // The piece before may hold a field that begins in it.
            number -= 1;
        }
        while section.offset + number * PIECE < to {
            if self.piece.0 != number || self.piece.1 != index {
                let mut found = std::mem::take(&mut self.piece.2);
                found.clear();
                self.read_piece(section, number, &mut found);
                self.piece = (number, index, found);
            }
            let sites = &self.piece.2;
            let first = sites.partition_point(|site| site.at < from);
            out.extend(sites[first..].iter().take_while(|site| site.at < to));
            number += 1;
        }
    }

    fn read_piece(&self, section: &Section, number: u64, out: &mut Vec<Site>) {
        let begin = section.offset + number * PIECE;
        let lead = match self.elf.machine {
            Machine::Arm => arm::LEAD,
            Machine::Arm64 => arm64::LEAD,
            Machine::Ppc64 => power::LEAD,
            _ => LEAD,
        };
        let lead = lead.min(number * PIECE);
        let end = (begin + PIECE).min(section.offset + section.size);
        let stop = (end + TAIL).min(section.offset + section.size);
        let mut code = vec![0; (stop - begin + lead) as usize];
        if self.source.read_at(begin - lead, &mut code).is_err() {
            return;
        }
        let base = begin - lead;
        let mut found = Vec::new();
        match self.elf.machine {
            Machine::X86 if self.elf.wide => self.x86(&code, base, &mut found),
            Machine::Arm => arm::scan(&code, base, &mut found),
            Machine::Arm64 => {
                let linked = !self.elf.relocatable && section.addr != 0;
                let address = section.addr.wrapping_add(base - section.offset);
                arm64::scan(&code, base, if linked { address } else { 0 }, &mut found);
            }
            Machine::Ppc64 => power::scan(&code, base, self.tables.toc, &mut found),
            _ => {}
        }
        out.extend(
            found
                .into_iter()
                .filter(|site| site.at >= begin && site.at < end),
        );
    }

    fn x86(&self, code: &[u8], base: u64, out: &mut Vec<Site>) {
        let mut at = 0;
        while at < code.len() {
            let Some(found) = x86::decode(&code[at..]) else {
                at += 1;
                continue;
            };
            if let Some(field) = found.relative {
                let place = at + field;
                let stored = code.get(place..place + 4).unwrap_or(&[0; 4]);
                // In object files the number is in the relocation.
                if !(self.elf.relocatable && stored == [0; 4]) {
                    out.push(Site {
                        at: base + place as u64,
                        width: 4,
                        form: Form::Plain,
                        meaning: Meaning::Relative((found.length - field) as i16),
                        class: if found.length - field == 4 && code[at] & 0xfe == 0xe8 {
                            1
                        } else {
                            2
                        },
                    });
                }
            }
            at += found.length;
        }
    }

    /// Whether a number could be an address of this file.
    fn is_address(&self, number: u64) -> bool {
        let after = self.loaded.partition_point(|&(begin, _)| begin <= number);
        number >= 4096 && after > 0 && number < self.loaded[after - 1].1
    }
}
