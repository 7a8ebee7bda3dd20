#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod algorithm;
mod backoff;
mod builder;
mod calls;
mod client;
pub mod conn;
mod der;
mod driver;
pub mod error;
mod key;
mod link;
mod tls;

pub use algorithm::SignatureAlgorithm;
pub use builder::ClientBuilder;
pub use client::Client;
pub use conn::Connection;
pub use error::{ConfigError, Error, Fault};
pub use key::KeyId;
pub use keyless_protocol::{ErrorCode, KeyEntry, KeyList, Opcode, Reply, Request, ServerInfo, Ski};
pub use tls::TlsIdentity;
