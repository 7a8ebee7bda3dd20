//! The faults of tokio-uring that the server works around, each as far as it shows from outside.
//!
//! Every rule runs on epoll as well: what a client sees must not depend on the backend.
//!
//! | # | the fault | what is asserted here |
//! |---|---|---|
//! | 1 | a cancelled `accept()` swallows the next clients and leaks descriptors | clients that vanish while they are accepted take nobody along |
//! | 2 | dropping a stream with a read in flight never closes it | the server's own closes end the read, and the descriptors come back |
//! | 3 | one always-ready task starves submissions | a quiet client is answered while a busy one never pauses |
//! | 4 | `DEFER_TASKRUN` hangs the ring | an answer comes although nothing else happens, after idling too |
//! | 5 | `start` panics when the ring is refused | an error that names io_uring, and no panic |
//! | 6 | 4 KiB reads, short writes | replies of megabytes arrive whole at a reader with a tiny window |
//! | 7 | closing one of two listeners resets queued connections | there is one listening socket |
//! | 8 | `shutdown()` of an inherited socket kills it for everybody | it still accepts after the server has ended |
//! | 9 | record limits: key updates | 32 in a row are taken, and 33 end that connection only |

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use keyserver_client::{Connection, KeyId, Opcode, Request, SignatureAlgorithm};
use keyserver_tests::{Fixture, KeyKind, KeyServer, ServerConfig, binaries};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::proc::{settled_descriptors, wait_for_descriptors};
use crate::strangers::half_open;
use crate::{World, on_both_backends};

mod key_updates;
mod sockets;

on_both_backends!(
    rule_1_vanishing_clients_take_nobody_along,
    rule_2_descriptors_come_back_from_streams_with_a_read_in_flight,
    rule_3_a_busy_client_does_not_starve_a_quiet_one,
    rule_4_an_answer_comes_when_nothing_else_happens,
    rule_6_large_replies_reach_a_slow_reader_whole,
);

async fn rule_1_vanishing_clients_take_nobody_along(backend: &str) {
    let world = World::new(backend, &[KeyKind::P256]);
    let lasting = world.client().await;
    let before = settled_descriptors(&world.server).await;
    for round in 0..50 {
        for _ in 0..10 {
            let stream = half_open(world.server.address()).await;
            stream.set_zero_linger().unwrap(); // A reset, most often while it is still queued.
        }
        // The very next one is served.
        world.client().await.ping(&[round]).await.unwrap();
    }
    lasting.ping(b"still here").await.unwrap();
    wait_for_descriptors(&world.server, before).await;
}

