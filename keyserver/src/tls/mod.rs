//! TLS towards the edges: certificates and policy in [`certs`], one session's bytes in `session`.

pub mod certs;
pub(crate) mod session;
