//! The key server: private-key operations for TLS terminators elsewhere, over mutual TLS.
//!
//! ```text
//!  control thread          I/O threads                              crypto threads
//!  acceptor -------------> shard: TLS, frames, policy, replies ---> dispatch: queues, engine
//!                            ^                                          |
//!                            +------------ completion ring -------------+
//!  admin threads: metrics, health, reload          state: snapshot, metrics, health
//! ```
//!
//! The binary is a thin shell over this library, so that tests and `keyserver demo` start the same
//! server in their own process: see [`Server`].

pub mod admin;
pub mod clock;
pub mod commands;
pub mod config;
pub mod delegation;
pub mod dispatch;
pub mod ending;
pub mod handshake;
pub mod limits;
pub mod logging;
pub mod meters;
pub mod placement;
pub mod policy;
pub mod snapshot;
pub mod state;
pub mod stops;
pub mod tickets;
pub mod tls;
pub mod tokens;

mod acceptor;
mod alarm;
mod disk;
mod door;
mod engine;
mod framing;
mod info;
pub mod ledger;
mod os;
mod secret_file;
mod selftest;
mod server;
mod shard;
mod shutdown;
mod statefile;
mod turns;
mod wiped;

pub use server::{Server, StartError};
pub use shard::ConnectionId;
