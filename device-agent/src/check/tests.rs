use super::*;
use crate::failed::Failure;
use keys::release::Artifact;

fn channel(versions: &[&str]) -> Channel {
    Channel {
        format: 1,
        product: "my-gateway".into(),
        channel: "stable".into(),
        board: "x86_64-uefi".into(),
        versions: versions.iter().map(|v| v.to_string()).collect(),
    }
}

#[test]
fn the_channel_leads_forward_only() {
    let cases: &[(&[&str], &str, Option<&str>)] = &[
        (&[], "1.0.0", None),
        (&["1.1.0", "1.0.0"], "1.0.0", Some("1.1.0")),
        (&["1.1.0"], "1.0.0", Some("1.1.0")),
        // Never published: compared by number.
        (&["1.0.0"], "2.0.0", None),
        (&["1.10.0"], "1.9.0", Some("1.10.0")),
        // Listed further down: older, although the numbers say otherwise.
        (&["summer", "winter"], "winter", Some("summer")),
        // The same version may have been built again.
        (&["1.0.0"], "1.0.0", Some("1.0.0")),
    ];
    for (versions, running, want) in cases {
        assert_eq!(
            choose(&channel(versions), running),
            *want,
            "{versions:?} {running}"
        );
    }
}

fn device() -> (tempfile::TempDir, Device) {
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::below(dir.path());
    std::fs::create_dir_all(paths.at("proc")).unwrap();
    std::fs::write(paths.at("proc/cmdline"), "root=x treeline.id=aaa quiet\n").unwrap();
    let config = toml::from_str(crate::config::tests::BASE).unwrap();
    (dir, Device::new(paths, config).unwrap())
}

fn release() -> Release {
    Release {
        format: 1,
        product: "my-gateway".into(),
        version: "1.1.0".into(),
        boards: vec!["x86_64-uefi".into()],
        arch: "amd64".into(),
        commit: "bbb".into(),
        epoch: 2,
        created: 0,
        full: Artifact {
            path: "deltas/x".into(),
            length: 1,
            sha256: "00".into(),
        },
        deltas: Vec::new(),
        installed_bytes: 1,
        notes: String::new(),
    }
}

#[test]
fn what_does_not_fit_is_refused_with_a_reason() {
    let (_dir, device) = device();
    let mut memory = Memory::default();
    admit(&release(), &device, 2, &memory, false).unwrap();
    type Spoil = fn(&mut Release);
    let cases: [(Spoil, &str); 3] = [
        (|r| r.product = "other".into(), "product \"other\""),
        (
            |r| r.boards = vec!["raspberry-pi-4".into()],
            "it is for raspberry-pi-4",
        ),
        (|r| r.epoch = 1, "epoch 1 is below 2"),
    ];
    for (spoil, want) in cases {
        let mut release = release();
        spoil(&mut release);
        let problem = admit(&release, &device, 2, &memory, true).unwrap_err();
        assert_eq!(problem.kind, Kind::Refused);
        assert!(problem.text.contains(want), "{}", problem.text);
    }
    memory
        .add(
            &device.paths,
            "bbb",
            Failure {
                version: None,
                time: 1,
                reason: "app.service: the unit has failed".into(),
            },
        )
        .unwrap();
    let problem = admit(&release(), &device, 0, &memory, false).unwrap_err();
    assert!(problem.text.contains("app.service"), "{}", problem.text);
    assert!(problem.hint.unwrap().contains("--retry"));
    admit(&release(), &device, 0, &memory, true).unwrap();
}

#[test]
fn the_epoch_floor_survives_the_loss_of_either_record() {
    let (_dir, device) = device();
    assert_eq!(epoch_floor(&device.paths, None), 0);
    assert_eq!(epoch_floor(&device.paths, Some(3)), 3);
    raise_epoch_floor(&device.paths, Some(5)).unwrap();
    raise_epoch_floor(&device.paths, Some(4)).unwrap();
    assert_eq!(epoch_floor(&device.paths, None), 5);
}
