//! A client that proves a server serves: a ping and a signature.

use std::net::SocketAddr;
use std::time::Duration;

use keyserver_client::{Client, KeyId, SignatureAlgorithm, TlsIdentity};
use keyserver_tests::Fixture;

/// A key whose signatures have one length, and the length.
pub(crate) const KEY: (&str, keyserver_tests::KeyKind, usize) =
    ("shop", keyserver_tests::KeyKind::Rsa2048, 256);

/// Connects as `edge-1`, pings, and has the one key of the fixture sign.
pub(crate) fn use_server(fixture: &Fixture, address: SocketAddr) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime
        .expect("a runtime")
        .block_on(ping_and_sign(fixture, address));
}

async fn ping_and_sign(fixture: &Fixture, address: SocketAddr) {
    let identity = TlsIdentity::from_files(
        fixture.path("pki/ca.pem"),
        fixture.path("pki/edge-1.pem"),
        fixture.path("pki/edge-1-key.pem"),
    );
    let client = Client::builder(
        address.to_string(),
        "localhost",
        identity.expect("an identity"),
    )
    .deadline(Duration::from_secs(10))
    .connect()
    .await
    .expect("a connection");
    assert_eq!(client.ping(b"hello").await.expect("a pong"), b"hello");
    let keys = client.keys().await.expect("the list of keys");
    assert_eq!(keys.len(), 1, "{keys:?}");
    let spki = base64_decode(&keys[0].spki);
    let key = KeyId::from_public_key(&spki).expect("a public key");
    let signature = client
        .sign(&key, SignatureAlgorithm::RsaPkcs1Sha256, &[7; 32])
        .await;
    assert_eq!(signature.expect("a signature").len(), KEY.2);
}

/// Standard base64 with padding.
fn base64_decode(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sextet = |byte: u8| ALPHABET.iter().position(|&letter| letter == byte);
    let sextets: Vec<usize> = text.bytes().map_while(sextet).collect();
    let bits = sextets.chunks(4).flat_map(|group| {
        let word =
            group.iter().fold(0, |word, sextet| word << 6 | sextet) << (6 * (4 - group.len()));
        [word >> 16, word >> 8, word]
            .into_iter()
            .take(group.len() - 1)
    });
    bits.map(|byte| u8::try_from(byte & 0xff).expect("one byte"))
        .collect()
}

#[test]
fn base64_is_read() {
    assert_eq!(base64_decode("aGVsbG8="), b"hello");
    assert_eq!(base64_decode("aGVsbA=="), b"hell");
    assert_eq!(base64_decode("aGVs"), b"hel");
}
