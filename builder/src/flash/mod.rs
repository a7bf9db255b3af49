//! Writing images to disks and cards.
//!
//! Decide, then do: `device` tells what may be written to at all, `plan` what would be written, `engine`
//! writes. The rules that protect data are types: a [`target::Guard`] refuses every byte that must be kept,
//! and the first MiB, without which nothing boots, until a [`target::Verified`] says that all else was read
//! back and is right.

pub mod buffer;
pub mod choose;
pub mod device;
pub mod download;
pub mod emmc_boot;
pub mod engine;
pub mod interrupt;
pub mod journal;
pub mod plan;
pub mod problem;
pub mod report;
pub mod run;
pub mod settings;
pub mod source;
pub mod table;
pub mod target;
mod worker;
