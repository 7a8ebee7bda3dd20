//! Everything the client does with TLS, and the only place that names `rustls`.
//!
//! `identity` holds the certificates and the settings of every connection; `session` is one
//! connection's TLS state, driven with plain byte slices; `once` is a connection for one question;
//! `signing_key` is a remote key for servers that use rustls themselves, and `tickets` are what they resume sessions
//! with.

mod identity;
mod once;
mod session;
mod signing_key;
mod tickets;

pub use identity::TlsIdentity;
pub(crate) use identity::tls_error;
pub(crate) use once::once;
pub(crate) use session::TlsSession;
pub use signing_key::RemoteKey;
pub use tickets::{SealedTickets, SharedTickets};
