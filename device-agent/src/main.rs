//! The program on the device.
#![forbid(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// What libostree and GIO read from the environment. It must stand there before they are first used, and
/// changing one's own environment is not sound; so the program starts itself once more with it.
const ENVIRONMENT: [(&str, &str); 2] = [
    ("OSTREE_GRUB2_EXEC", device_agent::grub_menu::PROGRAM),
    // No D-Bus and no plug-ins for plain files.
    ("GIO_USE_VFS", "local"),
];

fn main() -> ExitCode {
    let missing = ENVIRONMENT
        .iter()
        .any(|(name, _)| std::env::var_os(name).is_none());
    if missing {
        let own = ENVIRONMENT
            .iter()
            .filter(|(name, _)| std::env::var_os(name).is_none());
        let mut args = std::env::args_os();
        let name = args.next().unwrap_or_else(|| "device-agent".into());
        let error = Command::new("/proc/self/exe")
            .arg0(name)
            .args(args)
            .envs(own.copied())
            .exec();
        eprintln!("device-agent: starting with its environment: {error}");
        return ExitCode::from(1);
    }
    device_agent::cli::main(std::env::args_os().collect())
}
