//! Fields of sections that are tables: relocations, symbols, unwind entries, pointers, headers.

use super::{btf, kernel, Form, Meaning, Site, Sites};
use crate::elf::{Elf, Machine, Section, DYNSYM, REL, RELA, SYMTAB};
use crate::source::{number_at, Source};

/// Unwind entries known at most.
const ENTRIES: usize = 1 << 20;
/// Section symbols looked for among so many.
const SYMBOLS: u64 = 1 << 16;
const RELR: u32 = 19;
const DYNAMIC: u32 = 6;
const PROGBITS: u32 = 1;
const ARRAYS: [u32; 3] = [14, 15, 16];

/// Tables of the kernel whose entries begin with numbers of 32 bits that count from their own place
/// (`include/asm-generic/bug.h`, `include/linux/export-internal.h`, `arch/*/include/asm/extable.h` and others):
/// beginning of the section's name, bytes of an entry, how many such numbers.
const RELATIVE: [(&[u8], u64, u64); 12] = [
    (b".orc_unwind_ip", 4, 1),
    (b".retpoline_sites", 4, 1),
    (b".return_sites", 4, 1),
    (b".call_sites", 4, 1),
    (b".ibt_endbr_seal", 4, 1),
    (b".smp_locks", 4, 1),
    (b"runtime_", 4, 1),
    (b"__bug_table", 12, 2),
    (b"__ex_table", 12, 2),
    (b"__ksymtab_string", 0, 0),
    (b"__ksymtab", 12, 3),
    (b".altinstructions", 14, 2),
];

/// Bytes of an entry of such a table, and of the numbers in it.
pub(crate) fn relative(machine: Machine, name: &[u8]) -> Option<(u64, u64)> {
    let (begin, size, count) = RELATIVE
        .iter()
        .find(|(begin, ..)| name.starts_with(begin))?;
    match (machine, *begin) {
        // Addresses.
        (Machine::Ppc64, b"__ksymtab") => None,
        (Machine::Ppc64, b"__ex_table") => Some((8, 8)),
        _ => (*size > 0).then_some((*size, 4 * count)),
    }
}

/// What must be known of a file before its tables can be read anywhere.
#[derive(Default)]
pub(super) struct Tables {
    /// Section, beginnings of its unwind entries.
    unwind: Vec<(usize, Vec<u32>)>,
    /// Section of the table that goes with `eh_frame`: index.
    header: Option<usize>,
    /// Section with types, beginnings of its records.
    types: Option<(usize, Vec<u32>)>,
    /// Sections of numbers that count from their own place: bytes of an entry, of the numbers in it.
    relative: Vec<(usize, u64, u64)>,
    /// Tables inside of sections.
    pub(super) kernel: Vec<kernel::Table>,
    /// Address of the section that POWER's register 2 points into.
    pub(super) toc: Option<u64>,
    /// By symbol: the section it stands for.
    section_of: Vec<u16>,
    /// Bytes of memory that reading took.
    reading: u64,
}

impl Tables {
    /// Bytes of memory.
    pub(super) fn memory(&self) -> u64 {
        let unwind: usize = self.unwind.iter().map(|(_, e)| size_of_val(&**e)).sum();
        let types = self.types.as_ref().map_or(0, |(_, t)| size_of_val(&**t));
        let symbols = size_of_val(&*self.section_of) + size_of_val(&*self.kernel);
        self.reading.max((unwind + types + symbols) as u64)
    }

    pub(super) fn read(source: &dyn Source, elf: &Elf) -> Self {
        let mut tables = Self::default();
        let names = source_names(source, elf);
        tables.kernel = kernel::tables(source, elf, &names);
        for (index, section) in elf.sections.iter().enumerate() {
            let name = names(section);
            if let Some((size, numbers)) = relative(elf.machine, &name).filter(|_| !elf.relocatable)
            {
                tables.relative.push((index, size, numbers));
            }
            if name == b".rodata" && !tables.kernel.is_empty() {
                tables.reading = tables.reading.max(section.stored());
            }
            if elf.image && name == b".init.text" {
                tables.reading = tables.reading.max(source.len() - section.offset);
            }
            match name.as_slice() {
                b".eh_frame" if !elf.relocatable => {
                    tables.unwind.push((index, unwind_entries(source, section)));
                }
                b".got" if elf.machine == Machine::Ppc64 && !elf.relocatable => {
                    tables.toc = Some(section.addr);
                }
                b".BTF" => tables.types = Some((index, btf::records(source, section))),
                b".eh_frame_hdr" => tables.header = Some(index),
                _ => {}
            }
            if elf.relocatable && section.kind == SYMTAB && tables.section_of.is_empty() && elf.wide
            {
                tables.section_of = section_symbols(source, section);
            }
        }
        tables
    }
}

