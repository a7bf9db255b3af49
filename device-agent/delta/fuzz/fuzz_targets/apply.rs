//! Whatever a delta says, applying it ends, within its limits, without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| treeline_delta::fuzz::apply(bytes));
