//! A small PC whose GRUB runs the static configuration: SeaBIOS, GRUB for i386-pc on a disk of its own,
//! and a product's disk with a kernel that says on the serial line what it was started with.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bsp::board::{builtin, Board, Reader, Role, Size};
use bsp::boot::entry::BootEntry;
use bsp::boot::grub::{menu, petitboot_config, static_config, GrubPlaces};
use bsp::disk::{create_fat, plan, write_table, FatVolume, Layout, TableIds, Window};

const ROOT_UUID: &str = "0b5b7a0e-6f0e-4b62-8a0a-5f3a60f3c0de";
/// Far more than a boot takes (three seconds on an idle machine).
const LIMIT: Duration = Duration::from_secs(180);

/// What is on a product's disk.
pub struct Disk {
    pub state: Vec<u8>,
    pub good: Vec<u8>,
    /// Files under `/boot` on the root partition.
    pub boot: Vec<(String, Vec<u8>)>,
    /// Where the link `/boot/loader` leads.
    pub loader: Option<String>,
    pub root_uuid: String,
    /// For whom the static configuration is written; GRUB reads it in any case.
    pub reader: Reader,
}

impl Disk {
    /// A disk with the deployments `ids`, the default one first.
    pub fn new(ids: &[&str], state: Vec<u8>, good: Vec<u8>) -> Self {
        let entries: Vec<_> = ids.iter().map(|id| entry(id)).collect();
        let mut boot = vec![("loader.1/grub.cfg".to_owned(), menu(&entries).into_bytes())];
        for entry in &entries {
            boot.push((entry.linux.trim_start_matches('/').into(), kernel()));
        }
        Self {
            state,
            good,
            boot,
            loader: Some("loader.1".into()),
            root_uuid: ROOT_UUID.into(),
            reader: Reader::Grub,
        }
    }

    /// With the configuration for petitboot.
    pub fn for_petitboot(mut self) -> Self {
        self.reader = Reader::Petitboot;
        self
    }

    /// Takes the kernel of a deployment away.
    pub fn without_kernel(mut self, id: &str) -> Self {
        let path = entry(id).linux;
        self.boot
            .retain(|(name, _)| *name != path.trim_start_matches('/'));
        self
    }

    fn write(&self, dir: &Path, name: &str) -> PathBuf {
        let board = builtin("x86_64-uefi").unwrap();
        let layout = layout(&board);
        let path = dir.join(name);
        let mut file = std::fs::File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        file.set_len(layout.disk_bytes).unwrap();
        let ids = TableIds {
            product: "shop",
            board: &board.id,
            arch: &board.arch,
        };
        write_table(&layout, ids, &mut file).unwrap();
        let firmware = layout.partition(Role::Firmware).unwrap();
        let root = layout.partition(Role::Root).unwrap();
        let places = GrubPlaces {
            root_fs_uuid: ROOT_UUID.into(),
            root_partition_number: root.number,
            consoles: vec!["console".into(), "serial".into()],
            sealed: None,
        };
        let script = match self.reader {
            Reader::Grub => static_config(&places),
            Reader::Petitboot => petitboot_config(&places),
        };
        let files: &[(&str, &[u8])] = &[
            (&board.boot.config, script.as_bytes()),
            (bsp::boot::STATE_PATH, &self.state),
            (bsp::boot::GOOD_PATH, &self.good),
        ];
        let volume = FatVolume {
            sector: 512,
            bytes: firmware.size,
            id: 1,
            label: "firmware".into(),
        };
        let range = firmware.start..firmware.start + firmware.size;
        create_fat(&volume, files, &mut Window::new(&mut file, range)).unwrap();
        self.write_root(dir, &path, root.start, root.size);
        path
    }

    fn write_root(&self, dir: &Path, image: &Path, start: u64, size: u64) {
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
                .args(["-q", "-t", "ext4", "-U", &self.root_uuid, "-d"])
                .arg(tree.path())
                .args(["-E", &format!("offset={start}")])
                .arg(image)
                .arg(format!("{}k", size / 1024)),
            "e2fsprogs",
        );
    }
}

fn layout(board: &Board) -> Layout {
    let sizes = [("firmware", 34), ("root", 64), ("data", 16)]
        .map(|(label, mib)| (label.to_owned(), Size(mib * Size::MIB)));
    plan(board, &sizes.into()).unwrap()
}

