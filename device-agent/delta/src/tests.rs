use std::process::Command;

use crate::memory::*;
use crate::object::{root_of, Directory};
use crate::*;

fn run(
    old: &Store,
    delta: &[u8],
    from: &Checksum,
    to: &Checksum,
    limit: u64,
) -> Result<Store, Error> {
    let new = std::rc::Rc::default();
    let mut device = Device {
        old,
        new: std::rc::Rc::clone(&new),
    };
    apply(delta, from, to, limit, &mut device)?;
    drop(device);
    Ok(std::rc::Rc::into_inner(new).unwrap().into_inner())
}

/// Two commits, and the delta between them.
struct Pair {
    old: Store,
    from: Checksum,
    to: Checksum,
    made: Made,
    new: Vec<Vec<u8>>,
}

impl Pair {
    fn new(old: &[(&str, Vec<u8>)], new: &[(&str, Vec<u8>)]) -> Self {
        let mut both = Store::default();
        let from = both.commit(old);
        let to = both.commit(new);
        let mut alone = Store::default();
        assert_eq!(alone.commit(old), from);
        Self {
            made: make(&both, &from, &to, 2).unwrap(),
            old: alone,
            from,
            to,
            new: new.iter().map(|f| f.1.clone()).collect(),
        }
    }

    fn apply(&self, delta: &[u8]) -> Result<Store, Error> {
        run(&self.old, delta, &self.from, &self.to, 1 << 30)
    }

