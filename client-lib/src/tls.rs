//! Everything the client does with TLS, and the only place that names `rustls`.
//!
//! `identity` holds the certificates and the settings of every connection; `session` is one
//! connection's TLS state, driven with plain byte slices; `signing_key` is a remote key for servers that
//! use rustls themselves.

mod identity;
mod session;
mod signing_key;

pub use identity::TlsIdentity;
pub(crate) use identity::tls_error;
pub(crate) use session::TlsSession;
pub use signing_key::RemoteKey;
