//! Named places where a test stops the agent to cut the power there.
//!
//! With `DEVICE_AGENT_STOP_AT=<name>` in the environment the agent prints one line on standard error
//! when it gets there and then does nothing for ever.

/// Environment variable that names the place.
pub const ENV: &str = "DEVICE_AGENT_STOP_AT";

/// Every place, with what has and has not happened there.
pub const ALL: [(&str, &str); 13] = [
    (
        "first-boot-applied",
        "the first-boot settings have taken effect; their file is not wiped",
    ),
    (
        "download-half",
        "half of the artefact stands in the download directory",
    ),
    (
        "downloaded",
        "the artefact is complete and verified; the repository is untouched",
    ),
    (
        "applied",
        "the commit is verified and stands in the repository under treeline/staged",
    ),
    ("deployed", "the commit is checked out; nothing is armed"),
    (
        "armed",
        "the trial is armed; the boot menu still has the running deployment first",
    ),
    (
        "switched",
        "the boot menu has the new deployment first; the device has not rebooted",
    ),
    (
        "judged",
        "the trial boot was found good; nothing is confirmed",
    ),
    (
        "confirmed-half",
        "the state says confirmed; the spare record still names the one before",
    ),
    (
        "rejected",
        "the trial was given up and the state says so; the device has not rebooted",
    ),
    (
        "loader-written",
        "the new programs for UEFI are on the firmware partition; firmware knows nothing of them",
    ),
    (
        "loader-armed",
        "firmware tries the new programs at the next boot; the device has not rebooted",
    ),
    (
        "loader-tried",
        "the new programs have started this system; firmware's list still has the old ones first",
    ),
];

/// Stops here for ever if the environment says so. `name` must be one of [`ALL`].
pub fn reach(name: &str) {
    debug_assert!(
        ALL.iter().any(|(known, _)| *known == name),
        "unlisted stop point {name}"
    );
    if std::env::var(ENV).is_ok_and(|wanted| wanted == name) {
        eprintln!("device-agent: stopped at {name}");
        loop {
            std::thread::sleep(std::time::Duration::from_secs(3600));
        }
    }
}