    fn check(&self) {
        let applied = self.apply(&self.made.bytes).unwrap();
        assert!(applied.metadata.contains_key(&(Kind::Commit, self.to)));
        for content in &self.new {
            let there = |s: &Store| s.files.values().any(|f| f.1 == *content);
            assert!(there(&applied) || there(&self.old));
        }
    }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(0x5851_F42D_4C95_7F2D)
            .wrapping_add(0x1405_7B7E_F767_814F);
        self.0 >> 24
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

/// Two versions of a program as a compiler makes them.
fn programs(args: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let build = |version: usize| {
        let mut text = String::from("#include <stdio.h>\n#include <string.h>\nstatic int n[64];\n");
        let added = if version == 2 {
            "n[1] += a * 3; puts(\"something new\"); if (n[1] > 9) n[2] = strlen(\"more\");"
        } else {
            ""
        };
        for i in 0..60 {
            let extra = if i == 17 || i == 40 { added } else { "" };
            text += &format!(
                "int f{i}(int a) {{ {extra} n[{}] += a; printf(\"this is number {i}: %d %s\\n\", n[{}], \"x{i}\"); \
                 switch (a) {{ case 1: return {i}; case 2: puts(\"two{i}\"); break; case 3: return a * {i}; case 4: return 9; \
                 case 5: n[3] = {i}; break; case 6: return -4; }} return a{}; }}\n",
                i % 64,
                (i * 7) % 64,
                if i > 0 { format!(" + f{}(a - 1)", i - 1) } else { String::new() }
            );
        }
        text += "int (*const table[])(int) = { f1, f5, f9, f30, f50, f59 };\n";
        let source = dir.path().join("a.c");
        let out = dir.path().join("a.out");
        std::fs::write(&source, text).unwrap();
        let status = Command::new("cc")
            .args(["-O2", "-o"])
            .arg(&out)
            .args(args)
            .arg(&source)
            .status()
            .expect("running cc (Debian package gcc)");
        assert!(status.success());
        std::fs::read(&out).unwrap()
    };
    (build(1), build(2))
}

#[test]
fn a_file_is_made_from_whatever_resembles_it() {
    let mut dice = Dice(5);
    let (gone, added) = (dice.bytes(40_000), dice.bytes(40_000));
    let with = |head: &[u8], rest: &[u8]| [head, rest].concat();
    let pair = Pair::new(
        &[("a", gone.clone()), ("same", b"text".to_vec())],
        &[
            ("renamed", with(b"a head", &gone)),
            ("same", b"text".to_vec()),
            ("x", added.clone()),
            ("y", with(b"another", &added)),
        ],
    );
    pair.check();
    let from = |name: &str| {
        let file = pair.made.files.iter().find(|f| f.path.ends_with(name));
        file.unwrap().from.clone()
    };
    assert_eq!(from("renamed").as_deref(), Some("/usr/a"));
    assert_eq!(from("/x"), None);
    assert_eq!(from("/y").as_deref(), Some("/usr/x"));
    assert!(pair.made.bytes.len() < added.len() + 1000);
}

#[test]
fn directories_and_commits_are_read() {
    let mut store = Store::default();
    let commit = store.commit(&[("a", vec![1]), ("b", vec![2; 3])]);
    let (tree, _) = root_of(&store.metadata[&(Kind::Commit, commit)]).unwrap();
    let root = Directory::parse(&store.metadata[&(Kind::DirTree, tree)]).unwrap();
    assert_eq!(root.directories[0].0, "usr");
    let usr = Directory::parse(&store.metadata[&(Kind::DirTree, root.directories[0].1)]).unwrap();
    let names: Vec<&str> = usr.files.iter().map(|f| f.0.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
}

#[test]
fn plain_files_come_out_as_they_are() {
    let mut dice = Dice(1);
    let text: Vec<u8> = (0..4000)
        .flat_map(|i| format!("line {i} of a text\n").into_bytes())
        .collect();
    let mut changed = text.clone();
    changed.splice(3000..3010, *b"something else");
    changed.truncate(60_000);
    let noise = dice.bytes(20_000);
    let pair = Pair::new(
        &[
            ("text", text),
            ("noise", noise.clone()),
            ("gone-1.2", noise[..9000].to_vec()),
        ],
        &[
            ("text", changed),
            ("noise", dice.bytes(20_000)),
            ("gone-1.3.4", noise[100..9000].to_vec()),
            ("empty", Vec::new()),
            ("one", vec![7]),
            ("new", b"nobody has seen this before".to_vec()),
        ],
    );
    pair.check();
    let cost = |path: &str| {
        pair.made
            .files
            .iter()
            .find(|f| f.path.ends_with(path))
            .unwrap()
            .cost
    };
    assert!(cost("text") < 60, "{:?}", pair.made.files);
    assert!(cost("gone-1.3.4") < 30, "{:?}", pair.made.files);
    assert!(cost("noise") < 20_100, "{:?}", pair.made.files);
}

#[test]
fn a_rebuilt_program_costs_what_was_written_anew() {
    for args in [
        &["-shared", "-fPIC"][..],
        &["-c"],
        &["-c", "-g"],
        &["-shared", "-fPIC", "-Wl,-z,pack-relative-relocs"],
    ] {
        let (old, new) = programs(args);
        let pair = Pair::new(&[("p", old.clone())], &[("p", new.clone())]);
        pair.check();
        let cost = pair.made.files[0].cost;
        assert!(
            cost * 20 < new.len() as u64,
            "{args:?}: {cost} of {}",
            new.len()
        );
    }
}

#[test]
fn damage_is_an_error_and_nothing_else() {
    let (old, new) = programs(&["-shared", "-fPIC"]);
    let text: Vec<u8> = (0..300)
        .flat_map(|i| format!("line {i}\n").into_bytes())
        .collect();
    let pair = Pair::new(
        &[("p", old), ("t", text.clone())],
        &[("p", new), ("t", text[9..].to_vec())],
    );
    let good = &pair.made.bytes;
    let mut dice = Dice(5);
    for _ in 0..30 {
        let mut bad = good.clone();
        for _ in 0..1 + dice.next() % 3 {
            let at = dice.next() as usize % bad.len();
            bad[at] ^= 1 << (dice.next() % 8);
        }
        if bad != *good {
            assert!(pair.apply(&bad).is_err());
        }
    }
    for _ in 0..8 {
        let end = dice.next() as usize % good.len();
        assert!(pair.apply(&good[..end]).is_err());
    }
    let noise = [&good[..8], &dice.bytes(3000)].concat();
    assert!(pair.apply(&noise).is_err());
}

#[test]
fn what_was_not_agreed_is_refused() {
    let pair = Pair::new(&[("a", vec![1; 5000])], &[("a", vec![2; 5000])]);
    let delta = &pair.made.bytes;
    let limited = run(&pair.old, delta, &pair.from, &pair.to, 4000);
    assert!(matches!(limited, Err(Error::Limit(4000))));
    let other = run(&pair.old, delta, &pair.from, &[3; 32], 1 << 20);
    assert!(matches!(other, Err(Error::Checksum(_))));
    let mut later = delta.clone();
    later[7] = 9;
    assert!(matches!(pair.apply(&later), Err(Error::Format { .. })));
}

/// Old content that is damaged on the device must not come into the new one.
#[test]
fn a_damaged_old_file_is_noticed() {
    let (old, new) = programs(&["-shared", "-fPIC"]);
    let mut pair = Pair::new(&[("p", old)], &[("p", new)]);
    for file in pair.old.files.values_mut() {
        let middle = file.1.len() / 3;
        file.1[middle] ^= 4;
    }
    assert!(matches!(
        pair.apply(&pair.made.bytes),
        Err(Error::Checksum(_) | Error::Damaged(_) | Error::Delta(_))
    ));
}

#[test]
fn headers_are_read_as_they_are_written() {
    for header in [
        Header {
            mode: 0o100_644,
            ..Header::default()
        },
        Header {
            uid: 7,
            gid: 70_000,
            mode: 0o120_777,
            target: "../lib/x".into(),
            xattrs: vec![3; 300],
        },
    ] {
        let bytes = header.to_bytes();
        assert_eq!(Header::parse(&bytes).unwrap(), header);
        for end in 0..bytes.len() {
            // Never a panic.
            let _ = Header::parse(&bytes[..end]);
        }
    }
    assert_eq!(
        Header {
            mode: 0o100_644,
            ..Header::default()
        }
        .to_bytes(),
        HEADER
    );
}

/// A file as a kernel is one: something before a compressed part, something after it.
fn packed(content: &[u8], level: i32) -> Vec<u8> {
    let mut file = b"MZ, and code that unpacks what follows.".repeat(40);
    file.extend(::zstd::encode_all(content, level).unwrap());
    file.extend(b"the end".repeat(9));
    file
}

#[test]
fn a_compressed_part_costs_what_its_content_costs() {
    for level in [3, 19, 22] {
        let mut old = crate::make::packed_content(600_000, 5);
        let (program, changed) = programs(&["-shared", "-fPIC"]);
        let mut new = old.clone();
        old.splice(200_000..200_000, program);
        new.splice(200_000..200_000, changed);
        new.splice(400_000..400_010, b"something else".iter().copied());
        new.drain(100_000..100_400);
        let (old, new) = (packed(&old, level), packed(&new, level));
        let pair = Pair::new(&[("vmlinuz", old)], &[("vmlinuz", new.clone())]);
        pair.check();
        let bytes = pair.made.bytes.len();
        assert!(
            bytes * 8 < new.len(),
            "level {level}: {bytes} of {}",
            new.len()
        );
    }
}

#[test]
fn a_damaged_delta_of_a_compressed_part_is_an_error() {
    let old = crate::make::packed_content(120_000, 2);
    let mut new = old.clone();
    new.splice(60_000..60_002, b"another".iter().copied());
    let pair = Pair::new(
        &[("a.zst", packed(&old, 19))],
        &[("a.zst", packed(&new, 19))],
    );
    pair.check();
    for at in 8..pair.made.bytes.len() {
        let mut damaged = pair.made.bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        // The last bits may say nothing more.
        let last = at + 4 >= damaged.len();
        let applied = pair.apply(&damaged);
        assert!(applied.is_err() || last, "byte {at} of {}", damaged.len());
    }
}

#[test]
fn a_kernel_image_costs_what_changed_in_it() {
    let [old, new] = [false, true].map(crate::image::tests::image);
    let pair = Pair::new(&[("image", old.clone())], &[("image", new.clone())]);
    pair.check();
    let known = pair.made.bytes.len();
    // The same without the magic number.
    let plain = |mut image: Vec<u8>| {
        image[56] = 0;
        image
    };
    let pair = Pair::new(&[("image", plain(old))], &[("image", plain(new))]);
    pair.check();
    assert!(known * 8 < pair.made.bytes.len(), "{known}");
}

#[test]
fn code_of_every_machine_costs_what_was_written_anew() {
    for machine in ["x86_64", "arm64", "arm", "ppc64le"] {
        let [old, new] = [1, 2].map(|version| {
            let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds");
            std::fs::read(format!("{dir}/{machine}-{version}.so")).unwrap()
        });
        let pair = Pair::new(&[("a", old)], &[("a", new.clone())]);
        pair.check();
        let cost = pair.made.files[0].cost;
        println!("{machine}: {cost} of {}", new.len());
    }
}
