//! Treeline's delta format: what leads from one OSTree commit to another, small, applied as a stream.
//!
//! Files of the new commit are built from files of the old one. Where both are ELF files, fields that depend
//! on where things stand (branches, addresses, relocations, symbols, unwind tables) are predicted from
//! where these things have moved, and only what is not as predicted is coded. The format is described in
//! `docs/src/delta-format.md`. Applying is here always; making needs the feature `make`.

#![forbid(unsafe_code)]

mod aim;
mod apply;
mod bytes;
mod code;
mod content;
mod elf;
mod error;
mod fields;
mod header;
mod image;
mod layout;
#[cfg(feature = "make")]
mod make;
mod object;
mod packed;
mod pieces;
mod plan;
mod sites;
mod source;
mod stream;
mod tape;
mod zstd;

pub use apply::{apply, Applied, NewFile, OldFile, Repository};
pub use error::Error;
pub use header::Header;
#[cfg(feature = "make")]
pub use make::{make, FileCost, Made, Objects};
pub use object::{Checksum, Kind};
pub use source::{FileSource, Scratch, Source};
pub use stream::VERSION;

#[cfg(any(test, fuzzing))]
mod memory;

#[cfg(fuzzing)]
pub mod fuzz;

#[cfg(test)]
mod tests;
