#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod algorithm;
mod backoff;
pub mod blocking;
mod builder;
mod calls;
mod capabilities;
mod client;
pub mod conn;
mod delegation;
mod der;
mod discovery;
mod driver;
pub mod error;
mod fleet;
mod key;
mod key_exchange;
mod key_pages;
mod link;
mod observe;
mod operation;
mod pool;
mod servers;
mod settings;
#[cfg(test)]
mod silent;
mod tickets;
mod tls;

pub use algorithm::SignatureAlgorithm;
pub use builder::ClientBuilder;
pub use client::Client;
pub use conn::Connection;
pub use delegation::{CredentialKey, DelegatedCredential};
pub use error::{ConfigError, Error, Fault};
pub use key::KeyId;
pub use key_exchange::Secret;
pub use keyless_protocol::key_exchange::{MasterRequest, MasterSeed, PrfHash};
pub use keyless_protocol::tickets::{EpochKey, TicketKeys};
pub use keyless_protocol::{
    ErrorCode, KeyEntry, KeyList, Opcode, Reply, Request, ServerInfo, SignatureScheme, Ski,
};
pub use observe::{Event, Observer};
pub use operation::Operation;
pub use pool::{Pool, PoolBuilder};
pub use tls::{RemoteKey, SealedTickets, SharedTickets, TlsIdentity};