fn source_names<'a>(source: &'a dyn Source, elf: &'a Elf) -> impl Fn(&Section) -> Vec<u8> + 'a {
    let strings = elf.sections.get(elf.names as usize);
    move |section| {
        let mut name = [0u8; 16];
        if let Some(label) = elf.label(section) {
            return label.to_vec();
        }
        let Some(strings) = strings else {
            return Vec::new();
        };
        let at = strings.offset.saturating_add(section.name.into());
        let room = (strings.offset + strings.stored())
            .saturating_sub(at)
            .min(16);
        if source.read_at(at, &mut name[..room as usize]).is_err() {
            return Vec::new();
        }
        name.split(|&b| b == 0).next().unwrap_or_default().to_vec()
    }
}

fn unwind_entries(source: &dyn Source, section: &Section) -> Vec<u32> {
    let mut entries = Vec::new();
    let (mut at, end) = (section.offset, section.offset + section.stored());
    while at + 8 <= end && entries.len() < ENTRIES {
        let (Some(length), Some(back)) = (number_at(source, at, 4), number_at(source, at + 4, 4))
        else {
            break;
        };
        if length == 0 || length >= 0xffff_fff0 {
            break;
        }
        if back != 0 {
            entries.push(at as u32);
        }
        at += 4 + length;
    }
    entries
}

fn section_symbols(source: &dyn Source, section: &Section) -> Vec<u16> {
    let locals = u64::from(section.info)
        .min(section.stored() / 24)
        .min(SYMBOLS);
    (0..locals)
        .map(|i| {
            let at = section.offset + i * 24;
            match number_at(source, at + 4, 4) {
                Some(word) if word & 15 == 3 => (word >> 16) as u16,
                _ => 0,
            }
        })
        .collect()
}

pub(super) fn plain(at: u64, width: u8, meaning: Meaning, class: u8) -> Site {
    Site {
        at,
        width,
        form: Form::Plain,
        meaning,
        class,
    }
}

/// Entries of a table that touch a range.
fn entries(section: &Section, from: u64, to: u64, size: u64) -> impl Iterator<Item = u64> {
    let first = (from - section.offset) / size;
    let last = (to - section.offset)
        .div_ceil(size)
        .min(section.stored() / size);
    let base = section.offset;
    (first..last).map(move |i| base + i * size)
}

