use super::*;
use std::fs;
use std::os::unix::fs::symlink;

const GIB: u64 = 1 << 30;

/// A machine laid out as files.
pub struct Machine {
    dir: tempfile::TempDir,
    mounts: String,
    swaps: String,
}

impl Machine {
    pub fn new() -> Self {
        let machine = Self {
            dir: tempfile::tempdir().unwrap(),
            mounts: String::new(),
            swaps: "Filename Type Size Used Priority\n".into(),
        };
        machine.write("sys/block/.keep", "");
        fs::remove_file(machine.dir.path().join("sys/block/.keep")).unwrap();
        machine
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A disk below `way`, e.g. `pci0000:00/usb1/1-1/host2`; returns its directory.
    pub fn disk(&self, way: &str, name: &str, number: &str, gib: u64) -> String {
        let dir = format!("sys/devices/{way}/block/{name}");
        self.write(&format!("{dir}/dev"), &format!("{number}\n"));
        self.write(&format!("{dir}/size"), &format!("{}\n", gib * GIB / 512));
        self.write(&format!("{dir}/removable"), "0\n");
        self.write(&format!("{dir}/ro"), "0\n");
        self.write(&format!("{dir}/diskseq"), "7\n");
        self.write(&format!("{dir}/queue/discard_max_bytes"), "0\n");
        let link = self.dir.path().join("sys/block").join(name);
        symlink(format!("../devices/{way}/block/{name}"), link).unwrap();
        dir
    }

    pub fn part(&self, disk: &str, name: &str, number: &str) -> String {
        let dir = format!("{disk}/{name}");
        let index = name.trim_start_matches(|c: char| !c.is_ascii_digit());
        self.write(&format!("{dir}/partition"), index);
        self.write(&format!("{dir}/dev"), number);
        self.write(&format!("{dir}/start"), "2048");
        self.write(&format!("{dir}/size"), "4096");
        dir
    }

    pub fn mount(&mut self, number: &str, source: &str, fs: &str, at: &str) {
        let n = self.mounts.len();
        self.mounts += &format!("{n} 1 {number} / {at} rw - {fs} {source} rw\n");
    }

    pub fn swap(&mut self, path: &str) {
        self.swaps += &format!("{path} partition 1 0 -2\n");
    }

    pub fn list(&self) -> Vec<Device> {
        self.write("proc/self/mountinfo", &self.mounts);
        self.write("proc/swaps", &self.swaps);
        list(&System::below(self.dir.path()))
    }

    /// A card in a USB reader, which nothing speaks against.
    pub fn card(&self) -> String {
        self.card_in(0, "sdb", "8:16")
    }

    /// A card in one of the slots of that reader.
    pub fn card_in(&self, slot: u32, name: &str, number: &str) -> String {
        let usb = "pci0000:00/0000:00:14.0/usb1/1-2";
        self.write(&format!("sys/devices/{usb}/idVendor"), "0781\n");
        self.write(&format!("sys/devices/{usb}/serial"), "4C53\u{1b}[31m0001\n");
        self.write(&format!("sys/devices/{usb}/manufacturer"), "SanDisk\n");
        self.write(&format!("sys/devices/{usb}/product"), "Ultra Card Reader\n");
        let way = format!("{usb}/1-2:1.0/host4/target4:0:0/4:0:0:{slot}");
        let disk = self.disk(&way, name, number, 32);
        self.write(&format!("{disk}/removable"), "1\n");
        self.write(&format!("{disk}/device/vendor"), "SanDisk \n");
        self.write(&format!("{disk}/device/model"), "Ultra Card Reade\n");
        disk
    }
}

fn one(machine: &Machine, name: &str) -> Device {
    let mut all = machine.list();
    let at = all.iter().position(|device| device.name == name).unwrap();
    all.remove(at)
}

fn worst(device: &Device) -> Option<Severity> {
    refusals(device, GIB).into_iter().map(|o| o.severity).max()
}

fn says(device: &Device) -> String {
    let texts: Vec<String> = refusals(device, GIB).into_iter().map(|o| o.text).collect();
    texts.join("; ")
}

#[test]
fn a_card_in_a_usb_reader_is_offered_with_the_names_that_people_know() {
    let machine = Machine::new();
    machine.card();
    let device = one(&machine, "sdb");
    assert!(candidate(&device, 32 * GIB));
    assert_eq!(device.bus, Bus::Usb);
    assert_eq!(
        device.title(),
        "SanDisk Ultra Card Reader, serial 4C53[31m0001"
    );
    assert_eq!((device.size, device.sequence), (32 * GIB, Some(7)));
}

#[test]
fn a_card_without_medium_with_protection_or_too_small_is_refused_for_good() {
    for (file, text, why) in [
        ("size", "0", "no medium"),
        ("ro", "1", "read-only"),
        ("size", "2097151", "the image needs"),
    ] {
        let machine = Machine::new();
        let disk = machine.card();
        machine.write(&format!("{disk}/{file}"), text);
        let device = one(&machine, "sdb");
        assert_eq!(worst(&device), Some(Severity::Never), "{file}");
        assert!(says(&device).contains(why), "{}", says(&device));
    }
}

#[test]
fn a_very_large_disk_is_not_offered() {
    let machine = Machine::new();
    let disk = machine.card();
    machine.write(&format!("{disk}/size"), &((4096 * GIB) / 512).to_string());
    assert_eq!(worst(&one(&machine, "sdb")), Some(Severity::NotOffered));
}

#[test]
fn a_disk_built_in_needs_force() {
    let machine = Machine::new();
    let way = "pci0000:00/0000:00:1d.0/0000:03:00.0/nvme/nvme0";
    machine.disk(way, "nvme0n1", "259:0", 512);
    let device = one(&machine, "nvme0n1");
    assert_eq!(
        (device.bus, worst(&device)),
        (Bus::Nvme, Some(Severity::Force))
    );
    assert!(says(&device).contains("built in"));
    machine.disk(
        "pci0000:00/ata1/host0/target0:0:0/0:0:0:0",
        "sda",
        "8:0",
        512,
    );
    let device = one(&machine, "sda");
    assert_eq!(
        (device.bus, worst(&device)),
        (Bus::Scsi, Some(Severity::Force))
    );
}

#[test]
fn a_card_in_the_machines_own_reader_is_offered_its_chip_and_boot_areas_are_not() {
    let machine = Machine::new();
    let card = machine.disk(
        "platform/fe34/mmc_host/mmc1/mmc1:aaaa",
        "mmcblk1",
        "179:32",
        16,
    );
    machine.write(&format!("{card}/device/type"), "SD\n");
    machine.write(&format!("{card}/device/name"), "SC16G\n");
    let chip = machine.disk(
        "platform/fe33/mmc_host/mmc0/mmc0:0001",
        "mmcblk0",
        "179:0",
        16,
    );
    machine.write(&format!("{chip}/device/type"), "MMC\n");
    for (n, boot) in ["mmcblk0boot0", "mmcblk0boot1", "mmcblk0rpmb"]
        .iter()
        .enumerate()
    {
        let way = "platform/fe33/mmc_host/mmc0/mmc0:0001";
        machine.disk(way, boot, &format!("179:{}", 8 + n), 1);
    }
    assert!(candidate(&one(&machine, "mmcblk1"), GIB));
    assert_eq!(one(&machine, "mmcblk1").title(), "SC16G");
    assert_eq!(worst(&one(&machine, "mmcblk0")), Some(Severity::Force));
    for boot in ["mmcblk0boot0", "mmcblk0boot1", "mmcblk0rpmb"] {
        let device = one(&machine, boot);
        assert_eq!(worst(&device), Some(Severity::Never), "{boot}");
        assert!(says(&device).contains("hardware partition"));
    }
}

#[test]
fn a_mounted_disk_needs_force_and_the_running_systems_is_refused_for_good() {
    for (at, wanted) in [
        ("/media/me/My\\040Card", Severity::Force),
        ("/mnt", Severity::Force),
        ("/", Severity::Never),
        ("/boot/firmware", Severity::Never),
        ("/usr", Severity::Never),
        ("/var", Severity::Never),
        ("/home", Severity::Never),
        ("/run/live/medium", Severity::Never),
    ] {
        let mut machine = Machine::new();
        let disk = machine.card();
        machine.part(&disk, "sdb1", "8:17");
        machine.mount("8:17", "/dev/sdb1", "ext4", at);
        let device = one(&machine, "sdb");
        assert!(!candidate(&device, GIB), "{at}");
        assert_eq!(worst(&device), Some(wanted), "{at}");
        assert!(says(&device).contains("sdb1"), "{}", says(&device));
    }
}

#[test]
fn file_systems_over_several_disks_are_found_by_their_source() {
    let mut machine = Machine::new();
    let disk = machine.card();
    machine.part(&disk, "sdb2", "8:18");
    machine.mount("0:31", "/dev/sdb2", "btrfs", "/");
    assert_eq!(worst(&one(&machine, "sdb")), Some(Severity::Never));
}

#[test]
fn a_disk_mounted_as_a_whole_is_found() {
    let mut machine = Machine::new();
    machine.card();
    machine.mount("8:16", "/dev/sdb", "vfat", "/media/card");
    assert_eq!(worst(&one(&machine, "sdb")), Some(Severity::Force));
}

#[test]
fn a_disk_that_is_swapped_to_is_refused_for_good() {
    let mut machine = Machine::new();
    let disk = machine.card();
    machine.part(&disk, "sdb3", "8:19");
    machine.swap("/dev/sdb3");
    let device = one(&machine, "sdb");
    assert_eq!(worst(&device), Some(Severity::Never));
    assert!(says(&device).contains("swaps to sdb3"));
}

#[test]
fn what_other_devices_are_made_of_is_refused_for_good() {
    for (holder, uuid, kind) in [
        ("md0", "", "RAID"),
        ("dm-0", "LVM-abc", "LVM"),
        ("dm-1", "CRYPT-LUKS2-abc", "encryption"),
        ("dm-2", "mpath-abc", "multipath"),
        ("bcache0", "", "bcache"),
    ] {
        let machine = Machine::new();
        let disk = machine.card();
        let part = machine.part(&disk, "sdb1", "8:17");
        machine.write(&format!("{part}/holders/{holder}/dev"), "253:0");
        let above = machine.disk("virtual", holder, "253:0", 31);
        if !uuid.is_empty() {
            machine.write(&format!("{above}/dm/uuid"), uuid);
        }
        let device = one(&machine, "sdb");
        assert_eq!(worst(&device), Some(Severity::Never), "{holder}");
        assert!(says(&device).contains(kind), "{}", says(&device));
        let made = one(&machine, holder);
        assert_eq!((made.bus, worst(&made)), (Bus::Made, Some(Severity::Never)));
    }
}

#[test]
fn the_running_system_is_found_through_what_is_built_on_a_disk() {
    let mut machine = Machine::new();
    let disk = machine.card();
    let part = machine.part(&disk, "sdb1", "8:17");
    machine.write(&format!("{part}/holders/dm-0/dev"), "253:0");
    let crypt = machine.disk("virtual", "dm-0", "253:0", 31);
    machine.write(&format!("{crypt}/dm/uuid"), "CRYPT-LUKS2-x");
    machine.write(&format!("{crypt}/holders/dm-1/dev"), "253:1");
    let volume = machine.disk("virtual", "dm-1", "253:1", 30);
    machine.write(&format!("{volume}/dm/name"), "vg-root");
    machine.mount("253:1", "/dev/mapper/vg-root", "ext4", "/");
    let device = one(&machine, "sdb");
    assert!(
        says(&device).contains("the running system"),
        "{}",
        says(&device)
    );
    assert_eq!(worst(&device), Some(Severity::Never));
}

#[test]
fn members_that_nobody_uses_need_force_unless_the_system_may_be_on_them() {
    for (kind, of) in [
        ("zfs_member", "ZFS"),
        ("linux_raid_member", "RAID"),
        ("LVM2_member", "LVM"),
        ("bcache", "bcache"),
    ] {
        let mut machine = Machine::new();
        let disk = machine.card();
        machine.part(&disk, "sdb1", "8:17");
        machine.write(
            "run/udev/data/b8:17",
            &format!("S:x\nE:ID_FS_TYPE={kind}\n"),
        );
        let device = one(&machine, "sdb");
        assert_eq!(worst(&device), Some(Severity::Force), "{kind}");
        assert!(says(&device).contains(of));
        machine.mount("0:40", "rpool/ROOT", "zfs", "/");
        let now = worst(&one(&machine, "sdb"));
        let wanted = if of == "ZFS" {
            Severity::Never
        } else {
            Severity::Force
        };
        assert_eq!(now, Some(wanted), "{kind}");
    }
}

#[test]
fn loop_devices_are_not_offered_but_may_be_named() {
    let machine = Machine::new();
    machine.disk("virtual", "loop0", "7:0", 4);
    let device = one(&machine, "loop0");
    assert_eq!(
        (device.bus, worst(&device)),
        (Bus::Loop, Some(Severity::NotOffered))
    );
}

#[test]
fn this_machine_can_be_read() {
    let devices = list(&System::default());
    let root = devices
        .iter()
        .filter(|device| worst(device) == Some(Severity::Never));
    assert!(root.count() > 0, "{devices:#?}");
}
