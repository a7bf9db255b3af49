//! Signed files that somebody who holds the disk has altered.

use anyhow::{Context, Result};
use bsp::board::Backend;
use bsp::boot::grub::sealed::{BOOT_SCRIPT_PATH, MENU_NAME};
use bsp::boot::uboot::fit::sealed::FIT_PATH;

use super::device::{Device, COMMAND};
use super::table::Signed;

/// Where the device has the root of its disk.
const SYSROOT: &str = "/sysroot";

/// Alters a file of the deployment that boots next. What is added for GRUB means nothing: an unsuspecting one would start
/// it all the same.
pub fn alter(device: &mut Device, backend: Backend, what: Signed) -> Result<()> {
    let command = format!(
        "unshare -m sh -e -c 'mount -o remount,rw {SYSROOT}; {}; sync'",
        command(backend, what, SYSROOT)
    );
    device
        .machine
        .sh_ok(&command, COMMAND)
        .map(drop)
        .with_context(|| format!("altering the {what:?} of the new deployment"))
}

/// Other deployments and the repository share the file's content by hard links: a copy is altered, and takes its place.
fn command(backend: Backend, what: Signed, root: &str) -> String {
    let zeros = |count: usize| format!("printf \"{}\" >>$file.new", "\\0".repeat(count));
    let change = match (what, backend) {
        (Signed::Kernel, Backend::Grub) => zeros(8),
        (Signed::Initramfs, Backend::Grub) => zeros(4),
        // It looks at as many bytes as were signed.
        (Signed::Kernel | Signed::Initramfs, Backend::Uboot) => {
            "printf \"x\" | dd of=$file.new bs=1 seek=5000 conv=notrunc status=none".into()
        }
        (Signed::Arguments, Backend::Grub) => "printf \"# added\\n\" >>$file.new".into(),
        // What follows the tree is not read. The blanks are room for the device's own arguments.
        (Signed::Arguments, Backend::Uboot) => {
            "LC_ALL=C sed -i \"s/bootargs= /bootargs=x/\" $file.new".into()
        }
    };
    let files = match backend {
        Backend::Grub => {
            let file = match what {
                Signed::Kernel => "usr/lib/modules/*/vmlinuz",
                Signed::Initramfs => "usr/lib/modules/*/initramfs.img",
                Signed::Arguments => BOOT_SCRIPT_PATH,
            };
            format!("$(sed -n \"s/^treeline_path_1=//p\" {root}/boot/loader/{MENU_NAME})/{file}")
        }
        Backend::Uboot => {
            let menu = format!("{root}/boot/loader/uEnv.txt");
            match what {
                Signed::Kernel => format!("$(sed -n \"s/^kernel_image=//p\" {menu})"),
                Signed::Initramfs => format!("$(sed -n \"s/^ramdisk_image=//p\" {menu})"),
                Signed::Arguments => format!(
                    "$(sed -n \"s/^bootargs=//p\" {menu} | tr \" \" \"\\n\" | sed -n \"s/^ostree=//p\")/{FIT_PATH}"
                ),
            }
        }
    };
    format!(
        "for file in {root}{files}; do cp -p $file $file.new; {change}; mv $file.new $file; done"
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
    fn check(backend: Backend, what: Signed, menu: (&str, String), [new, old]: [&str; 2]) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("boot/loader")).unwrap();
        fs::write(root.join("boot/loader").join(menu.0), menu.1).unwrap();
        let [new, old] = [new, old].map(|path| root.join(path));
        for path in [&new, &old] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        let content = "content bootargs=   x";
        fs::write(&old, content).unwrap();
        fs::hard_link(&old, &new).unwrap();
        Command::new("sh", "dash")
            .args(["-e", "-c"])
            .arg(command(backend, what, &root.display().to_string()))
            .run()
            .unwrap();
        assert_eq!(fs::read(&old).unwrap(), content.as_bytes(), "{what:?}");
        let altered = fs::read(&new).unwrap();
        assert_ne!(altered, content.as_bytes(), "{what:?}");
        assert!(altered.starts_with(b"content"), "{what:?}");
        assert!(!altered.contains(&b'\\'), "{what:?}: {altered:?}");
    }

    #[test]
    fn the_new_deployment_is_altered_and_what_shares_its_files_is_not() {
        for (what, name) in [
            (Signed::Kernel, "usr/lib/modules/6.12/vmlinuz"),
            (Signed::Initramfs, "usr/lib/modules/6.12/initramfs.img"),
            (Signed::Arguments, BOOT_SCRIPT_PATH),
        ] {
            let entries = ["new", "old"].map(|id| BootEntry {
                options: format!("treeline.id={id} ostree=/ostree/boot.0/shop/{id}/0"),
                ..BootEntry::default()
            });
            let paths = ["new", "old"].map(|id| format!("ostree/boot.0/shop/{id}/0/{name}"));
            let menu = (MENU_NAME, menu_block(&entries));
            check(
                Backend::Grub,
                what,
                menu,
                paths.each_ref().map(String::as_str),
            );
        }
    }

    #[test]
    fn likewise_where_u_boot_reads_the_menu() {
        let menu = "kernel_image=/boot/ostree/new/vmlinuz-6\nramdisk_image=/boot/ostree/new/initramfs-6.img\n\
                    bootargs=rw treeline.id=new ostree=/ostree/boot.0/shop/new/0 quiet\n\
                    kernel_image2=/boot/ostree/old/vmlinuz-6\nbootargs2=rw ostree=/ostree/boot.0/shop/old/0\n";
        let in_deployment = |id: &str| format!("ostree/boot.0/shop/{id}/0/{FIT_PATH}");
        let in_boot = |id: &str, name: &str| format!("boot/ostree/{id}/{name}");
        for (what, [new, old]) in [
            (
                Signed::Kernel,
                ["new", "old"].map(|id| in_boot(id, "vmlinuz-6")),
            ),
            (
                Signed::Initramfs,
                ["new", "old"].map(|id| in_boot(id, "initramfs-6.img")),
            ),
            (Signed::Arguments, ["new", "old"].map(in_deployment)),
        ] {
            check(
                Backend::Uboot,
                what,
                ("uEnv.txt", menu.into()),
                [&new, &old],
            );
        }
    }
}
