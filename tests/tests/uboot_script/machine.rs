//! A small ARM machine whose U-Boot, as Debian builds it, runs the boot script: QEMU's `virt`, a disk with the
//! script, the environment and the deployments, and a kernel that says on the serial line what it was
//! started with.

#[path = "kernel.rs"]
mod kernel;

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bsp::board::{Environment, LoadAddresses, RegisterWrite, ScriptImage, Size};
use bsp::boot::uboot::fit::sealed::{boot_fit, script_fit, Boot, FIT_PATH};
use bsp::boot::uboot::{boot_script, image, DeviceTree, ScriptPlaces};
use builder::secure_boot::{Pair, UBOOT_KEYS};

const MIB: u64 = 1 << 20;
/// Far more than a boot takes (two seconds on an idle machine).
const LIMIT: Duration = Duration::from_secs(120);

const FIRMWARE: (u64, u64) = (MIB, 4 * MIB);
const ROOT: (u64, u64) = (6 * MIB, 8 * MIB);
const DISK: u64 = 16 * MIB;
/// Between the partitions.
pub const ENVIRONMENT: Environment = Environment {
    offset: Size(5 * MIB),
    redundant_offset: Size(5 * MIB + 512 * 1024),
    size: Size(0x4000),
};

const ADDRESSES: LoadAddresses = LoadAddresses {
    kernel: 0x4040_0000,
    ramdisk: 0x4400_0000,
    device_tree: 0x4800_0000,
    fit: Some(FIT),
};
const FIT: u64 = 0x4020_0000;

/// Where a signed deployment stands. The test's kernel shows its command line from `root=test` on.
fn place(id: &str) -> String {
    format!("/ostree/boot.0/root=test/{id}/0")
}

/// A kind of machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    Arm64,
    Armhf,
}

impl Arch {
    fn debian(self) -> &'static str {
        match self {
            Self::Arm64 => "arm64",
            Self::Armhf => "armhf",
        }
    }

    fn qemu(self) -> (&'static str, [&'static str; 4]) {
        match self {
            Self::Arm64 => (
                "qemu-system-aarch64",
                ["-M", "virt,gic-version=3", "-cpu", "cortex-a57"],
            ),
            Self::Armhf => ("qemu-system-arm", ["-M", "virt", "-cpu", "cortex-a15"]),
        }
    }

    /// U-Boot: the host's package, or another one unpacked where `TREELINE_UBOOT` says.
    fn firmware(self) -> PathBuf {
        let root = std::env::var_os("TREELINE_UBOOT").map_or("/".into(), PathBuf::from);
        let board = match self {
            Self::Arm64 => "qemu_arm64",
            Self::Armhf => "qemu_arm",
        };
        let path = root.join("usr/lib/u-boot").join(board).join("u-boot.bin");
        assert!(
            path.exists(),
            "{} is not there: install u-boot-qemu",
            path.display()
        );
        path
    }

    /// The machine's device tree, with a mark that the kernel shows in place of its command line.
    pub fn marked_device_tree(self) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dtb");
        self.dump_device_tree(&path);
        let mut tree = std::fs::read(path).unwrap();
        let (own, mark) = (b"linux,dummy-virt", b"root=test own-dt");
        let at = tree.windows(own.len()).position(|w| w == own).unwrap();
        tree[at..at + mark.len()].copy_from_slice(mark);
        tree
    }

    /// The machine's device tree with the public key in `keys`, in `dir`: as whoever builds U-Boot puts it there.
    fn device_tree_with_key(self, keys: &Path, dir: &Path) -> PathBuf {
        let [path, source] = ["key.dtb", "key.dts"].map(|name| dir.join(name));
        self.dump_device_tree(&path);
        let mut text = Vec::new();
        let convert = |from: &str, to: &str, out: &Path, path: &Path| {
            run(
                Command::new("dtc")
                    .args(["-q", "-I", from, "-O", to, "-o"])
                    .args([out, path]),
                "device-tree-compiler",
            );
        };
        convert("dtb", "dts", &source, &path);
        for part in [&source, &keys.join(UBOOT_KEYS)] {
            text.extend(std::fs::read(part).unwrap());
        }
        std::fs::write(&source, text).unwrap();
        convert("dts", "dtb", &path, &source);
        path
    }

    fn dump_device_tree(self, path: &Path) {
        let (program, [m, machine, cpu, model]) = self.qemu();
        let dump = format!("{machine},dumpdtb={}", path.display());
        run(
            Command::new(program)
                .args([m, &dump, cpu, model, "-m", "256"])
                .args(["-display", "none", "-nic", "none", "-bios"])
                .arg(self.firmware()),
            "qemu-system-arm",
        );
    }

    /// A kernel as `booti` or `bootz` wants it: writes `<KERNEL>` and the command line, from `root=test`
    /// on and without that, to the serial port, and turns the machine off.
    fn kernel(self) -> Vec<u8> {
        let words = match self {
            Self::Arm64 => kernel::ARM64,
            Self::Armhf => kernel::ARMHF,
        };
        let mut kernel: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        kernel.resize(0x1000, 0);
        kernel
    }
}

