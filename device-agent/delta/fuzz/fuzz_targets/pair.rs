//! Whatever two files hold, a delta between them is made and leads from one to the other.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| treeline_delta::fuzz::pair(bytes));
