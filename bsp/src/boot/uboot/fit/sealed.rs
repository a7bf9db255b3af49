//! Signed images: what belongs to a deployment, and the boot script, for a U-Boot that starts nothing else.
//!
//! The tree of a deployment holds hashes and signatures, not the files: these stay where libostree puts them, and
//! stand at fixed places in memory when U-Boot compares them (`data-position`). Only the kernel's arguments, which are
//! no file of the deployment otherwise, are in it.
//!
//! Two keys, which may be the same numbers: U-Boot wants from [`CONFIGURATION_KEY`] a signature of what belongs
//! together, and from [`IMAGE_KEY`] one of every image, which is how a script is checked (U-Boot's
//! `doc/usage/fit/signature.rst`).

use sha2::{Digest, Sha256};
use vm_fdt::{Error, FdtWriter};

use super::regions;
use crate::board::LoadAddresses;

/// The signed tree of a deployment, in its file system.
pub const FIT_PATH: &str = "usr/lib/device-agent/boot.fit";
/// Its one configuration.
pub const CONFIGURATION: &str = "treeline";
/// Key for what belongs together, as U-Boot's own device tree names it.
pub const CONFIGURATION_KEY: &str = "treeline";
/// Key for single images.
pub const IMAGE_KEY: &str = "treeline-image";
/// What signatures are made of: SHA-256, RSA with 2048 bits, PKCS#1 1.5.
pub const ALGORITHM: &str = "sha256,rsa2048";

/// Bytes of a signature.
const SIGNATURE: usize = 256;
/// Bytes from the tree to where U-Boot puts the kernel's arguments: room for the tree.
const TREE: u64 = 0x1_0000;
/// Bytes of the arguments, blanks and zeros included.
pub const ARGUMENTS: usize = 0x2000;
/// Bytes that the device's own arguments may take: two identities of 64 digits, and the name of a stateroot.
pub const OWN_ARGUMENTS: usize = 0x100;
/// Bytes of its name at most: the rest is `ostree=/ostree/boot.0.0/<name>/<64>/<serial> treeline.id=<64>-<serial>`.
const LONGEST_STATEROOT: usize = 80;
/// What stands before them.
pub const VARIABLE: &str = "bootargs=";

const _: () = assert!(TREE + 2 * ARGUMENTS as u64 == crate::boot::uboot::FIT_ROOM);

/// Bytes of the whole line that a kernel takes (`COMMAND_LINE_SIZE` in its `uapi/asm/setup.h`), with the zero at its end.
fn line_size(arch: &str) -> usize {
    if arch == "arm64" {
        2048
    } else {
        1024
    }
}

/// Where the arguments stand once they are judged, by the place of the tree.
pub fn arguments_address(fit: u64) -> u64 {
    fit + TREE
}

/// What a deployment starts with.
#[derive(Debug, Clone, Copy)]
pub struct Boot<'a> {
    /// Debian architecture.
    pub arch: &'a str,
    /// The files as they stand below `/boot`.
    pub kernel: &'a [u8],
    /// Initial RAM file system.
    pub ramdisk: &'a [u8],
    /// Device tree; `None`: U-Boot's own.
    pub device_tree: Option<&'a [u8]>,
    /// Where the device has its deployments: the product's name.
    pub stateroot: &'a str,
    /// Kernel arguments, without those of the device.
    pub arguments: &'a str,
    /// Where they are loaded.
    pub addresses: LoadAddresses,
    /// `addresses.fit`.
    pub fit: u64,
}

/// An image of a tree.
struct Image {
    name: &'static str,
    kind: &'static str,
    /// Whether it stands in the tree.
    inside: Option<Vec<u8>>,
    /// Bytes from the tree to it, and its length.
    position: u32,
    length: u32,
    hash: [u8; 32],
    signature: Vec<u8>,
    /// Where U-Boot copies it.
    load: Option<u32>,
}

