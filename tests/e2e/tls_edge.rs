//! A TLS server that has no private key, and the programs people use to look at one.
//!
//! The edge is rustls with a signer that asks the key server, through the client library, for
//! TLS 1.3 and TLS 1.2 signatures only (0x40, 0x41): its rights allow nothing else. On the other
//! side are `openssl s_client` and curl, which share no code with either.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use keyserver_client::{Client, Error, ErrorCode, KeyId, SignatureAlgorithm, SignatureScheme};
use keyserver_tests::{ClientRule, Fixture, KeyKind, KeyServer, ServerConfig, parts};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::runtime::Handle;

use crate::{World, on_both_backends};

on_both_backends!(
    openssl_and_curl_accept_the_signatures,
    an_edge_can_sign_nothing_but_tls,
);

/// What the edge may do.
const RIGHTS: [&str; 2] = ["tls13-sign", "tls12-sign"];

/// Time for one handshake with everything around it, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// The key of the site: everything but the private half.
#[derive(Clone, Debug)]
struct RemoteKey {
    client: Client,
    key: KeyId,
    kind: KeyKind,
    runtime: Handle,
}

/// One signature of it.
#[derive(Debug)]
struct RemoteSigner {
    key: RemoteKey,
    scheme: SignatureScheme,
}

impl RemoteKey {
    /// The schemes this type of key signs with, best first.
    fn schemes(&self) -> &'static [SignatureScheme] {
        match self.kind {
            KeyKind::P256 => &[SignatureScheme::EcdsaP256Sha256],
            KeyKind::P384 => &[SignatureScheme::EcdsaP384Sha384],
            KeyKind::Ed25519 => &[SignatureScheme::Ed25519],
            _ => &[
                SignatureScheme::RsaPssSha256,
                SignatureScheme::RsaPssSha384,
                SignatureScheme::RsaPssSha512,
                SignatureScheme::RsaPkcs1Sha256,
            ],
        }
    }
}

impl SigningKey for RemoteKey {
    fn choose_scheme(&self, offered: &[rustls::SignatureScheme]) -> Option<Box<dyn Signer>> {
        let mut schemes = self.schemes().iter();
        let scheme = schemes.find(|scheme| offered.contains(&scheme.as_u16().into()))?;
        Some(Box::new(RemoteSigner {
            key: self.clone(),
            scheme: *scheme,
        }))
    }

    fn algorithm(&self) -> rustls::SignatureAlgorithm {
        match self.kind {
            KeyKind::P256 | KeyKind::P384 => rustls::SignatureAlgorithm::ECDSA,
            KeyKind::Ed25519 => rustls::SignatureAlgorithm::ED25519,
            _ => rustls::SignatureAlgorithm::RSA,
        }
    }
}

impl Signer for RemoteSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let RemoteKey { client, key, .. } = &self.key;
        let signature = self.key.runtime.block_on(async {
            // A string of TLS 1.3 begins with 64 spaces, one of TLS 1.2 with a random number.
            if message.starts_with(&[b' '; 64]) {
                client.sign_tls13(key, self.scheme, message).await
            } else {
                client.sign_tls12(key, self.scheme, message).await
            }
        });
        signature.map_err(|error| rustls::Error::General(error.to_string()))
    }

    fn scheme(&self) -> rustls::SignatureScheme {
        self.scheme.as_u16().into()
    }
}

#[derive(Debug)]
struct OneCertificate(Arc<CertifiedKey>);

impl ResolvesServerCert for OneCertificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

/// A TLS server that answers every request with one line. It ends with its test's process.
fn start_edge(certificate: &str, key: RemoteKey) -> SocketAddr {
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .unwrap();
    let certified = CertifiedKey::new(chain, Arc::new(key));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(OneCertificate(Arc::new(certified))));
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (config, stream) = (Arc::clone(&config), stream.unwrap());
            // A handshake that fails is seen by the program on the other side.
            thread::spawn(move || drop(answer(config, stream)));
        }
    });
    address
}

