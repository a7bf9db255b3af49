//! Is this boot good? Units, checks, executables; retried until the deadline, and good only if it stays so.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bsp::device::Health;
use serde::{Deserialize, Serialize};

use crate::paths::Paths;
use crate::system::{self, System, UnitState};

/// Systemd target that must be reached before anything else is looked at.
pub const TARGET: &str = "multi-user.target";
/// Targets that mean that the boot has given up.
const GIVEN_UP: [&str; 2] = ["emergency.target", "rescue.target"];
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(2);
/// Time limit of an executable in `health.d`.
const LIMIT: Duration = Duration::from_secs(30);

/// Something that is not good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Unit, check or file name.
    pub check: String,
    /// What is wrong with it.
    pub problem: String,
    /// The end of its output.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
}

/// The result of watching a boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Everything required was good, and still was after the settling time. Holds what was only wanted.
    Good(Vec<Finding>),
    /// What was not good at the deadline, or failed for good before it.
    Bad(Vec<Finding>),
    /// Somebody else has decided meanwhile (an operator's `confirm` or `reject`).
    Overtaken,
}

/// What must be good: the configuration's units and checks, and executables of the tree and the owner.
#[derive(Debug)]
pub struct Requirements<'a> {
    health: &'a Health,
    required: Vec<PathBuf>,
    wanted: Vec<PathBuf>,
}

impl<'a> Requirements<'a> {
    /// Collects them. A file in `/etc` takes the place of one with the same name in `/usr/lib`.
    pub fn new(paths: &Paths, health: &'a Health) -> Self {
        let collect = |sub: &str| -> Vec<PathBuf> {
            let mut by_name = BTreeMap::new();
            for base in ["usr/lib/device-agent/health.d", "etc/device-agent/health.d"] {
                for file in system::executables(&paths.at(base).join(sub)) {
                    by_name.insert(file.file_name().map(|n| n.to_owned()), file);
                }
            }
            by_name.into_values().collect()
        };
        Self {
            health,
            required: collect(""),
            wanted: collect("wanted"),
        }
    }
}

/// One look at everything required.
enum Look {
    Good,
    /// May still become good.
    NotYet(Vec<Finding>),
    /// Will not become good.
    Failed(Vec<Finding>),
}

/// Watches until the boot is good, has failed, or the deadline has passed. `overtaken` is asked between looks.
pub fn watch(
    system: &dyn System,
    requirements: &Requirements<'_>,
    overtaken: &mut dyn FnMut() -> bool,
) -> Judgement {
    let deadline = system.elapsed() + Duration::from_secs(requirements.health.deadline_seconds);
    let settle = Duration::from_secs(requirements.health.settle_seconds);
    let mut settled = false;
    loop {
        match look(system, requirements) {
            Look::Good if settled || settle.is_zero() => {
                return if overtaken() {
                    Judgement::Overtaken
                } else {
                    Judgement::Good(wanted(system, requirements))
                };
            }
            Look::Good => {
                settled = true;
                system.sleep(settle);
                continue;
            }
            Look::Failed(findings) => return Judgement::Bad(findings),
            Look::NotYet(findings) => {
                settled = false;
                if system.elapsed() >= deadline {
                    return Judgement::Bad(findings);
                }
            }
        }
        if overtaken() {
            return Judgement::Overtaken;
        }
        system.sleep(PAUSE);
    }
}

fn finding(check: &str, problem: impl Into<String>) -> Finding {
    Finding {
        check: check.to_owned(),
        problem: problem.into(),
        output: String::new(),
    }
}

fn look(system: &dyn System, requirements: &Requirements<'_>) -> Look {
    for target in GIVEN_UP {
        if system.unit(target) == UnitState::Active {
            return Look::Failed(vec![finding(
                target,
                "the boot has given up and stands there",
            )]);
        }
    }
    if system.unit(TARGET) != UnitState::Active {
        return Look::NotYet(vec![finding(TARGET, "was not reached")]);
    }
    let mut failed = Vec::new();
    let mut open = Vec::new();
    for unit in &requirements.health.units {
        match system.unit(unit) {
            UnitState::Active => {}
            UnitState::Failed => failed.push(finding(unit, "the unit has failed")),
            UnitState::Pending => open.push(finding(unit, "the unit is not active")),
        }
    }
    for check in &requirements.health.checks {
        let limit = Duration::from_secs(check.timeout_seconds);
        open.extend(execute(system, &check.name, &check.command, limit));
    }
    for file in &requirements.required {
        open.extend(execute_file(system, file));
    }
    if !failed.is_empty() {
        failed.append(&mut open);
        Look::Failed(failed)
    } else if open.is_empty() {
        Look::Good
    } else {
        Look::NotYet(open)
    }
}

fn execute(
    system: &dyn System,
    name: &str,
    command: &[String],
    limit: Duration,
) -> Option<Finding> {
    let outcome = system.run(command, limit);
    (!outcome.ok).then(|| Finding {
        check: name.to_owned(),
        problem: outcome.ended.clone(),
        output: system::end_of(&outcome.output).to_owned(),
    })
}

fn execute_file(system: &dyn System, file: &std::path::Path) -> Option<Finding> {
    let text = file.to_string_lossy().into_owned();
    execute(system, &text, std::slice::from_ref(&text), LIMIT)
}

/// What is only wanted: reported, but no reason to give up a boot.
fn wanted(system: &dyn System, requirements: &Requirements<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = system
        .failed_units()
        .iter()
        .map(|unit| finding(unit, "the unit has failed"))
        .collect();
    findings.extend(
        requirements
            .wanted
            .iter()
            .filter_map(|file| execute_file(system, file)),
    );
    findings
}

#[cfg(test)]
mod tests;
