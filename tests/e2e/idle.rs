//! What a connection holds when it has nothing to say.

use std::time::{Duration, Instant};

use keyserver_client::{Connection, Opcode, Request};
use keyserver_tests::{Fixture, KeyServer, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::churn::exact_memory;
use crate::proc::resident_bytes;
use crate::{World, on_both_backends};

on_both_backends!(a_connection_that_was_busy_gives_its_buffers_back);

const CONNECTIONS: u64 = 200;

/// Requests at once: 60 KiB each way, so that every buffer grows.
const PINGS: u32 = 60;

/// Below what the buffers of a busy connection come to, which is 250 KiB and more.
const BYTES_MAX: u64 = 120 * 1024;

async fn a_connection_that_was_busy_gives_its_buffers_back(backend: &str) {
    let fixture = Fixture::new();
    let config = ServerConfig::default().io_backend(backend);
    let server = KeyServer::start_under(&exact_memory(), &fixture, &config);
    let world = World { fixture, server };
    // Once, so that what the server needs for any connection is there.
    drop(busy_connection(&world).await);
    let before = resident_bytes(&world.server);
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        idle.push(busy_connection(&world).await);
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let each = resident_bytes(&world.server).saturating_sub(before) / CONNECTIONS;
        if each <= BYTES_MAX {
            break;
        }
        assert!(Instant::now() < deadline, "{each} bytes for each");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A connection on which many requests have been answered at once.
async fn busy_connection(world: &World) -> (TcpStream, Connection) {
    let mut connection = Connection::new(&world.identity(), "localhost").unwrap();
    let mut stream = TcpStream::connect(world.server.address()).await.unwrap();
    for id in 0..PINGS {
        let ping = Request {
            payload: &[7; 32],
            ..Request::new(id, Opcode::Ping)
        };
        connection.submit(&ping).unwrap();
    }
    let (mut out, mut answers) = (Vec::new(), 0);
    while answers < PINGS {
        out.clear();
        connection.transmit(&mut out).unwrap();
        stream.write_all(&out).await.unwrap();
        let length = stream.read(connection.read_space()).await.unwrap();
        assert_ne!(length, 0, "the server has closed");
        connection.received(length).unwrap();
        while connection.next_reply().is_some() {
            answers += 1;
        }
    }
    (stream, connection)
}
