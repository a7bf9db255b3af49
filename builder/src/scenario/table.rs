//! The scenarios, as data: what is offered to the device, what is done to it meanwhile, what must hold
//! afterwards. `run` carries them out; nothing here touches a device.

use bsp::board::Board;

/// One scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// Name on the command line and in reports.
    pub name: &'static str,
    /// What it shows, in one line.
    pub about: &'static str,
    /// The release that the device is offered.
    pub offer: Offer,
    /// What goes wrong.
    pub fault: Fault,
    /// What must hold in the end.
    pub expect: Expect,
    /// Whether `make test` runs it.
    pub quick: bool,
}

impl Scenario {
    /// Why QEMU's machine of `board` cannot play it; `None`: it can.
    pub fn unplayable(&self, board: &Board) -> Option<&'static str> {
        let network = board.qemu.as_ref().is_some_and(|q| q.network);
        match self.fault {
            Fault::ServerGone if !network => Some("this board has no network in QEMU"),
            Fault::Loader(_) if board.replaced_programs().is_none() => {
                Some("this board has no programs for UEFI that devices replace")
            }
            Fault::Altered(_) if !board.starts_own() => Some(
                "this board's boot loader does not check it (`secure-boot = \"own\"` in its section of product.toml)",
            ),
            _ => None,
        }
    }
}

/// The release that a device on the first version is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offer {
    /// A good one.
    Good,
    /// Its kernel finds no init in the initramfs and no root file system, and panics.
    KernelPanic,
    /// Its initramfs waits for a root file system that does not exist.
    InitramfsFails,
    /// Its `/usr/lib/systemd/systemd` cannot be executed.
    InitMissing,
    /// A service that the product's health names crashes.
    ServiceCrash,
    /// A health check says no.
    HealthFalse,
    /// A runaway real-time task starves the whole system soon after boot: only the watchdog helps.
    Hang,
    /// A good one with a newer edition of the programs for UEFI.
    NewLoader,
    /// The same, and what shim starts is no program.
    BrokenLoader,
}

/// What goes wrong besides the release itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The power is cut when the agent stands at this stop point.
    PowerCut(&'static str),
    /// The power is cut while the new deployment boots for the first time.
    PowerCutInTrial,
    /// The server vanishes in the middle of the download, and comes back later.
    ServerGone,
    /// There is no network at all.
    NoNetwork,
    /// The root file system is full.
    DiskFull,
    /// No delta starts from what the device has, and the whole release is not there as one file.
    NoDelta,
    /// A byte of the delta differs.
    TamperedDelta,
    /// The commit is signed with another key than the device trusts; the metadata is right.
    ForeignCommit,
    /// A byte of the signed metadata differs.
    TamperedMetadata,
    /// The metadata has expired.
    ExpiredMetadata,
    /// The metadata is signed with other keys.
    ForeignMetadata,
    /// The release is for another board.
    WrongBoard,
    /// The boot state is overwritten with garbage before a reboot.
    CorruptedState,
    /// The boot state is a valid block of somebody else's.
    ForeignState,
    /// The agent's own state directory is lost after the update.
    LostAgentState,
    /// Two agents start at the same time.
    SecondAgent,
    /// A confirmed device is power cycled again and again.
    PowerCycles,
    /// The programs for UEFI are replaced after the update.
    Loader(LoaderPlay),
    /// A signed file of the new deployment is altered on the disk before its first boot.
    Altered(Signed),
}

/// How the replacement of a boot loader goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoaderPlay {
    /// To its end.
    Whole,
    /// The power is cut at every step.
    Cut,
    /// The new one does not start.
    Broken,
}

/// A file that the boot loader checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signed {
    /// The kernel.
    Kernel,
    /// The initramfs.
    Initramfs,
    /// The script with the kernel's arguments.
    Arguments,
}

/// What must hold in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The new version runs and is confirmed.
    Updated,
    /// The old version runs, is confirmed, and the new one is remembered as failed, with evidence.
    FellBack,
    /// The old version runs and is confirmed, nothing is armed, and the agent ended with this exit code
    /// (see the agent's page in the book).
    Refused(i32),
    /// The old version runs and is confirmed, nothing is armed; a second attempt succeeds.
    OldThenUpdated,
}

// The agent's exit codes.
const LOCKED: i32 = 4;
/// Server or network out of reach.
pub const NETWORK: i32 = 6;
const TRUST: i32 = 7;
const ROOM: i32 = 8;

