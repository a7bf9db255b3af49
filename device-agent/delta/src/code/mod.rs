//! Entropy coding: adaptive binary models, mixed, over a binary arithmetic coder.
//!
//! Everything is integer arithmetic, the same on every processor. The functions that code a value exist
//! once for both directions: an encoder is given the value, a decoder returns it.

mod byte;
mod history;
mod mix;
mod number;
mod range;

pub(crate) use byte::{ByteModel, Known, CONTEXTS};
pub(crate) use mix::{hash, table, Model};
pub(crate) use number::Numbers;
#[cfg(feature = "make")]
pub(crate) use range::Encoder;
pub(crate) use range::{BitCoder, Decoder};
