//! Which bytes of a flattened image tree the signature of a configuration stands for.
//!
//! U-Boot finds them itself before it believes a signature (`fdt_find_regions` in its `boot/fdt_region.c`): the
//! tags and properties of the nodes on a list, the beginnings and ends of the nodes right below these, and the names
//! of all properties. Where the content of an image stands, and the content itself, are left out: for these its
//! hash is there.

use std::ops::Range;

/// Properties that are left out.
const LEFT_OUT: [&str; 4] = ["data", "data-size", "data-position", "data-offset"];

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// A flattened device tree (Devicetree Specification 0.4, chapter 5).
struct Tree<'a> {
    bytes: &'a [u8],
    structure: usize,
    strings: usize,
}

impl<'a> Tree<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let mut tree = Self {
            bytes,
            structure: 0,
            strings: 0,
        };
        tree.structure = tree.number(8)?;
        tree.strings = tree.number(12)?;
        Some(tree)
    }

    fn number(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes.get(at..at.checked_add(4)?)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?) as usize)
    }

    fn text(&self, at: usize) -> Option<&'a str> {
        let bytes = self.bytes.get(at..)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&bytes[..end]).ok()
    }
}

/// Bytes of the names of all properties.
pub(super) fn strings_length(tree: &[u8]) -> Option<u32> {
    Tree::new(tree)?.number(32)?.try_into().ok()
}

/// What is signed, in order; `None` if it is no tree. Nodes are named by their paths.
pub(super) fn signed(bytes: &[u8], nodes: &[&str]) -> Option<Vec<u8>> {
    let tree = Tree::new(bytes)?;
    let mut message = Vec::new();
    for range in regions(&tree, nodes)? {
        message.extend_from_slice(bytes.get(range)?);
    }
    let end = tree.strings.checked_add(strings_length(bytes)? as usize)?;
    message.extend_from_slice(bytes.get(tree.strings..end)?);
    Some(message)
}

fn regions(tree: &Tree<'_>, nodes: &[&str]) -> Option<Vec<Range<usize>>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut path: Vec<&str> = Vec::new();
    // How far in a node is: 2 on the list, 1 right below such a node, 0 neither.
    let mut wanted = 0;
    let mut outer = Vec::new();
    let mut at = tree.structure;
    loop {
        let tag = u32::try_from(tree.number(at)?).ok()?;
        let (next, taken) = match tag {
            BEGIN_NODE => {
                let name = tree.text(at + 4)?;
                path.push(name);
                outer.push(wanted);
                let here = format!("/{}", path[1..].join("/"));
                wanted = if nodes.contains(&here.as_str()) {
                    2
                } else {
                    i32::max(wanted - 1, 0)
                };
                (at + 4 + (name.len() + 1).next_multiple_of(4), wanted > 0)
            }
            END_NODE => {
                let taken = wanted > 0;
                path.pop()?;
                wanted = outer.pop()?;
                (at + 4, taken)
            }
            PROPERTY => {
                let name = tree.text(tree.strings.checked_add(tree.number(at + 8)?)?)?;
                let length = tree.number(at + 4)?.checked_next_multiple_of(4)?;
                let taken = wanted == 2 && !LEFT_OUT.contains(&name);
                (at.checked_add(12)?.checked_add(length)?, taken)
            }
            NOP => (at + 4, wanted == 2),
            END => (at + 4, true),
            _ => return None,
        };
        if taken {
            match found.last_mut() {
                Some(last) if last.end == at => last.end = next,
                _ => found.push(at..next),
            }
        }
        if tag == END {
            return Some(found);
        }
        at = next;
    }
}