impl Sites<'_> {
    pub(super) fn data(
        &self,
        section: &Section,
        index: usize,
        from: u64,
        to: u64,
        out: &mut Vec<Site>,
    ) {
        let wide = self.elf.wide;
        match section.kind {
            RELA if wide => {
                for at in entries(section, from, to, 24) {
                    self.rela(section, at, out);
                }
            }
            REL if !wide => {
                for at in entries(section, from, to, 8) {
                    out.push(plain(at, 4, self.place(section.info), 3));
                    out.push(Site {
                        at: at + 4,
                        width: 4,
                        form: Form::High24,
                        meaning: Meaning::Symbol(section.link, 16),
                        class: 4,
                    });
                }
            }
            RELR => self.words(section, from, to, if wide { 8 } else { 4 }, out),
            SYMTAB | DYNSYM => {
                for at in entries(section, from, to, if wide { 24 } else { 16 }) {
                    self.symbol(section, at, out);
                }
            }
            _ if Some(index) == self.tables.header => {
                let base = section.addr;
                out.push(plain(section.offset + 4, 4, Meaning::Relative(0), 5));
                for at in entries(section, from, to, 4).filter(|at| *at >= section.offset + 12) {
                    out.push(plain(at, 4, Meaning::Based(base), 5));
                }
            }
            _ if self.tables.types.as_ref().is_some_and(|(i, _)| *i == index) => {
                if let Some((_, records)) = &self.tables.types {
                    btf::fields(self.source, records, from, to, out);
                }
            }
            _ if !self.elf.relocatable => {
                let relative = self.tables.relative.iter().find(|r| r.0 == index);
                if let Some((_, list)) = self.tables.unwind.iter().find(|(i, _)| *i == index) {
                    self.unwind(list, from, to, out);
                } else if let Some(&(_, size, numbers)) = relative {
                    for at in entries(section, from, to, size) {
                        let fields = (at..at + numbers).step_by(4);
                        out.extend(fields.map(|at| plain(at, 4, Meaning::Relative(0), 25)));
                    }
                } else if section.is_loaded()
                    && (matches!(section.kind, PROGBITS | DYNAMIC)
                        || ARRAYS.contains(&section.kind))
                {
                    self.words(section, from, to, if wide { 8 } else { 4 }, out);
                }
            }
            _ => {}
        }
    }

    fn place(&self, section: u32) -> Meaning {
        if self.elf.relocatable {
            Meaning::Within(section, 0)
        } else {
            Meaning::Address
        }
    }

    fn rela(&self, section: &Section, at: u64, out: &mut Vec<Site>) {
        out.push(plain(at, 8, self.place(section.info), 3));
        let (Some(kind), Some(symbol)) = (
            number_at(self.source, at + 8, 4),
            number_at(self.source, at + 12, 4),
        ) else {
            return;
        };
        if symbol != 0 {
            out.push(plain(at + 12, 4, Meaning::Symbol(section.link, 24), 4));
        }
        if !self.elf.relocatable {
            if symbol == 0 {
                out.push(plain(at + 16, 8, Meaning::Address, 6));
            }
            return;
        }
        let of = self
            .tables
            .section_of
            .get(symbol as usize)
            .copied()
            .unwrap_or(0);
        if of != 0 {
            // On x86-64 most fields count from the end of the instruction, which is four bytes on.
            let home = self.elf.sections.get(section.info as usize);
            let code = home.is_some_and(Section::is_code);
            let bias = if code && self.elf.machine == Machine::X86 && matches!(kind, 2 | 4) {
                4
            } else {
                0
            };
            out.push(plain(at + 16, 8, Meaning::Within(of.into(), bias), 6));
        }
    }

    fn symbol(&self, section: &Section, at: u64, out: &mut Vec<Site>) {
        let (width, value, size, index) = if self.elf.wide {
            (8, at + 8, at + 16, at + 6)
        } else {
            (4, at + 4, at + 8, at + 14)
        };
        out.push(plain(at, 4, Meaning::Within(section.link, 0), 7));
        let (Some(of), Some(begin)) = (
            number_at(self.source, index, 2),
            number_at(self.source, value, usize::from(width)),
        ) else {
            return;
        };
        let listed = self.elf.sections.get(of as usize).filter(|_| of != 0);
        let Some(home) = listed else {
            return;
        };
        out.push(plain(index, 2, Meaning::SectionIndex, 8));
        if self.elf.relocatable {
            out.push(plain(value, width, Meaning::Within(of as u32, 0), 9));
            out.push(plain(
                size,
                width,
                Meaning::Extent(home.offset.wrapping_add(begin)),
                10,
            ));
        } else {
            out.push(plain(value, width, Meaning::Address, 9));
            out.push(plain(size, width, Meaning::Extent(begin), 10));
        }
    }

    fn unwind(&self, list: &[u32], from: u64, to: u64, out: &mut Vec<Site>) {
        let first = list.partition_point(|&at| u64::from(at) + 16 <= from);
        for &at in list[first..].iter().take_while(|at| u64::from(**at) < to) {
            let at = u64::from(at);
            out.push(plain(at + 4, 4, Meaning::Back, 11));
            out.push(plain(at + 8, 4, Meaning::Relative(0), 12));
            let begin = number_at(self.source, at + 8, 4).map(|number| {
                self.address_of(at + 8)
                    .wrapping_add(number as i32 as i64 as u64)
            });
            out.push(plain(at + 12, 4, Meaning::Extent(begin.unwrap_or(0)), 13));
        }
    }

    /// Aligned words that could be addresses.
    fn words(&self, section: &Section, from: u64, to: u64, width: u64, out: &mut Vec<Site>) {
        let begin = from.next_multiple_of(width);
        let end = to.min(section.offset + section.stored());
        if begin >= end {
            return;
        }
        let mut bytes = vec![0; (end - begin) as usize];
        if self.source.read_at(begin, &mut bytes).is_err() {
            return;
        }
        for (i, word) in bytes.chunks_exact(width as usize).enumerate() {
            let mut value = [0u8; 8];
            value[..width as usize].copy_from_slice(word);
            if self.is_address(u64::from_le_bytes(value)) {
                out.push(plain(
                    begin + i as u64 * width,
                    width as u8,
                    Meaning::Address,
                    14,
                ));
            }
        }
    }

    /// Address of a place in the file (the place itself in object files).
    fn address_of(&self, offset: u64) -> u64 {
        if self.elf.relocatable {
            return offset;
        }
        let home = self
            .elf
            .sections
            .iter()
            .find(|s| s.is_loaded() && s.offset <= offset && offset - s.offset < s.stored());
        home.map_or(offset, |s| s.addr.wrapping_add(offset - s.offset))
    }
}

/// Where the section headers stand.
pub(super) fn file_header(elf: &Elf, from: u64, to: u64, out: &mut Vec<Site>) {
    let (at, width) = if elf.wide { (40, 8) } else { (32, 4) };
    if elf.image {
        return;
    }
    if from <= at && at < to {
        out.push(plain(at, width, Meaning::Offset, 15));
    }
}

pub(super) fn section_headers(elf: &Elf, from: u64, to: u64, out: &mut Vec<Site>) {
    let size = elf.header_size();
    let names = elf.sections.len() as u64;
    if elf.image || elf.headers + names * size <= from || elf.headers >= to {
        return;
    }
    let width: u64 = if elf.wide { 8 } else { 4 };
    for i in 0..elf.sections.len() as u32 {
        let at = elf.headers + u64::from(i) * size;
        let long = |n: u64| at + 8 + n * width;
        if at + size <= from || at >= to || elf.sections[i as usize].kind == 0 {
            continue;
        }
        out.push(plain(at, 4, Meaning::Within(elf.names, 0), 16));
        out.push(plain(long(1), width as u8, Meaning::HeaderAddress(i), 16));
        out.push(plain(long(2), width as u8, Meaning::HeaderOffset(i), 16));
        out.push(plain(long(3), width as u8, Meaning::HeaderSize(i), 16));
        out.push(plain(long(4), 4, Meaning::SectionIndex, 16));
        out.push(plain(long(4) + 4, 4, Meaning::SectionIndex, 16));
    }
}
