use super::*;
use bsp::disk::{add_file, create_fat, FatVolume};
use bsp::first_boot::{render, Access, Wifi};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

struct World {
    dir: tempfile::TempDir,
    paths: Paths,
    device: PathBuf,
}

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA me";

fn settings() -> FirstBoot {
    FirstBoot {
        format: 1,
        hostname: Some("gw-7".into()),
        serial: Some("SN-7".into()),
        update_url: Some("https://other.example/".into()),
        wifi: Some(Wifi {
            ssid: "Café \"5\"".into(),
            password: Some(" top\\secret \"8".into()),
            country: Some("DE".into()),
        }),
        script: Some(format!("#!/bin/sh\n# {}\ntouch /var/x\n", "x".repeat(3000))),
        ssh: vec![Access {
            user: "op".into(),
            keys: vec![KEY.into()],
        }],
    }
}

impl World {
    fn new(settings: &FirstBoot) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("firmware");
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&device)
            .unwrap();
        file.set_len(16 << 20).unwrap();
        let volume = FatVolume {
            sector: 512,
            bytes: 16 << 20,
            id: 1,
            label: "firmware".into(),
        };
        create_fat(&volume, &[("treeline/state.env", &[b'#'; 1024])], &mut file).unwrap();
        add_file(&mut file, PATH, &render(settings).unwrap()).unwrap();
        let root = dir.path().join("root");
        let (uid, gid) = (nix::unistd::getuid(), nix::unistd::getgid());
        for (path, text) in [
            (
                "etc/passwd",
                format!("root:x:0:0::/root:/bin/sh\nop:x:{uid}:{gid}::/home/op:/bin/sh\n"),
            ),
            (
                "etc/device-agent/config.toml",
                "[update]\nchannel = \"testing\"\n".into(),
            ),
            ("proc/sys/kernel/hostname", "old".into()),
            ("usr/sbin/wpa_supplicant", String::new()),
            ("home/op/.ssh/authorized_keys", "ssh-rsa AAAA other".into()),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self {
            paths: Paths::below(root),
            dir,
            device,
        }
    }

    fn boot(&self) -> Result<Vec<String>> {
        take_over(&self.paths, &self.device)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.paths.at(path)).unwrap_or_default()
    }

    fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.paths.at(path))
            .unwrap()
            .permissions()
            .mode()
            & 0o777
    }

    fn check(&self) {
        assert_eq!(self.read("etc/hostname"), "gw-7\n");
        assert_eq!(self.read("proc/sys/kernel/hostname"), "gw-7");
        assert_eq!(self.read("etc/device-agent/serial"), "SN-7\n");
        let config: toml::Table = self.read("etc/device-agent/config.toml").parse().unwrap();
        assert_eq!(
            config["update"]["url"].as_str(),
            Some("https://other.example/")
        );
        assert_eq!(config["update"]["channel"].as_str(), Some("testing"));
        let keys = "home/op/.ssh/authorized_keys";
        assert_eq!(self.read(keys), format!("ssh-rsa AAAA other\n{KEY}\n"));
        assert_eq!(self.mode(keys), 0o600);
        let wifi = "etc/wpa_supplicant/wpa_supplicant-wlan0.conf";
        let text = self.read(wifi);
        assert!(text.contains("psk=\" top\\secret \"8\"\n"), "{text}");
        assert!(text.contains("ssid=436166c3a920223522\n") && text.contains("country=DE\n"));
        assert_eq!(self.mode(wifi), 0o600);
        assert_eq!(self.mode(SCRIPT), 0o700);
        assert!(self.read(SCRIPT).ends_with("touch /var/x\n"));
    }

    /// Whether the secret is anywhere on the firmware partition.
    fn secret_is_left(&self) -> bool {
        let raw = fs::read(&self.device).unwrap();
        raw.windows(10)
            .any(|w| w == b"top\\\\secret" || w == b"top\\secret")
    }
}

