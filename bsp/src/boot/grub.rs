//! The GRUB backend: the menu on the root partition and the static configuration on the firmware
//! partition.
//!
//! The static configuration is written once, at the factory, and holds the rule of
//! [`super::state::decide`] as a script. It reads the boot state from the firmware partition, then
//! sources the menu, which is written anew at every change of the deployments and only lists them.
//!
//! Rules for the script: GRUB has no arithmetic, so counting is a chain of `if`; commands that may fail
//! stand in the condition of an `if`; identities are compared, never given to `set default`, for GRUB
//! takes a default that begins with a digit for a number.

pub mod core;
mod petitboot;
mod script;
pub mod sealed;

use super::entry::BootEntry;
pub use petitboot::{petitboot_config, PETITBOOT_CONFIG};
pub use script::static_config;

/// Most entries that the static configuration looks at; the menu lists no more.
pub const MENU_LIMIT: usize = 16;

/// Function that the menu calls before its first entry.
const HOOK: &str = "treeline_choose";
/// Variable that asks for that.
const HOOK_WANTED: &str = "treeline_early";

/// What the static configuration must know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrubPlaces {
    /// UUID of the root file system, lower case.
    pub root_fs_uuid: String,
    /// Number of the root partition in the partition table, from 1: where it is looked for first, on the
    /// disk that GRUB came from.
    pub root_partition_number: u32,
    /// Terminals in GRUB's words, as in [`crate::board::Boot::consoles`].
    pub consoles: Vec<String>,
    /// Whether GRUB takes signed files only; then, the number of the firmware partition, which is on the disk of the
    /// root partition.
    pub sealed: Option<u32>,
}

/// The boot menu (`/boot/loader/grub.cfg`) for `entries`, the default one first.
///
/// Where the static configuration asks for it, as [`petitboot_config`] does, the identities come first, and then a
/// call of the function that chooses one: petitboot must know the default entry before it reads it.
///
/// It defines one menu entry each, in order, then `treeline_1`, `treeline_2`, …: the identities in the
/// same order. Sourced with `$root` being the root partition. The variables come last, so that a menu
/// that was cut off is noticed. Entries beyond [`MENU_LIMIT`] are left out.
pub fn menu(entries: &[BootEntry]) -> String {
    let mut text = String::from(
        "# The boot menu, written anew whenever the deployments change.\n\
         # Sourced by the static configuration on the firmware partition.\n",
    );
    let entries = &entries[..entries.len().min(MENU_LIMIT)];
    if !entries.is_empty() {
        text.push_str(&format!("if [ -n \"${HOOK_WANTED}\" ]; then\n"));
        text.push_str(&identities("  set early_", entries));
        text.push_str(&format!("  {HOOK}\nfi\n"));
    }
    for entry in entries {
        text.push_str(&menu_entry(entry));
    }
    text.push_str(&identities("set treeline_", entries));
    text
}

fn identities(set: &str, entries: &[BootEntry]) -> String {
    let lines = entries.iter().enumerate();
    lines
        .map(|(index, entry)| format!("{set}{}={}\n", index + 1, quote(&entry.identity())))
        .collect()
}

fn menu_entry(entry: &BootEntry) -> String {
    let id = entry.identity();
    let title = if entry.title.is_empty() {
        &id
    } else {
        &entry.title
    };
    let mut lines = vec![format!("menuentry {} --id {} {{", quote(title), quote(&id))];
    let mut linux = vec!["  linux".to_owned(), quote(&boot_path(&entry.linux))];
    linux.extend(split_options(&entry.options).iter().map(|arg| quote(arg)));
    lines.push(linux.join(" "));
    if let Some(devicetree) = &entry.devicetree {
        lines.push(format!("  devicetree {}", quote(&boot_path(devicetree))));
    }
    if !entry.initrd.is_empty() {
        let paths: Vec<_> = entry.initrd.iter().map(|p| quote(&boot_path(p))).collect();
        lines.push(format!("  initrd {}", paths.join(" ")));
    }
    lines.push("}\n".into());
    lines.join("\n")
}

/// A path of a boot entry as seen from the root of the root partition. libostree before 2025 writes it
/// as seen from `/boot`.
fn boot_path(path: &str) -> String {
    if path.starts_with("/boot/") {
        path.into()
    } else {
        format!("/boot{path}")
    }
}

