//! Connections that come to nothing, by the thousand.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use keyserver_client::{Connection, KeyId, Opcode, Request, Ski};
use keyserver_tests::{Fixture, KeyKind, KeyServer, ServerConfig};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::proc::{resident_bytes, settled_descriptors, wait_for_descriptors, wait_for_metric};
use crate::strangers::half_open;
use crate::{World, on_both_backends};

on_both_backends!(descriptors_and_memory_after_ten_thousand_connections);

/// Connections of one round.
const ROUND: u32 = 2000;

/// Growth of resident memory that is the allocator's doing, over [`CALM_ROUNDS`] rounds and over
/// the 10,000 connections that count. A leak of 1 KiB for each connection would be 6 and 10 MiB, and
/// more with the crowds.
const CALM_SLACK_BYTES: u64 = 2 * 1024 * 1024;
const SLACK_BYTES: u64 = 4 * 1024 * 1024;
const CALM_ROUNDS: usize = 3;

/// How many connections that cost the server nothing are open at once.
const IDLE_AT_ONCE: u32 = 200;

/// How many handshakes run at once: few enough to meet the server's deadline on a busy machine.
const HANDSHAKES_AT_ONCE: u32 = 16;

/// The most connections of a round that a server finds at one time, if it stands still for a while: all for which nobody here
/// waits until they have an answer.
const CROWD: u32 = ROUND * 9 / 10;

/// All of them come from one address, and fast. And each round waits for the deadline, in which there are honest handshakes
/// too.
const LIMITS: &str = "[limits]\nhandshake_deadline = \"5s\"\nhandshake_rate_per_source = 1000000\n\
                      handshakes_per_source = 5000\n";

async fn descriptors_and_memory_after_ten_thousand_connections(backend: &str) {
    let mut config = ServerConfig::default().io_backend(backend);
    config.extra = LIMITS.to_owned();
    let fixture = Fixture::new();
    fixture.add_key("rsa-2048", KeyKind::Rsa2048);
    // What is free at the end of the heap is kept: whether the allocator can give it back depends on what happens to lie there.
    let kept = PathBuf::from("MALLOC_TRIM_THRESHOLD_=1000000000");
    let wrapper = [&exact_memory()[..], &[kept]].concat();
    let server = KeyServer::start_under(&wrapper, &fixture, &config);
    let world = World { fixture, server };
    let client = world.client().await;

    let keys = client.keys().await.unwrap();
    let ski = KeyId::try_from(&keys[0]).unwrap().ski();
    settle(&world, ski).await;
    let (descriptors_before, resident_before) = (
        settled_descriptors(&world.server).await,
        resident_bytes(&world.server),
    );

    for _ in 0..5 {
        round(&world, ski).await;
    }
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

/// Starts the server with an allocator that gives read buffers straight back to the kernel when
/// they are freed. Otherwise it keeps them, and what is resident says little about what is used.
pub(crate) fn exact_memory() -> [PathBuf; 2] {
    ["/usr/bin/env".into(), "MALLOC_MMAP_THRESHOLD_=16384".into()]
}

/// Makes rounds until the heap has the size that the largest crowd of them needs, which the
/// allocator keeps. A leak never settles.
async fn settle(world: &World, ski: Ski) {
    // Not every crowd falls on the threads in the same way.
    for _ in 0..10 {
        crowd(world).await;
        quiet(world).await;
    }
    let mut resident = vec![resident_bytes(&world.server)];
    for _ in 0..15 {
        round(world, ski).await;
        let now = resident_bytes(&world.server);
        resident.push(now);
        let earlier = resident.iter().rev().nth(CALM_ROUNDS);
        if earlier.is_some_and(|earlier| now <= earlier + CALM_SLACK_BYTES) {
            return;
        }
    }
    panic!("resident memory grows with every round: {resident:?}");
}

/// Connections of all kinds, and then none of them.
async fn round(world: &World, ski: Ski) {
    all_kinds(world, ROUND, ski).await;
    quiet(world).await;
    // The heap keeps the size of its largest crowd. How large that is must not depend on when the machine lets the server
    // run, so each round ends with the largest there can be. What was lost before then comes on top of it.
    crowd(world).await;
    quiet(world).await;
}

/// Connections that are all there at one time.
async fn crowd(world: &World) {
    let opened = ["keyserver_connections_opened_total"];
    let before = world.server.metric(&opened).unwrap();
    world.server.signal(Signal::SIGSTOP);
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(begin_a_hello(world.server.address()).await);
    }
    world.server.signal(Signal::SIGCONT);
    let all = before + f64::from(CROWD);
    wait_for_metric(&world.server, &opened, |count| count >= all).await;
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
async fn all_kinds(world: &World, total: u32, ski: Ski) {
    let address = world.server.address();
    many(total * 4 / 10, IDLE_AT_ONCE, || connect_and_leave(address)).await;
    many(total * 3 / 10, IDLE_AT_ONCE, || abort_in_the_hello(address)).await;
    // The others come and go while these wait for their end.
    let silent: JoinSet<()> = (0..total * 2 / 10).map(|_| say_no_more(address)).collect();
    let identity = world.identity().resumption(true);
    many(total / 20, HANDSHAKES_AT_ONCE, || {
        abort_with_requests_in_flight(address, identity.clone(), ski)
    })
    .await;
    many(total / 20, HANDSHAKES_AT_ONCE, || {
        give_up_on_a_call(world, identity.clone())
    })
    .await;
    silent.join_all().await;
}

/// Runs `count` of these, `at_once` at a time.
async fn many<F: Future<Output = ()> + Send + 'static>(
    count: u32,
    at_once: u32,
    make: impl Fn() -> F,
) {
    let mut left = count;
    while left > 0 {
        let now = left.min(at_once);
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

/// Half of a client hello.
async fn begin_a_hello(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream
        .write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])
        .await
        .unwrap();
    stream
}

/// Half of a client hello, then a reset.
async fn abort_in_the_hello(address: SocketAddr) {
    let stream = begin_a_hello(address).await;
    stream.set_zero_linger().unwrap();
}

/// Until the server loses patience.
async fn say_no_more(address: SocketAddr) {
    let mut stream = half_open(address).await;
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
    ski: Ski,
) {
    let mut connection = Connection::new(&identity, "localhost").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut out = Vec::new();
    while connection.is_handshaking() {
        out.clear();
        connection.transmit(&mut out).unwrap();
        stream.write_all(&out).await.unwrap();
        let length = stream.read(connection.read_space()).await.unwrap();
        assert_ne!(length, 0, "the server has closed during the handshake");
        connection.received(length).unwrap();
    }
    for id in 0..8 {
        let request = Request {
            ski: Some(ski),
            payload: &[7; 32],
            ..Request::new(id, Opcode::RsaSignSha256)
        };
        connection.submit(&request).unwrap();
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
