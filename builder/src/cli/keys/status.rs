//! `builder keys status`: for people, and for a timer that warns them.

use std::process::ExitCode;

use anyhow::Result;
use jiff::Timestamp;
use keys::author::{self, root, Validity};
use serde::Serialize;

use crate::cli::{exit, print};
use crate::project::Project;

const DAY: i64 = 24 * 60 * 60;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Warns so many days before something expires (default: 90 for root, 30 for targets, 7 for snapshot and timestamp)
    #[arg(long, value_name = "DAYS")]
    within: Option<u32>,
    /// JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Line {
    /// Role.
    role: String,
    /// Version of its metadata.
    version: u64,
    /// When it expires, RFC 3339.
    expires: String,
    /// Whole days until then; negative afterwards.
    days: i64,
    /// `good`, `soon` or `expired`.
    state: &'static str,
}

pub(super) fn run(project: &Project, args: &Args) -> Result<ExitCode> {
    let content = super::root(&project.keys_dir())?;
    let mut roles = vec![Validity {
        role: "root".to_owned(),
        version: root::version(&content)?,
        expires: root::expires(&content)?,
    }];
    roles.extend(author::validity(
        &content,
        &project.updates_dir().join("tuf"),
    )?);
    let now = Timestamp::now().as_second();
    let lines: Vec<Line> = roles
        .iter()
        .map(|role| line(role, now, args.within))
        .collect();
    if args.json {
        print::json(&lines)?;
    } else {
        let table: String = lines
            .iter()
            .map(|l| {
                let Line {
                    role,
                    version,
                    expires,
                    days,
                    state,
                } = l;
                format!("{role:12} {version:>6}  {expires}  {days:>5} days  {state}\n")
            })
            .collect();
        print::text(&table)?;
    }
    Ok(match worst(&lines) {
        None => ExitCode::SUCCESS,
        Some(code) => ExitCode::from(code),
    })
}

fn line(role: &Validity, now: i64, within: Option<u32>) -> Line {
    let warn = match (within, role.role.as_str()) {
        (Some(days), _) => i64::from(days),
        (None, "root") => 90,
        (None, "snapshot" | "timestamp") => 7,
        (None, _) => 30,
    };
    let left = role.expires.saturating_sub(now);
    let state = match left {
        left if left <= 0 => "expired",
        left if left <= warn * DAY => "soon",
        _ => "good",
    };
    Line {
        role: role.role.clone(),
        version: role.version,
        expires: Timestamp::from_second(role.expires)
            .map_or_else(|_| "never".to_owned(), |t| t.to_string()),
        days: left.div_euclid(DAY),
        state,
    }
}

fn worst(lines: &[Line]) -> Option<u8> {
    let any = |state: &str| lines.iter().any(|line| line.state == state);
    if any("expired") {
        return Some(exit::HAS_EXPIRED);
    }
    any("soon").then_some(exit::EXPIRES_SOON)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_warns_in_its_own_time() {
        let now = 1_800_000_000;
        for (role, days, within, state, code) in [
            ("root", 91, None, "good", None),
            ("root", 90, None, "soon", Some(10)),
            ("targets", 31, None, "good", None),
            ("pi", 29, None, "soon", Some(10)),
            ("timestamp", 8, None, "good", None),
            ("timestamp", 7, None, "soon", Some(10)),
            ("timestamp", 8, Some(10), "soon", Some(10)),
            ("timestamp", 0, None, "expired", Some(11)),
            ("snapshot", -3, Some(0), "expired", Some(11)),
        ] {
            let role = Validity {
                role: role.to_owned(),
                version: 1,
                expires: now + days * DAY,
            };
            let line = line(&role, now, within);
            assert_eq!((line.state, line.days), (state, days), "{role:?}");
            assert_eq!(worst(&[line]), code, "{role:?}");
        }
    }
}
