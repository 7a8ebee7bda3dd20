//! Connections that come to nothing, by the thousand.

use std::net::SocketAddr;
use std::time::Duration;

use keyserver_client::{Connection, Opcode, Request};
use keyserver_tests::{KeyKind, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::proc::{descriptors, resident_bytes, wait_for_descriptors, wait_for_metric};
use crate::{World, on_both_backends};

on_both_backends!(descriptors_and_memory_after_ten_thousand_connections);

/// Growth of resident memory that is the allocator's doing. One leaked read buffer (64 KiB) for
/// one connection in ten would be 64 MiB.
const SLACK_BYTES: u64 = 16 * 1024 * 1024;

/// How many connections of a kind are open at once.
const AT_ONCE: u32 = 250;

async fn descriptors_and_memory_after_ten_thousand_connections(backend: &str) {
    let mut config = ServerConfig::default().io_backend(backend);
    config.extra = "[limits]\nhandshake_deadline = \"500ms\"\n".to_owned();
    let world = World::with_config(&[KeyKind::Rsa2048], &config);
    let client = world.client().await;

    // The first rounds bring the allocator and its thread caches to their size.
    all_kinds(&world, 1000).await;
    quiet(&world).await;
    let (descriptors_before, resident_before) =
        (descriptors(&world.server), resident_bytes(&world.server));

    all_kinds(&world, 10_000).await;
    quiet(&world).await;
    wait_for_descriptors(&world.server, descriptors_before).await;
    let resident = resident_bytes(&world.server);
    assert!(
        resident <= resident_before + SLACK_BYTES,
        "resident memory grew from {resident_before} to {resident} bytes"
    );

    // And the one client that was there all the time has noticed nothing.
    client.ping(b"still here").await.unwrap();
    assert_eq!(
        world.server.log().matching("panicked"),
        Vec::<String>::new()
    );
    assert!(world.server.stop().success());
}

/// Waits until only the one lasting client is left.
async fn quiet(world: &World) {
    wait_for_metric(&world.server, &["keyserver_connections "], |value| {
        value == 1.0
    })
    .await;
    wait_for_metric(&world.server, &["keyserver_inflight "], |value| {
        value == 0.0
    })
    .await;
}

/// `total` connections, of five kinds.
async fn all_kinds(world: &World, total: u32) {
    let address = world.server.address();
    many(total * 4 / 10, || connect_and_leave(address)).await;
    many(total * 3 / 10, || abort_in_the_hello(address)).await;
    many(total * 2 / 10, || say_nothing(address)).await;
    let identity = world.identity().resumption(true);
    many(total / 20, || {
        abort_with_requests_in_flight(address, identity.clone())
    })
    .await;
    many(total / 20, || give_up_on_a_call(world, identity.clone())).await;
}

/// Runs `count` of these, some at a time.
async fn many<F: Future<Output = ()> + Send + 'static>(count: u32, make: impl Fn() -> F) {
    let mut left = count;
    while left > 0 {
        let now = left.min(AT_ONCE);
        let tasks: Vec<_> = (0..now).map(|_| tokio::spawn(make())).collect();
        for task in tasks {
            task.await.unwrap();
        }
        left -= now;
    }
}

async fn connect_and_leave(address: SocketAddr) {
    drop(TcpStream::connect(address).await.unwrap());
}

/// Half of a client hello, then a reset.
async fn abort_in_the_hello(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])
        .await
        .unwrap();
    stream.set_zero_linger().unwrap();
}

/// Until the server loses patience.
async fn say_nothing(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut buffer = [0; 256];
    // Whether it ends with an alert, an end of stream or a reset, it has to end.
    let ended = async {
        while stream
            .read(&mut buffer)
            .await
            .is_ok_and(|length| length > 0)
        {}
    };
    tokio::time::timeout(Duration::from_secs(30), ended)
        .await
        .unwrap();
}

/// A whole handshake, some signatures asked for, and a reset instead of reading the answers.
async fn abort_with_requests_in_flight(
    address: SocketAddr,
    identity: keyserver_client::TlsIdentity,
) {
    let mut connection = Connection::new(&identity, "localhost").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut out = Vec::new();
    while connection.is_handshaking() {
        out.clear();
        connection.transmit(&mut out).unwrap();
        stream.write_all(&out).await.unwrap();
        let length = stream.read(connection.read_space()).await.unwrap();
        connection.received(length).unwrap();
    }
    for id in 0..8 {
        connection
            .submit(&Request::new(id, Opcode::KeyList))
            .unwrap();
    }
    out.clear();
    connection.transmit(&mut out).unwrap();
    stream.write_all(&out).await.unwrap();
    stream.set_zero_linger().unwrap();
}

/// A client of the library whose only call is dropped before it is answered.
fn give_up_on_a_call(
    world: &World,
    identity: keyserver_client::TlsIdentity,
) -> impl Future<Output = ()> + Send + 'static {
    let builder = keyserver_client::Client::builder(
        world.server.address().to_string(),
        "localhost",
        identity,
    );
    async move {
        let client = builder
            .connect_limit(Duration::from_secs(30))
            .connect()
            .await
            .unwrap();
        tokio::select! {
            biased;
            _ = client.ping(&[0; 10_000]) => {}
            () = tokio::task::yield_now() => {}
        }
    }
}