fn answer(config: Arc<rustls::ServerConfig>, stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let session = rustls::ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut tls = rustls::StreamOwned::new(session, stream);
    let mut request = [0; 1024];
    if tls.read(&mut request)? > 0 {
        tls.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nthe site\n",
        )?;
    }
    tls.conn.send_close_notify();
    tls.flush()
}

/// What a program printed, after it ended well.
fn output_of(command: &mut Command, input: &[u8]) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}",
        output.status
    );
    text
}

/// One handshake of `openssl s_client`, which verifies the chain and the server's signature.
fn openssl(fixture: &Fixture, address: SocketAddr, options: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command
        .args(["s_client", "-brief", "-ign_eof", "-verify_return_error"])
        .args(["-servername", "localhost", "-verify_hostname", "localhost"])
        .args(["-connect", &address.to_string(), "-CAfile"])
        .arg(fixture.path("pki/ca.pem"))
        .args(options);
    output_of(&mut command, b"GET / HTTP/1.0\r\n\r\n")
}

/// What a program has to say about one kind of handshake: options, and words of its output.
type Case = (KeyKind, &'static [&'static str], &'static [&'static str]);

const CASES: [Case; 10] = [
    (KeyKind::P256, &["-tls1_3"], &["TLSv1.3", "ECDSA", "SHA256"]),
    (KeyKind::P384, &["-tls1_3"], &["TLSv1.3", "ECDSA", "SHA384"]),
    (KeyKind::Ed25519, &["-tls1_3"], &["TLSv1.3", "ed25519"]),
    (
        KeyKind::Rsa2048,
        &["-tls1_3"],
        &["TLSv1.3", "RSA-PSS", "SHA256"],
    ),
    // A group that the client did not guess: HelloRetryRequest.
    (
        KeyKind::P256,
        &["-tls1_3", "-groups", "P-521:P-384"],
        &["TLSv1.3", "ECDSA"],
    ),
    (
        KeyKind::Rsa2048,
        &["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"],
        &["TLSv1.3", "TLS_AES_128_GCM_SHA256"],
    ),
    (
        KeyKind::P256,
        &["-tls1_2", "-curves", "X25519:P-256"],
        &["TLSv1.2", "ECDHE-ECDSA", "X25519"],
    ),
    (
        KeyKind::P384,
        &["-tls1_2", "-curves", "P-384"],
        &["TLSv1.2", "ECDHE-ECDSA", "secp384r1"],
    ),
    (
        KeyKind::Rsa2048,
        &["-tls1_2", "-curves", "P-256"],
        &["TLSv1.2", "ECDHE-RSA", "prime256v1", "RSA-PSS"],
    ),
    (
        KeyKind::Rsa2048,
        &["-tls1_2", "-sigalgs", "RSA+SHA256"],
        &["TLSv1.2", "ECDHE-RSA", "Signature type: RSA\n"],
    ),
];

