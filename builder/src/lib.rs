//! The host side: `product.toml` + board → lock → tree → commit → image → release.
//!
//! Data flows one way; every stage is a function of its inputs and is cached by their hash.
//! The command line (`cli`) is thin and calls the stages.
#![forbid(unsafe_code)]

pub mod cache;
pub mod cli;
pub mod command;
pub mod commit;
pub mod compose;
pub mod deploy;
pub mod flash;
pub mod image;
pub mod lock;
pub mod manifest;
pub mod pipeline;
pub mod progress;
pub mod project;
pub mod qemu;
pub mod release;
pub mod scenario;
pub mod secure_boot;
pub mod serve;
pub mod tree;
