use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;

use anyhow::bail;
use bsp::board::{builtin, RawArea, Size, RECORD_BYTES};
use bsp::device::{BootPlace, DeviceConfig, Health, Update};
use bsp::loader::{filled, Record, BLOB_DIR, SECTOR};

use super::copies::{find, install};
use super::two_places::{Disk, TwoPlaces};
use super::*;
use crate::paths::Paths;
use crate::problem::kind_of;

const PLACES: [u64; 2] = [4096, 4096 + 8192];
const SLOT: u64 = 8192;
const MAGIC: &[u8] = b"CHSETTINGS";
const MAGIC_AT: usize = 20;

/// A boot loader by which its edition can be told: what a boot ROM takes, odd in length.
fn file(edition: u32) -> Vec<u8> {
    let mut content: Vec<u8> = (0..2345u32)
        .map(|at| (at * edition % 251) as u8 | 1)
        .collect();
    content[MAGIC_AT..MAGIC_AT + MAGIC.len()].copy_from_slice(MAGIC);
    content
}

fn area(edition: u32, way: UpdateWay) -> RawArea {
    let mut area = builtin("beaglebone").unwrap().disk.raw[0].clone();
    area.edition = edition;
    area.update = way;
    (area.offset, area.size) = (Size(PLACES[0]), Size(2 * SLOT));
    match way {
        UpdateWay::TwoPlaces => area.spare_offset = Some(Size(PLACES[1])),
        UpdateWay::EmmcBoot => {
            (area.place, area.offset, area.size) = (Medium::EmmcBoot, Size(0), Size(128 << 10));
            area.magic = None;
        }
        UpdateWay::None => {}
    }
    area
}

fn blob(edition: u32, way: UpdateWay) -> Blob {
    Blob::of(&area(edition, way), &file(edition)).unwrap()
}

/// A memory that loses its power after so many sectors.
#[derive(Debug, Clone)]
struct Memory {
    bytes: Vec<u8>,
    left: Option<usize>,
    /// Whether it writes the last sector of a range first.
    backwards: bool,
}

impl Memory {
    fn new(size: usize) -> Self {
        Self {
            bytes: vec![0; size],
            left: None,
            backwards: false,
        }
    }

