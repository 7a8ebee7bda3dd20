//! Client for key servers that speak the Keyless protocol.

pub mod conn;
pub mod error;
mod tls;

pub use conn::Connection;
pub use error::{ConfigError, Error, Fault};
pub use keyless_protocol::{ErrorCode, KeyEntry, KeyList, Opcode, Reply, Request, ServerInfo, Ski};
pub use tls::TlsIdentity;
