//! Archives made here, read back by the `tar` crate and by GNU tar.

use std::fs;
use std::path::PathBuf;

use tar::EntryType;

use super::*;
use crate::command::Command;

/// A tar whose entries are told in words: `d path`, `f path content`, `l path target`, `h path target`.
pub(in crate::compose) fn archive(dir: &Path, name: &str, entries: &[&str]) -> PathBuf {
    let path = dir.join(name);
    let mut tar = tar::Builder::new(File::create(&path).unwrap());
    for entry in entries {
        let words: Vec<&str> = entry.split(' ').collect();
        let mut header = tar::Header::new_gnu();
        header.set_mode(if words[0] == "d" { 0o2755 } else { 0o640 });
        header.set_uid(7);
        header.set_gid(70_000);
        header.set_mtime(1_234_567);
        header.set_size(0);
        match words[0] {
            "d" => {
                header.set_entry_type(EntryType::Directory);
                tar.append_data(&mut header, words[1], &[][..]).unwrap();
            }
            "f" => {
                header.set_size(words[2].len() as u64);
                tar.append_data(&mut header, words[1], words[2].as_bytes())
                    .unwrap();
            }
            kind => {
                header.set_entry_type(if kind == "l" {
                    EntryType::Symlink
                } else {
                    EntryType::Link
                });
                tar.append_link(&mut header, words[1], words[2]).unwrap();
            }
        }
    }
    tar.finish().unwrap();
    path
}

/// The same words from a tar, sorted as they stand in it.
pub(in crate::compose) fn listing(path: &Path) -> Vec<String> {
    let mut tar = tar::Archive::new(File::open(path).unwrap());
    let mut lines = Vec::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let link = entry
            .link_name()
            .unwrap()
            .map(|link| link.display().to_string());
        lines.push(match entry.header().entry_type() {
            EntryType::Directory => format!("d {}", name.trim_end_matches('/')),
            EntryType::Regular => {
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                format!("f {name} {text}")
            }
            EntryType::Symlink => format!("l {name} {}", link.unwrap()),
            EntryType::Link => format!("h {name} {}", link.unwrap()),
            other => panic!("{other:?}"),
        });
    }
    lines
}

fn merged(dir: &Path, archives: &[PathBuf], oci: bool) -> Result<Vec<String>> {
    let mut layers = Layers::default();
    for archive in archives {
        if oci {
            layers.add_oci(archive)?;
        } else {
            layers.add(archive)?;
        }
    }
    let out = dir.join("out.tar");
    layers.write(&out, |_| true)?;
    Ok(listing(&out))
}

#[test]
fn order_links_and_missing_directories_are_put_right() {
    let dir = tempfile::tempdir().unwrap();
    let tar = archive(
        dir.path(),
        "a.tar",
        &[
            "f ./usr/bin/b x",
            "l bin usr/bin",
            "h usr/bin/a usr/bin/b",
            "f bin/c through",
            "d usr",
            "f proc/leftover x",
            "d dev",
            "f one first",
            "f one second",
            "f empty1 ",
            "f empty2 ",
        ],
    );
    assert_eq!(
        merged(dir.path(), &[tar], false).unwrap(),
        [
            "d .",
            "l bin usr/bin",
            "d dev",
            "f empty1 ",
            "f empty2 ",
            "f one second",
            "d proc",
            "d usr",
            "d usr/bin",
            "f usr/bin/a x",
            "h usr/bin/b usr/bin/a",
            "f usr/bin/c through",
        ]
    );
}

#[test]
fn whiteouts_take_away_what_lower_layers_have() {
    let dir = tempfile::tempdir().unwrap();
    let lower = archive(
        dir.path(),
        "lower.tar",
        &[
            "f etc/gone x",
            "f etc/stays x",
            "d opt/tool",
            "f opt/tool/old x",
            "f opt/tool.conf x",
            "d srv",
            "f srv/data x",
            "l lib usr/lib",
            "f usr/lib/m x",
        ],
    );
    let upper = archive(
        dir.path(),
        "upper.tar",
        &[
            "f etc/.wh.gone ",
            "f opt/tool/new y",
            "f opt/tool/.wh..wh..opq ",
            "f srv now-a-file",
            "f lib/.wh.m ",
            "f lib/n y",
        ],
    );
    assert_eq!(
        merged(dir.path(), &[lower, upper], true).unwrap(),
        [
            "d .",
            "d etc",
            "f etc/stays x",
            "l lib usr/lib",
            "d opt",
            "d opt/tool",
            "f opt/tool.conf x",
            "f opt/tool/new y",
            "f srv now-a-file",
            "d usr",
            "d usr/lib",
            "f usr/lib/n y",
        ]
    );
}

