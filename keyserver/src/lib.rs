//! The key server.

pub mod admin;
pub mod clock;
pub mod commands;
pub mod config;
pub mod dispatch;
pub mod framing;
pub mod limits;
pub mod logging;
pub mod policy;
pub mod shard;
pub mod shutdown;
pub mod snapshot;
pub mod state;
pub mod tls;
