//! Feeds any bytes to both curves' signing kernels, on every path.
#![no_main]

#[path = "../lanes_ec.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|data: &[u8]| property::lanes_ec(data));
