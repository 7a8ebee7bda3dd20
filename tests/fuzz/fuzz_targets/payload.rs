//! Feeds any bytes to `properties::payload`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::payload(data));
