//! SIGTERM while clients are at work.

use std::time::{Duration, Instant};

use keyserver_client::{Connection, Error, KeyId, Opcode, Request};
use keyserver_tests::{KeyKind, ServerConfig};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::{World, on_both_backends};

on_both_backends!(
    every_reply_in_flight_is_delivered,
    a_client_is_told_to_leave
);

/// Connections are told to leave within this time, instead of the 10 s that spread a real load.
const SPREAD: &str = "[shutdown]\nspread = \"200ms\"\n";

fn world(backend: &str, key: KeyKind) -> World {
    let mut config = ServerConfig::default().io_backend(backend);
    config.extra = SPREAD.to_owned();
    World::with_config(&[key], &config)
}

/// A connection that is driven by hand, so that it is known what is in flight.
struct Driven {
    connection: Connection,
    stream: TcpStream,
    replies: Vec<u32>,
}

impl Driven {
    async fn connect(world: &World) -> Self {
        let connection = Connection::new(&world.identity(), "localhost").unwrap();
        let stream = TcpStream::connect(world.server.address()).await.unwrap();
        Self {
            connection,
            stream,
            replies: Vec::new(),
        }
    }

    async fn send(&mut self) {
        let mut out = Vec::new();
        self.connection.transmit(&mut out).unwrap();
        self.stream.write_all(&out).await.unwrap();
    }

    /// Reads once; false at the end of the stream.
    async fn read(&mut self) -> bool {
        let length = self
            .stream
            .read(self.connection.read_space())
            .await
            .unwrap();
        if length == 0 {
            return false;
        }
        self.connection.received(length).unwrap();
        while let Some(reply) = self.connection.next_reply() {
            self.replies.push(reply.id);
        }
        assert!(self.connection.failure().is_none());
        true
    }

    /// Reads until `count` replies are there.
    async fn read_replies(&mut self, count: usize) {
        while self.replies.len() < count {
            self.send().await;
            assert!(
                self.read().await,
                "the server closed after {} replies",
                self.replies.len()
            );
        }
    }
}

/// 8 connections with 48 RSA-4096 signatures each; SIGTERM after the first answer to each.
///
/// 48 frames are one write and one read (64 KiB), and all frames of a read are admitted before any
/// of them is answered. So whoever has one answer is owed the other 47, and has not read them.
async fn every_reply_in_flight_is_delivered(backend: &str) {
    const EACH: u32 = 48;
    let mut world = world(backend, KeyKind::Rsa4096);
    let keys = world.client().await.keys().await.unwrap();
    let ski = Some(KeyId::try_from(&keys[0]).unwrap().ski());

    let mut connections = Vec::new();
    for _ in 0..8 {
        let mut driven = Driven::connect(&world).await;
        driven
            .connection
            .submit(&Request::new(u32::MAX, Opcode::ServerInfo))
            .unwrap();
        driven.read_replies(1).await;
        driven.replies.clear();
        for id in 0..EACH {
            let payload = &[7; 32];
            let request = Request {
                ski,
                payload,
                ..Request::new(id, Opcode::RsaSignSha256)
            };
            driven.connection.submit(&request).unwrap();
        }
        connections.push(driven);
    }
    for driven in &mut connections {
        driven.send().await;
    }
    for driven in &mut connections {
        driven.read_replies(1).await;
        assert!(
            driven.replies.len() < EACH as usize,
            "a first read holds 8 KiB"
        );
    }
    world.server.signal(Signal::SIGTERM);

    // An answer may be a refusal, if this machine is too busy to sign within the server's limit.
    for driven in &mut connections {
        while driven.read().await {}
        driven.replies.sort_unstable();
        assert_eq!(driven.replies, (0..EACH).collect::<Vec<_>>());
        assert!(
            driven.connection.peer_has_closed(),
            "a TLS close, not a cut"
        );
        driven.connection.close_notify();
        driven.send().await;
    }
    drop(connections);
    assert!(world.server.wait().success());
}

/// Clients of the library see the close, and their calls say that the server has gone.
async fn a_client_is_told_to_leave(backend: &str) {
    let mut world = world(backend, KeyKind::P256);
    let client = world.client().await;
    client.ping(b"before").await.unwrap();
    world.server.signal(Signal::SIGTERM);
    assert!(world.server.wait().success());
    // It may still have to notice.
    let hasty = client.with_deadline(Duration::from_millis(500));
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match hasty.ping(b"after").await.unwrap_err() {
            Error::Network(_) => break,
            error => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}
