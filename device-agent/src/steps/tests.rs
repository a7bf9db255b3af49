//! The power is cut after every single write of every plan, and the boot loader's rule is applied to what
//! is on the disk then.

use super::*;
use crate::device::{situation, Situation};
use bsp::boot::state::{decide, Decision};
use bsp::boot::store::MemoryStore;

/// The disk: boot state and boot menu.
#[derive(Clone, Debug)]
struct Disk {
    state: Option<BootState>,
    good: Option<String>,
    menu: Vec<String>,
}

#[derive(Default)]
struct MemoryMenu(Vec<String>);

impl Menu for MemoryMenu {
    fn set(&mut self, order: &[String]) -> Result<()> {
        self.0 = order.to_vec();
        Ok(())
    }
}

impl Disk {
    fn new(state: BootState, menu: &[&str]) -> Self {
        Self {
            good: Some(state.good.clone()),
            state: Some(state),
            menu: menu.iter().map(|id| id.to_string()).collect(),
        }
    }

    /// Carries out the first `writes` steps of a plan, by the real function.
    fn after(&self, plan: &[Step], writes: usize) -> Self {
        let mut store = MemoryStore {
            state: self.state.clone(),
            good: self.good.clone(),
            ..MemoryStore::default()
        };
        let mut menu = MemoryMenu(self.menu.clone());
        run(&plan[..writes], &mut store, &mut menu).unwrap();
        Self {
            state: store.state,
            good: store.good,
            menu: menu.0,
        }
    }

    /// One boot by the boot loader's rule; `save` tells whether it can write.
    fn boot(&mut self, save: bool) -> String {
        match decide(self.state.as_ref(), self.good.as_deref(), &self.menu).unwrap() {
            Decision::Boot(i) => self.menu[i].clone(),
            Decision::CountThenBoot(i, counted) if save => {
                self.state = Some(counted);
                self.menu[i].clone()
            }
            Decision::CountThenBoot(..) => {
                let exhausted = self.state.clone().map(|s| BootState { tries: 0, ..s });
                match decide(exhausted.as_ref(), self.good.as_deref(), &self.menu).unwrap() {
                    Decision::Boot(i) => self.menu[i].clone(),
                    other => panic!("counting with nothing left: {other:?}"),
                }
            }
        }
    }

    fn situation(&self, booted: &str) -> Situation {
        situation(self.state.as_ref(), booted, &self.menu, None)
    }

    /// What the agent does at boot, as plans; `healthy` decides trials.
    fn judge(&self, booted: &str, healthy: bool) -> Vec<Step> {
        match self.situation(booted) {
            Situation::OnTrial { .. } if healthy => confirm(booted),
            Situation::OnTrial { .. } => reject(&self.state.as_ref().unwrap().good),
            Situation::FellBack { .. } => withdraw(booted),
            Situation::ArmedNotSwitched { .. } => disarm(booted),
            Situation::Lost => heal(booted),
            Situation::Confirmed | Situation::Pending { .. } | Situation::Rejected => Vec::new(),
        }
    }
}

/// How the new deployment behaves once it boots.
#[derive(Clone, Copy, PartialEq, Debug)]
enum New {
    Good,
    /// Reaches user space and is found bad.
    Unhealthy,
    /// Never reaches user space.
    Dead,
}

/// Boots again and again, the power cut once more after `cut` writes of each judgement, until nothing
/// changes. Returns what runs in the end.
fn settle(mut disk: Disk, new: New, cut: usize, save: bool) -> String {
    let mut last = None;
    for _ in 0..30 {
        let booted = disk.boot(save);
        assert!(disk.menu.contains(&booted));
        if booted == "new" && new == New::Dead {
            continue;
        }
        let plan = disk.judge(&booted, booted != "new" || new == New::Good);
        // The first judgement of each kind is cut short, the second one is not.
        let writes = if last.as_ref() == Some(&booted) {
            plan.len()
        } else {
            cut.min(plan.len())
        };
        disk = disk.after(&plan, writes);
        if plan.is_empty() && last.as_ref() == Some(&booted) {
            assert_eq!(disk.situation(&booted), Situation::Confirmed);
            return booted;
        }
        last = Some(booted);
    }
    panic!("does not settle: {disk:?}");
}

#[test]
fn a_cut_after_any_write_boots_the_old_or_the_new() {
    for tries in [1, 3, 9] {
        for new in [New::Good, New::Unhealthy, New::Dead] {
            let disk = Disk::new(BootState::confirmed("old"), &["old", "older"]);
            let plan = switch("old", "new", tries, &["old".into()]);
            for writes in 0..=plan.len() {
                for cut in 0..=2 {
                    for save in [true, false] {
                        let cut_off = disk.after(&plan, writes);
                        let end = settle(cut_off, new, cut, save);
                        let switched = writes == plan.len();
                        // A power cut in the only trial boot uses it up.
                        let used_up = tries == 1 && cut == 0;
                        let want = if switched && new == New::Good && save && !used_up {
                            "new"
                        } else {
                            "old"
                        };
                        assert_eq!(
                            end, want,
                            "{tries} tries, {new:?}, {writes} writes, {cut}, {save}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn the_other_order_would_strand_the_new_deployment() {
    // The proof that the test can see: switching before arming leaves a menu whose first entry nobody armed,
    // and a judge that takes a deployment for failed that was never tried.
    let disk = Disk::new(BootState::confirmed("old"), &["old"]);
    let mut plan = switch("old", "new", 3, &["old".into()]);
    plan.reverse();
    let mut cut_off = disk.after(&plan, 1);
    assert_eq!(cut_off.boot(true), "old");
    assert_eq!(
        cut_off.situation("old"),
        Situation::FellBack {
            failed: "new".into()
        }
    );
}

#[test]
fn a_torn_state_block_boots_something_at_every_moment() {
    let disk = Disk::new(BootState::confirmed("old"), &["old"]);
    let plan = switch("old", "new", 3, &["old".into()]);
    for writes in 0..=plan.len() {
        for good in [true, false] {
            let mut torn = disk.after(&plan, writes);
            torn.state = None;
            if !good {
                torn.good = None;
            }
            assert_eq!(settle(torn, New::Dead, 0, true), "old");
        }
    }
}

#[test]
fn going_back_and_taking_back_are_as_safe() {
    // Roll-back: the deployment before is armed and tried like a new one.
    let disk = Disk::new(BootState::confirmed("b"), &["b", "a"]);
    let plan = switch("b", "a", 3, &["b".into()]);
    for writes in 0..=plan.len() {
        for cut in 0..=2 {
            let end = settle(disk.after(&plan, writes), New::Good, cut, true);
            assert_eq!(end, if writes == 2 { "a" } else { "b" });
        }
    }
    // Taking back a switch before its reboot.
    let switched = disk.after(&plan, plan.len());
    let plan = withdraw("b");
    for writes in 1..=plan.len() {
        assert_eq!(
            settle(switched.after(&plan, writes), New::Good, 2, true),
            "b"
        );
    }
}

#[test]
fn a_plan_stops_at_the_first_error() {
    struct Broken;
    impl Menu for Broken {
        fn set(&mut self, _: &[String]) -> Result<()> {
            anyhow::bail!("no room")
        }
    }
    let mut store = MemoryStore::new(BootState::confirmed("old"));
    let plan = switch("old", "new", 3, &["old".into()]);
    run(&plan, &mut store, &mut Broken).unwrap_err();
    let disk = Disk {
        state: store.state,
        good: store.good,
        menu: vec!["old".into()],
    };
    assert_eq!(settle(disk, New::Good, 2, true), "old");
}
