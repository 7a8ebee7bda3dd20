//! Rule 9: the limits on TLS keys, from the side of a client that renews them.
//!
//! An AES-GCM key is renewed by whoever sends with it, after 2^24 records; to the other side that
//! is a key update like those sent here, where each also asks for one in return.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use keyless_protocol::{Opcode, Reply, Request, split_frame};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use keyserver_tests::KeyKind;

use crate::{World, on_both_backends};

on_both_backends!(
    rule_9_thirty_two_key_updates_in_a_row,
    rule_9_one_key_update_too_many_ends_that_connection_only,
);

fn connect(world: &World) -> StreamOwned<ClientConnection, TcpStream> {
    let path = |name| world.fixture.path(name);
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(path("pki/ca.pem")).unwrap())
        .unwrap();
    let chain = vec![CertificateDer::from_pem_file(path("pki/edge-1.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(path("pki/edge-1-key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .unwrap();
    let name = "localhost".try_into().unwrap();
    let tls = ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(world.server.address()).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    StreamOwned::new(tls, stream)
}

/// One ping and its answer.
fn ping(stream: &mut StreamOwned<ClientConnection, TcpStream>, id: u32) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    Request {
        payload: b"hello",
        ..Request::new(id, Opcode::Ping)
    }
    .encode(&mut bytes)
    .unwrap();
    stream.write_all(&bytes)?;
    let mut answer = vec![0; 1024];
    stream.read_exact(&mut answer)?;
    let (frame, _) = split_frame(&answer).unwrap();
    assert_eq!(Reply::decode(frame).unwrap(), Reply::pong(id, b"hello"));
    Ok(())
}

/// Sends this many key updates, with nothing in between.
fn update_keys(stream: &mut StreamOwned<ClientConnection, TcpStream>, times: u32) {
    for _ in 0..times {
        stream.conn.refresh_traffic_keys().unwrap();
    }
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut stream.sock).unwrap();
    }
}

async fn rule_9_thirty_two_key_updates_in_a_row(backend: &str) {
    let world = World::new(backend, &[KeyKind::P256]);
    let rounds = move || {
        let mut stream = connect(&world);
        ping(&mut stream, 1).unwrap();
        for round in 2..10 {
            update_keys(&mut stream, 32);
            ping(&mut stream, round).unwrap();
        }
    };
    tokio::task::spawn_blocking(rounds).await.unwrap();
}

async fn rule_9_one_key_update_too_many_ends_that_connection_only(backend: &str) {
    let world = World::new(backend, &[KeyKind::P256]);
    let other = world.client().await;
    let mut stream = connect(&world);
    ping(&mut stream, 1).unwrap();
    update_keys(&mut stream, 33);
    let ended = tokio::task::spawn_blocking(move || ping(&mut stream, 2))
        .await
        .unwrap();
    ended.unwrap_err();
    other.ping(b"still here").await.unwrap();
    world
        .client()
        .await
        .ping(b"and for new ones")
        .await
        .unwrap();
}