async fn rule_2_descriptors_come_back_from_streams_with_a_read_in_flight(backend: &str) {
    let mut config = ServerConfig::default().io_backend(backend);
    // Waited for below; and no less, because honest clients connect too.
    config.extra = "[limits]\nhandshake_deadline = \"5s\"\n".to_owned();
    let world = World::with_config(&[KeyKind::P256], &config);
    let lasting = world.client().await;
    let before = settled_descriptors(&world.server).await;

    // The server waits for bytes of 100 peers that send no more, and gives up on all of them.
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(half_open(world.server.address()).await);
    }
    let mut buffer = [0; 256];
    for stream in &mut silent {
        while stream
            .read(&mut buffer)
            .await
            .is_ok_and(|length| length > 0)
        {}
    }
    // The peers have not closed; the server's side is gone all the same.
    wait_for_descriptors(&world.server, before).await;

    // The same for established connections whose client is removed by a reload.
    let clients = [
        world.client().await,
        world.client().await,
        world.client().await,
    ];
    assert_eq!(settled_descriptors(&world.server).await, before + 3);
    let mut config = config.clone();
    config.clients.clear();
    world.fixture.write_config(&config);
    world.server.signal(nix::sys::signal::Signal::SIGHUP);
    // They come back by themselves, known to nobody now; each old stream is closed first.
    for client in &clients {
        while client.keys().await.is_ok_and(|keys| !keys.is_empty()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    drop((clients, lasting));
    wait_for_descriptors(&world.server, before - 1).await;
}

/// Not a measurement of time: between a quiet client's question and its answer, the busy client
/// may receive only so many answers.
async fn rule_3_a_busy_client_does_not_starve_a_quiet_one(backend: &str) {
    let world = World::new(backend, &[KeyKind::P256]);
    let quiet = world.client().await;
    let (stop, answered) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let busy = tokio::spawn(keep_busy(
        Connection::new(&world.identity(), "localhost").unwrap(),
        TcpStream::connect(world.server.address()).await.unwrap(),
        Arc::clone(&stop),
        Arc::clone(&answered),
    ));
    while answered.load(Ordering::Relaxed) < 1000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut worst = 0;
    for number in 0..100_u32 {
        let before = answered.load(Ordering::Relaxed);
        quiet.ping(&number.to_be_bytes()).await.unwrap();
        worst = worst.max(answered.load(Ordering::Relaxed) - before);
    }
    assert!(!busy.is_finished(), "the busy client must not have paused");
    stop.store(true, Ordering::Relaxed);
    busy.await.unwrap();
    // 512 are in flight all the time; starvation would be without end.
    assert!(
        worst < 20_000,
        "{worst} answers to the busy client before one to the quiet one"
    );
}

/// Pings with 512 in flight, without a pause, until told to stop.
async fn keep_busy(
    mut connection: Connection,
    mut stream: TcpStream,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
) {
    let (mut out, mut next, mut in_flight) = (Vec::new(), 0_u32, 0);
    while in_flight > 0 || !stop.load(Ordering::Relaxed) {
        while in_flight < 512 && !stop.load(Ordering::Relaxed) {
            connection
                .submit(&Request::new(next, Opcode::Ping))
                .unwrap();
            next = next.wrapping_add(1);
            in_flight += 1;
        }
        out.clear();
        connection.transmit(&mut out).unwrap();
        stream.write_all(&out).await.unwrap();
        let length = stream.read(connection.read_space()).await.unwrap();
        assert_ne!(length, 0);
        connection.received(length).unwrap();
        while connection.next_reply().is_some() {
            in_flight -= 1;
            answered.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn rule_4_an_answer_comes_when_nothing_else_happens(backend: &str) {
    let world = World::new(backend, &[KeyKind::P256]);
    let client = world.client().await;
    let key = KeyId::try_from(&client.keys().await.unwrap()[0]).unwrap();
    for idle_ms in [0, 300, 1500] {
        tokio::time::sleep(Duration::from_millis(idle_ms)).await;
        // A ping is answered by the I/O thread; a signature comes back from a crypto thread, which
        // has to wake a ring that sleeps.
        client.ping(b"awake?").await.unwrap();
        client
            .sign(&key, SignatureAlgorithm::EcdsaSha256, &[1; 32])
            .await
            .unwrap();
    }
}

/// 200 pings of 60,000 bytes are 12 MB each way, through windows of a few KiB.
async fn rule_6_large_replies_reach_a_slow_reader_whole(backend: &str) {
    let world = World::new(backend, &[KeyKind::P256]);
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let stream = socket.connect(world.server.address()).await.unwrap();
    let mut connection = Connection::new(&world.identity(), "localhost").unwrap();
    let payload = |id: u32| -> Vec<u8> { id.to_be_bytes().repeat(15_000) };
    for id in 0..200 {
        let request = Request {
            payload: &payload(id),
            ..Request::new(id, Opcode::Ping)
        };
        connection.submit(&request).unwrap();
    }
    let (mut reader, mut writer) = stream.into_split();
    let (mut out, mut seen) = (Vec::new(), Vec::new());
    while seen.len() < 200 {
        // Both directions at once: a server at its output cap stops reading until we have read.
        connection.transmit(&mut out).unwrap();
        tokio::select! {
            written = writer.write(&out), if !out.is_empty() => {
                out.drain(..written.unwrap());
            }
            length = reader.read(connection.read_space()) => {
                let length = length.unwrap();
                assert_ne!(length, 0);
                connection.received(length).unwrap();
                while let Some(reply) = connection.next_reply() {
                    assert_eq!(reply.outcome.unwrap(), payload(reply.id));
                    seen.push(reply.id);
                }
            }
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<_>>());
}

#[test]
fn rule_5_a_refused_ring_is_an_error_and_no_panic() {
    let fixture = Fixture::new();
    fixture.add_key("shop", KeyKind::P256);
    let config = ServerConfig::default().io_backend("uring");
    let (status, log) =
        KeyServer::start_failing_under(&[binaries::without_io_uring()], &fixture, &config);
    assert!(
        status.code().is_some_and(|code| code != 0),
        "{status}\n{log}"
    );
    let log = log.to_string();
    assert!(log.contains("io_uring"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}
