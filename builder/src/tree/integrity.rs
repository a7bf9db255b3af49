//! The settings of `ostree-prepare-root`, which arranges a deployment in the initramfs: the builder writes them
//! ([`super::layout`]), and a product that asks for others is told what it would not get.

use anyhow::{bail, Result};

use super::initramfs::PREPARE_ROOT;
use super::Tree;

/// Where they stand.
pub const PREPARE_ROOT_CONF: &str = "usr/lib/ostree/prepare-root.conf";
/// What `ostree-prepare-root` says if composefs is wanted of one that was built without
/// (`src/switchroot/ostree-prepare-root.c`); others do not contain it.
const NOT_COMPILED_IN: &[u8] = b"composefs: enabled at runtime, but support is not compiled in";

/// Refuses settings that the overlay brought; `before` is what stood there until then (a base that is no Debian may
/// have its own, which are replaced).
pub fn check(tree: &Tree, before: Option<&[u8]>) -> Result<()> {
    let Some(settings) = settings(tree).filter(|now| Some(now.as_slice()) != before) else {
        return Ok(());
    };
    if !wants_composefs(&String::from_utf8_lossy(&settings)) {
        bail!("the overlay has /{PREPARE_ROOT_CONF}, which would have no effect: the builder writes it, with readonly=true; take it out of the overlay");
    }
    let program = tree.read(PREPARE_ROOT).unwrap_or_default();
    let missing = if program
        .windows(NOT_COMPILED_IN.len())
        .any(|window| window == NOT_COMPILED_IN)
    {
        "the tree's ostree-prepare-root (Debian package ostree-boot) was built without composefs, and so was libostree: no device would get through its initramfs"
    } else {
        "the builder does not make the composefs image that the first deployment of a disk would need"
    };
    bail!("/{PREPARE_ROOT_CONF} of the overlay turns composefs on, which cannot be had: {missing}; take it out of the overlay (the book, \"Trust\", tells more)");
}

/// What stands in the tree now.
pub fn settings(tree: &Tree) -> Option<Vec<u8>> {
    tree.read(PREPARE_ROOT_CONF).ok()
}

/// Whether the group `composefs` of a key file asks for it without condition: libostree knows `signed`, `verity` and
/// words for yes, `maybe` and words for no (ostree-prepare-root(1)).
fn wants_composefs(settings: &str) -> bool {
    let mut group = "";
    settings.lines().map(str::trim).any(|line| {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            group = name;
        }
        let value = line
            .split_once('=')
            .filter(|(key, _)| group == "composefs" && matches!(key.trim(), "enabled"));
        value.is_some_and(|(_, value)| {
            let value = value.trim().to_ascii_lowercase();
            !matches!(value.as_str(), "no" | "false" | "0" | "maybe")
        })
    })
}

#[cfg(test)]
mod tests {
    use super::super::Node;
    use super::*;

    fn tree(settings: Option<&str>, program: &[u8]) -> Tree {
        let mut tree = Tree::new();
        tree.insert(PREPARE_ROOT, Node::file(program, 0o755))
            .unwrap();
        if let Some(settings) = settings {
            tree.insert(PREPARE_ROOT_CONF, Node::file(settings, 0o644))
                .unwrap();
        }
        tree
    }

    #[test]
    fn a_wish_that_cannot_be_granted_is_refused_with_its_reason() {
        let debian = [b"\x7fELF \0", NOT_COMPILED_IN, b"\0"].concat();
        for (settings, program, want) in [
            (
                "[composefs]\nenabled = signed\n",
                debian.as_slice(),
                "built without composefs",
            ),
            (
                "[sysroot]\nreadonly=true\n[composefs]\nenabled=yes\n",
                b"\x7fELF",
                "does not make the composefs image",
            ),
            ("[root]\ntransient=true\n", &debian, "would have no effect"),
            (
                "[composefs]\nenabled=no\n[x]\nenabled=yes\n",
                &debian,
                "would have no effect",
            ),
        ] {
            let error = check(&tree(Some(settings), program), None).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(want), "{settings}: {text}");
            assert!(text.contains("take it out of the overlay"), "{text}");
        }
    }

    #[test]
    fn what_the_overlay_did_not_touch_is_no_matter() {
        let settings = "[composefs]\nenabled=yes\n";
        let own = tree(Some(settings), b"");
        check(&own, Some(settings.as_bytes())).unwrap();
        check(&tree(None, b""), None).unwrap();
    }
}
