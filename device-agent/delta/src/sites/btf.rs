//! Type information of kernel modules (format: the kernel's `include/uapi/linux/btf.h`): names and types are
//! numbers, which a change anywhere shifts.

use super::tables::plain;
use super::{Meaning, Site};
use crate::elf::Section;
use crate::source::{number_at, Source};

/// Records known at most.
const RECORDS: usize = 1 << 19;

/// Kinds of numbers.
const NAME: u8 = 0;
const TYPE: u8 = 1;
/// Classes of fields: names of records, types of records, names of members, types of members.
const CLASS: u8 = 21;

/// Beginnings of the records of a `.BTF` section.
pub(crate) fn records(source: &dyn Source, section: &Section) -> Vec<u32> {
    let at = |offset: u64, width| number_at(source, section.offset + offset, width);
    let header = (|| Some((at(0, 2)?, at(4, 4)?, at(8, 4)?, at(12, 4)?)))();
    let Some((0xeb9f, length, from, size)) = header else {
        return Vec::new();
    };
    let begin = section.offset + length + from;
    let end = (begin + size).min(section.offset + section.stored());
    let mut records = Vec::new();
    let mut place = begin;
    while place + 12 <= end && records.len() < RECORDS {
        let Some(info) = number_at(source, place + 4, 4) else {
            break;
        };
        records.push(place as u32);
        place += 12 + extra(info);
    }
    records
}

fn shape(info: u64) -> (u64, u64) {
    ((info >> 24) & 31, info & 0xffff)
}

/// Bytes after the twelve that every record has.
fn extra(info: u64) -> u64 {
    let (kind, count) = shape(info);
    match kind {
        1 | 14 | 17 => 4,
        3 => 12,
        4 | 5 | 15 | 19 => 12 * count,
        6 | 13 => 8 * count,
        _ => 0,
    }
}

/// Bytes of each of the members that make up the rest of a record: structures, unions, enumerations.
#[cfg(feature = "make")]
pub(crate) fn member(info: u64) -> Option<usize> {
    match shape(info).0 {
        4 | 5 | 19 => Some(12),
        6 => Some(8),
        _ => None,
    }
}

/// Fields of the records that touch a range.
pub(super) fn fields(
    source: &dyn Source,
    records: &[u32],
    from: u64,
    to: u64,
    out: &mut Vec<Site>,
) {
    let first = records
        .partition_point(|&at| u64::from(at) <= from)
        .saturating_sub(1);
    for &at in records[first..]
        .iter()
        .take_while(|at| u64::from(**at) < to)
    {
        let at = u64::from(at);
        let Some(info) = number_at(source, at + 4, 4) else {
            return;
        };
        let (kind, count) = shape(info);
        let name = |at| plain(at, 4, Meaning::Numbered(NAME), CLASS);
        let refers = |at| plain(at, 4, Meaning::Numbered(TYPE), CLASS + 1);
        let inner_name = |at| plain(at, 4, Meaning::Numbered(NAME), CLASS + 2);
        let inner = |at| plain(at, 4, Meaning::Numbered(TYPE), CLASS + 3);
        out.push(name(at));
        if matches!(kind, 2 | 8..=14 | 17 | 18) {
            out.push(refers(at + 8));
        }
        for i in 0..count {
            match kind {
                4 | 5 => {
                    out.push(inner_name(at + 12 + 12 * i));
                    out.push(inner(at + 16 + 12 * i));
                }
                6 => out.push(inner_name(at + 12 + 8 * i)),
                13 => {
                    out.push(inner_name(at + 12 + 8 * i));
                    out.push(inner(at + 16 + 8 * i));
                }
                15 => out.push(inner(at + 12 + 12 * i)),
                19 => out.push(inner_name(at + 12 + 12 * i)),
                _ => break,
            }
        }
        if kind == 3 {
            out.push(inner(at + 12));
            out.push(inner(at + 16));
        }
    }
}