const fn scenario(
    name: &'static str,
    offer: Offer,
    fault: Fault,
    expect: Expect,
    quick: bool,
    about: &'static str,
) -> Scenario {
    Scenario {
        name,
        about,
        offer,
        fault,
        expect,
        quick,
    }
}

/// Every scenario, in the order they run.
pub const SCENARIOS: &[Scenario] = &[
    scenario(
        "good-update",
        Offer::Good,
        Fault::None,
        Expect::Updated,
        true,
        "a signed delta is fetched, installed, tried and confirmed",
    ),
    scenario(
        "no-delta",
        Offer::Good,
        Fault::NoDelta,
        Expect::Updated,
        false,
        "no delta fits: the objects that are missing are fetched one by one",
    ),
    scenario(
        "kernel-panic",
        Offer::KernelPanic,
        Fault::None,
        Expect::FellBack,
        true,
        "the new kernel panics until its tries are used up",
    ),
    scenario(
        "initramfs-fails",
        Offer::InitramfsFails,
        Fault::None,
        Expect::FellBack,
        false,
        "the new initramfs does not find the root file system",
    ),
    scenario(
        "init-missing",
        Offer::InitMissing,
        Fault::None,
        Expect::FellBack,
        false,
        "the new tree's init cannot be executed",
    ),
    scenario(
        "service-crash",
        Offer::ServiceCrash,
        Fault::None,
        Expect::FellBack,
        false,
        "a service that must run crashes",
    ),
    scenario(
        "health-false",
        Offer::HealthFalse,
        Fault::None,
        Expect::FellBack,
        false,
        "a health check of the new version fails",
    ),
    scenario(
        "hang",
        Offer::Hang,
        Fault::None,
        Expect::FellBack,
        false,
        "the new version hangs; the hardware watchdog resets it",
    ),
    scenario(
        "power-cut-download",
        Offer::Good,
        Fault::PowerCut("download-half"),
        Expect::OldThenUpdated,
        false,
        "the power is cut in the middle of the download",
    ),
    scenario(
        "power-cut-stage",
        Offer::Good,
        Fault::PowerCut("applied"),
        Expect::OldThenUpdated,
        false,
        "the power is cut when the delta has been applied",
    ),
    scenario(
        "power-cut-deploy",
        Offer::Good,
        Fault::PowerCut("deployed"),
        Expect::OldThenUpdated,
        false,
        "the power is cut when the tree is checked out, before arming",
    ),
    scenario(
        "power-cut-arm",
        Offer::Good,
        Fault::PowerCut("armed"),
        Expect::OldThenUpdated,
        false,
        "the power is cut after arming, before the switch",
    ),
    scenario(
        "power-cut-switch",
        Offer::Good,
        Fault::PowerCut("switched"),
        Expect::Updated,
        false,
        "the power is cut right after the switch",
    ),
    scenario(
        "power-cut-trial",
        Offer::Good,
        Fault::PowerCutInTrial,
        Expect::Updated,
        false,
        "the power is cut while the new version boots for the first time",
    ),
    scenario(
        "power-cycles",
        Offer::Good,
        Fault::PowerCycles,
        Expect::Updated,
        false,
        "power cycles of a confirmed device change nothing",
    ),
    scenario(
        "server-gone",
        Offer::Good,
        Fault::ServerGone,
        Expect::OldThenUpdated,
        false,
        "the server vanishes in mid-download; the download is resumed later",
    ),
    scenario(
        "no-network",
        Offer::Good,
        Fault::NoNetwork,
        Expect::Refused(NETWORK),
        false,
        "no server can be reached",
    ),
    scenario(
        "disk-full",
        Offer::Good,
        Fault::DiskFull,
        Expect::Refused(ROOM),
        true,
        "there is no room for the new deployment",
    ),
    scenario(
        "tampered-delta",
        Offer::Good,
        Fault::TamperedDelta,
        Expect::Refused(TRUST),
        false,
        "a byte of the delta was changed on the server",
    ),
    scenario(
        "foreign-commit",
        Offer::Good,
        Fault::ForeignCommit,
        Expect::Refused(TRUST),
        false,
        "the commit is signed with a key the device does not trust",
    ),
    scenario(
        "tampered-metadata",
        Offer::Good,
        Fault::TamperedMetadata,
        Expect::Refused(TRUST),
        true,
        "a byte of the signed metadata was changed on the server",
    ),
    scenario(
        "expired-metadata",
        Offer::Good,
        Fault::ExpiredMetadata,
        Expect::Refused(TRUST),
        false,
        "the repository's metadata has expired",
    ),
    scenario(
        "foreign-metadata",
        Offer::Good,
        Fault::ForeignMetadata,
        Expect::Refused(TRUST),
        false,
        "the repository is signed with other keys",
    ),
    scenario(
        "wrong-board",
        Offer::Good,
        Fault::WrongBoard,
        Expect::Refused(TRUST),
        true,
        "the release is for another board",
    ),
    scenario(
        "second-agent",
        Offer::Good,
        Fault::SecondAgent,
        Expect::Refused(LOCKED),
        true,
        "two agents at the same time: the second one steps back",
    ),
    scenario(
        "corrupted-state",
        Offer::Good,
        Fault::CorruptedState,
        Expect::Updated,
        false,
        "garbage in the boot state: the last good deployment boots and heals it",
    ),
    scenario(
        "foreign-state",
        Offer::Good,
        Fault::ForeignState,
        Expect::Updated,
        false,
        "a foreign boot state: the last good deployment boots and heals it",
    ),
    scenario(
        "lost-agent-state",
        Offer::Good,
        Fault::LostAgentState,
        Expect::Updated,
        false,
        "the agent's own state directory is lost: nothing else is",
    ),
    scenario(
        "loader-update",
        Offer::NewLoader,
        Fault::Loader(LoaderPlay::Whole),
        Expect::Updated,
        false,
        "new programs for UEFI are tried by the firmware, and kept",
    ),
    scenario(
        "loader-power-cut",
        Offer::NewLoader,
        Fault::Loader(LoaderPlay::Cut),
        Expect::Updated,
        false,
        "the power is cut at every step of replacing the programs for UEFI",
    ),
    scenario(
        "loader-broken",
        Offer::BrokenLoader,
        Fault::Loader(LoaderPlay::Broken),
        Expect::Updated,
        false,
        "new programs for UEFI do not start: the firmware goes back to the old ones",
    ),
    scenario(
        "altered-kernel",
        Offer::Good,
        Fault::Altered(Signed::Kernel),
        Expect::FellBack,
        false,
        "the new kernel is altered on the disk: the boot loader refuses it",
    ),
    scenario(
        "altered-initramfs",
        Offer::Good,
        Fault::Altered(Signed::Initramfs),
        Expect::FellBack,
        false,
        "the new initramfs is altered on the disk: the boot loader refuses it",
    ),
    scenario(
        "altered-arguments",
        Offer::Good,
        Fault::Altered(Signed::Arguments),
        Expect::FellBack,
        false,
        "the new kernel's arguments are altered on the disk: the boot loader refuses them",
    ),
];

