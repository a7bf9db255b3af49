//! The device as it stands: configuration, what has booted, what the boot environment says about it.

use anyhow::{Context, Result};
use bsp::boot::entry;
use bsp::boot::state::{self, BootState, Verdict};
use bsp::boot::store::BootStore;
use bsp::device::DeviceConfig;

use crate::paths::Paths;
use crate::problem::{Kind, Problem};
use crate::{boot_place, record, sysroot};

/// What follows from boot state, boot menu and the running deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Situation {
    /// The confirmed deployment runs, nothing is armed.
    Confirmed,
    /// The running deployment is on trial.
    OnTrial {
        /// Boots left if this one fails.
        tries_left: u8,
    },
    /// A new deployment is armed and first in the menu; the reboot is still to come.
    Pending {
        /// Its identity.
        id: String,
    },
    /// The boot loader has returned from a failed deployment.
    FellBack {
        /// Its identity.
        failed: String,
    },
    /// Armed, but the switch never happened.
    ArmedNotSwitched {
        /// Identity that was armed.
        armed: String,
    },
    /// The running deployment was given up; the reboot is still to come.
    Rejected,
    /// The boot state is unreadable or names something else.
    Lost,
}

/// Draws the situation. `pending` is the identity that was switched to *during this boot*: only that tells
/// a switch that waits for its reboot from a trial that has failed.
pub fn situation(
    state: Option<&BootState>,
    booted: &str,
    entries: &[String],
    pending: Option<&str>,
) -> Situation {
    match state::judge(state, booted, entries) {
        Verdict::Confirmed => Situation::Confirmed,
        Verdict::OnTrial { tries_left } => Situation::OnTrial { tries_left },
        Verdict::FellBack { failed } if pending == Some(failed.as_str()) => {
            Situation::Pending { id: failed }
        }
        Verdict::FellBack { failed } => Situation::FellBack { failed },
        Verdict::ArmedNotSwitched { armed } => Situation::ArmedNotSwitched { armed },
        Verdict::Lost => Situation::Lost,
    }
}

/// The device.
#[derive(Debug, Clone)]
pub struct Device {
    /// Where everything stands.
    pub paths: Paths,
    /// Its configuration.
    pub config: DeviceConfig,
    /// Identity of the running deployment.
    pub booted: String,
}

impl Device {
    /// Puts together what is known before anything else is opened.
    pub fn new(paths: Paths, config: DeviceConfig) -> Result<Self> {
        let file = paths.at("proc/cmdline");
        let cmdline = std::fs::read_to_string(&file)
            .with_context(|| format!("reading {}", file.display()))?;
        let booted = sysroot::id_in(&cmdline).ok_or_else(|| {
            Problem::new(
                Kind::State,
                format!("the kernel command line has no {}", bsp::device::ID_KARG),
            )
            .hint("this system was not booted from a Treeline image")
        })?;
        Ok(Self {
            paths,
            config,
            booted,
        })
    }

    /// Checksum of the running commit.
    pub fn booted_commit(&self) -> &str {
        crate::failed::commit_of(&self.booted)
    }

    /// The boot environment.
    pub fn store(&self) -> Result<Box<dyn BootStore>> {
        boot_place::open(&self.paths, &self.config.boot)
    }

    /// Identities in the boot menu, the default one first. Works even where libostree refuses to.
    pub fn entries(&self) -> Result<Vec<String>> {
        let entries = entry::load_dir(&self.paths.loader())
            .context(Problem::new(Kind::BootState, "reading the boot menu"))?;
        Ok(entry::identities(&entries))
    }

    /// The situation now.
    pub fn situation(&self, store: &dyn BootStore) -> Result<Situation> {
        if self.rejected_file().exists() {
            return Ok(Situation::Rejected);
        }
        let state = store
            .read_state()
            .context(Problem::new(Kind::BootState, "reading the boot state"))?;
        Ok(situation(
            state.as_ref(),
            &self.booted,
            &self.entries()?,
            self.pending().as_deref(),
        ))
    }

    fn pending_file(&self) -> std::path::PathBuf {
        self.paths.run().join("pending")
    }

    fn rejected_file(&self) -> std::path::PathBuf {
        self.paths.run().join("rejected")
    }

    /// Notes that the running deployment was given up: until the reboot, nobody may take the state that says
    /// so for a lost one.
    pub fn set_rejected(&self) -> Result<()> {
        record::write(&self.rejected_file(), b"")
    }

    /// Identity that was switched to during this boot, if any.
    pub fn pending(&self) -> Option<String> {
        std::fs::read_to_string(self.pending_file()).ok()
    }

    /// Notes that this boot is switching to `id`, or no longer is.
    pub fn set_pending(&self, id: Option<&str>) -> Result<()> {
        match id {
            Some(id) => record::write(&self.pending_file(), id.as_bytes()),
            None => record::remove(&self.pending_file()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_switch_of_this_boot_is_pending() {
        let entries = ["b".to_string(), "a".to_string()];
        let armed = BootState::confirmed("a").armed("b", 3);
        let cases = [
            (Some("b"), Situation::Pending { id: "b".into() }),
            (None, Situation::FellBack { failed: "b".into() }),
            (Some("x"), Situation::FellBack { failed: "b".into() }),
        ];
        for (pending, want) in cases {
            assert_eq!(situation(Some(&armed), "a", &entries, pending), want);
        }
        assert_eq!(
            situation(Some(&armed), "b", &entries, None),
            Situation::OnTrial { tries_left: 3 }
        );
        assert_eq!(situation(None, "a", &entries, Some("b")), Situation::Lost);
    }
}
