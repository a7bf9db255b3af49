//! Board support: what a board is, where things stand on its disk, and how its boot loader chooses.
//!
//! Every format that both the builder and the device read lives here or in `keys`, once: the boot
//! state block (`boot::grubenv`), boot entries and menus (`boot::entry`, `boot::grub`), the device
//! configuration (`device`) and the board files (`board`). This crate never uses `builder` or
//! `device-agent`.
#![forbid(unsafe_code)]

pub mod block;
pub mod board;
pub mod boot;
pub mod device;
#[cfg(feature = "host")]
pub mod disk;
pub mod efi;
pub mod fat;
pub mod fat_files;
pub mod first_boot;
pub mod loader;
