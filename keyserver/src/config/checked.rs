//! The configuration as the rest of the server sees it: every value has the type of its meaning,
//! every default is filled in, and nothing in it can be wrong on its own.
//!
//! What these values mean to an operator is written in `systemd/keyserver.toml`; how they are read
//! from TOML, in [`super::build`].

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use accel::VerifyRate;
use keyless_protocol::info::ski_to_hex;

use super::date::Date;
use super::place::Place;
use super::tokens::Pkcs11;
#[cfg(feature = "pkcs11")]
use super::tokens::TokenKeySource;
use crate::limits;
use crate::policy::{Conditions, KeyUse, Limits as GrantLimits, Prefix, Rights, Window};

/// Everything `keyserver run` needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The main file. Relative paths in every file are relative to its directory.
    pub path: PathBuf,
    /// `[listen]`
    pub listen: Listen,
    /// `[tls]`
    pub tls: Tls,
    /// `[admin]`
    pub admin: Admin,
    /// `[metrics]`
    pub metrics: Metrics,
    /// `[ledger] directory`: where the answered ciphertexts are remembered. Always there when a grant
    /// lets somebody open one.
    pub ledger: Option<PathBuf>,
    /// `[tickets] master`: what the keys of session tickets come from. Always there when a grant lets somebody
    /// have them, or have tickets sealed.
    pub tickets: Option<PathBuf>,
    /// `[io]`
    pub io: Io,
    /// `[accel]`
    pub accel: Accel,
    /// `[limits]`
    pub limits: Limits,
    /// `[shutdown]`
    pub shutdown: Shutdown,
    /// `[pkcs11]`
    pub pkcs11: Pkcs11,
    /// `[[keys]]`, in file order.
    pub keys: Vec<KeySource>,
    /// `[[clients]]`, in file order. Where a certificate fits several, the first one counts.
    pub clients: Vec<Client>,
}

/// Where clients connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// TCP address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Completed connections that the kernel may keep waiting.
    pub backlog: u32,
}

/// The server's own certificate, and what it demands of peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// PEM chain, leaf first.
    pub certificate: PathBuf,
    /// PEM private key of the leaf.
    pub private_key: PathBuf,
    /// PEM certificates that sign client certificates.
    pub client_ca: PathBuf,
    /// The oldest TLS version that is accepted.
    pub minimum: TlsVersion,
    /// Refuse a key exchange without ML-KEM. Implies TLS 1.3.
    pub require_post_quantum: bool,
}

/// A TLS version that this server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2: what stock Keyless clients speak.
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// The control socket of `ksctl`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Admin {
    /// UNIX socket path; none: no control socket.
    pub socket: Option<PathBuf>,
    /// Directory of what must survive a restart; none: nothing does.
    pub state: Option<PathBuf>,
}

/// The HTTP listener of `/metrics`, `/livez`, `/readyz` and `/state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metrics {
    /// TCP address; none: no listener.
    pub address: Option<SocketAddr>,
}

/// How connections are driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Io {
    /// Which kernel interface moves the bytes.
    pub backend: IoBackend,
    /// I/O threads; none: chosen from the CPUs this process may use.
    pub threads: Option<usize>,
}

/// The kernel interface of the I/O threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IoBackend {
    /// io_uring where the kernel allows it, epoll otherwise.
    #[default]
    Auto,
    /// io_uring, or do not start.
    Uring,
    /// epoll.
    Epoll,
}

/// How private-key operations are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accel {
    /// Which engine computes.
    pub engine: EngineChoice,
    /// Crypto threads; none: one per CPU this process may use.
    pub threads: Option<usize>,
    /// The share of ECDSA and EdDSA results that are verified before they are released. RSA
    /// results always are.
    pub verify_ecdsa: VerifyRate,
    /// Whether crypto threads without work prepare nonces of ECDSA; see [`accel::Engine::precompute_ecdsa`].
    pub precompute_ecdsa: bool,
}

/// The engine of the crypto threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineChoice {
    /// Eight lanes where the CPU has AVX-512 IFMA and it pays, single operations otherwise.
    #[default]
    Auto,
    /// Lanes wherever the engine has them, also on a CPU without AVX-512 IFMA (slow; for tests).
    Lanes,
    /// Single operations only.
    Single,
}

/// Bounds that the operator may move. The fixed ones are in [`crate::limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at one time, half-open ones included.
    pub connections: usize,
    /// Of those, from one IPv4 address or IPv6 /64.
    pub connections_per_source: usize,
    /// Handshakes under way at one time; past it the oldest is closed.
    pub handshakes: usize,
    /// Of those, from one source.
    pub handshakes_per_source: usize,
    /// Handshakes that one source may begin in a second.
    pub handshake_rate_per_source: usize,
    /// Unanswered requests of one connection before the server stops reading from it.
    pub in_flight_per_connection: usize,
    /// Bytes of replies a slow reader may leave waiting.
    pub output_bytes: usize,
    /// Time for the TLS handshake.
    pub handshake_deadline: Duration,
    /// Time a request may wait for a crypto thread.
    pub job_deadline: Duration,
    /// Work that may wait in a class, in time that the crypto threads need for it.
    pub queue_time: Duration,
    /// Delegated credentials of one client for one key that may be live at one time.
    pub live_credentials: usize,
}

/// How the server goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// Time over which the closes of live connections are spread.
    pub spread: Duration,
    /// Time after which connections that are still open are cut.
    pub limit: Duration,
}

