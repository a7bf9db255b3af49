//! The device side: check → fetch → verify → stage → arm → reboot → judge → confirm | fall back → report.
//!
//! One program, started when there is something to do (a timer, a boot, an operator) and gone afterwards;
//! where there is no timer, [`resident`] starts it.
//! Truth is the boot environment and the deployments; what the agent keeps in `/var/lib/device-agent` can
//! be lost at any time without harm.
#![forbid(unsafe_code)]

pub mod boot_place;
pub mod check;
pub mod cli;
pub mod clock;
pub mod compact;
pub mod config;
pub mod device;
pub mod evidence;
pub mod failed;
pub mod fetch;
pub mod first_boot;
pub mod grub_menu;
pub mod health;
pub mod install;
pub mod judge;
pub mod loader;
pub mod lock;
pub mod notify;
pub mod paths;
pub mod problem;
pub mod record;
pub mod report;
pub mod resident;
pub mod room;
pub mod stage;
pub mod status;
pub mod steps;
pub mod stop_point;
pub mod sysroot;
pub mod system;
pub mod transport;
pub mod trial;
pub mod verify;
pub mod version;