/// Kernel arguments one by one, split as the kernel does: double quotes hold blanks together. The quotes
/// themselves go, for GRUB puts its own around an argument with blanks.
fn split_options(options: &str) -> Vec<String> {
    let mut args = Vec::new();
    let mut current = String::new();
    let mut quoted = false;
    for c in options.chars() {
        match c {
            '"' => quoted = !quoted,
            c if c.is_ascii_whitespace() && !quoted => {
                if !current.is_empty() {
                    args.push(std::mem::take(&mut current));
                }
            }
            c => current.push(c),
        }
    }
    if !current.is_empty() {
        args.push(current);
    }
    args
}

/// One word of a GRUB script, whatever stands in it. Control characters become blanks: in a menu they
/// would be commands to a terminal. A single quote goes into double ones, which petitboot understands, too.
fn quote(text: &str) -> String {
    let clean: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!("'{}'", clean.replace('\'', r#"'"'"'"#))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    pub(super) fn script_check(script: &str) -> Result<(), String> {
        let mut child = Command::new("grub-script-check")
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("grub-script-check not found: install grub-common");
        child
            .stdin
            .take()
            .unwrap()
            .write_all(script.as_bytes())
            .unwrap();
        let output = child.wait_with_output().unwrap();
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn entry(id: &str) -> BootEntry {
        BootEntry {
            title: format!("Shop {id}"),
            version: 1,
            linux: format!("/ostree/shop-{id}/vmlinuz"),
            initrd: vec![format!("/ostree/shop-{id}/initramfs.img")],
            options: format!("root=UUID=1 rw treeline.id={id}"),
            devicetree: None,
        }
    }

    #[test]
    fn lists_the_deployments_in_order() {
        let mut second = entry("4f");
        second.linux = "/boot/ostree/shop-4f/vmlinuz".into();
        second.devicetree = Some("/ostree/shop-4f/board.dtb".into());
        let text = menu(&[entry("ab"), second]);
        assert_eq!(
            text.lines().skip(2).collect::<Vec<_>>(),
            [
                "if [ -n \"$treeline_early\" ]; then",
                "  set early_1='ab'",
                "  set early_2='4f'",
                "  treeline_choose",
                "fi",
                "menuentry 'Shop ab' --id 'ab' {",
                "  linux '/boot/ostree/shop-ab/vmlinuz' 'root=UUID=1' 'rw' 'treeline.id=ab'",
                "  initrd '/boot/ostree/shop-ab/initramfs.img'",
                "}",
                "menuentry 'Shop 4f' --id '4f' {",
                "  linux '/boot/ostree/shop-4f/vmlinuz' 'root=UUID=1' 'rw' 'treeline.id=4f'",
                "  devicetree '/boot/ostree/shop-4f/board.dtb'",
                "  initrd '/boot/ostree/shop-4f/initramfs.img'",
                "}",
                "set treeline_1='ab'",
                "set treeline_2='4f'",
            ]
        );
        script_check(&text).unwrap();
    }

    #[test]
    fn never_lists_more_than_the_static_configuration_sees() {
        let entries: Vec<_> = (0..MENU_LIMIT + 3).map(|n| entry(&n.to_string())).collect();
        let text = menu(&entries);
        assert_eq!(text.matches("menuentry ").count(), MENU_LIMIT);
        assert_eq!(text.matches("set treeline_").count(), MENU_LIMIT);
        assert_eq!(menu(&[]).matches("treeline_").count(), 0);
    }

    #[test]
    fn quoted_kernel_arguments_stay_together() {
        assert_eq!(
            split_options(" a=b  dyndbg=\"file x +p\" c "),
            ["a=b", "dyndbg=file x +p", "c"]
        );
    }

    #[test]
    fn no_title_or_argument_breaks_the_script() {
        let mut nasty = entry("a");
        nasty.title = "it's } a \"$root\" \\ `x` ; { menu \u{1b}[2J".into();
        nasty.options += " x='y' z=\"{ }\" $(w) \\ ;reboot #";
        script_check(&menu(&[nasty])).unwrap();
    }

    #[test]
    fn the_script_check_can_fail() {
        assert!(script_check("if [ a = b ]; then").is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn grub_reads_every_menu(title in "[ -~]{0,40}", options in "[ -~]{0,60}") {
            let entry = BootEntry { title, options, ..entry("a") };
            prop_assert_eq!(script_check(&menu(&[entry])), Ok(()));
        }
    }
}
