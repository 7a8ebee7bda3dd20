//! TLS towards the edges: certificates and policy in [`certs`], one session's bytes in `session`.

pub mod certs;
pub(crate) mod session;
#[cfg(feature = "trial")]
pub(crate) mod verify;

pub use rustls::ServerConfig;

/// A word for the metric; the whole error goes to the log.
pub(crate) fn failure_reason(error: &rustls::Error) -> &'static str {
    match error {
        rustls::Error::NoCertificatesPresented => "no-certificate",
        rustls::Error::InvalidCertificate(_) => "certificate",
        rustls::Error::PeerIncompatible(_) => "incompatible",
        rustls::Error::AlertReceived(_) => "alert",
        _ => "protocol",
    }
}

/// SHA-256 through the TLS library: the server links no second implementation.
pub(crate) fn sha256(data: &[u8]) -> Option<[u8; 32]> {
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256.tls13()?;
    suite
        .common
        .hash_provider
        .hash(data)
        .as_ref()
        .try_into()
        .ok()
}
