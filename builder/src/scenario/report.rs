//! What `builder test` leaves behind: a table for people, JUnit XML and JSON for machines.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};
use serde::Serialize;

use super::table::Scenario;

/// How one scenario went.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Outcome {
    /// Scenario name.
    pub scenario: String,
    /// What it shows.
    pub about: String,
    /// Seconds it took.
    pub seconds: f64,
    /// What went wrong, with the whole chain of reasons; `None` if all held.
    pub failure: Option<String>,
    /// Why this board's machine cannot play it; `None`: it was played.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_played: Option<String>,
    /// Console log of the device.
    pub console_log: String,
}

impl Outcome {
    /// A scenario that the board's machine cannot play.
    pub fn not_played(scenario: &Scenario, reason: &str) -> Self {
        Self {
            scenario: scenario.name.into(),
            about: scenario.about.into(),
            seconds: 0.0,
            failure: None,
            not_played: Some(reason.into()),
            console_log: String::new(),
        }
    }
}

/// How a run went.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Board id.
    pub board: String,
    /// One per scenario and round.
    pub outcomes: Vec<Outcome>,
}

impl Summary {
    /// How many failed.
    pub fn failed(&self) -> usize {
        self.outcomes.iter().filter(|o| o.failure.is_some()).count()
    }

    /// How many this board's machine cannot play.
    pub fn not_played(&self) -> usize {
        let not = self.outcomes.iter().filter(|o| o.not_played.is_some());
        not.count()
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let width = self
            .outcomes
            .iter()
            .map(|o| o.scenario.len())
            .max()
            .unwrap_or(0);
        let mut text = String::new();
        for o in &self.outcomes {
            let word = match (&o.failure, &o.not_played) {
                (Some(_), _) => "FAILED",
                (None, Some(_)) => "-",
                (None, None) => "ok",
            };
            text.push_str(&format!(
                "  {:<width$}  {word:<6}  {:>5.0} s  {}\n",
                o.scenario, o.seconds, o.about
            ));
            if let Some(reason) = &o.not_played {
                text.push_str(&format!("  {:<width$}    not played: {reason}\n", ""));
            }
            if let Some(failure) = &o.failure {
                for line in failure.lines() {
                    text.push_str(&format!("  {:<width$}    {line}\n", ""));
                }
                text.push_str(&format!("  {:<width$}    console: {}\n", "", o.console_log));
            }
        }
        // A closing line that machines read as well.
        let (failed, not_played) = (self.failed(), self.not_played());
        text.push_str(&format!(
            "\n{} passed, {failed} failed",
            self.outcomes.len() - failed - not_played
        ));
        if not_played > 0 {
            text.push_str(&format!(", {not_played} not played"));
        }
        text.push('\n');
        text
    }

    /// Writes `report.json` and `junit.xml` into `dir`.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let json = serde_json::to_string_pretty(self).context("writing the report as JSON")?;
        let path = dir.join("report.json");
        std::fs::write(&path, json).with_context(|| format!("writing {}", path.display()))?;
        let path = dir.join("junit.xml");
        let xml = self
            .junit()
            .to_string()
            .context("writing the report as JUnit XML")?;
        std::fs::write(&path, xml).with_context(|| format!("writing {}", path.display()))
    }

    fn junit(&self) -> Report {
        let mut report = Report::new("builder test");
        let mut suite = TestSuite::new(self.board.as_str());
        for o in &self.outcomes {
            let status = match (&o.failure, &o.not_played) {
                (None, None) => TestCaseStatus::success(),
                (None, Some(reason)) => {
                    let mut status = TestCaseStatus::skipped();
                    status.set_message(reason.as_str());
                    status
                }
                (Some(text), _) => {
                    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                    status.set_message(text.lines().next().unwrap_or_default());
                    status.set_description(text.as_str());
                    status
                }
            };
            let mut case = TestCase::new(o.scenario.as_str(), status);
            case.set_time(Duration::from_secs_f64(o.seconds));
            suite.add_test_case(case);
        }
        report.add_test_suite(suite);
        report
    }
}

#[cfg(test)]
mod tests {
    use super::super::table::SCENARIOS;
    use super::*;

    #[test]
    fn a_failure_stands_in_every_form() {
        let outcome = |failure: Option<&str>| Outcome {
            scenario: "hang".into(),
            about: "it hangs".into(),
            seconds: 1.5,
            failure: failure.map(Into::into),
            not_played: None,
            console_log: "console.log".into(),
        };
        let not_played = Outcome::not_played(&SCENARIOS[0], "it has no network");
        let summary = Summary {
            board: "x".into(),
            outcomes: vec![outcome(None), outcome(Some("no <fallback>")), not_played],
        };
        let dir = tempfile::tempdir().unwrap();
        summary.write(dir.path()).unwrap();
        let xml = std::fs::read_to_string(dir.path().join("junit.xml")).unwrap();
        assert!(
            xml.contains("failures=\"1\"") && xml.contains("no &lt;fallback&gt;"),
            "{xml}"
        );
        assert!(
            xml.contains("skipped=\"1\"") || xml.contains("disabled=\"1\""),
            "{xml}"
        );
        let table = summary.table();
        assert!(
            table.contains("1 passed, 1 failed, 1 not played"),
            "{table}"
        );
        assert!(table.contains("it has no network"), "{table}");
    }
}
