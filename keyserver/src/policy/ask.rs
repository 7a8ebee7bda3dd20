//! What is asked of the policy: who, which key, what for, and under which circumstances.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use keyless_protocol::SignatureScheme;

use super::rights::Right;
use super::rules::ClientId;
use crate::handshake::{Claim, Statement};

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The `[[clients]]` entry that its certificate fits.
    pub client: Option<ClientId>,
    /// The address of its end of the TCP connection. What a request says about its visitor's address is the
    /// edge's word and not looked at.
    pub address: IpAddr,
}

/// One question to the policy.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// Who asks.
    pub client: ClientId,
    /// The position of the key in the key table.
    pub key: u32,
    /// What for.
    pub right: Right,
    /// What is to be signed, where the operation sees it.
    pub facts: Option<Facts<'a>>,
    /// How long a delegated credential shall be good for, where the request says so.
    pub lifetime: Option<Duration>,
    /// Where the client is connected from.
    pub address: IpAddr,
    /// Monotonic time, for rates.
    pub now: Instant,
    /// The time of day; none: it is read where a grant depends on it.
    pub at: Option<SystemTime>,
}

/// What a grant may look at in what is to be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    /// With this scheme.
    pub scheme: SignatureScheme,
    /// What it is.
    pub handshake: Handshake<'a>,
}

/// As much of a handshake as the edge has shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake<'a> {
    /// The string of TLS 1.3: a hash, which tells nothing.
    Hashed,
    /// The messages of TLS 1.3.
    Shown {
        /// The name that the client asked for.
        server_name: Option<&'a [u8]>,
        /// The protocol that the server selected.
        protocol: Option<&'a [u8]>,
        /// The client offered X25519MLKEM768 and did not get it.
        passes_over_post_quantum: bool,
    },
    /// The string of TLS 1.2.
    Tls12 {
        /// `server_random` ends with the downgrade sentinel.
        says_downgrade: bool,
    },
}

impl<'a> From<&Claim<'a>> for Facts<'a> {
    fn from(claim: &Claim<'a>) -> Self {
        let handshake = match &claim.statement {
            Statement::CertificateVerify => Handshake::Hashed,
            Statement::Transcript(transcript) => Handshake::Shown {
                server_name: transcript.server_name(),
                protocol: transcript.protocol(),
                passes_over_post_quantum: transcript.passes_over_post_quantum(),
            },
            Statement::ServerKeyExchange(exchange) => Handshake::Tls12 {
                says_downgrade: exchange.says_downgrade,
            },
        };
        Self {
            scheme: claim.scheme,
            handshake,
        }
    }
}
