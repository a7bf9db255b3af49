//! Zstandard frames (RFC 8878): a compressed file is taken apart into its content and the decisions of whoever
//! compressed it, and put together from these, bit by bit the same.

mod bits;
pub(crate) mod block;
mod codes;
pub(crate) mod decisions;
pub(crate) mod frame;
mod fse;
pub(crate) mod guide;
mod huffman;
pub(crate) mod matches;
pub(crate) mod recent;

use crate::Error;

/// The frame is not what Zstandard writes.
pub(crate) const BAD: Error = Error::Damaged("a compressed part is not what it should be");
