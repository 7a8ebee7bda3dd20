//! The whole system: the client library against the real daemon, over both I/O backends.
//!
//! | module | shows that |
//! |---|---|
//! | [`operations`] | every kind of operation, mixed and at once, is answered and verifies |
//! | [`rights`] | every condition, limit and purpose of a grant lets through and refuses, in one way |
//! | [`reload`] | SIGHUP under load fails nothing; a broken key file leaves the old state in force and is seen |
//! | [`delegation`] | a delegated credential is what RFC 9345 says, to a verifier that knows nothing else and to NSS in a handshake, and is not issued where it should not be |
//! | [`drain`] | SIGTERM under load delivers every reply in flight |
//! | [`discovery`] | servers found by name come and go with their records, and no signature fails |
//! | [`failover`] | with three servers, one killed, one hung and one drained, no signature fails |
//! | [`full_disk`] | a ledger whose disk is full stops decryption and nothing else, and comes back |
//! | [`https_edge`] | an HTTPS server whose key is elsewhere serves OpenSSL and curl, with the rights to sign TLS and no other |
//! | [`hung_slot`] | a slot that hangs is answered for in time, and touches neither files nor another slot |
//! | [`churn`] | connections that are aborted, time out or are dropped leave no descriptor and no memory behind |
//! | [`idle`] | a connection that was busy gives its buffers back when it has nothing to say |
//! | [`key_exchange`] | every client opens an RSA key exchange, once, to the secrets that the RFCs derive |
//! | [`many_keys`] | looking ahead in a pipeline, where there are very many keys, changes no answer |
//! | [`strangers`] | connections that never prove anything are bounded and do not keep clients from being served |
//! | [`ledger`] | a ciphertext that was answered is answered to nobody else, also after SIGKILL; tokens open key exchanges as files do |
//! | [`loadgen`] | a mixed load of the load generator is answered, and every answer verifies |
//! | [`resumption`] | edges resume each other's sessions until their epoch is revoked, and through an outage |
//! | [`stopping`] | a key that was disabled signs no more, under load and after SIGKILL; others lose nothing |
//! | [`tls_edge`] | `openssl s_client` and curl accept a TLS server whose key is in the key server |
//! | [`tokens`] | keys in a token are served, reloaded and checked like others, and their PIN is seen nowhere |
//! | [`turns`] | one client that pipelines what is dear keeps nobody else waiting, and gets all its answers |
//! | [`uring_rules`] | the faults of tokio-uring that the server works around stay worked around |
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where something is wrong, and says so by panicking there"
)]

use std::time::Duration;

use keyserver_client::{Client, ClientBuilder, TlsIdentity};
use keyserver_tests::{Fixture, KeyKind, KeyServer, ServerConfig};

mod churn;
mod delegation;
mod discovery;
mod drain;
mod failover;
mod full_disk;
mod https_edge;
mod hung_log;
mod hung_slot;
mod idle;
mod key_exchange;
mod ledger;
mod loadgen;
mod many_keys;
mod operations;
mod proc;
mod reload;
mod resumption;
mod rights;
mod stopping;
mod strangers;
mod tls_edge;
mod tokens;
mod turns;
mod uring_rules;
mod verify;

/// Runs each async function, which takes the name of an I/O backend, as a test of its own on each.
macro_rules! on_both_backends {
    ($($name:ident),+ $(,)?) => {
        mod epoll {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name("epoll").await;
            })+
        }
        mod uring {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name("uring").await;
            })+
        }
    };
}
use on_both_backends;

/// A server with these keys on this backend, and everything around it.
struct World {
    fixture: Fixture,
    server: KeyServer,
}

impl World {
    fn new(backend: &str, keys: &[KeyKind]) -> Self {
        Self::with_config(keys, &ServerConfig::default().io_backend(backend))
    }

    fn with_config(keys: &[KeyKind], config: &ServerConfig) -> Self {
        let fixture = Fixture::new();
        for kind in keys {
            fixture.add_key(kind.name(), *kind);
        }
        let server = KeyServer::start(&fixture, config);
        Self { fixture, server }
    }

    fn identity(&self) -> TlsIdentity {
        TlsIdentity::from_files(
            self.fixture.path("pki/ca.pem"),
            self.fixture.path("pki/edge-1.pem"),
            self.fixture.path("pki/edge-1-key.pem"),
        )
        .unwrap()
    }

    /// Deadlines are long: these tests are about what happens, not how fast on a busy machine.
    fn builder(&self) -> ClientBuilder {
        let address = self.server.address().to_string();
        Client::builder(address, "localhost", self.identity())
            .deadline(Duration::from_secs(60))
            .connect_limit(Duration::from_secs(30))
    }

    async fn client(&self) -> Client {
        self.builder().connect().await.unwrap()
    }
}