/// One `[[keys]]` entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySource {
    /// One file, every `*.key` of a directory, or a key in a token.
    pub location: KeyLocation,
    /// The name of a single key, instead of its file's stem. A key in a token always has one.
    pub label: Option<String>,
    /// What the keys are for.
    pub usage: Arc<KeyUse>,
    /// A certificate that must carry the same public key; for a single key.
    pub certificate: Option<PathBuf>,
    /// Labels of RSA keys whose public exponent need not be 65537.
    pub allow_exponents: BTreeSet<String>,
    /// Labels of keys whose files their group or everybody may read.
    pub allow_weak_permissions: BTreeSet<String>,
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyLocation {
    /// Every `*.key` in a directory, in name order.
    Directory(PathBuf),
    /// One file.
    File(PathBuf),
    /// A key that stays in a token.
    #[cfg(feature = "pkcs11")]
    Token(TokenKeySource),
}

/// One `[[clients]]` entry: who it is, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Name in logs and metrics; unique.
    pub name: String,
    /// Its share of the server while others wait, relative to theirs: 1 to 1000.
    pub weight: u32,
    /// A certificate that fits any of these is this client.
    pub matches: Vec<Match>,
    /// What it may do; the union of all.
    pub grants: Vec<Grant>,
    /// Where it stands.
    pub place: Place,
}

/// A property of a client certificate, compared exactly.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Match {
    /// A DNS subject alternative name, in lower case.
    Dns(String),
    /// A URI subject alternative name, for example a SPIFFE id.
    Uri(String),
    /// The subject as `CN=edge-1,O=Bank`, in the order of the certificate.
    Subject(String),
    /// SHA-256 over the DER SubjectPublicKeyInfo.
    SpkiSha256([u8; 32]),
}

/// Some rights on some keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Which keys: any of these.
    pub keys: Vec<KeyPattern>,
    /// What may be done with them.
    pub allow: Rights,
    /// The last day, in UTC, on which this grant counts.
    pub expires: Option<Date>,
    /// What a TLS handshake must be like before it is signed.
    pub conditions: Conditions,
    /// The longest time for which a delegated credential may be issued. Where none is given,
    /// [`limits::CREDENTIAL_LIFETIME`] counts.
    pub max_credential_lifetime: Option<Duration>,
    /// The networks it may be used from; empty: anywhere.
    pub sources: Vec<Prefix>,
    /// When in the week it counts.
    pub window: Window,
    /// How often it may be used.
    pub limits: GrantLimits,
    /// Where it stands.
    pub place: Place,
}

/// Names keys in a grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyPattern {
    /// The one key with this subject key identifier.
    Ski([u8; 20]),
    /// Every key whose label fits; `*` stands for any characters, `?` for one. If there is none and these are 40
    /// hexadecimal digits, the key with this subject key identifier.
    Label(String),
}

impl Config {
    /// Settings that are allowed but rarely meant.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let file = self.path.display();
        if let Some(address) = self
            .metrics
            .address
            .filter(|address| !address.ip().is_loopback())
        {
            warnings.push(format!(
                "{file}: [metrics] address {address} can be reached from other machines, in clear text and by anyone; use a loopback address or a management network"
            ));
        }
        if self.clients.is_empty() {
            warnings.push(format!(
                "{file}: there is no [[clients]] entry: nobody may use a key; add one"
            ));
        }
        for client in self
            .clients
            .iter()
            .filter(|client| client.grants.is_empty())
        {
            warnings.push(format!(
                "{file}: client \"{}\" has no [[clients.grants]]: it may not use any key",
                client.name
            ));
        }
        if self.accel.engine == EngineChoice::Lanes {
            warnings.push(format!(
                "{file}: [accel] engine = \"lanes\" is for tests; \"auto\" picks what is faster"
            ));
        }
        warnings
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            address: SocketAddr::new(
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                keyless_protocol::DEFAULT_PORT,
            ),
            backlog: limits::LISTEN_BACKLOG,
        }
    }
}

impl Default for Accel {
    fn default() -> Self {
        Self {
            engine: EngineChoice::Auto,
            threads: None,
            verify_ecdsa: VerifyRate::default(),
            precompute_ecdsa: false,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: limits::CONNECTIONS_MAX,
            connections_per_source: limits::CONNECTIONS_PER_SOURCE,
            handshakes: limits::HANDSHAKES,
            handshakes_per_source: limits::HANDSHAKES_PER_SOURCE,
            handshake_rate_per_source: limits::HANDSHAKE_RATE_PER_SOURCE,
            in_flight_per_connection: limits::IN_FLIGHT_PER_CONNECTION,
            output_bytes: limits::OUTPUT_BYTES_MAX,
            handshake_deadline: limits::HANDSHAKE_DEADLINE,
            job_deadline: limits::JOB_DEADLINE,
            queue_time: limits::QUEUE_TIME,
            live_credentials: limits::LIVE_CREDENTIALS,
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            spread: limits::DRAIN_SPREAD,
            limit: limits::DRAIN_LIMIT,
        }
    }
}

impl fmt::Display for Match {
    /// As it is written in the configuration.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Uri(uri) => write!(f, "uri:{uri}"),
            Self::Subject(subject) => write!(f, "subject:{subject}"),
            Self::SpkiSha256(hash) => {
                f.write_str("spki-sha256:")?;
                hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    }
}

impl fmt::Display for KeyPattern {
    /// As it is written in the configuration, in quotes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ski(ski) => write!(f, "\"{}\"", ski_to_hex(ski)),
            Self::Label(glob) => write!(f, "\"{}\"", glob.escape_debug()),
        }
    }
}