/// What is on a product's disk.
#[derive(Debug, Clone)]
pub struct Disk {
    pub arch: Arch,
    pub copies: [Vec<u8>; 2],
    /// Files under `/boot` on the root partition.
    pub boot: Vec<(String, Vec<u8>)>,
    /// Where the link `/boot/loader` leads.
    pub loader: Option<String>,
    pub device_tree: DeviceTree,
    /// Format of the boot script.
    pub format: ScriptImage,
    /// What the script is signed with, if it starts only what is signed.
    pub script_key: Option<Arc<Pair>>,
}

impl Disk {
    /// A disk with the deployments `ids`, the default one first.
    pub fn new(arch: Arch, ids: &[&str], copies: [Vec<u8>; 2]) -> Self {
        let mut boot = vec![("loader.1/uEnv.txt".to_owned(), menu(ids).into_bytes())];
        for id in ids {
            boot.push((format!("ostree/shop-{id}/vmlinuz"), arch.kernel()));
            boot.push((format!("ostree/shop-{id}/initramfs"), vec![b'i'; 3000]));
        }
        Self {
            arch,
            copies,
            boot,
            loader: Some("loader.1".into()),
            device_tree: DeviceTree::Loader,
            format: ScriptImage::Legacy,
            script_key: None,
        }
    }

    /// Signs everything with `pair`: deployments (with their files as they are now) and script. The arguments of the
    /// kernel are no longer those of the menu, which says where the deployments stand.
    pub fn signed(mut self, ids: &[&str], pair: &Arc<Pair>) -> Self {
        self.script_key = Some(Arc::clone(pair));
        for id in ids {
            self = self.sign(id, pair);
        }
        self.edit_menu(|text| {
            let with_place = |line: &str| match line.split_once("treeline.id=") {
                Some((_, id)) => format!("{line} ostree={}\n", place(id)),
                None => format!("{line}\n"),
            };
            text.lines().map(with_place).collect()
        });
        self
    }

    /// Signs a deployment with `pair`.
    pub fn sign(mut self, id: &str, pair: &Pair) -> Self {
        let file = |file: &str| {
            let path = format!("ostree/shop-{id}/{file}");
            let found = self.boot.iter().find(|(name, _)| *name == path);
            found.map(|(_, content)| content.as_slice())
        };
        let boot = Boot {
            arch: self.arch.debian(),
            kernel: file("vmlinuz").unwrap(),
            ramdisk: file("initramfs").unwrap(),
            device_tree: file("dtb/virt.dtb"),
            stateroot: "root=test",
            arguments: &format!("signed={id} x=\"1  2\""),
            addresses: ADDRESSES,
            fit: FIT,
        };
        let made = boot_fit::<anyhow::Error>(&boot, |message| pair.sign(message)).unwrap();
        let path = format!("..{}/{FIT_PATH}", place(id));
        self.boot.retain(|(name, _)| *name != path);
        self.boot.push((path, made));
        self
    }

    /// A file of a deployment, its signed tree if there is no name.
    pub fn file(&mut self, id: &str, file: Option<&str>) -> &mut Vec<u8> {
        let path = match file {
            Some(file) => format!("ostree/shop-{id}/{file}"),
            None => format!("..{}/{FIT_PATH}", place(id)),
        };
        let mut files = self.boot.iter_mut();
        &mut files.find(|(name, _)| *name == path).unwrap().1
    }

    /// Takes a file of a deployment away.
    pub fn without(mut self, id: &str, file: &str) -> Self {
        let path = format!("ostree/shop-{id}/{file}");
        let before = self.boot.len();
        self.boot.retain(|(name, _)| *name != path);
        assert_ne!(before, self.boot.len(), "{path}");
        self
    }

