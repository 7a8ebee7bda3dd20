//! What a TLS server signs in a handshake, read before it is signed.
//!
//! A key that signs any digest signs anything: certificate requests, delegated credentials, the
//! revocation of its own certificate. TLS stacks hand their remote signer the whole message, so
//! the key server can look at it. The operations 0x40 and 0x41 sign what one of these readers has
//! understood, and nothing else:
//!
//! | module | reads |
//! |---|---|
//! | [`certificate_verify`] | the string that a TLS 1.3 server signs |
//! | [`server_key_exchange`] | the string that a TLS 1.2 server signs |
//! | [`transcript`] | the TLS 1.3 handshake itself, from which that string is made here |
//!
//! No string is in two of these languages, nor in that of delegated credentials (RFC 9345), nor is
//! any signed object of X.509, ACME or SSH in one of them: `tests/handshake.rs` goes through them.
//!
//! Pure functions over bytes, without allocation; the input is an attacker's.

mod certificate;
pub mod certificate_verify;
mod client_hello;
mod extensions;
mod foreign;
mod reader;
pub mod scheme;
mod server_hello;
pub mod server_key_exchange;
pub mod transcript;

use std::fmt;

use keyless_protocol::{Opcode, SignatureScheme};

pub use certificate_verify::CertificateVerify;
pub use scheme::Version;
pub use server_key_exchange::ServerKeyExchange;
pub use transcript::{Transcript, TranscriptShape};

/// Why something is not what a TLS server signs. For the operator's log; the client gets the same
/// answer whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault(pub(crate) &'static str);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Fault {}

/// What a request wants signed, read and understood.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The scheme to sign with: one that the version knows, and that the client offered where
    /// there is a transcript to see it in.
    pub scheme: SignatureScheme,
    /// What it is.
    pub statement: Statement<'a>,
}

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub enum Statement<'a> {
    /// The string of a TLS 1.3 `CertificateVerify`. What was shaken hands on is for the caller to
    /// know.
    CertificateVerify,
    /// A TLS 1.3 handshake.
    Transcript(Transcript<'a>),
    /// The string of a TLS 1.2 `ServerKeyExchange`.
    ServerKeyExchange(ServerKeyExchange),
}

impl<'a> Claim<'a> {
    /// Reads the payload of [`Opcode::SignTls13`] or [`Opcode::SignTls12`]; nothing for all other
    /// opcodes, which claim nothing about what they sign.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the payload is not what a TLS server signs, or the scheme is not one of that
    /// version.
    pub fn read(
        opcode: Opcode,
        scheme: Option<u16>,
        payload: &'a [u8],
    ) -> Result<Option<Self>, Fault> {
        let version = match opcode {
            Opcode::SignTls13 => Version::Tls13,
            Opcode::SignTls12 => Version::Tls12,
            _ => return Ok(None),
        };
        let number = scheme.ok_or(Fault("the request names no signature scheme (item 0x31)"))?;
        let scheme = SignatureScheme::from_u16(number)
            .filter(|scheme| version.knows(*scheme))
            .ok_or(Fault(
                "the signature scheme is not one that this TLS version is served with",
            ))?;
        let statement = match version {
            Version::Tls12 => Statement::ServerKeyExchange(ServerKeyExchange::read(payload)?),
            Version::Tls13 if payload.first() == Some(&transcript::FIRST_BYTE) => {
                let transcript = Transcript::read(payload)?;
                if !transcript.offers_scheme(number) {
                    return Err(Fault("the client did not offer the signature scheme"));
                }
                Statement::Transcript(transcript)
            }
            Version::Tls13 => {
                CertificateVerify::check(payload)?;
                Statement::CertificateVerify
            }
        };
        Ok(Some(Self { scheme, statement }))
    }
}

impl Statement<'_> {
    /// The TLS version that has such a thing.
    #[must_use]
    pub const fn version(&self) -> Version {
        match self {
            Self::CertificateVerify | Self::Transcript(_) => Version::Tls13,
            Self::ServerKeyExchange(_) => Version::Tls12,
        }
    }
}
