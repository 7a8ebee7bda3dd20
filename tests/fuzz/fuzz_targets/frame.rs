//! Feeds any bytes to `properties::frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::frame(data));
