//! Proxies and tools as Debian has them, with their keys on a real key server, through the PKCS#11
//! module.
//!
//! | module | program |
//! |---|---|
//! | [`pkcs11_tool`] | OpenSC's pkcs11-tool: lists, and signatures of every mechanism |
//! | [`nginx`] | nginx with several workers: handshakes while it is reloaded, a key server that goes and comes back |
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where something is wrong, and says so by panicking there"
)]

mod edge;
mod nginx;
mod pkcs11_tool;
