//! A device tree, read as far as it tells what a device waits for (Devicetree Specification, chapters 2 and 5).

use std::collections::{BTreeMap, BTreeSet};

/// A node.
#[derive(Debug, Default)]
pub struct Node {
    pub name: String,
    pub parent: Option<usize>,
    properties: BTreeMap<String, Vec<u8>>,
}

/// Nodes, parents before children.
#[derive(Debug)]
pub struct Tree {
    pub nodes: Vec<Node>,
    by_phandle: BTreeMap<u32, usize>,
}

/// Properties that name others by number, with the property of the other that says how many words follow.
const REFERENCES: [(&str, &str); 7] = [
    ("clocks", "#clock-cells"),
    ("resets", "#reset-cells"),
    ("dmas", "#dma-cells"),
    ("phys", "#phy-cells"),
    ("power-domains", "#power-domain-cells"),
    ("interrupts-extended", "#interrupt-cells"),
    ("mmc-pwrseq", ""),
];

impl Node {
    fn words(&self, name: &str) -> Vec<u32> {
        let bytes = self.properties.get(name).map_or(&[][..], Vec::as_slice);
        let words = bytes.chunks_exact(4);
        words
            .map(|word| u32::from_be_bytes(word.try_into().unwrap()))
            .collect()
    }

    fn strings(&self, name: &str) -> Vec<String> {
        let bytes = self.properties.get(name).map_or(&[][..], Vec::as_slice);
        let parts = bytes.split(|byte| *byte == 0).filter(|s| !s.is_empty());
        parts
            .map(|s| String::from_utf8_lossy(s).into_owned())
            .collect()
    }

    pub fn compatible(&self) -> Vec<String> {
        self.strings("compatible")
    }
}

impl Tree {
    pub fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        let place = |at: usize| usize::try_from(word(at)).unwrap();
        let text = |at: usize| {
            let end = bytes[at..].iter().position(|byte| *byte == 0).unwrap();
            String::from_utf8_lossy(&bytes[at..at + end]).into_owned()
        };
        assert_eq!(word(0), 0xd00d_feed);
        let (mut at, strings) = (place(8), place(12));
        let mut nodes: Vec<Node> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        loop {
            let token = word(at);
            at += 4;
            match token {
                1 => {
                    let name = text(at);
                    at = (at + name.len() + 1).next_multiple_of(4);
                    let parent = open.last().copied();
                    open.push(nodes.len());
                    nodes.push(Node {
                        name,
                        parent,
                        properties: BTreeMap::new(),
                    });
                }
                2 => {
                    open.pop();
                }
                3 => {
                    let (length, name) = (place(at), text(strings + place(at + 4)));
                    let value = bytes[at + 8..at + 8 + length].to_vec();
                    at = (at + 8 + length).next_multiple_of(4);
                    let node = *open.last().unwrap();
                    nodes[node].properties.insert(name, value);
                }
                4 => {}
                _ => break,
            }
        }
        let numbered = nodes.iter().enumerate();
        let by_phandle = numbered
            .filter_map(|(index, node)| Some((*node.words("phandle").first()?, index)))
            .collect();
        Self { nodes, by_phandle }
    }

    fn ancestors(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(node), |node| self.nodes[*node].parent)
    }

    /// Whether a node and all around it are in use.
    pub fn is_enabled(&self, node: usize) -> bool {
        self.ancestors(node).all(|node| {
            let status = self.nodes[node].strings("status");
            status.first().is_none_or(|s| s == "okay" || s == "ok")
        })
    }

    pub fn children(&self, node: usize) -> impl Iterator<Item = &Node> {
        self.nodes
            .iter()
            .filter(move |child| child.parent == Some(node))
    }

    /// What a node names by number.
    fn named(&self, node: usize) -> Vec<usize> {
        let node = &self.nodes[node];
        let mut found = Vec::new();
        for name in node.properties.keys() {
            let words = node.words(name);
            let pins = name
                .strip_prefix("pinctrl-")
                .is_some_and(|n| n.parse::<u8>().is_ok());
            let pin = name.ends_with("-gpios") || name.ends_with("-gpio");
            let known = REFERENCES.iter().find(|(known, _)| known == name);
            if name.ends_with("-supply") || pins {
                found.extend(words.iter().filter_map(|word| self.by_phandle.get(word)));
            } else if pin || known.is_some() {
                let cells = known.map_or("#gpio-cells", |(_, cells)| cells);
                let mut rest = &words[..];
                while let Some(other) = rest.first().and_then(|word| self.by_phandle.get(word)) {
                    found.push(other);
                    let more = self.nodes[*other]
                        .words(cells)
                        .first()
                        .copied()
                        .unwrap_or(0);
                    rest = rest.get(1 + more as usize..).unwrap_or_default();
                }
            }
        }
        found.into_iter().copied().collect()
    }

    /// Every device that `node` waits for, itself too: what it names, and the buses all of them are on.
    pub fn needed_by(&self, node: usize) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let mut todo = vec![node];
        while let Some(node) = todo.pop() {
            if seen.insert(node) {
                todo.extend(self.named(node));
                todo.extend(self.nodes[node].parent);
            }
        }
        seen.retain(|node| !self.nodes[*node].compatible().is_empty());
        seen
    }
}
