//! Keys and trust: key files, commit signatures, release metadata (The Update Framework).
//!
//! Both programs use it; it never uses `builder` or `device-agent`.
#![forbid(unsafe_code)]

pub mod author;
pub mod client;
pub mod commit;
pub mod keyfile;
pub mod release;