fn entry(id: &str) -> BootEntry {
    BootEntry {
        title: format!("Shop {id}"),
        version: 1,
        linux: format!("/ostree/shop-{id}/vmlinuz"),
        options: format!("quiet treeline.id={id}"),
        ..BootEntry::default()
    }
}

/// What came of a boot.
#[derive(Debug)]
pub struct Outcome {
    /// The kernel command line; `None` if the machine restarted instead.
    pub command_line: Option<String>,
    /// Everything on the serial line.
    pub serial: String,
    pub state: Vec<u8>,
    pub good: Vec<u8>,
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

/// The machine: one GRUB, any number of boots.
pub struct Machine {
    dir: tempfile::TempDir,
    grub: PathBuf,
}

impl Machine {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let core = dir.path().join("core.img");
        let modules = std::env::var("TREELINE_GRUB_PC").unwrap_or("/usr/lib/grub/i386-pc".into());
        let modules = Path::new(&modules);
        let first = std::fs::read(modules.join("boot.img"))
            .expect("GRUB for i386-pc not found: install grub-pc-bin");
        run(
            Command::new("grub-mkimage")
                .args(["-O", "i386-pc", "-p", "(hd1,gpt1)/EFI/debian", "-d"])
                .arg(modules)
                .arg("-o")
                .arg(&core)
                // The part of what Debian's signed GRUB has that the script uses.
                .args([
                    "biosdisk",
                    "part_gpt",
                    "fat",
                    "ext2",
                    "normal",
                    "configfile",
                ])
                .args([
                    "search",
                    "search_fs_uuid",
                    "loadenv",
                    "test",
                    "echo",
                    "regexp",
                ])
                .args(["linux", "boot", "serial", "terminal", "sleep", "reboot"]),
            "grub-common",
        );
        let grub = dir.path().join("grub.raw");
        let mut image = [first, std::fs::read(core).unwrap()].concat();
        image.resize(1 << 20, 0);
        std::fs::write(&grub, image).unwrap();
        Self { dir, grub }
    }

    pub fn boot(&self, disk: &Disk) -> Outcome {
        self.boot_with(disk, &[], "")
    }

    /// Boots `disk` with further disks behind it; `options` go to the first disk's `-drive`.
    pub fn boot_with(&self, disk: &Disk, others: &[&Disk], options: &str) -> Outcome {
        let dir = tempfile::tempdir_in(self.dir.path()).unwrap();
        let image = disk.write(dir.path(), "disk.raw");
        let serial = dir.path().join("serial");
        let drive = |path: &Path, options: &str| {
            format!("if=virtio,format=raw,file={}{options}", path.display())
        };
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args([
            "-accel",
            "tcg",
            "-m",
            "128",
            "-display",
            "none",
            "-no-reboot",
        ])
        .args([
            "-nic",
            "none",
            "-monitor",
            "none",
            "-device",
            "isa-debug-exit",
        ])
        .args(["-drive", &drive(&self.grub, ",readonly=on")])
        .args(["-drive", &drive(&image, options)])
        .args(["-serial", &format!("file:{}", serial.display())]);
        for (index, other) in others.iter().enumerate() {
            let path = other.write(dir.path(), &format!("other{index}.raw"));
            qemu.args(["-drive", &drive(&path, "")]);
        }
        wait(&mut start(&mut qemu), &serial);
        let serial = String::from_utf8_lossy(&std::fs::read(serial).unwrap()).into_owned();
        let command_line = serial
            .split_once(KERNEL_MARK)
            .map(|(_, rest)| rest.lines().next().unwrap_or_default().to_owned());
        let (state, good) = boot_state(&image);
        Outcome {
            command_line,
            serial,
            state,
            good,
        }
    }
}

fn start(qemu: &mut Command) -> Child {
    qemu.stdin(Stdio::null())
        .spawn()
        .expect("qemu-system-x86_64 not found: install qemu-system-x86")
}

