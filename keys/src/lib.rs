//! Keys and trust: key files, commit signatures, release metadata (The Update Framework).
//!
//! Both programs use it; it never uses `builder` or `device-agent`. What needs a private key
//! ([`keyfile`], [`author`]) stands behind the feature `host`, so that the device does not link it.
#![forbid(unsafe_code)]

#[cfg(feature = "host")]
pub mod author;
pub mod client;
pub mod commit;
#[cfg(feature = "host")]
pub mod keyfile;
pub mod pin;
pub mod release;
#[cfg(feature = "host")]
pub mod signer;
mod tuf;