async fn openssl_and_curl_accept_the_signatures(backend: &str) {
    if parts::program("openssl").is_none() || parts::program("curl").is_none() {
        return;
    }
    let world = edge_world(backend);
    let client = world.client().await;
    let fixture = &world.fixture;
    let address_of = |kind: KeyKind| {
        let private_key = std::fs::read(fixture.path(format!("keys/{}.key", kind.name()))).unwrap();
        let certificate = fixture.pki.site(&private_key);
        let key = RemoteKey {
            client: client.clone(),
            key: KeyId::from_certificate(certificate.as_bytes()).unwrap(),
            kind,
            runtime: Handle::current(),
        };
        start_edge(&certificate, key)
    };
    for kind in [
        KeyKind::P256,
        KeyKind::P384,
        KeyKind::Ed25519,
        KeyKind::Rsa2048,
    ] {
        let address = address_of(kind);
        for (_, options, words) in CASES.iter().filter(|(other, ..)| *other == kind) {
            let text = openssl(fixture, address, options);
            for word in words.iter().chain(&["Verification: OK", "the site"]) {
                assert!(
                    text.contains(word),
                    "{kind:?} {options:?}: no {word:?} in\n{text}"
                );
            }
        }
        for version in ["1.2", "1.3"] {
            if (kind, version) != (KeyKind::Ed25519, "1.2") {
                assert_eq!(
                    curl(fixture, address, version),
                    "the site\n",
                    "{kind:?} {version}"
                );
            }
        }
    }
    // Every signature went through the operations that check.
    let count = |operation| {
        let sample = ["keyserver_requests_total", operation, "result=\"ok\""];
        let text = world.server.metrics();
        let counted = text
            .lines()
            .filter(|line| sample.iter().all(|part| line.contains(part)));
        counted
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u32>().ok())
            .sum::<u32>()
    };
    assert_eq!(count("sign-tls13"), 6 + 4);
    assert_eq!(count("sign-tls12"), 4 + 3);
    assert_eq!(count("ecdsa-sign") + count("rsa-"), 0);
}

fn curl(fixture: &Fixture, address: SocketAddr, version: &str) -> String {
    let mut command = Command::new("curl");
    command
        .args(["--silent", "--show-error", "--http1.1", "--cacert"])
        .arg(fixture.path("pki/ca.pem"))
        .args([format!("--tlsv{version}").as_str(), "--tls-max", version])
        .arg(format!("https://localhost:{}/", address.port()))
        .args([
            "--resolve",
            &format!("localhost:{}:127.0.0.1", address.port()),
        ]);
    output_of(&mut command, b"")
}

fn edge_world(backend: &str) -> World {
    let mut config = ServerConfig::default().io_backend(backend);
    config.clients = vec![ClientRule::new("edge-1", &RIGHTS)];
    let fixture = Fixture::new();
    for kind in [
        KeyKind::P256,
        KeyKind::P384,
        KeyKind::Ed25519,
        KeyKind::Rsa2048,
    ] {
        fixture.add_key(kind.name(), kind);
    }
    let server = KeyServer::start(&fixture, &config);
    World { fixture, server }
}

/// The rights of an edge sign no digest, no other message, and with no other key than they name.
async fn an_edge_can_sign_nothing_but_tls(backend: &str) {
    let world = edge_world(backend);
    let client = world.client().await;
    let keys = client.keys().await.unwrap();
    let p256 = keys.iter().find(|key| key.key_type == "p-256").unwrap();
    assert_eq!(p256.operations, RIGHTS);
    let p256 = KeyId::try_from(p256).unwrap();
    let scheme = SignatureScheme::EcdsaP256Sha256;
    let string = [
        &[b' '; 64][..],
        b"TLS 1.3, server CertificateVerify\0",
        &[1; 32],
    ]
    .concat();
    client.sign_tls13(&p256, scheme, &string).await.unwrap();

    let of_client = String::from_utf8(string.clone())
        .unwrap()
        .replace("server", "client");
    let algorithm = SignatureAlgorithm::EcdsaSha256;
    for refusal in [
        client.sign(&p256, algorithm, &[1; 32]).await,
        client.sign_tls13(&p256, scheme, of_client.as_bytes()).await,
        client.sign_tls13(&p256, scheme, &string[1..]).await,
        client
            .sign_tls13(&p256, SignatureScheme::Ed25519, &string)
            .await,
        client.sign_tls12(&p256, scheme, &string).await,
        client
            .sign_tls13(&KeyId::from_ski([9; 20]), scheme, &string)
            .await,
        client.decrypt(&p256, &[1; 256]).await,
    ] {
        assert!(
            matches!(refusal, Err(Error::Refused(ErrorCode::Denied))),
            "{refusal:?}"
        );
    }
    assert_eq!(
        world
            .server
            .metric(&["keyserver_rejected_total", "not-tls"]),
        Some(4.0)
    );
}