/// Until the machine has turned itself off: by its kernel, or by a restart.
fn wait(child: &mut Child, serial: &Path) {
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begin.elapsed() > LIMIT {
            child.kill().unwrap();
            child.wait().unwrap();
            let text = std::fs::read(serial).unwrap_or_default();
            panic!(
                "nothing was booted in {LIMIT:?}:\n{}",
                String::from_utf8_lossy(&text)
            );
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The two files of the boot state, byte for byte.
fn boot_state(image: &Path) -> (Vec<u8>, Vec<u8>) {
    let layout = layout(&builtin("x86_64-uefi").unwrap());
    let firmware = layout.partition(Role::Firmware).unwrap();
    let read = |path: &str| {
        let output = Command::new("mtype")
            .arg("-i")
            .arg(format!("{}@@{}", image.display(), firmware.start))
            .arg(format!("::{path}"))
            .output()
            .expect("mtype not found: install mtools");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    (read(bsp::boot::STATE_PATH), read(bsp::boot::GOOD_PATH))
}

fn run(command: &mut Command, package: &str) {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}; install {package}"));
    if !output.status.success() {
        std::io::stderr().write_all(&output.stderr).unwrap();
        panic!("{command:?}: {}", output.status);
    }
}

/// What the kernel says before its command line.
const KERNEL_MARK: &str = "<KERNEL>";

/// A Linux kernel image (boot protocol 2.06) that writes its command line to the first serial port and
/// turns the machine off through QEMU's `isa-debug-exit`.
fn kernel() -> Vec<u8> {
    let mut image = vec![0u8; 1024];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0x1f1, &[1]); // sectors of set-up code
    put(0x1fe, &[0x55, 0xaa]);
    put(0x200, &[0xeb, 0x66]); // jump: the header ends here
    put(0x202, b"HdrS");
    put(0x206, &0x0206u16.to_le_bytes());
    put(0x211, &[1]); // loaded high
    put(0x214, &0x0010_0000u32.to_le_bytes()); // where the code below is loaded
    put(0x22c, &0x37ff_ffffu32.to_le_bytes()); // highest place for an initrd
    put(0x230, &0x1000u32.to_le_bytes()); // alignment
    put(0x238, &2047u32.to_le_bytes()); // longest command line
    let mut code = Vec::new();
    for byte in KERNEL_MARK.bytes() {
        code.extend([0xb0, byte]); //             mov al, byte
        code.extend([0xe8, 0, 0, 0, 0]); //       call send (below)
    }
    code.extend([0x8b, 0x9e, 0x28, 0x02, 0, 0]); // mov ebx, [esi + cmd_line_ptr]
    code.extend([0x8a, 0x03]); //           next: mov al, [ebx]
    code.extend([0x84, 0xc0]); //                 test al, al
    code.extend([0x74, 0x08]); //                 jz end
    code.extend([0xe8, 0, 0, 0, 0]); //           call send
    code.push(0x43); //                           inc ebx
    code.extend([0xeb, 0xf2]); //                 jmp next
    code.extend([0xb0, b'\n']); //           end: mov al, newline
    code.extend([0xe8, 0, 0, 0, 0]); //           call send
    code.extend([0x66, 0xba, 0x01, 0x05]); //     mov dx, 0x501 (isa-debug-exit)
    code.extend([0xee, 0xf4, 0xeb, 0xfd]); //     out dx, al; hlt; jmp -1
    let send = code.len() as i32;
    code.extend([0x88, 0xc4]); //           send: mov ah, al
    code.extend([0x66, 0xba, 0xfd, 0x03]); //     mov dx, 0x3fd (line status)
    code.extend([0xec, 0xa8, 0x20, 0x74, 0xfb]); // in al, dx; test al, 0x20; jz -5
    code.extend([0x66, 0xba, 0xf8, 0x03]); //     mov dx, 0x3f8
    code.extend([0x88, 0xe0, 0xee, 0xc3]); //     mov al, ah; out dx, al; ret
                                           // Every call so far goes to `send`.
    let calls: Vec<usize> = (0..send as usize - 4)
        .filter(|at| code[*at..*at + 5] == [0xe8, 0, 0, 0, 0])
        .collect();
    for at in calls {
        let distance = send - (at as i32 + 5);
        code[at + 1..at + 5].copy_from_slice(&distance.to_le_bytes());
    }
    image.extend(code);
    image.resize(4096, 0);
    image
}
