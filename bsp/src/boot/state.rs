//! The boot state machine: what stands in the boot environment, what the boot loader makes of it,
//! and the verdict that user space draws after a boot.
//!
//! | field | meaning |
//! |---|---|
//! | `good` | identity of the last confirmed deployment |
//! | `trial` | identity of the deployment on trial, if any |
//! | `tries` | boots it still has |
//!
//! The boot loader's rule (every backend's script says exactly this):
//! - default entry is `good` → boot it;
//! - default entry is `trial` and `tries` > 0 → count down, save, boot it; a failed save is `tries` = 0;
//! - otherwise → boot the entry that is `good`, else the second one, else the first.

/// Most boots a deployment can have on trial; boot scripts count down with one branch per number.
pub const MAX_TRIES: u8 = 9;

/// Longest identity, in bytes: two of them and everything else must fit into one sector.
pub const MAX_ID_LENGTH: usize = 128;

/// Whether `id` can be the identity of a deployment: letters, digits, `.`, `_` and `-`, a letter or
/// digit first. Boot scripts compare identities, so anything that a script could take for an option,
/// a quote or a second word is left out.
pub fn is_valid_id(id: &str) -> bool {
    id.len() <= MAX_ID_LENGTH
        && id.starts_with(|c: char| c.is_ascii_alphanumeric())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// What stands in the boot environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BootState {
    /// Identity of the last confirmed deployment.
    pub good: String,
    /// Identity of the deployment on trial.
    pub trial: Option<String>,
    /// Boots the trial still has, 0 to [`MAX_TRIES`].
    pub tries: u8,
}

impl BootState {
    /// The state of a device whose deployment `id` is confirmed and which has no trial.
    pub fn confirmed(id: impl Into<String>) -> Self {
        Self {
            good: id.into(),
            trial: None,
            tries: 0,
        }
    }

    /// The same `good`, with `id` armed for `tries` boots.
    pub fn armed(&self, id: impl Into<String>, tries: u8) -> Self {
        Self {
            good: self.good.clone(),
            trial: Some(id.into()),
            tries: tries.clamp(1, MAX_TRIES),
        }
    }
}

/// What the boot loader does with a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Boot the entry at this index; write nothing.
    Boot(usize),
    /// Write this state, then boot the entry at the index; if the write fails, decide again with
    /// `tries` = 0.
    CountThenBoot(usize, BootState),
}

/// The boot loader's rule as a pure function. `entries` are the identities of the boot entries, the
/// default one first; `state` is `None` when it is unreadable, torn or foreign; `last_good` is the
/// spare record of the last confirmed identity, if that one can be read.
///
/// Returns `None` only if there is no entry at all.
pub fn decide(
    state: Option<&BootState>,
    last_good: Option<&str>,
    entries: &[String],
) -> Option<Decision> {
    let default = entries.first()?;
    if let Some(state) = state {
        if *default == state.good {
            return Some(Decision::Boot(0));
        }
        if state.trial.as_ref() == Some(default) && (1..=MAX_TRIES).contains(&state.tries) {
            let counted = BootState {
                tries: state.tries - 1,
                ..state.clone()
            };
            return Some(Decision::CountThenBoot(0, counted));
        }
    }
    let good = state.map(|s| s.good.as_str()).or(last_good);
    let index = good
        .and_then(|good| entries.iter().position(|id| id == good))
        .unwrap_or(usize::from(entries.len() > 1));
    Some(Decision::Boot(index))
}

/// What user space concludes after a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Booted the confirmed deployment, nothing is armed.
    Confirmed,
    /// Booted the deployment on trial: judge it, then confirm or reject.
    OnTrial {
        /// Boots left if this one fails.
        tries_left: u8,
    },
    /// The deployment that stands first was on trial and the boot loader returned to an earlier one.
    FellBack {
        /// Identity of the deployment that failed.
        failed: String,
    },
    /// Armed, but the switch never happened: the trial means nothing and is cleared.
    ArmedNotSwitched {
        /// Identity that was armed.
        armed: String,
    },
    /// The state was unreadable or names deployments that do not exist: write it anew with the booted one.
    Lost,
}

/// Draws the verdict: `booted` is the identity on the kernel command line, `entries` as in [`decide`].
pub fn judge(state: Option<&BootState>, booted: &str, entries: &[String]) -> Verdict {
    let Some(state) = state else {
        return Verdict::Lost;
    };
    if state.trial.as_deref() == Some(booted) {
        return Verdict::OnTrial {
            tries_left: state.tries,
        };
    }
    if state.good != booted {
        return Verdict::Lost;
    }
    match entries.first() {
        Some(first) if first != booted => Verdict::FellBack {
            failed: first.clone(),
        },
        _ => match &state.trial {
            Some(armed) => Verdict::ArmedNotSwitched {
                armed: armed.clone(),
            },
            None => Verdict::Confirmed,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| n.to_string()).collect()
    }

    #[test]
    fn the_loader_never_refuses_to_boot() {
        /// State, spare record, entries, and the entry that is booted.
        type Case<'a> = (Option<&'a BootState>, Option<&'a str>, &'a [&'a str], usize);
        let state = BootState::confirmed("a");
        let cases: &[Case] = &[
            (Some(&state), None, &["a"], 0),
            (Some(&state), None, &["a", "b"], 0),
            (Some(&state), None, &["b", "a"], 1),
            (Some(&state), None, &["b", "c"], 1),
            (None, None, &["a"], 0),
            (None, None, &["b", "a"], 1),
            (None, Some("b"), &["b", "a"], 0),
            (None, Some("x"), &["b", "a"], 1),
        ];
        for (state, last_good, entries, want) in cases {
            assert_eq!(
                decide(*state, *last_good, &ids(entries)),
                Some(Decision::Boot(*want)),
                "{state:?} {last_good:?} {entries:?}"
            );
        }
        assert_eq!(decide(None, None, &[]), None);
    }

    #[test]
    fn a_trial_is_counted_down_and_then_given_up() {
        let mut state = BootState::confirmed("a").armed("b", 2);
        let entries = ids(&["b", "a"]);
        for left in [1, 0] {
            match decide(Some(&state), None, &entries) {
                Some(Decision::CountThenBoot(0, next)) => {
                    assert_eq!(next.tries, left);
                    assert_eq!(
                        judge(Some(&next), "b", &entries),
                        Verdict::OnTrial { tries_left: left }
                    );
                    state = next;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(
            decide(Some(&state), None, &entries),
            Some(Decision::Boot(1))
        );
        assert_eq!(
            judge(Some(&state), "a", &entries),
            Verdict::FellBack { failed: "b".into() }
        );
    }

    #[test]
    fn arming_without_switching_means_nothing() {
        let state = BootState::confirmed("a").armed("b", 3);
        let entries = ids(&["a"]);
        assert_eq!(
            decide(Some(&state), None, &entries),
            Some(Decision::Boot(0))
        );
        assert_eq!(
            judge(Some(&state), "a", &entries),
            Verdict::ArmedNotSwitched { armed: "b".into() }
        );
    }

    #[test]
    fn power_cycles_of_a_confirmed_device_change_nothing() {
        let state = BootState::confirmed("a");
        for _ in 0..100 {
            assert_eq!(
                decide(Some(&state), None, &ids(&["a", "old"])),
                Some(Decision::Boot(0))
            );
        }
    }
}
