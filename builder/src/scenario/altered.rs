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

/// Other deployments and the repository share the file by hard links, or by its place: a copy is altered, and takes its
/// place for this deployment alone.
fn command(backend: Backend, what: Signed, root: &str) -> String {
    match backend {
        Backend::Grub => for_grub(what, root),
        Backend::Uboot => for_uboot(what, root),
    }
}

fn for_grub(what: Signed, root: &str) -> String {
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

/// U-Boot looks at as many bytes as were signed.
fn for_uboot(what: Signed, root: &str) -> String {
    let menu = format!("{root}/boot/loader/uEnv.txt");
    let key = match what {
        Signed::Kernel => "kernel_image",
        Signed::Initramfs => "ramdisk_image",
        Signed::Arguments => {
            // The blanks are room for the device's own arguments.
            return format!(
                "place=$(sed -n \"s/^bootargs=//p\" {menu} | tr \" \" \"\\n\" | sed -n \"s/^ostree=//p\"); \
                 file={root}$place/{FIT_PATH}; \
                 LC_ALL=C sed \"s/bootargs= /bootargs=x/\" $file >$file.new; mv $file.new $file"
            );
        }
    };
    format!(
        "file=$(sed -n \"s/^{key}=//p\" {menu}); \
         cp -p {root}$file {root}$file.new; \
         printf x | dd of={root}$file.new bs=1 seek=5000 conv=notrunc status=none; \
         sed -i \"s#^{key}=.*#{key}=$file.new#\" {menu}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Command;
    use bsp::boot::entry::BootEntry;
    use bsp::boot::grub::sealed::menu_block;
    use std::fs;

    /// The device's commands, run here on a directory in place of the disk: the files that are shared, and the altered
    /// one.
    fn check(
        backend: Backend,
        what: Signed,
        (name, menu): (&str, String),
        shared: [String; 2],
        altered: &str,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("boot/loader")).unwrap();
        fs::write(root.join("boot/loader").join(name), menu).unwrap();
        let [old, new] = shared.map(|path| root.join(path));
        for path in [&new, &old] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
        }
        let content = format!("content bootargs=   {}", "y".repeat(6000));
        fs::write(&old, &content).unwrap();
        fs::hard_link(&old, &new).unwrap();
        Command::new("sh", "dash")
            .args(["-e", "-c"])
            .arg(command(backend, what, &root.display().to_string()))
            .run()
            .unwrap();
        assert_eq!(fs::read_to_string(&old).unwrap(), content, "{what:?}");
        let altered = fs::read(root.join(altered)).unwrap();
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
            let [old, new] = ["old", "new"].map(|id| format!("ostree/boot.0/shop/{id}/0/{name}"));
            let menu = (MENU_NAME, menu_block(&entries));
            check(Backend::Grub, what, menu, [old, new.clone()], &new);
        }
    }

    #[test]
    fn likewise_where_u_boot_reads_the_menu() {
        let menu = "kernel_image=/boot/ostree/a/vmlinuz-6\nramdisk_image=/boot/ostree/a/initramfs-6.img\n\
                    bootargs=rw treeline.id=new ostree=/ostree/boot.0/shop/new/0 quiet\n\
                    kernel_image2=/boot/ostree/a/vmlinuz-6\nbootargs2=rw ostree=/ostree/boot.0/shop/old/0\n";
        for (what, name) in [
            (Signed::Kernel, "vmlinuz-6"),
            (Signed::Initramfs, "initramfs-6.img"),
        ] {
            let file = format!("boot/ostree/a/{name}");
            let shared = [file.clone(), format!("{file}.same")];
            let altered = format!("{file}.new");
            check(
                Backend::Uboot,
                what,
                ("uEnv.txt", menu.into()),
                shared,
                &altered,
            );
        }
        let [old, new] = ["old", "new"].map(|id| format!("ostree/boot.0/shop/{id}/0/{FIT_PATH}"));
        let shared = [old, new.clone()];
        check(
            Backend::Uboot,
            Signed::Arguments,
            ("uEnv.txt", menu.into()),
            shared,
            &new,
        );
    }
}
