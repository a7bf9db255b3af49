//! GRUB that takes signed files only: one EFI program that holds the static configuration and a public key.
//!
//! Firmware checks the program's signature (Secure Boot). From there on GRUB checks an OpenPGP signature,
//! `<file>.sig`, of every file that it opens, and the firmware once more that of the kernel. What nobody can sign
//! beforehand is read as data and held against patterns: the boot state, and the menu, which is written on the
//! device ([`menu_block`]). The script with the kernel's arguments belongs to the commit ([`boot_script`]), so it is
//! signed; the device adds its place and its identity.

use super::script::{self, ID_PATTERN, RESTART};
use super::{quote, split_options, MENU_LIMIT};
use crate::board::OwnGrub;
use crate::boot::entry::BootEntry;
use crate::boot::NOT_LOADED;
use crate::device::ID_KARG;

/// The menu as data, beside `grub.cfg` in `/boot/loader.N`.
pub const MENU_NAME: &str = "menu.env";
/// The script that loads a deployment's kernel, in its tree.
pub const BOOT_SCRIPT_PATH: &str = "usr/lib/device-agent/boot.cfg";
/// What a file's signature is called besides.
pub const SIGNATURE_ENDING: &str = ".sig";
/// Where the image has its configuration.
pub const PREFIX: &str = "(memdisk)/";
/// Name of the configuration there.
pub const CONFIG: &str = "grub.cfg";
/// What the image does first, in the few commands of GRUB's kernel.
pub const EARLY: &str = "configfile (memdisk)/grub.cfg\n";

/// Variable that is set when everything has been loaded.
const LOADED: &str = "treeline_loaded";
/// The kernel argument that says which deployment is booted.
const OSTREE_KARG: &str = "ostree=";
/// What [`OSTREE_KARG`] can be: written by libostree, without a place for `..`.
const PATH_PATTERN: &str = "^/ostree/boot[.][01]([.][01])?/[a-z0-9][a-z0-9-]*/[0-9a-f]+/[0-9]+$";

/// Modules of the image besides the rule's own. Nothing can be loaded later.
const MODULES: [&str; 6] = [
    "terminal",
    "memdisk",
    "tar",
    "pgp",
    "gcry_rsa",
    "gcry_sha256",
];

/// Modules of the image for a board.
pub fn modules(grub: &OwnGrub) -> Vec<&'static str> {
    let serial = (grub.target == "x86_64-efi").then_some("serial");
    let all = script::MODULES.into_iter().chain(MODULES);
    all.chain(serial).collect()
}

/// Nobody may change an entry or come to a command line: there is no such user. The configuration stands in memory,
/// so the firmware partition is the one that the image was started from.
pub(super) const HEAD: &str = "\
set superusers=nobody
export superusers
set firmware=
regexp --set=1:firmware '^[(]([^)]+)[)]' \"$cmdpath\"
";

/// If the firmware did not say where it started the image from: the partition is on the disk of the root partition.
pub(super) fn find_firmware(number: u32) -> String {
    format!(
        "\
if [ -z \"$firmware\" ]; then
  regexp --set=1:disk '^(.+),[^,]+$' \"$root\"
  set firmware=\"$disk,gpt{number}\"
fi
"
    )
}

