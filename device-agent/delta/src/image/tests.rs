use super::*;
use crate::sites::kernel::{self, Entry};

const BASE: u64 = 0xffff_8000_8000_0000;
const FUNCTIONS: usize = 4500;

/// An image of functions that call each other, with tables of them. With `more`, one function is longer, and another is new.
pub(crate) fn image(more: bool) -> Vec<u8> {
    let mut names: Vec<usize> = (0..FUNCTIONS).collect();
    if more {
        names.insert(3000, FUNCTIONS);
    }
    let words = |name: usize| 64 + usize::from(more && name == 1000) * 3;
    let mut place = 0x1000;
    let mut places = vec![0; FUNCTIONS + 1];
    for &name in &names {
        places[name] = place;
        place += 4 * words(name);
    }
    let mut bytes = vec![0u8; 0x1000];
    bytes[16..24].copy_from_slice(&(4u64 << 20).to_le_bytes());
    bytes[56..60].copy_from_slice(b"ARM\x64");
    for &name in &names {
        for i in 0..words(name) {
            let at = bytes.len();
            let word = if i + 1 == words(name) {
                RETURN
            } else if i % 8 == 3 {
                let to = places[(name * 7 + i) % FUNCTIONS] as i64;
                0x9400_0000 | ((to - at as i64) >> 2) as u32 & 0x03ff_ffff
            } else {
                0xaa00_0000 | ((name * 64 + i) as u32).wrapping_mul(0x9e37) & 0xff_ffff
            };
            bytes.extend(word.to_le_bytes());
        }
    }
    bytes.resize(bytes.len().next_multiple_of(0x1000), 0);
    let first = bytes.len();
    for &name in &names {
        bytes.extend((places[name] as u32).to_le_bytes());
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(BASE.to_le_bytes());
    for i in 0..names.len() {
        bytes.extend(&((i * 1237 % names.len()) as u32).to_be_bytes()[1..]);
    }
    bytes.resize(bytes.len().next_multiple_of(8), 0xff);
    assert!(bytes.len() - first > 7 * FUNCTIONS);
    for i in 0..600 {
        let at = bytes.len() as i64;
        let to = |name: usize| places[name * 7] as i64 + 8;
        bytes.extend(((to(i) - at) as i32).to_le_bytes());
        bytes.extend(((to(i) + 16 - at - 4) as i32).to_le_bytes());
        bytes.extend([3, 0, i as u8, 2]);
    }
    let strings = (0..FUNCTIONS).flat_map(|i| format!("name{i}\0").into_bytes());
    let strings: Vec<u8> = std::iter::once(0).chain(strings).collect();
    let text = |i: usize| {
        strings
            .windows(9)
            .position(|w| w == format!("name{i}\0").as_bytes())
    };
    let types: Vec<u8> = (1000..1400)
        .flat_map(|i| {
            let name = text(i).unwrap_or(0) as u32;
            [name, 12 << 24, 1 + i as u32 + u32::from(more)]
                .map(u32::to_le_bytes)
                .concat()
        })
        .collect();
    for word in [
        BTF.0,
        BTF.1,
        0,
        types.len() as u32,
        types.len() as u32,
        strings.len() as u32,
    ] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(types);
    bytes.extend(strings);
    bytes
}

#[test]
fn an_images_parts_are_found() {
    let image = image(false);
    let elf = parse(&image).unwrap();
    let names: Vec<&[u8]> = elf
        .sections
        .iter()
        .map(|s| NAMES[s.name as usize])
        .collect();
    let expected: [&[u8]; 8] = [
        b"",
        b".head",
        b".text",
        b".rodata",
        b".BTF",
        b".rodata",
        b".init.text",
        b".data",
    ];
    assert_eq!(names, expected);
    assert_eq!(elf.sections[2].addr, BASE + 0x1000);
    assert!(elf.sections[2].is_code() && !elf.sections[3].is_code());
    let tables = kernel::tables(&image, &elf, &|s| NAMES[s.name as usize].to_vec());
    let kinds: Vec<Entry> = tables.iter().map(|t| t.entry).collect();
    let first = tables[0].begin;
    assert_eq!(
        kinds,
        [
            Entry::Above(BASE),
            Entry::Slot(first),
            Entry::Twelve(Sort::Code)
        ]
    );
    assert_eq!(tables[0].end - first, 4 * FUNCTIONS as u64);
    assert_eq!(tables[2].end - tables[2].begin, 600 * 12);
}

#[test]
fn what_is_no_image_is_none() {
    let image = image(false);
    assert!(parse(&image[..LEAST as usize - 1].to_vec()).is_none());
    let mut other = image.clone();
    other[56] = 0;
    assert!(parse(&other).is_none());
    // Without the places of symbols nobody knows where it will stand.
    let base = image
        .windows(8)
        .position(|w| w == BASE.to_le_bytes())
        .unwrap();
    let mut other = image.clone();
    other[base + 7] = 0;
    assert!(parse(&other).is_none());
    // Cut anywhere: none, or parts that lie within.
    for length in (0..image.len()).step_by(40_001) {
        let cut = &image[..length];
        if let Some(elf) = parse(&cut) {
            assert!(elf
                .sections
                .iter()
                .all(|s| s.offset + s.size <= length as u64));
        }
    }
}
