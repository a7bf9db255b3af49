//! What can go wrong.

use std::io;

/// Why a delta could not be made or applied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no delta of this format, or of a later version.
    #[error("the delta has format {found:?}, this program reads {wanted:?}: update the program")]
    Format {
        /// The first bytes.
        found: Vec<u8>,
        /// What they should be.
        wanted: Vec<u8>,
    },
    /// It says what cannot be.
    #[error("the delta cannot be applied: {0}")]
    Damaged(&'static str),
    /// What came out is not the object that the commit names.
    #[error("the delta gives another content than object {0} has")]
    Checksum(String),
    /// More comes out than was allowed.
    #[error("the delta gives more than {0} bytes")]
    Limit(u64),
    /// The file with the delta cannot be read to its end.
    #[error("reading the delta: {0}")]
    Delta(#[source] io::Error),
    /// An object of the old commit cannot be read.
    #[error("reading an object of the commit the delta starts from: {0}")]
    Old(#[source] io::Error),
    /// An object cannot be written.
    #[error("writing an object: {0}")]
    Write(#[source] io::Error),
}
