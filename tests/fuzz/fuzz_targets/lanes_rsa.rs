//! Moduli and operands for the RSA kernels: every path gives the oracle's number, in its range.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| accel_lanes::properties::rsa_kernels(data));
