//! Feeds any bytes to `properties::info`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::info(data));