    /// Gives a deployment another file.
    pub fn with(mut self, id: &str, file: &str, content: Vec<u8>) -> Self {
        self.boot
            .push((format!("ostree/shop-{id}/{file}"), content));
        self
    }

    /// Changes the list of entries.
    pub fn edit_menu(&mut self, edit: impl FnOnce(String) -> String) {
        let text = String::from_utf8(self.boot[0].1.clone()).unwrap();
        self.boot[0].1 = edit(text).into_bytes();
    }

    /// Makes the disk in `dir`.
    pub fn write(&self, dir: &Path) -> PathBuf {
        let path = dir.join("disk.raw");
        let file = std::fs::File::create_new(&path).unwrap();
        file.set_len(DISK).unwrap();
        let sectors = |(start, size): (u64, u64)| (start / 512, size / 512);
        let (firmware, root) = (sectors(FIRMWARE), sectors(ROOT));
        let table = format!(
            "label: gpt\nstart={}, size={}, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\nstart={}, size={}\n",
            firmware.0, firmware.1, root.0, root.1
        );
        feed(
            Command::new("sfdisk").arg("-q").arg(&path),
            table.as_bytes(),
            "fdisk",
        );
        file.write_all_at(&self.copies[0], ENVIRONMENT.offset.0)
            .unwrap();
        file.write_all_at(&self.copies[1], ENVIRONMENT.redundant_offset.0)
            .unwrap();
        self.write_firmware(dir, &path);
        self.write_root(dir, &path);
        path
    }

    fn write_firmware(&self, dir: &Path, image_path: &Path) {
        let text = boot_script(&ScriptPlaces {
            root_partition_number: 2,
            environment: ENVIRONMENT,
            arch: self.arch.debian().into(),
            device_tree: self.device_tree.clone(),
            // U-Boot for this machine has no `fdt_addr_r`.
            addresses: match self.device_tree {
                DeviceTree::Loader if self.script_key.is_none() => None,
                _ => Some(ADDRESSES),
            },
            fit: self.script_key.as_ref().map(|_| FIT),
            // Memory that nobody uses, for a register: what is written there must not end the script.
            watchdog: vec![RegisterWrite {
                address: 0x4f00_0000,
                value: 1,
            }],
        });
        let script = dir.join("boot.scr");
        let made = match &self.script_key {
            None => image(self.format, &text, 0).unwrap(),
            Some(pair) => script_fit::<anyhow::Error>(&text, 0, |m| pair.sign(m)).unwrap(),
        };
        std::fs::write(&script, made).unwrap();
        let offset = (FIRMWARE.0 / 512).to_string();
        run(
            Command::new("mkfs.fat")
                .args(["-F", "16", "-s", "1", "--offset", &offset])
                .arg(image_path)
                .arg((FIRMWARE.1 / 1024).to_string()),
            "dosfstools",
        );
        run(
            Command::new("mcopy")
                .arg("-i")
                .arg(format!("{}@@{}", image_path.display(), FIRMWARE.0))
                .arg(script)
                .arg("::boot.scr"),
            "mtools",
        );
    }

    fn write_root(&self, dir: &Path, image: &Path) {
        let tree = tempfile::tempdir_in(dir).unwrap();
        let boot = tree.path().join("boot");
        for (name, content) in &self.boot {
            let path = boot.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        if let Some(target) = &self.loader {
            std::os::unix::fs::symlink(target, boot.join("loader")).unwrap();
        }
        run(
            Command::new("mke2fs")
                .args(["-q", "-t", "ext4", "-d"])
                .arg(tree.path())
                .args(["-E", &format!("offset={}", ROOT.0)])
                .arg(image)
                .arg(format!("{}k", ROOT.1 / 1024)),
            "e2fsprogs",
        );
    }
}

/// The entries as libostree's U-Boot backend writes them.
fn menu(ids: &[&str]) -> String {
    let mut text = String::new();
    for (index, id) in ids.iter().enumerate() {
        let suffix = if index == 0 {
            String::new()
        } else {
            (index + 1).to_string()
        };
        let dir = format!("/boot/ostree/shop-{id}");
        text.push_str(&format!(
            "kernel_image{suffix}={dir}/vmlinuz\nramdisk_image{suffix}={dir}/initramfs\n\
             fdtdir{suffix}={dir}/dtb\nbootargs{suffix}=quiet root=test treeline.id={id}\n"
        ));
    }
    text
}

/// What came of a boot.
#[derive(Debug)]
pub struct Outcome {
    /// The kernel command line behind `root=test`; `None` if the machine restarted instead.
    pub command_line: Option<String>,
    /// Everything on the serial line.
    pub serial: String,
    pub copies: [Vec<u8>; 2],
}

impl Outcome {
    /// The deployment that was started.
    pub fn booted(&self) -> Option<&str> {
        self.command_line
            .as_ref()?
            .split_whitespace()
            .find_map(|arg| arg.strip_prefix("treeline.id="))
    }
}

pub fn boot(disk: &Disk) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let image = disk.write(dir.path());
    boot_image(disk.arch, &image, dir.path(), "")
}

