//! A key server as one writes it first, to attack: it shares the wire format and the arithmetic with ours and nothing
//! else, neither policy nor grammars nor ledger nor the way in which it opens a ciphertext.
//!
//! It makes the [`Mistake`] it is told to make, and no other.
//!
//! | file | noun |
//! |---|---|
//! | `mod.rs` | connections: TLS with client certificates, frames, a thread for each |
//! | `answers.rs` | what is answered to a request |
//! | `opening.rs` | ciphertexts: unpadding, substitutes, memory of what was opened |

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use accel::Key;
use keyless_protocol::{ErrorCode, Reply, Request, Ski, split_frame};
use keyserver_tests::Fixture;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

mod answers;
mod opening;

/// What a server can get wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// 0x01 gives the block as it is.
    TextbookRsa,
    /// A bad padding gets a new random secret each time.
    RandomSubstitute,
    /// The version in the block is compared, and a wrong one is an error.
    ComparedVersion,
    /// The separator is searched for, and in another place it is an error.
    SearchedSeparator,
    /// What stands behind the separator is the answer, whatever its length.
    WhateverIsBehind,
    /// A bad padding is an error.
    PaddingError,
    /// A bad padding gets a shorter answer.
    ShortAnswer,
    /// A bad padding is answered early, and the master secret is not computed.
    EarlyExit,
    /// 0x40 and 0x41 sign whatever they are sent.
    SignsAnything,
    /// 0x40 and 0x41 take each other's strings.
    OneGrammar,
    /// 0x40 looks at the 64 spaces and no further.
    SpacesOnly,
    /// Whoever may sign for TLS may sign digests.
    SignsDigests,
    /// Nobody remembers what was opened.
    NoLedger,
    /// Each client has a memory of its own.
    LedgerOfEachClient,
    /// What was opened is forgotten with the process.
    LedgerInMemory,
    /// Every client may use every key.
    NoRights,
    /// A key may be used for anything.
    AnyPurpose,
    /// A key that does not exist has an error of its own.
    TellsWhatExists,
    /// What a client may do is only looked up for keys that exist, and that takes time.
    LateLookup,
}

/// A key of the server and what its clients may do with it.
struct Entry {
    label: &'static str,
    key: Key,
    /// Clients by name, each with its rights.
    clients: &'static [(&'static str, &'static [&'static str])],
}

/// What all connections share.
struct Shared {
    mistake: Option<Mistake>,
    entries: Vec<Entry>,
    /// Ciphertexts that were opened: by whom first, for which handshake, and how often.
    ledger: Mutex<HashMap<Vec<u8>, opening::Opened>>,
    secret: [u8; 32],
}

/// A running server. Its threads end with the test's process.
pub(crate) struct Naive {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    fixture: Fixture,
}

impl Naive {
    pub(crate) fn start(mistake: Option<Mistake>) -> Self {
        let fixture = Fixture::new();
        fixture.write_identity("edge-2", &fixture.pki.client("edge-2"));
        let shared = Arc::new(Shared {
            mistake,
            entries: entries(),
            ledger: Mutex::default(),
            secret: [0x5a; 32],
        });
        let address = serve(&fixture, Arc::clone(&shared));
        Self {
            address,
            shared,
            fixture,
        }
    }

    pub(crate) fn fixture(&self) -> &Fixture {
        &self.fixture
    }

    /// What becomes of it in a restart: only what is on disk would be left.
    pub(crate) fn restart(&self) {
        if self.shared.mistake == Some(Mistake::LedgerInMemory) {
            self.shared.ledger.lock().unwrap().clear();
        }
    }
}

/// Two keys of the first client, one that both open ciphertexts with, and one of the second client.
fn entries() -> Vec<Entry> {
    let key = |pem: &[u8]| Key::from_bytes(pem).unwrap();
    vec![
        Entry {
            label: "site",
            key: key(include_bytes!("../../../accel/tests/keys/p256.pkcs8.pem")),
            clients: &[("edge-1", &["tls13-sign", "tls12-sign"])],
        },
        Entry {
            label: "old-site",
            key: key(include_bytes!(
                "../../../accel/tests/keys/rsa2048.pkcs8.pem"
            )),
            clients: &[
                ("edge-1", &["tls12-master", "decrypt-compatible"]),
                ("edge-2", &["tls12-master", "decrypt-compatible"]),
            ],
        },
        Entry {
            label: "other-site",
            key: key(include_bytes!("../../../accel/tests/keys/p256-b.pkcs8.pem")),
            clients: &[("edge-2", &["tls13-sign"])],
        },
    ]
}

impl Shared {
    fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    fn by_ski(&self, ski: Ski) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.key.ski() == ski)
    }
}

fn serve(fixture: &Fixture, shared: Arc<Shared>) -> SocketAddr {
    let certificate = |name: &str| CertificateDer::from_pem_file(fixture.path(name)).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(certificate("pki/ca.pem")).unwrap();
    let provider = Arc::new(default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let private_key = PrivateKeyDer::from_pem_file(fixture.path("pki/server-key.pem")).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![certificate("pki/server.pem")], private_key)
        .unwrap();
    let config = Arc::new(config);
    // Who a client is: its certificate, compared byte by byte.
    let clients = ["edge-1", "edge-2"].map(|name| (name, certificate(&format!("pki/{name}.pem"))));
    let clients = Arc::new(clients.map(|(name, der)| (name, der.to_vec())));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let session = ServerConnection::new(Arc::clone(&config)).unwrap();
            let (shared, clients) = (Arc::clone(&shared), Arc::clone(&clients));
            let stream = stream.unwrap();
            // The attacker hangs up when it is done.
            thread::spawn(move || drop(talk(session, stream, &shared, &clients[..])));
        }
    });
    address
}

/// One connection: frames in, replies out, one after the other.
fn talk(
    session: ServerConnection,
    stream: TcpStream,
    shared: &Shared,
    clients: &[(&'static str, Vec<u8>)],
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut tls = StreamOwned::new(session, stream);
    let mut received = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let mut who = None;
    loop {
        while let Some((frame, length)) = split_frame(&received) {
            let client = *who.get_or_insert_with(|| {
                let leaf = tls
                    .conn
                    .peer_certificates()
                    .and_then(|chain| chain.first())
                    .unwrap();
                clients
                    .iter()
                    .find(|(_, der)| der == leaf.as_ref())
                    .unwrap()
                    .0
            });
            let mut out = Vec::new();
            let answer = Request::decode(frame).map_or(Err(ErrorCode::Format), |request| {
                shared.answer(client, &request)
            });
            let id = frame.header.id;
            let reply = match &answer {
                Ok(output) => Reply::success(id, output),
                Err(code) => Reply::failure(id, *code),
            };
            reply.encode(&mut out).unwrap();
            tls.write_all(&out)?;
            received.drain(..length);
        }
        let read = tls.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        received.extend_from_slice(&buffer[..read]);
    }
}