    fn put(&mut self, at: u64, bytes: &[u8]) {
        let at = at as usize;
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn spend(&mut self) -> Result<()> {
        match &mut self.left {
            Some(0) => bail!("the power is gone"),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }
}

impl Disk for Memory {
    fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        Ok(self.bytes[offset as usize..][..length].to_vec())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        assert_eq!((offset % 512, bytes.len() % 512), (0, 0), "whole sectors");
        let mut sectors: Vec<_> = bytes.chunks(SECTOR).enumerate().collect();
        if self.backwards {
            sectors.reverse();
        }
        for (index, sector) in sectors {
            self.spend()?;
            self.put(offset + (index * SECTOR) as u64, sector);
        }
        Ok(())
    }
}

/// What a boot ROM does: the first place with the magic is taken, whatever else is in it. The edition of what it
/// starts, if that is whole.
fn boot_rom(bytes: &[u8]) -> Option<u32> {
    let place = PLACES
        .into_iter()
        .map(|at| at as usize)
        .find(|at| bytes[at + MAGIC_AT..].starts_with(MAGIC))?;
    (1..4).find(|edition| bytes[place..].starts_with(&file(*edition)))
}

fn with_copy(disk: &mut Memory, copy: usize, edition: u32) {
    disk.put(PLACES[copy], &filled(&file(edition)));
    let record = Record::of(edition, &file(edition)).render();
    disk.put(PLACES[copy] + SLOT - RECORD_BYTES, &record);
}

/// The states in which a device with edition 1 may be found.
fn beginnings() -> Vec<(&'static str, Memory)> {
    let mut factory = Memory::new(32 << 10);
    with_copy(&mut factory, 0, 1);
    let mut old_image = Memory::new(32 << 10);
    old_image.put(PLACES[0], &filled(&file(1)));
    let mut second = factory.clone();
    with_copy(&mut second, 1, 1);
    second.put(PLACES[0], &[0; SECTOR]);
    let mut garbage = factory.clone();
    garbage.put(PLACES[1], &[0xa5; SLOT as usize]);
    let mut both = factory.clone();
    with_copy(&mut both, 1, 1);
    vec![
        ("one copy", factory),
        ("one copy, no record", old_image),
        ("the second is started", second),
        ("garbage in the second place", garbage),
        ("two copies", both),
    ]
}

fn run(disk: &Memory, left: Option<usize>, edition: u32) -> (bool, Memory) {
    let mut disk = disk.clone();
    disk.left = left;
    let blob = blob(edition, UpdateWay::TwoPlaces);
    let mut copies = TwoPlaces::new(disk, blob.clone());
    let done = install(&mut copies, &blob, &file(edition)).is_ok();
    let mut disk = copies.into_disk();
    disk.left = None;
    (done, disk)
}

#[test]
fn cut_after_any_sector_the_boot_rom_starts_a_whole_copy_and_the_next_run_finishes() {
    let mut cuts = 0;
    for (name, mut before) in beginnings() {
        for backwards in [false, true] {
            before.backwards = backwards;
            assert_eq!(boot_rom(&before.bytes), Some(1), "{name}");
            for left in 0.. {
                let (done, cut) = run(&before, Some(left), 2);
                let started = boot_rom(&cut.bytes);
                if done {
                    assert_eq!(started, Some(2), "{name}");
                    break;
                }
                assert!(
                    matches!(started, Some(1 | 2)),
                    "{name}: {left}: {started:?}"
                );
                // The power goes again while it is made good.
                for again in 0.. {
                    cuts += 1;
                    let (done, twice) = run(&cut, Some(again), 2);
                    let started = boot_rom(&twice.bytes);
                    assert!(matches!(started, Some(1 | 2)), "{name}: {left}, {again}");
                    let (finished, end) = run(&twice, None, 2);
                    assert!(finished || boot_rom(&twice.bytes) == Some(2));
                    assert_eq!(boot_rom(&end.bytes), Some(2), "{name}: {left}, {again}");
                    if done {
                        break;
                    }
                }
            }
        }
    }
    assert!(cuts > 500, "{cuts}");
}

#[test]
fn the_old_copy_is_kept_and_the_next_edition_goes_back_to_the_first_place() {
    let (_, factory) = beginnings().remove(4);
    let (_, second) = run(&factory, None, 2);
    let blob = blob(2, UpdateWay::TwoPlaces);
    let copies = TwoPlaces::new(second.clone(), blob.clone());
    assert_eq!(copies.started().unwrap(), 1);
    assert_eq!(
        find(&copies, &blob, 0).unwrap(),
        copies::Found::Withdrawn { edition: 1 }
    );
    let (_, third) = run(&second, None, 3);
    let copies = TwoPlaces::new(third.clone(), blob.clone());
    assert_eq!(copies.started().unwrap(), 0);
    assert_eq!(find(&copies, &blob, 0).unwrap().edition(), Some(3));
    assert_eq!(find(&copies, &blob, 1).unwrap().edition(), Some(2));
    // Whole, in its place, and started if the first one is damaged.
    let mut damaged = third;
    damaged.put(PLACES[0], &[0; SECTOR]);
    assert_eq!(boot_rom(&damaged.bytes), Some(2));
}

#[test]
fn only_the_slots_are_written() {
    for (name, before) in beginnings() {
        let (_, after) = run(&before, None, 2);
        let slots = PLACES[0] as usize..(PLACES[1] + SLOT) as usize;
        assert_eq!(
            before.bytes[..slots.start],
            after.bytes[..slots.start],
            "{name}"
        );
        assert_eq!(
            before.bytes[slots.end..],
            after.bytes[slots.end..],
            "{name}"
        );
    }
}

#[test]
fn a_disk_that_lies_leaves_the_old_copy() {
    struct Liar(Memory);
    impl Disk for Liar {
        fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
            self.0.read(offset, length)
        }
        fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
            let mut bytes = bytes.to_vec();
            if let Some(byte) = bytes.get_mut(700) {
                *byte ^= 4;
            }
            self.0.write(offset, &bytes)
        }
    }
    let (_, before) = beginnings().remove(0);
    let blob = blob(2, UpdateWay::TwoPlaces);
    let mut copies = TwoPlaces::new(Liar(before), blob.clone());
    let said = install(&mut copies, &blob, &file(2))
        .unwrap_err()
        .to_string();
    assert!(said.contains("the old one stays"), "{said}");
    assert_eq!(boot_rom(&copies.into_disk().0.bytes), Some(1));
}