#[test]
fn a_plain_tarball_may_have_files_that_look_like_whiteouts() {
    let dir = tempfile::tempdir().unwrap();
    let tar = archive(dir.path(), "a.tar", &["f .wh.x y", "f x y"]);
    assert_eq!(
        merged(dir.path(), &[tar], false).unwrap(),
        ["d .", "f .wh.x y", "f x y"]
    );
}

#[test]
fn what_would_reach_outside_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    for (name, says) in [
        ("/etc/passwd", "absolute"),
        ("a/../../b", "upwards"),
        ("..", "upwards"),
    ] {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(EntryType::Regular);
        header.set_size(0);
        header.set_cksum();
        let path = dir.path().join("bad.tar");
        let mut tar = tar::Builder::new(File::create(&path).unwrap());
        tar.append(&header, &[][..]).unwrap();
        tar.finish().unwrap();
        let error = format!("{:#}", Layers::default().add(&path).unwrap_err());
        assert!(error.contains(says) && error.contains(name), "{error}");
    }
    // A link that points upwards stays inside: the root is its own parent, as in a chroot.
    let tar = archive(dir.path(), "up.tar", &["l a ../../../b", "f a/c x"]);
    assert_eq!(
        merged(dir.path(), &[tar], false).unwrap(),
        ["d .", "l a ../../../b", "d b", "f b/c x"]
    );
}

#[test]
fn broken_archives_are_told() {
    let dir = tempfile::tempdir().unwrap();
    for (entries, says) in [
        (vec!["l a b", "l b a", "f a/x y"], "go round"),
        (vec!["h a nowhere"], "not there"),
        (vec!["f a x", "f a/b y"], "not one"),
    ] {
        let tar = archive(dir.path(), "bad.tar", &entries);
        let error = format!("{:#}", merged(dir.path(), &[tar], false).unwrap_err());
        assert!(error.contains(says), "{error}");
    }
    let cut = archive(dir.path(), "cut.tar", &["f a 0123456789"]);
    File::options()
        .write(true)
        .open(&cut)
        .unwrap()
        .set_len(515)
        .unwrap();
    assert!(merged(dir.path(), &[cut], false).is_err());
}

#[test]
fn gnu_tar_reads_what_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("d/{}/{}", "e".repeat(120), "f".repeat(120));
    let target = "t".repeat(150);
    let tar = archive(
        dir.path(),
        "a.tar",
        &[
            &format!("f {long} content"),
            &format!("h hard {long}"),
            &format!("l soft {target}"),
            "d dir",
        ],
    );
    let mut layers = Layers::default();
    layers.add(&tar).unwrap();
    let item = layers.items.get_mut("dir").unwrap();
    item.xattrs.insert("user.note".into(), b"a\0\n=b".to_vec());
    item.xattrs.insert("user.long".into(), vec![b'x'; 93]);
    let out = dir.path().join("out.tar");
    layers.write(&out, |_| true).unwrap();

    let text = Command::new("tar", "tar")
        .args(["--numeric-owner", "--xattrs", "-tvvf"])
        .arg(&out)
        .text()
        .unwrap();
    assert!(
        text.contains("drwxr-sr-x* 7/70000") && text.contains("93 user.long"),
        "{text}"
    );
    assert!(text.contains(&format!("soft -> {target}")), "{text}");
    assert!(text.contains(&format!("hard link to {long}")), "{text}");
    assert!(!text.contains("1970-01-15"), "{text}");

    let mut again = Layers::default();
    again.add(&out).unwrap();
    assert_eq!(
        again.items["dir"].xattrs, layers.items["dir"].xattrs,
        "extended attributes survive"
    );
    let second = dir.path().join("second.tar");
    again.write(&second, |_| true).unwrap();
    assert_eq!(fs::read(out).unwrap(), fs::read(second).unwrap());
}
