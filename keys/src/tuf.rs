//! Metadata of The Update Framework as a client reads it: types, canonical JSON, keys, signatures,
//! and which target belongs to which delegated role.
//!
//! Nothing here reads a file or the network. What is signed is checked over the JSON that came, not
//! over what this module knows of it, so fields of later specifications do no harm.
//! Source: The Update Framework Specification 1.0, sections 4 and 5.

pub(crate) mod canonical;
pub(crate) mod key;
pub(crate) mod metadata;
pub(crate) mod pattern;
pub(crate) mod signed;
