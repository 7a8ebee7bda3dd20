//! The harness of the whole-system tests: certificates, key files, a configuration, and the real
//! `keyserver` binary started on them.
//!
//! | module | what it gives |
//! |---|---|
//! | [`pki`] | a certificate authority for one test, and identities it issued |
//! | [`keys`] | private key files of every type the server loads |
//! | [`fixture`] | a temporary directory laid out as an operator would, and its configuration |
//! | [`server`] | the running process: addresses, log, signals, exit |
//! | [`logs`] | the lines a process printed, and waiting for one |
//! | [`clock`] | keeping away from midnight |
//! | [`http`] | just enough HTTP to read `/metrics` and `/readyz` |
//! | [`binaries`] | where the binaries under test are, built when they are out of date |
//! | [`softhsm`] | a hardware security module in software, with keys in it |
//! | [`wire`] | a connection whose every byte can be seen |
//! | [`handshakes`] | what TLS servers sign, made by hand |
//! | [`parts`] | parts of the system a test needs, skipped by name when missing |
//!
//! The shortest whole-system test:
//!
//! ```no_run
//! use keyserver_tests::{Fixture, KeyKind, KeyServer, ServerConfig};
//!
//! let fixture = Fixture::new();
//! fixture.add_key("shop", KeyKind::P256);
//! let server = KeyServer::start(&fixture, &ServerConfig::default());
//! println!("listening on {}", server.address());
//! assert!(server.stop().success());
//! ```
//!
//! Everything here panics with the server's log when something is wrong: it is test code.
#![forbid(unsafe_code)]
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::must_use_candidate,
    clippy::panic,
    clippy::print_stderr,
    missing_debug_implementations,
    reason = "a harness ends the test when something is wrong, and says so on the test's output"
)]

pub mod binaries;
pub mod clock;
pub mod fixture;
pub mod handshakes;
pub mod http;
pub mod keys;
pub mod logs;
pub mod parts;
pub mod pki;
pub mod server;
pub mod softhsm;
pub mod wire;

pub use fixture::{ClientRule, Fixture, ServerConfig};
pub use keys::KeyKind;
pub use logs::Log;
pub use pki::{Identity, Pki, Usage};
pub use server::KeyServer;
pub use softhsm::SoftHsm;
pub use wire::Wire;