/// The scenarios that a list of names asks for; an empty list means all (or the quick ones).
///
/// # Errors
/// A name that is not known, with the known ones.
pub fn select(names: &[String], quick: bool) -> Result<Vec<&'static Scenario>, String> {
    if names.is_empty() {
        return Ok(SCENARIOS.iter().filter(|s| !quick || s.quick).collect());
    }
    names
        .iter()
        .map(|name| {
            SCENARIOS.iter().find(|s| s.name == name).ok_or_else(|| {
                let known: Vec<&str> = SCENARIOS.iter().map(|s| s.name).collect();
                format!(
                    "there is no scenario \"{name}\"; there are: {}",
                    known.join(", ")
                )
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found_and_few_are_unplayable() {
        for s in SCENARIOS {
            let found = select(&[s.name.to_string()], false).unwrap();
            assert_eq!(found, [s], "{} stands twice", s.name);
        }
        assert!(select(&["nonsense".into()], false)
            .unwrap_err()
            .contains("good-update"));
        for (id, count) in [("rpi4", 7), ("x86_64-bios", 6), ("x86_64-uefi", 3)] {
            let board = bsp::board::builtin(id).unwrap();
            let not = SCENARIOS.iter().filter(|s| s.unplayable(&board).is_some());
            assert_eq!(not.count(), count, "{id}");
        }
        let mut own = bsp::board::builtin("x86_64-uefi").unwrap();
        own.boot.secure_boot = bsp::board::SecureBoot::Own;
        let not = SCENARIOS.iter().filter(|s| s.unplayable(&own).is_some());
        assert!(not.clone().all(|s| matches!(s.fault, Fault::Loader(_))));
        assert_eq!(not.count(), 3);
        let quick = select(&[], true).unwrap().len();
        assert!(quick > 0 && quick < SCENARIOS.len());
    }
}
