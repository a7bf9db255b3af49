//! Whatever stands where a compressed part should be: it is taken apart and comes out the same, or it is refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| treeline_delta::fuzz::frame(bytes));
