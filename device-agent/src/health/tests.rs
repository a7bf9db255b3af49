use super::*;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use crate::system::Outcome;
use bsp::device::Check;

/// A system that lives on a clock of its own: units become active, checks become good at given seconds.
#[derive(Default)]
struct Simulated {
    clock: Cell<u64>,
    /// Unit → (second, state from then on), in order.
    units: HashMap<String, Vec<(u64, UnitState)>>,
    /// Command → seconds from which on it succeeds, and from which on it fails again.
    checks: HashMap<String, (u64, u64)>,
    failed: Vec<String>,
    ran: RefCell<Vec<String>>,
}

impl System for Simulated {
    fn unit(&self, name: &str) -> UnitState {
        self.units.get(name).map_or(UnitState::Pending, |changes| {
            changes
                .iter()
                .rev()
                .find(|(from, _)| *from <= self.clock.get())
                .map_or(UnitState::Pending, |(_, state)| *state)
        })
    }

    fn failed_units(&self) -> Vec<String> {
        self.failed.clone()
    }

    fn run(&self, command: &[String], _: Duration) -> Outcome {
        self.ran.borrow_mut().push(command[0].clone());
        let (from, to) = self
            .checks
            .get(&command[0])
            .copied()
            .unwrap_or((u64::MAX, 0));
        let ok = (from..to).contains(&self.clock.get());
        Outcome {
            ok,
            ended: if ok {
                "exit status: 0"
            } else {
                "exit status: 1"
            }
            .into(),
            output: "said so".into(),
        }
    }

    fn elapsed(&self) -> Duration {
        Duration::from_secs(self.clock.get())
    }

    fn sleep(&self, time: Duration) {
        self.clock.set(self.clock.get() + time.as_secs());
    }
}

fn health() -> Health {
    Health {
        deadline_seconds: 100,
        settle_seconds: 10,
        units: vec!["app.service".into()],
        checks: vec![Check {
            name: "web".into(),
            command: vec!["probe".into()],
            timeout_seconds: 5,
        }],
    }
}

fn good_from(target: u64, app: u64, probe: u64) -> Simulated {
    Simulated {
        units: HashMap::from([
            (TARGET.into(), vec![(target, UnitState::Active)]),
            ("app.service".into(), vec![(app, UnitState::Active)]),
        ]),
        checks: HashMap::from([("probe".into(), (probe, u64::MAX))]),
        ..Simulated::default()
    }
}

fn judge(system: &Simulated) -> Judgement {
    let health = health();
    let dir = tempfile::tempdir().unwrap();
    let requirements = Requirements::new(&Paths::below(dir.path()), &health);
    watch(system, &requirements, &mut || false)
}

fn names(judgement: &Judgement) -> Vec<&str> {
    match judgement {
        Judgement::Bad(findings) => findings.iter().map(|f| f.check.as_str()).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_boot_is_good_when_everything_is_and_stays_so() {
    let system = good_from(20, 30, 40);
    assert_eq!(judge(&system), Judgement::Good(Vec::new()));
    assert!(
        system.clock.get() >= 50,
        "settled before {}",
        system.clock.get()
    );
    assert!(system.clock.get() < 60);
}

#[test]
fn what_is_missing_at_the_deadline_is_named() {
    let cases = [
        (good_from(u64::MAX, 0, 0), vec![TARGET]),
        (good_from(0, u64::MAX, 0), vec!["app.service"]),
        (good_from(0, 0, u64::MAX), vec!["web"]),
        (good_from(0, u64::MAX, u64::MAX), vec!["app.service", "web"]),
    ];
    for (system, want) in cases {
        let judgement = judge(&system);
        assert_eq!(names(&judgement), want);
        assert!(system.clock.get() >= 100);
    }
}

#[test]
fn checks_wait_for_the_target() {
    let system = good_from(u64::MAX, 0, 0);
    judge(&system);
    assert!(system.ran.borrow().is_empty());
}

#[test]
fn a_failed_unit_ends_the_trial_at_once() {
    let mut system = good_from(10, 0, 0);
    system
        .units
        .insert("app.service".into(), vec![(0, UnitState::Failed)]);
    assert_eq!(names(&judge(&system)), ["app.service"]);
    assert!(system.clock.get() < 20);
}

#[test]
fn emergency_mode_ends_the_trial_at_once() {
    let mut system = good_from(u64::MAX, 0, 0);
    system
        .units
        .insert("emergency.target".into(), vec![(6, UnitState::Active)]);
    assert_eq!(names(&judge(&system)), ["emergency.target"]);
    assert!(system.clock.get() < 10);
}

#[test]
fn what_breaks_while_settling_is_not_good() {
    let mut system = good_from(0, 0, 0);
    system.checks.insert("probe".into(), (0, 5));
    assert_eq!(names(&judge(&system)), ["web"]);
}

#[test]
fn an_operator_may_decide_first() {
    let system = good_from(u64::MAX, 0, 0);
    let health = health();
    let dir = tempfile::tempdir().unwrap();
    let requirements = Requirements::new(&Paths::below(dir.path()), &health);
    let judgement = watch(&system, &requirements, &mut || system.clock.get() > 30);
    assert_eq!(judgement, Judgement::Overtaken);
}

#[test]
fn executables_are_required_or_only_wanted() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let paths = Paths::below(dir.path());
    for (file, mode) in [
        ("usr/lib/device-agent/health.d/10-a", 0o755),
        ("usr/lib/device-agent/health.d/README", 0o644),
        ("usr/lib/device-agent/health.d/20-b", 0o755),
        ("etc/device-agent/health.d/20-b", 0o755),
        ("etc/device-agent/health.d/wanted/30-c", 0o755),
    ] {
        let file = paths.at(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let health = health();
    let requirements = Requirements::new(&paths, &health);
    assert_eq!(
        requirements.required,
        [
            paths.at("usr/lib/device-agent/health.d/10-a"),
            paths.at("etc/device-agent/health.d/20-b")
        ]
    );
    let mut system = good_from(0, 0, 0);
    for file in &requirements.required {
        system
            .checks
            .insert(file.to_string_lossy().into_owned(), (0, u64::MAX));
    }
    system.failed = vec!["printer.service".into()];
    // The wanted one fails and so has a unit that nobody asked for: both are told, neither decides.
    match watch(&system, &requirements, &mut || false) {
        Judgement::Good(warnings) => {
            assert_eq!(warnings.len(), 2);
            assert_eq!(warnings[0].check, "printer.service");
            assert!(warnings[1].check.ends_with("wanted/30-c"));
        }
        other => panic!("{other:?}"),
    }
}
