//! Boards with GRUB: the image outside file systems as the firmware loads it, part by part, and the files of the
//! firmware partition as `objdump`, `grub-script-check` and `grub-editenv` read them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use bsp::board::{stable_uuid, Board, CoreTarget, Purpose, Reader, Role};
use bsp::boot::{GOOD_PATH, STATE_PATH};
use bsp::disk::Layout;
use treeline_tests::run;

const SECTOR: u64 = 512;

/// What the firmware starts from a partition of its own.
pub fn core_image(board: &Board, layout: &Layout, image: &Path) {
    let mut code = [0; 512];
    let file = File::open(image).unwrap();
    file.read_exact_at(&mut code, 0).unwrap();
    assert_eq!(code[510..], [0x55, 0xaa], "{}", board.id);
    let Some(core) = &board.boot.core else {
        assert!(code[..440].iter().all(|byte| *byte == 0), "{}", board.id);
        return;
    };
    let partition = layout.partition(Role::BootLoader).unwrap();
    let mut content = vec![0; usize::try_from(partition.size).unwrap()];
    file.read_exact_at(&mut content, partition.start).unwrap();
    let prefix = format!(
        "(,gpt{})/{}\0",
        layout.partition(Role::Firmware).unwrap().number,
        board.config_directory()
    );
    match core.target {
        CoreTarget::I386Pc => bios(&code, &content, partition.start / SECTOR),
        CoreTarget::PowerpcIeee1275 => {
            open_firmware(&content);
            let has = |text: &[u8]| content.windows(text.len()).any(|found| found == text);
            assert!(has(prefix.as_bytes()), "{}: {prefix}", board.id);
        }
    }
    let kind = run(Command::new("sfdisk")
        .args(["--part-type", &image.display().to_string()])
        .arg(partition.number.to_string()))
    .unwrap();
    let wanted = match core.target {
        CoreTarget::I386Pc => "21686148-6449-6E6F-744E-656564454649",
        CoreTarget::PowerpcIeee1275 => "9E1A2D38-C612-4316-AA26-8B49521E5A8B",
    };
    assert_eq!(kind.trim(), wanted, "{}", board.id);
}

/// The way of a PC: the first sector's code, `diskboot.img`, the rest of the image.
fn bios(code: &[u8], image: &[u8], start: u64) {
    let number = |at: usize| u64::from_le_bytes(code[at..at + 8].try_into().unwrap());
    assert_eq!(code[..2], [0xeb, 0x63]);
    assert_eq!(number(0x5c), start);
    assert_eq!(code[0x66..0x68], [0x90, 0x90]);
    // Its text, which it shows while it loads.
    assert!(image[..512].windows(7).any(|text| text == b"loading"));
    let list = &image[500..512];
    assert_eq!(u64::from_le_bytes(list[..8].try_into().unwrap()), start + 1);
    let sectors = usize::from(u16::from_le_bytes([list[8], list[9]]));
    assert_eq!(list[10..], [0x20, 0x08]);
    let (inside, behind) = image[512..].split_at(sectors * 512);
    let last = inside.len() - 512;
    assert!(inside[last..].iter().any(|byte| *byte != 0));
    assert!(behind.iter().all(|byte| *byte == 0));
}

fn open_firmware(image: &[u8]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("core.elf");
    fs::write(&path, image).unwrap();
    let said = run(Command::new("readelf").args(["-hl", "-W"]).arg(&path)).unwrap();
    for part in ["ELF32", "big endian", "PowerPC", "LOAD"] {
        assert!(said.contains(part), "{said}");
    }
}

/// What stands on the firmware partition.
pub fn firmware(board: &Board, layout: &Layout, partition: &Path, dir: &Path) {
    run(Command::new("fsck.fat").arg("-n").arg(partition)).unwrap();
    let copy = dir.join("file");
    let read = |path: &str| {
        let output = Command::new("mtype")
            .arg("-i")
            .arg(partition)
            .arg(format!("::{path}"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{path}: {output:?}");
        fs::write(&copy, &output.stdout).unwrap();
        output.stdout
    };
    let rule = String::from_utf8(read(&board.boot.config)).unwrap();
    run(Command::new("grub-script-check").arg(&copy)).unwrap();
    let root = layout.partition(Role::Root).unwrap();
    let wanted = match board.boot.reader {
        Reader::Grub => format!("gpt{}", root.number),
        Reader::Petitboot => stable_uuid("gateway", &board.id, &root.label, Purpose::Filesystem),
    };
    assert!(rule.contains(&wanted), "{}: {wanted}", board.id);
    for path in [STATE_PATH, GOOD_PATH] {
        assert_eq!(read(path).len(), 1024);
        let said = run(Command::new("grub-editenv").arg(&copy).arg("list")).unwrap();
        assert!(said.contains("treeline=1\n"), "{said}");
        assert!(said.contains("good=none\n"), "{said}");
    }
    let format = match board.arch.as_str() {
        "amd64" => "pei-x86-64",
        "arm64" => "pei-aarch64-little",
        _ => "",
    };
    for file in &board.firmware {
        let content = read(&file.path);
        assert!(content.starts_with(b"MZ"), "{}: {}", board.id, file.path);
        let machine = pe_machine(&content);
        assert_eq!(machine, format, "{}: {}", board.id, file.path);
    }
}

/// The machine of a PE file, as binutils call it (PE format, "Machine Types").
fn pe_machine(content: &[u8]) -> &'static str {
    let at = usize::try_from(u32::from_le_bytes(content[60..64].try_into().unwrap())).unwrap();
    assert_eq!(&content[at..at + 4], b"PE\0\0");
    match u16::from_le_bytes([content[at + 4], content[at + 5]]) {
        0x8664 => "pei-x86-64",
        0xaa64 => "pei-aarch64-little",
        other => panic!("machine {other:#x}"),
    }
}
