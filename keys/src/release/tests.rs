//! The JSON of releases and channels.

use proptest::prelude::*;

use super::*;

fn release() -> Release {
    let artifact = |path: &str, length| Artifact {
        path: path.to_owned(),
        length,
        sha256: "0123456789abcdef".repeat(4),
    };
    Release {
        format: FORMAT,
        product: "demo".into(),
        version: "1.2".into(),
        boards: vec!["b".into()],
        arch: "amd64".into(),
        commit: "a".repeat(64),
        epoch: 0,
        created: 1,
        full: artifact("deltas/b/1.2-full", 1000),
        deltas: vec![
            Delta {
                from: "b".repeat(64),
                file: artifact("deltas/b/1.2-from-1.1", 100),
                compact: None,
            },
            Delta {
                from: "c".repeat(64),
                file: artifact("deltas/b/1.2-from-1.0", 200),
                compact: None,
            },
            Delta {
                from: "d".repeat(64),
                file: artifact("deltas/b/1.2-from-0.1", 2000),
                compact: None,
            },
        ],
        installed_bytes: 1,
        notes: "text".into(),
    }
}

#[test]
fn a_release_comes_back() {
    let release = release();
    assert_eq!(Release::parse(&release.to_json().unwrap()), Ok(release));
    let channel = Channel {
        format: FORMAT,
        product: "demo".into(),
        channel: "stable".into(),
        board: "b".into(),
        versions: vec!["2".into(), "1".into()],
    };
    assert_eq!(Channel::parse(&channel.to_json().unwrap()), Ok(channel));
}

#[test]
fn files_of_format_1_stay_readable() {
    // As a first release of this program wrote it, without what may be missing and with what a
    // later one may add.
    let text = r#"{"format":1,"product":"p","version":"1","boards":["b"],"arch":"arm64",
        "commit":"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa","epoch":3,"created":5,
        "full":{"path":"deltas/x","length":7,"sha256":"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"},
        "deltas":[],"installed_bytes":9,"something_new":{}}"#;
    let release = Release::parse(text.as_bytes()).unwrap();
    assert_eq!(
        (release.epoch, release.full.length, release.notes.as_str()),
        (3, 7, "")
    );
    let text = r#"{"format":1,"product":"p","channel":"c","board":"b","versions":["1"]}"#;
    assert_eq!(Channel::parse(text.as_bytes()).unwrap().versions, ["1"]);
}

#[test]
fn impossible_values_are_named() {
    type Case = (&'static str, fn(&mut Release));
    let cases: &[Case] = &[
        ("format 2", |r| r.format = 2),
        ("'commit'", |r| r.commit = "A".repeat(64)),
        ("'commit'", |r| r.commit.truncate(63)),
        ("'full'", |r| r.full.sha256.push('0')),
        ("'deltas.from'", |r| r.deltas[0].from = String::new()),
        ("'deltas.file'", |r| {
            r.deltas[1].file.sha256 = "g".repeat(64)
        }),
        ("'full'", |r| r.full.path = "../../etc/passwd".into()),
        ("'full'", |r| r.full.path = "/etc/passwd".into()),
        ("'full'", |r| r.full.path = "https://evil.example/x".into()),
        ("'full'", |r| r.full.path = "data:x".into()),
        ("'full'", |r| r.full.path = "a//b".into()),
        ("'full'", |r| r.full.path = String::new()),
        ("'full'", |r| r.full.path = "a?b".into()),
        ("'deltas.file'", |r| r.deltas[0].file.path = "a\\b\n".into()),
    ];
    for (i, (says, change)) in cases.iter().enumerate() {
        let mut release = release();
        change(&mut release);
        let error = Release::parse(&release.to_json().unwrap()).unwrap_err();
        assert!(error.to_string().contains(says), "case {i}: {error}");
    }
}

#[test]
fn the_smallest_way_is_taken() {
    let release = release();
    let [b, c, d] = ["b", "c", "d"].map(|digit| digit.repeat(64));
    let cases: &[(&[&String], u64)] = &[
        (&[], 1000),
        (&[&b], 100),
        (&[&c], 200),
        (&[&c, &b], 100),
        // A delta larger than the whole is none.
        (&[&d], 1000),
    ];
    for (present, length) in cases {
        let present: Vec<String> = present.iter().map(|c| (*c).clone()).collect();
        assert_eq!(release.artifact_for(&present).length, *length);
    }
}

#[test]
fn target_names_are_usable() {
    for name in [
        release_target("generic-x86_64", "1.0~rc1+b2"),
        channel_target("rpi4", "stable"),
    ] {
        assert!(is_target_name(&name), "{name}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>) {
        let _ = Release::parse(&bytes);
        let _ = Channel::parse(&bytes);
    }

    /// A good file with a few bytes changed: error or value, no panic; and a value is sound.
    #[test]
    fn no_change_makes_it_panic(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = release().to_json().unwrap();
        let len = bytes.len();
        for (at, byte) in changes {
            bytes[at.index(len)] = byte;
        }
        if let Ok(release) = Release::parse(&bytes) {
            prop_assert_eq!(release.format, FORMAT);
            prop_assert_eq!(release.commit.len(), 64);
            prop_assert!(!release.full.path.contains(".."));
        }
        let _ = Channel::parse(&bytes);
    }
}
