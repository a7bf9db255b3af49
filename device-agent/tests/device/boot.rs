//! The boot environment of a device in a directory, for either backend.

use std::path::Path;

use bsp::board::{Backend, Environment, Size};
use bsp::boot::state::BootState;
use bsp::boot::store::{BootStore, GrubStore};
use bsp::boot::uboot::{environment_area, UbootStore};
use bsp::boot::{grubenv, GOOD_PATH, STATE_PATH};
use bsp::disk::{create_fat, FatVolume};

use super::{World, PARTUUID};

const ENVIRONMENT: Environment = Environment {
    offset: Size(1 << 20),
    redundant_offset: Size(0x18_0000),
    size: Size(0x4000),
};

impl World {
    /// libostree's U-Boot backend wants a menu to replace; in an image there always is one.
    pub(super) fn empty_menu(&self) {
        if self.backend == Backend::Grub {
            return;
        }
        let boot = self.root().join("boot");
        std::fs::create_dir_all(boot.join("loader.0")).unwrap();
        std::fs::write(boot.join("loader.0/uEnv.txt"), "").unwrap();
        std::os::unix::fs::symlink("loader.0", boot.join("loader")).unwrap();
    }

    /// What the agent's configuration says about it.
    pub(super) fn boot_place(&self) -> String {
        match self.backend {
            Backend::Grub => "backend = \"grub\"".to_owned(),
            Backend::Uboot => format!(
                "backend = \"uboot\"\nenvironment = {{ offset = \"{}\", redundant-offset = \"{}\", size = \"{}\" }}",
                ENVIRONMENT.offset, ENVIRONMENT.redundant_offset, ENVIRONMENT.size
            ),
        }
    }

    /// The firmware partition, made as the builder makes it.
    pub(super) fn firmware(&self, good: &str) {
        let dir = self.root().join("dev/disk/by-partuuid");
        std::fs::create_dir_all(&dir).unwrap();
        if self.backend == Backend::Uboot {
            return self.disk(&dir.join(PARTUUID), good);
        }
        let state = grubenv::from_state(&BootState::confirmed(good)).unwrap();
        let spare = grubenv::from_good(good).unwrap();
        let mut image = std::fs::File::create(dir.join(PARTUUID)).unwrap();
        image.set_len(8 << 20).unwrap();
        let volume = FatVolume {
            sector: 512,
            bytes: 8 << 20,
            id: 1,
            label: "firmware".into(),
        };
        create_fat(
            &volume,
            &[(STATE_PATH, &state), (GOOD_PATH, &spare)],
            &mut image,
        )
        .unwrap();
    }

    /// The whole disk with its environment, and the firmware partition on it as udev and the kernel show it.
    fn disk(&self, link: &Path, good: &str) {
        let disk = std::fs::File::create(self.root().join("dev/mmcblk0")).unwrap();
        disk.set_len(4 << 20).unwrap();
        for (offset, copy) in environment_area(&ENVIRONMENT, &BootState::confirmed(good)).unwrap() {
            std::os::unix::fs::FileExt::write_all_at(&disk, &copy, offset).unwrap();
        }
        std::fs::write(self.root().join("dev/mmcblk0p1"), "").unwrap();
        std::os::unix::fs::symlink("../../mmcblk0p1", link).unwrap();
        let sys = self.root().join("sys");
        let partition = "devices/platform/mmc_host/mmc0/block/mmcblk0/mmcblk0p1";
        std::fs::create_dir_all(sys.join(partition)).unwrap();
        std::fs::write(sys.join(partition).join("partition"), "1\n").unwrap();
        let class = sys.join("class/block");
        std::fs::create_dir_all(&class).unwrap();
        std::os::unix::fs::symlink(Path::new("../..").join(partition), class.join("mmcblk0p1"))
            .unwrap();
    }

    pub fn store(&self) -> Box<dyn BootStore> {
        let dev = self.root().join("dev");
        match self.backend {
            Backend::Grub => {
                Box::new(GrubStore::open(&dev.join("disk/by-partuuid").join(PARTUUID)).unwrap())
            }
            Backend::Uboot => {
                Box::new(UbootStore::open(&dev.join("mmcblk0"), &ENVIRONMENT).unwrap())
            }
        }
    }

    /// What the boot loader sees are the same deployments in the same order.
    pub(super) fn judge_menu(&self, entries: &[String]) {
        let loader = self.root().join("boot/loader");
        let file = match self.backend {
            Backend::Grub => "grub.cfg",
            Backend::Uboot => "uEnv.txt",
        };
        let menu = std::fs::read_to_string(loader.join(file)).unwrap();
        for (index, id) in entries.iter().enumerate() {
            let number = index + 1;
            let line = match (self.backend, number) {
                (Backend::Grub, _) => format!("set treeline_{number}="),
                (Backend::Uboot, 1) => "bootargs=".into(),
                (Backend::Uboot, _) => format!("bootargs{number}="),
            };
            let found = menu.lines().find(|text| text.starts_with(&line));
            assert!(found.is_some_and(|text| text.contains(id)), "{menu}");
        }
    }
}
