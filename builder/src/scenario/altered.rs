//! Signed files that somebody who holds the disk has altered.

use anyhow::{Context, Result};
use bsp::boot::grub::sealed::{BOOT_SCRIPT_PATH, MENU_NAME};

use super::device::{Device, COMMAND};
use super::table::Signed;

/// Where the device has the root of its disk.
const SYSROOT: &str = "/sysroot";

/// Alters a file of the deployment that boots next, so that an unsuspecting boot loader would start it all the same:
/// what is added means nothing.
pub fn alter(device: &mut Device, what: Signed) -> Result<()> {
    let command = format!(
        "unshare -m sh -e -c 'mount -o remount,rw {SYSROOT}; {}; sync'",
        command(what, SYSROOT)
    );
    device
        .machine
        .sh_ok(&command, COMMAND)
        .map(drop)
        .with_context(|| format!("altering the {what:?} of the new deployment"))
}

/// Other deployments and the repository share the file's content by hard links: a copy is altered, and takes its place.
fn command(what: Signed, root: &str) -> String {
    let (file, added) = match what {
        Signed::Kernel => ("usr/lib/modules/*/vmlinuz", "\\0\\0\\0\\0\\0\\0\\0\\0"),
        Signed::Initramfs => ("usr/lib/modules/*/initramfs.img", "\\0\\0\\0\\0"),
        Signed::Arguments => (BOOT_SCRIPT_PATH, "# added\\n"),
    };
    format!(
        "place=$(sed -n \"s/^treeline_path_1=//p\" {root}/boot/loader/{MENU_NAME}); \
         for file in {root}$place/{file}; do \
         cp -p $file $file.new; printf \"{added}\" >>$file.new; mv $file.new $file; \
         done"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use bsp::boot::entry::BootEntry;
    use bsp::boot::grub::sealed::menu_block;
    use std::fs;

    /// The device's commands, run here on a directory in place of the disk.
    #[test]
    fn the_new_deployment_is_altered_and_what_shares_its_files_is_not() {
        for (what, name) in [
            (Signed::Kernel, "usr/lib/modules/6.12/vmlinuz"),
            (Signed::Initramfs, "usr/lib/modules/6.12/initramfs.img"),
            (Signed::Arguments, BOOT_SCRIPT_PATH),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path();
            let entries = ["new", "old"].map(|id| BootEntry {
                options: format!("treeline.id={id} ostree=/ostree/boot.0/shop/{id}/0"),
                ..BootEntry::default()
            });
            fs::create_dir_all(root.join("boot/loader")).unwrap();
            let menu = root.join("boot/loader").join(MENU_NAME);
            fs::write(menu, menu_block(&entries)).unwrap();
            let [new, old] = ["new", "old"].map(|id| {
                root.join("ostree/boot.0/shop")
                    .join(id)
                    .join("0")
                    .join(name)
            });
            for path in [&new, &old] {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
            }
            fs::write(&old, "content").unwrap();
            fs::hard_link(&old, &new).unwrap();
            Command::new("sh", "dash")
                .args(["-e", "-c"])
                .arg(command(what, &root.display().to_string()))
                .run()
                .unwrap();
            assert_eq!(fs::read(&old).unwrap(), b"content", "{what:?}");
            let altered = fs::read(&new).unwrap();
            assert!(
                altered.len() > 7 && altered.starts_with(b"content"),
                "{what:?}"
            );
            assert!(!altered.contains(&b'\\'), "{what:?}: {altered:?}");
        }
    }
}
