//! What the people who run the server see: metrics and health over HTTP, and the control socket
//! of `ksctl`. All of it lives on threads of its own; a scrape never waits for a key operation,
//! and a key operation never waits for a scrape.

pub mod http;
pub mod metrics;
pub mod process;
pub mod protocol;
pub mod socket;
pub mod status;
