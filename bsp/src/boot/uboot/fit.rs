//! Boot scripts as a U-Boot wants them that was built without the "legacy" image format: a flattened image tree
//! with one image, of type script.
//!
//! The container is a flattened device tree (Devicetree Specification, "Flattened Devicetree (DTB) Format"), the
//! nodes are those of U-Boot's `doc/usage/fit/source_file_format.rst`; `/images` names the script as the default
//! one, so that `source` needs no name for it.

const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
/// The oldest version whose readers can read it.
const COMPATIBLE: u32 = 16;
const HEADER: u32 = 40;
/// An empty list of reserved memory: its end.
const RESERVATIONS: [u8; 16] = [0; 16];

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const END: u32 = 9;

/// The image of the script `text`, made at `time` (seconds since 1970).
pub(super) fn image(text: &str, time: u32) -> Vec<u8> {
    let mut tree = Tree::default();
    tree.begin("");
    tree.text("description", "Treeline");
    tree.property("timestamp", &time.to_be_bytes());
    tree.begin("images");
    tree.text("default", "script");
    tree.begin("script");
    tree.text("description", "Treeline");
    tree.text("type", "script");
    tree.text("compression", "none");
    tree.property("data", text.as_bytes());
    tree.begin("hash-1");
    tree.text("algo", "crc32");
    tree.property("value", &crc32fast::hash(text.as_bytes()).to_be_bytes());
    for _ in ["hash-1", "script", "images", ""] {
        tree.word(END_NODE);
    }
    tree.word(END);
    tree.finish()
}

/// A device tree being written.
#[derive(Default)]
struct Tree {
    structure: Vec<u8>,
    strings: Vec<u8>,
}

impl Tree {
    fn word(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    /// Bytes, filled up to whole words.
    fn bytes(&mut self, bytes: &[u8]) {
        self.structure.extend(bytes);
        let end = self.structure.len().next_multiple_of(4);
        self.structure.resize(end, 0);
    }

    fn begin(&mut self, name: &str) {
        self.word(BEGIN_NODE);
        self.bytes(&[name.as_bytes(), &[0]].concat());
    }

    fn text(&mut self, name: &str, value: &str) {
        self.property(name, &[value.as_bytes(), &[0]].concat());
    }

    fn property(&mut self, name: &str, value: &[u8]) {
        let place = length(&self.strings);
        self.strings.extend(name.as_bytes());
        self.strings.push(0);
        self.word(PROPERTY);
        self.word(length(value));
        self.word(place);
        self.bytes(value);
    }

    fn finish(self) -> Vec<u8> {
        let reservations = length(&RESERVATIONS);
        let structure = HEADER + reservations;
        let strings = structure + length(&self.structure);
        let total = strings + length(&self.strings);
        let processor = 0;
        let header = [
            MAGIC,
            total,
            structure,
            strings,
            HEADER,
            VERSION,
            COMPATIBLE,
            processor,
            length(&self.strings),
            length(&self.structure),
        ];
        let header = header.iter().flat_map(|word| word.to_be_bytes());
        header
            .chain(RESERVATIONS)
            .chain(self.structure)
            .chain(self.strings)
            .collect()
    }
}

/// Scripts are a few kilobytes, generated here: lengths always fit.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn run(program: &str, package: &str, args: &[&std::ffi::OsStr]) -> String {
        let output = Command::new(program)
            .args(args)
            .output()
            .unwrap_or_else(|e| panic!("{program}: {e}; install {package}"));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn the_tools_of_u_boot_and_of_device_trees_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let [own, back] = ["own", "back"].map(|name| dir.path().join(name));
        std::fs::write(&own, image("echo hello\n", 1_700_000_000)).unwrap();
        let shown = run("mkimage", "u-boot-tools", &["-l".as_ref(), own.as_os_str()]);
        for line in [
            "FIT description: Treeline",
            "Image 0 (script)",
            "Type:         Script",
            "Compression:  uncompressed",
            "Data Size:    11 Bytes",
            "Hash algo:    crc32",
        ] {
            assert!(shown.contains(line), "{line}: {shown}");
        }
        run(
            "dumpimage",
            "u-boot-tools",
            &[
                "-T".as_ref(),
                "flat_dt".as_ref(),
                "-p".as_ref(),
                "0".as_ref(),
                "-o".as_ref(),
                back.as_os_str(),
                own.as_os_str(),
            ],
        );
        assert_eq!(std::fs::read(&back).unwrap(), b"echo hello\n");
        let get = |node: &str, name: &str| {
            run(
                "fdtget",
                "device-tree-compiler",
                &[own.as_os_str(), node.as_ref(), name.as_ref()],
            )
        };
        assert_eq!(get("/images", "default"), "script\n");
    }
}