/// Reads the menu as data, makes entries of it, and drops whatever is not as it should be.
pub(super) fn read_menu() -> String {
    let mut names = String::new();
    let mut unset = String::new();
    let mut entries = String::new();
    for number in 1..=MENU_LIMIT {
        let (id, path) = (
            format!("treeline_{number}"),
            format!("treeline_path_{number}"),
        );
        names.push_str(&format!(" {id} {path}"));
        unset.push_str(&format!("unset {id}\nunset {path}\n"));
        entries.push_str(&format!(
            "\
set sound=
if [ -n \"$more\" ]; then
  if regexp '{ID_PATTERN}' \"${id}\"; then
    if regexp '{PATH_PATTERN}' \"${path}\"; then
      set sound=1
    fi
  fi
fi
if [ -n \"$sound\" ]; then
  menuentry \"${id}\" --unrestricted --id 'treeline-{number}' {{
    treeline_boot \"${id}\" \"${path}\"
  }}
else
  set more=
  unset {id}
fi
"
        ));
    }
    format!(
        "\
function treeline_boot {{
  set treeline_id=\"$1\"
  set treeline_path=\"$2\"
  set {LOADED}=
  source \"($root)$treeline_path/{BOOT_SCRIPT_PATH}\"
  if [ -z \"${LOADED}\" ]; then
    echo \"{NOT_LOADED} $treeline_id\"
  fi
}}

# The menu is data: identities in order, and places.
{unset}for loader in loader loader.0 loader.1; do
  if [ -z \"$treeline_1\" ]; then
    if [ -f \"($root)/boot/$loader/{MENU_NAME}\" ]; then
      load_env --skip-sig -f \"($root)/boot/$loader/{MENU_NAME}\"{names}
    fi
  fi
done
set more=1
{entries}if [ -z \"$treeline_1\" ]; then
  {RESTART} \"there is no boot menu on the root partition\"
fi
"
    )
}

/// The menu as data (`menu.env`): a GRUB environment block of any length with the identity of each entry and the
/// place of its deployment, the default one first. The list ends before an entry that cannot be said in it.
pub fn menu_block(entries: &[BootEntry]) -> String {
    let mut text = String::from("# GRUB Environment Block\n");
    for (index, entry) in entries.iter().take(MENU_LIMIT).enumerate() {
        let options = split_options(&entry.options);
        let mut places = options
            .iter()
            .filter_map(|arg| arg.strip_prefix(OSTREE_KARG));
        let (Some(id), Some(place)) = (entry.id(), places.next_back()) else {
            break;
        };
        if place.contains(['\n', '\\']) {
            break;
        }
        let number = index + 1;
        text.push_str(&format!(
            "treeline_{number}={id}\ntreeline_path_{number}={place}\n"
        ));
    }
    text
}

/// The script that loads the kernel of a commit with its arguments ([`BOOT_SCRIPT_PATH`]).
///
/// GRUB starts what has been loaded when an entry ends, whatever failed on the way. So the initramfs is judged before
/// the kernel is loaded: an altered one leaves nothing to start, and the rule goes on as with any kernel that cannot be
/// loaded.
pub fn boot_script(kernel_version: &str, kargs: &[String]) -> String {
    let dir = format!("/usr/lib/modules/{kernel_version}");
    let file = |name: &str| {
        format!(
            "\"($root)$treeline_path\"{}",
            quote(&format!("{dir}/{name}"))
        )
    };
    let args: String = kargs.iter().map(|arg| format!(" {}", quote(arg))).collect();
    let initramfs = file("initramfs.img");
    format!(
        "\
if verify_detached {initramfs} {initramfs}{SIGNATURE_ENDING}; then
  if linux {}{args} \"{ID_KARG}=$treeline_id\" \"{OSTREE_KARG}$treeline_path\"; then
    if initrd {initramfs}; then
      set {LOADED}=1
    else
      {RESTART} \"the initramfs cannot be loaded\"
    fi
  fi
fi
",
        file("vmlinuz"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::script_check;
    use super::*;
    use crate::boot::grubenv;

    fn entry(id: &str) -> BootEntry {
        BootEntry {
            options: format!("rw treeline.id={id} ostree=/ostree/boot.1/shop/0f/0"),
            ..BootEntry::default()
        }
    }

    #[test]
    fn the_menu_is_a_block_that_grub_reads() {
        let block = menu_block(&[entry("b"), entry("a")]);
        let read = grubenv::parse(block.as_bytes()).unwrap();
        let pairs: Vec<(&str, &str)> = read.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let place = "/ostree/boot.1/shop/0f/0";
        assert_eq!(
            pairs,
            [
                ("treeline_1", "b"),
                ("treeline_2", "a"),
                ("treeline_path_1", place),
                ("treeline_path_2", place),
            ]
        );
        let many: Vec<_> = (0..20).map(|n| entry(&n.to_string())).collect();
        assert_eq!(menu_block(&many).lines().count(), 1 + 2 * MENU_LIMIT);
        // An entry that has no identity ends the list: the order must stay right.
        let mut nameless = entry("x");
        nameless.options = "rw ostree=/ostree/boot.1/shop/0f/0".into();
        let block = menu_block(&[entry("b"), nameless, entry("a")]);
        assert!(!block.contains("treeline_2"), "{block}");
    }

    #[test]
    fn arguments_of_the_kernel_stay_what_they_are() {
        let args = ["rw", "dyndbg=file x +p", "it's", "$(reboot)"].map(str::to_string);
        let text = boot_script("6.12", &args);
        script_check(&text).unwrap();
        let linux = text
            .lines()
            .find_map(|line| line.trim().strip_prefix("if linux "));
        assert_eq!(
            linux.unwrap(),
            "\"($root)$treeline_path\"'/usr/lib/modules/6.12/vmlinuz' 'rw' 'dyndbg=file x +p' 'it'\"'\"'s' '$(reboot)' \
             \"treeline.id=$treeline_id\" \"ostree=$treeline_path\"; then"
        );
        let checked = "\"($root)$treeline_path\"'/usr/lib/modules/6.12/initramfs.img'";
        assert!(
            text.starts_with(&format!(
                "if verify_detached {checked} {checked}.sig; then\n"
            )),
            "{text}"
        );
    }
}
