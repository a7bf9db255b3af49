//! What libostree writes for the boot loader.

use bsp::board::Backend;
use bsp::boot::entry::BootEntry;
use bsp::boot::grub::{menu, sealed};

use super::Site;

/// A deployment as libostree shows it to boot loaders.
pub(super) struct Shown {
    pub(super) entry: BootEntry,
    /// Directory of the deployment's device trees (key `fdtdir`).
    pub(super) device_trees: Option<String>,
}

/// Configuration of the device's repository, with the sysroot's settings.
pub(super) fn repo_config(backend: Backend) -> String {
    // libostree's U-Boot backend puts /boot before every path itself, whatever bootprefix says.
    let bootloader = match backend {
        Backend::Grub => "bootloader=grub2\nbootprefix=true",
        Backend::Uboot => "bootloader=uboot",
    };
    format!("[core]\nrepo_version=1\nmode=bare\n\n[sysroot]\n{bootloader}\nreadonly=true\n")
}

/// The file for the boot loader in `loader.N`: its name and text.
pub(super) fn loader_file(backend: Backend, shown: &Shown) -> (&'static str, String) {
    match backend {
        Backend::Grub => ("grub.cfg", menu(std::slice::from_ref(&shown.entry))),
        Backend::Uboot => ("uEnv.txt", uenv(shown)),
    }
}

/// The same for a GRUB that takes signed files only.
pub(super) fn menu_block(shown: &Shown) -> (&'static str, String) {
    let block = sealed::menu_block(std::slice::from_ref(&shown.entry));
    (sealed::MENU_NAME, block)
}

/// What paths in the boot entries begin with.
pub(super) fn prefix(backend: Backend) -> &'static str {
    match backend {
        Backend::Grub => "/boot",
        Backend::Uboot => "",
    }
}

/// What libostree's U-Boot backend writes for one deployment (variables of U-Boot).
fn uenv(shown: &Shown) -> String {
    let entry = &shown.entry;
    let mut text = format!("kernel_image=/boot{}\n", entry.linux);
    for initrd in &entry.initrd {
        text.push_str(&format!("ramdisk_image=/boot{initrd}\n"));
    }
    if let Some(dir) = &shown.device_trees {
        text.push_str(&format!("fdtdir=/boot{dir}\n"));
    }
    text.push_str(&format!("bootargs={}\n", entry.options));
    text
}

/// The text of a boot entry (Boot Loader Specification, type 1), keys in libostree's order.
pub(super) fn text(shown: &Shown) -> String {
    let entry = &shown.entry;
    let mut text = format!(
        "title {}\nversion {}\noptions {}\nlinux {}\n",
        entry.title, entry.version, entry.options, entry.linux
    );
    for initrd in &entry.initrd {
        text.push_str(&format!("initrd {initrd}\n"));
    }
    if let Some(dir) = &shown.device_trees {
        text.push_str(&format!("fdtdir {dir}\n"));
    }
    text
}

/// `PRETTY_NAME`, the version unless it is part of the name, and the deployment's index.
pub(super) fn title(os_release: &str, version: Option<&str>) -> String {
    let field = |key: &str| {
        os_release.lines().find_map(|line| {
            let value = line.strip_prefix(key)?.strip_prefix('=')?.trim();
            let quoted = ['"', '\''].into_iter().find_map(|quote| {
                value
                    .strip_prefix(quote)
                    .and_then(|rest| rest.strip_suffix(quote))
            });
            Some(quoted.unwrap_or(value).to_string())
        })
    };
    let mut title = field("PRETTY_NAME")
        .or_else(|| field("ID"))
        .unwrap_or_else(|| "Linux".to_string());
    if let Some(version) = version.filter(|version| !title.contains(version)) {
        title.push(' ');
        title.push_str(version);
    }
    title + " (ostree:0)"
}

/// The kernel command line.
pub(super) fn options(site: &Site, boot_version: u32, boot_checksum: &str) -> String {
    let mut words = site.kargs.clone();
    words.push(format!("{}={}", bsp::device::ID_KARG, site.id));
    words.push(format!(
        "ostree=/ostree/boot.{boot_version}/{}/{boot_checksum}/0",
        site.stateroot
    ));
    words.join(" ")
}
