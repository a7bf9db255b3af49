//! Boot scripts as a U-Boot wants them that was built without the "legacy" image format: a flattened image tree
//! with one image, of type script.
//!
//! The nodes are those of U-Boot's `doc/usage/fit/source_file_format.rst`; `/images` names the script as the default
//! one, so that `source` needs no name for it.

pub mod keys;
mod regions;
pub mod sealed;

use vm_fdt::{Error, FdtWriter};

/// The image of the script `text`, made at `time` (seconds since 1970).
pub(super) fn image(text: &str, time: u32) -> Result<Vec<u8>, Error> {
    script(text, time, None)
}

fn script(text: &str, time: u32, signature: Option<&[u8]>) -> Result<Vec<u8>, Error> {
    let mut tree = FdtWriter::new()?;
    let root = tree.begin_node("")?;
    tree.property_string("description", "Treeline")?;
    tree.property_u32("timestamp", time)?;
    let images = tree.begin_node("images")?;
    tree.property_string("default", "script")?;
    let script = tree.begin_node("script")?;
    tree.property_string("description", "Treeline")?;
    tree.property_string("type", "script")?;
    tree.property_string("compression", "none")?;
    tree.property("data", text.as_bytes())?;
    let hash = tree.begin_node("hash-1")?;
    tree.property_string("algo", "crc32")?;
    tree.property_u32("value", crc32fast::hash(text.as_bytes()))?;
    tree.end_node(hash)?;
    if let Some(signature) = signature {
        let node = sealed::begin_signature(&mut tree, sealed::IMAGE_KEY, signature)?;
        tree.end_node(node)?;
    }
    for node in [script, images, root] {
        tree.end_node(node)?;
    }
    tree.finish()
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
        std::fs::write(&own, image("echo hello\n", 1_700_000_000).unwrap()).unwrap();
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