/// Boots a disk on a machine whose U-Boot has the public key in `keys` and starts only what that has signed.
pub fn boot_checked(disk: &Disk, keys: &Path) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let image = disk.write(dir.path());
    let tree = disk.arch.device_tree_with_key(keys, dir.path());
    start(disk.arch, &image, dir.path(), "", Some(&tree))
}

/// Boots a disk that [`Disk::write`] has made; `options` go to its `-drive`.
pub fn boot_image(arch: Arch, image: &Path, dir: &Path, options: &str) -> Outcome {
    start(arch, image, dir, options, None)
}

fn start(arch: Arch, image: &Path, dir: &Path, options: &str, tree: Option<&Path>) -> Outcome {
    let serial = dir.join("serial");
    let (program, machine) = arch.qemu();
    let mut qemu = Command::new(program);
    qemu.args(machine)
        .args(["-m", "256", "-display", "none", "-no-reboot"])
        .args(["-nic", "none", "-monitor", "none", "-serial", "stdio"])
        .arg("-bios")
        .arg(arch.firmware())
        .arg("-drive")
        .arg(format!(
            "if=virtio,format=raw,file={}{options}",
            image.display()
        ))
        .stdout(std::fs::File::create(&serial).unwrap())
        .stdin(Stdio::piped());
    if let Some(tree) = tree {
        qemu.arg("-dtb").arg(tree);
    }
    let mut child = qemu
        .spawn()
        .unwrap_or_else(|e| panic!("{program}: {e}; install qemu-system-arm"));
    wait(&mut child, &serial);
    let serial = String::from_utf8_lossy(&std::fs::read(serial).unwrap()).into_owned();
    let command_line = serial
        .split_once("<KERNEL>")
        .map(|(_, rest)| rest.lines().next().unwrap_or_default().trim().to_owned());
    Outcome {
        command_line,
        serial,
        copies: copies(image),
    }
}

/// Until the machine has turned itself off: by its kernel, or by a restart. A key spares the two seconds that
/// U-Boot waits for one; then it does what it would have done.
fn wait(child: &mut Child, serial: &Path) {
    // Kept open: with it, QEMU's side of the serial line would close.
    let mut keyboard = child.stdin.take().unwrap();
    let mut typed: Vec<&str> = Vec::new();
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        let text = String::from_utf8_lossy(&std::fs::read(serial).unwrap_or_default()).into_owned();
        // Where it has no script to run, it ends at its prompt.
        let prompts = [
            ("autoboot", 1, "\n"),
            ("=> ", 1, "run bootcmd\n"),
            ("=> ", 2, "reset\n"),
        ];
        for (sign, times, keys) in prompts {
            if text.matches(sign).count() >= times && !typed.contains(&keys) {
                typed.push(keys);
                // It may have ended meanwhile.
                let _ = keyboard.write_all(keys.as_bytes());
            }
        }
        if begin.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("nothing was booted in {LIMIT:?}:\n{text}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn copies(image: &Path) -> [Vec<u8>; 2] {
    let file = std::fs::File::open(image).unwrap();
    [ENVIRONMENT.offset, ENVIRONMENT.redundant_offset].map(|offset| {
        let mut copy = vec![0; 0x4000];
        file.read_exact_at(&mut copy, offset.0).unwrap();
        copy
    })
}

fn run(command: &mut Command, package: &str) {
    feed(command, b"", package);
}

fn feed(command: &mut Command, input: &[u8], package: &str) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}; install {package}"));
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    if !output.status.success() {
        std::io::stderr().write_all(&output.stderr).unwrap();
        panic!("{command:?}: {}", output.status);
    }
}