/// Two boot partitions and the register, which changes at once or not at all.
#[derive(Debug, Clone)]
struct Eight {
    boots: [Memory; 2],
    register: u8,
    left: Option<usize>,
}

impl Copies for Eight {
    fn read(&self, copy: usize, at: u64, length: usize) -> Result<Vec<u8>> {
        self.boots[copy].read(at, length)
    }

    fn write(&mut self, copy: usize, at: u64, bytes: &[u8]) -> Result<()> {
        self.boots[copy].left = self.left;
        let written = self.boots[copy].write(at, bytes);
        self.left = self.boots[copy].left;
        written
    }

    fn started(&self) -> Result<usize> {
        Ok(usize::from(self.register) - 1)
    }

    fn start(&mut self, copy: usize) -> Result<()> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1).context("the power is gone")?;
        }
        self.register = copy as u8 + 1;
        Ok(())
    }
}

#[test]
fn cut_at_any_write_an_emmc_starts_from_a_whole_boot_partition() {
    let blob = blob(2, UpdateWay::EmmcBoot);
    for register in [1u8, 2] {
        let mut before = Eight {
            boots: [Memory::new(128 << 10), Memory::new(128 << 10)],
            register,
            left: None,
        };
        before.boots[usize::from(register) - 1].put(0, &filled(&file(1)));
        let edition = |device: &Eight| {
            let bytes = &device.boots[device.started().unwrap()].bytes;
            (1..4).find(|edition| bytes.starts_with(&file(*edition)))
        };
        let mut cuts = 0;
        loop {
            let mut device = before.clone();
            device.left = Some(cuts);
            let done = install(&mut device, &blob, &file(2)).is_ok();
            if done {
                assert_eq!(edition(&device), Some(2));
                break;
            }
            assert_eq!(edition(&device), Some(1), "{cuts}");
            device.left = None;
            install(&mut device, &blob, &file(2)).unwrap();
            assert_eq!(edition(&device), Some(2), "{cuts}");
            cuts += 1;
        }
        assert!(cuts > 6, "{cuts}");
    }
}

/// A device with a disk of 64 KiB, the boot loader of edition 1 on it, and a deployment that brings `blobs`.
struct World {
    root: tempfile::TempDir,
}

impl World {
    fn new(blobs: &[Blob]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let world = Self { root };
        let at = |path: &str| world.root.path().join(path);
        for dir in [
            "dev/disk/by-partuuid",
            "sys/class/block",
            "sys/block/mmcblk0/mmcblk0p1",
            BLOB_DIR,
        ] {
            std::fs::create_dir_all(at(dir)).unwrap();
        }
        std::fs::write(at("sys/block/mmcblk0/mmcblk0p1/partition"), "1\n").unwrap();
        symlink(
            at("sys/block/mmcblk0/mmcblk0p1"),
            at("sys/class/block/mmcblk0p1"),
        )
        .unwrap();
        std::fs::write(at("dev/mmcblk0p1"), "").unwrap();
        symlink("../../mmcblk0p1", at("dev/disk/by-partuuid/1234")).unwrap();
        let mut disk = Memory::new(64 << 10);
        with_copy(&mut disk, 0, 1);
        std::fs::write(at("dev/mmcblk0"), disk.bytes).unwrap();
        for boot in ["mmcblk0boot0", "mmcblk0boot1"] {
            let mut bytes = filled(&file(1));
            bytes.resize(128 << 10, 0);
            std::fs::write(at("dev").join(boot), bytes).unwrap();
            std::fs::create_dir(at("sys/class/block").join(boot)).unwrap();
            std::fs::write(at("sys/class/block").join(boot).join("force_ro"), "1").unwrap();
        }
        for blob in blobs {
            if let Some(path) = blob.path() {
                std::fs::write(at(&path), file(blob.edition)).unwrap();
            }
        }
        let text = Manifest::new(blobs.to_vec(), None).render().unwrap();
        std::fs::write(at(MANIFEST_PATH), text).unwrap();
        world
    }

