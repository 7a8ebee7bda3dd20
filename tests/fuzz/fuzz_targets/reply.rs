//! Feeds any bytes to `properties::reply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::reply(data));