/// Why there is no signed tree.
#[derive(Debug, thiserror::Error)]
pub enum FitError {
    /// An image cannot be named by its distance from the tree.
    #[error(
        "its {image} is loaded to {address:#x}, which is not in the 2 GiB behind load-addresses.fit ({fit:#x})"
    )]
    Place {
        /// Which one.
        image: &'static str,
        /// Where it is loaded.
        address: u64,
        /// Where the tree is.
        fit: u64,
    },
    /// The arguments cannot be put where the script takes them from.
    #[error(
        "load-addresses.fit is too high: its kernel arguments would stand at {0:#x}, above 4 GiB"
    )]
    High(u64),
    /// An image has 4 GiB or more.
    #[error("its {0} is too large")]
    Size(&'static str),
    /// Kernel arguments that there is no room for.
    #[error("its kernel arguments have {length} bytes; beside those of the device, the kernel takes {most}")]
    Arguments {
        /// Their length.
        length: usize,
        /// What there is room for.
        most: usize,
    },
    /// The device's own arguments would be cut.
    #[error("its product's name has {0} bytes; {LONGEST_STATEROOT} are allowed where U-Boot checks signatures")]
    Stateroot(usize),
    /// The tree cannot be written.
    #[error("its tree cannot be written: {0}")]
    Tree(#[from] Error),
    /// The tree that was written cannot be read.
    #[error("its tree cannot be read")]
    Unreadable,
}

/// The signed tree of a deployment. `sign` makes a signature of a message.
///
/// # Errors
/// Whatever `sign` says; [`FitError`] if something does not fit.
pub fn boot_fit<E: From<FitError>>(
    boot: &Boot<'_>,
    sign: impl Fn(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    if boot.stateroot.len() > LONGEST_STATEROOT {
        return Err(FitError::Stateroot(boot.stateroot.len()).into());
    }
    let length = boot.arguments.len();
    let most = line_size(boot.arch) - OWN_ARGUMENTS - 2;
    if length > most {
        return Err(FitError::Arguments { length, most }.into());
    }
    let arguments = arguments(boot.arguments);
    let mut images = Vec::new();
    let files = [
        (
            "kernel",
            "kernel_noload",
            Some(boot.kernel),
            boot.addresses.kernel,
        ),
        (
            "ramdisk",
            "ramdisk",
            Some(boot.ramdisk),
            boot.addresses.ramdisk,
        ),
        (
            "fdt",
            "flat_dt",
            boot.device_tree,
            boot.addresses.device_tree,
        ),
    ];
    for (name, kind, content, address) in files {
        if let Some(content) = content {
            // U-Boot keeps it in a signed number of 32 bits.
            let position = address
                .checked_sub(boot.fit)
                .and_then(|position| u32::try_from(position).ok())
                .filter(|position| *position <= i32::MAX as u32)
                .ok_or(FitError::Place {
                    image: name,
                    address,
                    fit: boot.fit,
                })?;
            images.push(image(name, kind, content, position, &sign)?);
        }
    }
    let mut last = image("arguments", "firmware", &arguments, 0, &sign)?;
    // Without it U-Boot would judge them, and leave whatever stands where the script takes them from.
    let address = arguments_address(boot.fit);
    let load = u32::try_from(address).map_err(|_| FitError::High(address))?;
    last.load = Some(load);
    last.inside = Some(arguments);
    images.push(last);

    let nodes = nodes(&images);
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let tree = |names: u32, signature: &[u8]| {
        write(boot.arch, &images, &nodes, names, signature).map_err(FitError::Tree)
    };
    // The lengths are those of the last one: what is signed stands where it will stand.
    let draft = tree(0, &[0; SIGNATURE])?;
    let names = regions::strings_length(&draft).ok_or(FitError::Unreadable)?;
    let message = regions::signed(&draft, &nodes).ok_or(FitError::Unreadable)?;
    Ok(tree(names, &sign(&message)?)?)
}

/// The script `text` with a signature.
///
/// # Errors
/// As [`boot_fit`].
pub fn script_fit<E: From<FitError>>(
    text: &str,
    time: u32,
    sign: impl Fn(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, E> {
    let signature = sign(text.as_bytes())?;
    Ok(super::script(text, time, Some(&signature)).map_err(FitError::Tree)?)
}

fn image<E>(
    name: &'static str,
    kind: &'static str,
    content: &[u8],
    position: u32,
    sign: impl Fn(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Image, E>
where
    E: From<FitError>,
{
    let length = u32::try_from(content.len()).map_err(|_| FitError::Size(name))?;
    Ok(Image {
        name,
        kind,
        inside: None,
        position,
        length,
        hash: Sha256::digest(content).into(),
        signature: sign(content)?,
        load: None,
    })
}

/// The arguments as a text that U-Boot imports, with room at the beginning for the device's own: these are written
/// over blanks after everything has been judged.
fn arguments(arguments: &str) -> Vec<u8> {
    let mut text = VARIABLE.as_bytes().to_vec();
    text.resize(VARIABLE.len() + OWN_ARGUMENTS, b' ');
    text.push(b' ');
    text.extend_from_slice(arguments.as_bytes());
    text.push(b'\n');
    text.resize(ARGUMENTS, 0);
    text
}

/// The nodes that the signature of the configuration stands for.
fn nodes(images: &[Image]) -> Vec<String> {
    let mut nodes = vec!["/".to_string(), format!("/configurations/{CONFIGURATION}")];
    for image in images {
        let node = format!("/images/{}", image.name);
        nodes.push(node.clone());
        nodes.push(format!("{node}/hash-1"));
    }
    nodes
}

fn write(
    arch: &str,
    images: &[Image],
    nodes: &[&str],
    names: u32,
    signature: &[u8],
) -> Result<Vec<u8>, Error> {
    let mut tree = FdtWriter::new()?;
    let root = tree.begin_node("")?;
    tree.property_string("description", "Treeline")?;
    tree.property_u32("timestamp", 0)?;
    tree.property_u32("#address-cells", 1)?;
    let all = tree.begin_node("images")?;
    for image in images {
        write_image(&mut tree, arch, image)?;
    }
    tree.end_node(all)?;
    let all = tree.begin_node("configurations")?;
    tree.property_string("default", CONFIGURATION)?;
    let configuration = tree.begin_node(CONFIGURATION)?;
    tree.property_string("description", "Treeline")?;
    let mut signed = Vec::new();
    for image in images {
        let role = if image.inside.is_some() {
            "loadables"
        } else {
            image.name
        };
        tree.property_string(role, image.name)?;
        signed.push(role.to_string());
    }
    let node = begin_signature(&mut tree, CONFIGURATION_KEY, signature)?;
    tree.property_string_list("sign-images", signed)?;
    tree.property_string_list(
        "hashed-nodes",
        nodes.iter().map(|n| n.to_string()).collect(),
    )?;
    tree.property_array_u32("hashed-strings", &[0, names])?;
    for node in [node, configuration, all, root] {
        tree.end_node(node)?;
    }
    tree.finish()
}

fn write_image(tree: &mut FdtWriter, arch: &str, image: &Image) -> Result<(), Error> {
    let node = tree.begin_node(image.name)?;
    tree.property_string("description", image.name)?;
    tree.property_string("type", image.kind)?;
    tree.property_string("arch", if arch == "arm64" { "arm64" } else { "arm" })?;
    tree.property_string("os", "linux")?;
    tree.property_string("compression", "none")?;
    if image.kind == "kernel_noload" {
        tree.property_u32("load", 0)?;
        tree.property_u32("entry", 0)?;
    }
    if let Some(address) = image.load {
        tree.property_u32("load", address)?;
    }
    match &image.inside {
        Some(content) => tree.property("data", content)?,
        None => {
            tree.property_u32("data-position", image.position)?;
            tree.property_u32("data-size", image.length)?;
        }
    }
    let hash = tree.begin_node("hash-1")?;
    tree.property_string("algo", "sha256")?;
    tree.property("value", &image.hash)?;
    tree.end_node(hash)?;
    let signature = begin_signature(tree, IMAGE_KEY, &image.signature)?;
    tree.end_node(signature)?;
    tree.end_node(node)
}

/// Begins the node of a signature.
pub(super) fn begin_signature(
    tree: &mut FdtWriter,
    key: &str,
    signature: &[u8],
) -> Result<vm_fdt::FdtWriterNode, Error> {
    let node = tree.begin_node("signature-1")?;
    tree.property_string("algo", ALGORITHM)?;
    tree.property_string("key-name-hint", key)?;
    tree.property("value", signature)?;
    Ok(node)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fit(arguments: &str, kernel: u64) -> Result<Vec<u8>, FitError> {
        fit_at(0x4020_0000, arguments, kernel)
    }

    fn fit_at(fit: u64, arguments: &str, kernel: u64) -> Result<Vec<u8>, FitError> {
        let boot = Boot {
            arch: "armhf",
            kernel: b"kernel",
            ramdisk: b"ramdisk",
            device_tree: None,
            stateroot: "shop",
            arguments,
            addresses: LoadAddresses {
                kernel,
                ramdisk: kernel + 0x400_0000,
                device_tree: kernel + 0x800_0000,
                fit: Some(fit),
            },
            fit,
        };
        boot_fit(&boot, |message| Ok(Sha256::digest(message).repeat(8)))
    }

    #[test]
    fn what_does_not_fit_is_said() {
        assert!(fit("quiet", 0x4040_0000).is_ok());
        assert!(fit(&"x".repeat(766), 0x4040_0000).is_ok());
        let long = fit(&"x".repeat(767), 0x4040_0000).unwrap_err();
        assert!(long.to_string().contains("takes 766"), "{long}");
        let below = fit("quiet", 0x4010_0000).unwrap_err();
        assert!(below.to_string().contains("0x40100000"), "{below}");
        let far = fit("quiet", 0xc020_0000).unwrap_err();
        assert!(far.to_string().contains("2 GiB"), "{far}");
        let high = fit_at(0xffff_f000, "quiet", 0x1_0040_0000).unwrap_err();
        assert!(high.to_string().contains("4 GiB"), "{high}");
    }

    /// The signature is the last that is made: of all that U-Boot hashes.
    #[test]
    fn every_byte_that_matters_changes_what_is_signed() {
        let message = |arguments: &str| {
            let messages = std::cell::RefCell::new(Vec::new());
            let boot = Boot {
                arch: "arm64",
                kernel: b"kernel",
                ramdisk: b"ramdisk",
                device_tree: Some(b"tree"),
                stateroot: "shop",
                arguments,
                addresses: LoadAddresses {
                    kernel: 0x4040_0000,
                    ramdisk: 0x4400_0000,
                    device_tree: 0x4800_0000,
                    fit: None,
                },
                fit: 0x4020_0000,
            };
            let made = boot_fit::<FitError>(&boot, |message| {
                messages.borrow_mut().push(message.to_vec());
                Ok(vec![7; SIGNATURE])
            });
            assert!(made.unwrap().len() < TREE as usize);
            messages.into_inner()
        };
        let (a, b) = (message("a"), message("b"));
        // Kernel, ramdisk, device tree, arguments, and all together.
        assert_eq!(a.len(), 5);
        assert_eq!(a[..3], b[..3]);
        assert_ne!(a[3], b[3]);
        assert_ne!(a[4], b[4]);
    }
}