    /// What takes the place of mmc-utils: it keeps the register in a file.
    fn mmc(&self, register: &str) -> std::path::PathBuf {
        let program = self.root.path().join("usr/bin/mmc");
        std::fs::create_dir_all(program.parent().unwrap()).unwrap();
        let kept = self.root.path().join("register");
        std::fs::write(&kept, register).unwrap();
        let kept = kept.display();
        let script = format!(
            "#!/bin/sh\ncase \"$1 $2\" in\n\"extcsd read\") echo \"Boot configuration bytes [PARTITION_CONFIG: 0x$(cat {kept})]\" ;;\n\"bootpart enable\") printf %s \"$3-$4\" > {kept}.asked; printf '5%s' 0 > {kept}; [ $3 = 1 ] && printf 48 > {kept}; true ;;\n*) echo no such command >&2; exit 1 ;;\nesac\n"
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.root.path().join("register")
    }

    fn device(&self) -> Device {
        Device {
            paths: Paths::below(self.root.path()),
            booted: "a".repeat(64),
            config: DeviceConfig {
                product: "demo".into(),
                version: "1".into(),
                board: "mine".into(),
                stateroot: "demo".into(),
                boot: BootPlace {
                    backend: bsp::board::Backend::Uboot,
                    firmware_partuuid: "1234".into(),
                    environment: None,
                    tries: 3,
                },
                update: Update::default(),
                commit_keys: Vec::new(),
                health: Health::default(),
            },
        }
    }

    fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.root.path().join(path)).unwrap()
    }
}

fn quiet(_: &str) {}

fn state(device: &Device) -> (Option<u32>, Option<u32>, &'static str) {
    let standing = look(device).remove(0);
    assert_eq!(standing.error, None);
    (standing.installed, standing.kept, standing.state)
}

#[test]
fn a_device_replaces_what_is_older_once() {
    let world = World::new(&[blob(2, UpdateWay::TwoPlaces)]);
    let device = world.device();
    assert_eq!(state(&device), (Some(1), None, "outdated"));
    let said = look(&device)[0].people();
    assert!(said.contains("mlo edition 1; edition 2 is here"), "{said}");
    let replaced = update_all(&device, false, &quiet).unwrap();
    assert_eq!((replaced[0].from, replaced[0].to), (Some(1), 2));
    assert_eq!(boot_rom(&world.read("dev/mmcblk0")), Some(2));
    assert_eq!(state(&device), (Some(2), Some(1), "current"));
    let before = world.read("dev/mmcblk0");
    assert_eq!(update_all(&device, false, &quiet).unwrap(), []);
    assert!(world.read("dev/mmcblk0") == before);
}

#[test]
fn an_edition_never_goes_down_and_a_false_file_is_not_installed() {
    let world = World::new(&[blob(2, UpdateWay::TwoPlaces)]);
    let device = world.device();
    let path = world
        .root
        .path()
        .join(blob(2, UpdateWay::TwoPlaces).path().unwrap());
    std::fs::write(&path, file(3)).unwrap();
    let error = update_all(&device, false, &quiet).unwrap_err();
    assert_eq!(kind_of(&error), Kind::Trust, "{error:#}");
    assert_eq!(boot_rom(&world.read("dev/mmcblk0")), Some(1));
    std::fs::write(&path, file(2)).unwrap();
    update_all(&device, false, &quiet).unwrap();
    // An older version of the product after that.
    let old = Manifest::new(vec![blob(1, UpdateWay::TwoPlaces)], None)
        .render()
        .unwrap();
    std::fs::write(world.root.path().join(MANIFEST_PATH), old).unwrap();
    assert_eq!(update_all(&device, false, &quiet).unwrap(), []);
    assert_eq!(state(&device), (Some(2), Some(1), "current"));
}

