//! Keys in tokens: a real SoftHSM, behind a module that fails on demand (`tests/pkcs11-shim`).

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a failure ends the test"
)]

#[path = "pkcs11/device.rs"]
mod device;
#[path = "pkcs11/failures.rs"]
mod failures;
#[path = "pkcs11/hangs.rs"]
mod hangs;
#[path = "pkcs11/kryoptic.rs"]
mod kryoptic;
#[path = "pkcs11/limits.rs"]
mod limits;
#[path = "pkcs11/loading.rs"]
mod loading;
#[path = "pkcs11/missing.rs"]
mod missing;
#[path = "pkcs11/pins.rs"]
mod pins;
#[path = "pkcs11/recovery.rs"]
mod recovery;