#[test]
fn settings_are_applied_once_and_leave_no_trace_on_the_firmware_partition() {
    let world = World::new(&settings());
    assert!(world.secret_is_left());
    let said = world.boot().unwrap();
    world.check();
    assert_eq!(said.len(), 6);
    assert!(!said.iter().any(|line| line.contains("secret")), "{said:?}");
    assert!(!world.secret_is_left());
    // The owner's own changes stay from then on.
    fs::write(world.paths.at("etc/hostname"), "mine\n").unwrap();
    assert!(world.boot().unwrap().is_empty());
    assert_eq!(world.read("etc/hostname"), "mine\n");
    let output = std::process::Command::new("fsck.fat")
        .arg("-n")
        .arg(&world.device)
        .output()
        .expect("fsck.fat: install dosfstools");
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_cut_at_any_moment_loses_nothing() {
    // Before the wipe: everything once more.
    let world = World::new(&settings());
    let mut file = File::open(&world.device).unwrap();
    let (places, content) = read(&mut file).unwrap().unwrap();
    let whole = fs::read(&world.device).unwrap();
    world.boot().unwrap();
    fs::write(&world.device, &whole).unwrap();
    world.boot().unwrap();
    world.check();
    // Within the wipe, after each sector: used up, and the rest goes at the next boot.
    assert!(content.len() > 2048);
    for sectors in 1..content.len() / 512 {
        fs::write(&world.device, &whole).unwrap();
        let file = OpenOptions::new().write(true).open(&world.device).unwrap();
        file.write_all_at(&vec![0; sectors * 512], places[0].offset)
            .unwrap();
        fs::write(world.paths.at("etc/hostname"), "mine\n").unwrap();
        assert!(world.boot().unwrap().is_empty());
        assert_eq!(world.read("etc/hostname"), "mine\n");
        let (_, now) = read(&mut File::open(&world.device).unwrap())
            .unwrap()
            .unwrap();
        assert!(now.iter().all(|byte| *byte == 0), "{sectors}");
    }
    drop(world.dir);
}

#[test]
fn what_fails_this_time_comes_again() {
    let world = World::new(&settings());
    // The configuration's place is taken by a directory with something in it.
    let blocked = world.paths.at("etc/device-agent/serial");
    fs::create_dir_all(blocked.join("x")).unwrap();
    let error = format!("{:#}", world.boot().unwrap_err());
    assert!(error.contains("serial"), "{error}");
    fs::remove_dir_all(blocked).unwrap();
    world.boot().unwrap();
    world.check();
}

#[test]
fn what_this_system_can_never_do_is_said_and_left_out() {
    let mut wanted = settings();
    wanted.ssh[0].user = "nobody-here".into();
    let world = World::new(&wanted);
    fs::remove_file(world.paths.at("usr/sbin/wpa_supplicant")).unwrap();
    let said = world.boot().unwrap().join("; ");
    assert!(said.contains("no user nobody-here"), "{said}");
    assert!(said.contains("no NetworkManager"), "{said}");
    assert_eq!(world.read("etc/hostname"), "gw-7\n");
    assert!(!world.secret_is_left());
}

#[test]
fn network_manager_gets_a_keyfile() {
    let world = World::new(&settings());
    fs::write(world.paths.at("usr/sbin/NetworkManager"), "").unwrap();
    world.boot().unwrap();
    let file = "etc/NetworkManager/system-connections/first-boot.nmconnection";
    let text = world.read(file);
    assert!(text.contains("psk=\\stop\\\\secret \"8\n"), "{text}");
    assert!(text.contains("ssid=67;97;102;195;169;"), "{text}");
    assert_eq!(world.mode(file), 0o600);
}

#[test]
fn no_file_or_a_foreign_one_changes_nothing() {
    let world = World::new(&settings());
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&world.device)
        .unwrap();
    let foreign = b"format = 9\nhostname = \"x\"\n".repeat(20);
    add_file(&mut file, PATH, &foreign).unwrap();
    let error = format!("{:#}", world.boot().unwrap_err());
    assert!(error.contains("first-boot settings"), "{error}");
    assert_eq!(world.read("etc/hostname"), "");
    let volume = FatVolume {
        sector: 512,
        bytes: 16 << 20,
        id: 1,
        label: "firmware".into(),
    };
    let mut empty = File::options()
        .read(true)
        .write(true)
        .truncate(true)
        .open(&world.device)
        .unwrap();
    empty.set_len(16 << 20).unwrap();
    create_fat(&volume, &[], &mut empty).unwrap();
    assert!(world.boot().unwrap().is_empty());
}