#[test]
fn without_a_safe_way_it_is_refused_unless_it_is_there() {
    let world = World::new(&[blob(1, UpdateWay::None)]);
    let device = world.device();
    assert_eq!(state(&device), (Some(1), None, "current"));
    assert_eq!(update_all(&device, false, &quiet).unwrap(), []);
    // The others are done all the same.
    let mut other = blob(2, UpdateWay::None);
    other.name = "u-boot".into();
    let world = World::new(&[other, blob(2, UpdateWay::TwoPlaces)]);
    let device = world.device();
    assert_eq!(state(&device), (None, None, "no-safe-way"));
    let error = update_all(&device, false, &quiet).unwrap_err();
    assert_eq!(kind_of(&error), Kind::Refused);
    assert!(
        error
            .to_string()
            .contains("\"u-boot\" on the disk is not edition 2"),
        "{error}"
    );
    assert_eq!(boot_rom(&world.read("dev/mmcblk0")), Some(2));
}

#[test]
fn only_a_confirmed_deployment_replaces_anything() {
    allow(&Situation::Confirmed).unwrap();
    let pending = Situation::Pending { id: "b".into() };
    for other in [
        Situation::OnTrial { tries_left: 2 },
        pending,
        Situation::FellBack { failed: "b".into() },
        Situation::ArmedNotSwitched { armed: "b".into() },
        Situation::Rejected,
        Situation::Lost,
    ] {
        assert_eq!(
            kind_of(&allow(&other).unwrap_err()),
            Kind::State,
            "{other:?}"
        );
    }
    // And nobody gets past it: without a boot state nothing is written.
    let world = World::new(&[blob(2, UpdateWay::TwoPlaces)]);
    let before = world.read("dev/mmcblk0");
    update(&world.device(), false, &quiet).unwrap_err();
    assert!(world.read("dev/mmcblk0") == before);
}

#[test]
fn an_emmc_is_switched_by_its_register_and_locked_again() {
    let world = World::new(&[blob(2, UpdateWay::EmmcBoot)]);
    let device = world.device();
    let said = look(&device).remove(0).error.unwrap();
    assert!(said.contains("mmc-utils"), "{said}");
    // The first boot partition, with acknowledgement.
    let register = world.mmc("48");
    assert_eq!(state(&device), (None, None, "outdated"));
    let replaced = update_all(&device, false, &quiet).unwrap();
    assert_eq!((replaced[0].from, replaced[0].to), (None, 2));
    let asked = std::fs::read_to_string(register.with_extension("asked")).unwrap();
    assert_eq!(asked, "2-1");
    assert!(world.read("dev/mmcblk0boot1").starts_with(&file(2)));
    assert!(world.read("dev/mmcblk0boot0").starts_with(&file(1)));
    for boot in ["mmcblk0boot0", "mmcblk0boot1"] {
        assert_eq!(
            world.read(&format!("sys/class/block/{boot}/force_ro")),
            b"1"
        );
    }
    assert_eq!(state(&device), (Some(2), None, "current"));
    assert_eq!(update_all(&device, false, &quiet).unwrap(), []);
    // The user area, or nothing at all.
    for elsewhere in ["38", "00"] {
        std::fs::write(&register, elsewhere).unwrap();
        let said = look(&device).remove(0).error.unwrap();
        assert!(
            said.contains("does not start from a boot partition"),
            "{said}"
        );
    }
    std::fs::write(&register, "zz").unwrap();
    assert!(look(&device)[0]
        .error
        .as_ref()
        .unwrap()
        .contains("looking for PARTITION_CONFIG"));
}

#[test]
fn a_disk_that_is_too_small_or_started_from_elsewhere_is_told() {
    let world = World::new(&[blob(2, UpdateWay::TwoPlaces)]);
    let disk = world.root.path().join("dev/mmcblk0");
    std::fs::write(&disk, vec![0; 64 << 10]).unwrap();
    let said = look(&world.device()).remove(0).error.unwrap();
    assert!(said.contains("neither of its places"), "{said}");
    std::fs::write(&disk, vec![0; 16 << 10]).unwrap();
    let said = format!(
        "{:#}",
        update_all(&world.device(), false, &quiet).unwrap_err()
    );
    assert!(said.contains("would end at 20480"), "{said}");
    let named = emmc::boot_partition(Path::new("/dev/sda"), 0).unwrap_err();
    assert!(named.to_string().contains("is not an eMMC"), "{named}");
    // A version without any is nothing special.
    std::fs::remove_file(world.root.path().join(MANIFEST_PATH)).unwrap();
    assert_eq!(look(&world.device()), []);
    assert_eq!(update_all(&world.device(), false, &quiet).unwrap(), []);
}
