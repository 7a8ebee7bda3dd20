//! Connections that never prove anything, in great number, beside clients that have.

use std::io::{self, Read, Write};
use std::net::{self, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use keyless_protocol::{Opcode, Request};
use keyserver_client::{KeyId, SignatureAlgorithm};
use keyserver_tests::{KeyKind, ServerConfig, Wire, binaries, http};
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::proc::wait_for_metric;
use crate::{World, on_both_backends};

on_both_backends!(
    who_says_nothing_stays_with_the_kernel,
    established_clients_are_served_beside_a_crowd_of_strangers,
    a_fleet_that_comes_at_once_is_taken_in,
    a_handshake_in_pieces_is_served,
    the_oldest_handshake_makes_room_for_an_honest_one
);

/// Two thousand connections that say one byte and no more, and two hundred that say a byte at a time.
const SILENT: usize = 2000;
const DRIPPING: usize = 200;

/// Handshakes that one address may have under way, unless configured.
const PER_SOURCE: usize = 1024;

/// A stranger who says one byte and no more: with none the kernel would keep him.
pub(crate) async fn half_open(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[22]).await.unwrap();
    stream
}

async fn who_says_nothing_stays_with_the_kernel(backend: &str) {
    let mut config = ServerConfig::default().io_backend(backend);
    config.extra = "[limits]\nhandshake_deadline = \"8s\"\n".to_owned();
    let world = World::with_config(&[KeyKind::P256], &config);
    let client = world.client().await;
    let address = world.server.address();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    // Whoever comes later and means it is served; the others are not here yet.
    world.client().await.ping(b"let in").await.unwrap();
    let opened = ["keyserver_connections_opened_total"];
    assert_eq!(world.server.metric(&opened), Some(2.0));
    // Nor is one lost that takes its time.
    silent[50].write_all(&[22]).await.unwrap();
    wait_for_metric(&world.server, &opened, |count| count == 3.0).await;
    client.ping(b"still here").await.unwrap();
    // And nobody stays for ever.
    let mut byte = [0];
    let ends = silent[0].read(&mut byte);
    let ended = tokio::time::timeout(Duration::from_secs(60), ends).await;
    assert_eq!(ended.unwrap().unwrap_or(0), 0);
}

async fn established_clients_are_served_beside_a_crowd_of_strangers(backend: &str) {
    // Longer than the crowd takes to come on a busy machine.
    let mut config = ServerConfig::default().io_backend(backend);
    config.extra = "[limits]\nhandshake_deadline = \"8s\"\n".to_owned();
    let world = World::with_config(&[KeyKind::P256], &config);
    let client = world.client().await;
    let keys = client.keys().await.unwrap();
    let key = KeyId::try_from(&keys[0]).unwrap();

    // Built now, if it is not yet.
    let ksctl = binaries::ksctl();

    let address = world.server.address();
    let mut strangers = JoinSet::new();
    for _ in 0..DRIPPING {
        strangers.spawn(drip(address));
    }
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.push(half_open(address).await);
    }
    // Three seconds, and more on a busy machine.
    let (until, patience) = (Duration::from_secs(3), Duration::from_secs(60));
    let (begun, mut signed) = (Instant::now(), 0);
    while begun.elapsed() < until || signed <= 20 {
        let passed = begun.elapsed();
        assert!(passed < patience, "{signed} signatures in {passed:?}");
        // Health and control have threads of their own.
        if signed % 50 == 10 {
            let ready = http::get(world.server.metrics_address(), "/readyz").unwrap();
            assert_eq!(ready.status, 200);
            assert!(control_answers(&world, &ksctl));
        }
        client
            .sign(&key, SignatureAlgorithm::EcdsaSha256, &[7; 32])
            .await
            .unwrap();
        signed += 1;
    }
    // Refusals are explicit: who has no place was closed, under a name. Which one depends on the machine: one that stands
    // still for a while takes in fewer at one time.
    let late = ["keyserver_tls_handshake_failures_total", "deadline"];
    wait_for_metric(&world.server, &late, |count| count > 0.0).await;
    let no_place = (SILENT + DRIPPING - PER_SOURCE) as f64;
    let patience = Instant::now() + Duration::from_secs(30);
    loop {
        let metrics = world.server.metrics();
        let refused = http::sum(&metrics, &["keyserver_rejected_total"]);
        let failed = http::sum(&metrics, &["keyserver_tls_handshake_failures_total"]);
        if refused > 0.0 && refused + failed >= no_place {
            break;
        }
        assert!(Instant::now() < patience, "{metrics}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // When the crowd has gone, so has every trace of it.
    strangers.shutdown().await;
    drop(silent);
    wait_for_metric(&world.server, &["keyserver_connections "], |open| {
        open == 1.0
    })
    .await;
    world.client().await.ping(b"new here").await.unwrap();
    client.ping(b"still here").await.unwrap();
    assert_eq!(
        world.server.log().matching("panicked"),
        Vec::<String>::new()
    );
}

/// More connections than an I/O thread has room for come at one moment, as after a pause of the machine or of the
/// network: those behind wait, and none is lost.
async fn a_fleet_that_comes_at_once_is_taken_in(backend: &str) {
    const FLEET: usize = 1000;
    let mut config = ServerConfig::default().io_backend(backend);
    config.extra = "[limits]\nhandshake_deadline = \"60s\"\n".to_owned();
    let world = World::with_config(&[KeyKind::P256], &config);
    let address = world.server.address();
    world.server.signal(Signal::SIGSTOP);
    let mut fleet = Vec::new();
    for _ in 0..FLEET {
        fleet.push(half_open(address).await);
    }
    world.server.signal(Signal::SIGCONT);
    let opened = ["keyserver_connections_opened_total"];
    wait_for_metric(&world.server, &opened, |count| count == FLEET as f64).await;
    let refused = http::sum(&world.server.metrics(), &["keyserver_rejected_total"]);
    assert_eq!(refused, 0.0);
}

fn control_answers(world: &World, ksctl: &Path) -> bool {
    Command::new(ksctl)
        .arg("--socket")
        .arg(world.fixture.path("run/admin.sock"))
        .arg("status")
        .output()
        .unwrap()
        .status
        .success()
}

/// A connection that says what it has to say in pieces, a millisecond apart.
struct InPieces {
    stream: net::TcpStream,
    bytes: usize,
}

impl Read for InPieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.read(buffer)
    }
}

impl Write for InPieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        std::thread::sleep(Duration::from_millis(1));
        self.stream.write(&bytes[..self.bytes.min(bytes.len())])
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The kernel keeps back what is no whole record. Nothing of an honest handshake may be left there, wherever it is cut.
async fn a_handshake_in_pieces_is_served(backend: &str) {
    let mut config = ServerConfig::default().io_backend(backend);
    config.extra = "[limits]\nhandshake_deadline = \"30s\"\n".to_owned();
    let world = World::with_config(&[KeyKind::P256], &config);
    for bytes in [3, 5, 64, 1000] {
        let stream = net::TcpStream::connect(world.server.address()).unwrap();
        stream.set_nodelay(true).unwrap();
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).unwrap();
        let mut wire = Wire::over(&world.fixture, InPieces { stream, bytes }, "edge-1");
        for id in 0..3 {
            let ping = Request {
                payload: b"in pieces",
                ..Request::new(id, Opcode::Ping)
            };
            assert_eq!(wire.ask(&ping).unwrap(), b"in pieces", "{bytes} at a time");
        }
    }
}

/// A client hello that announces 508 bytes, one of them every 50 ms, again and again.
async fn drip(address: SocketAddr) -> ! {
    loop {
        let Ok(mut stream) = TcpStream::connect(address).await else {
            continue;
        };
        for byte in [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]
            .into_iter()
            .chain([0; 500])
        {
            if stream.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn the_oldest_handshake_makes_room_for_an_honest_one(backend: &str) {
    let mut config = ServerConfig::default().io_backend(backend);
    config.extra = "[limits]\nhandshakes = 8\nhandshake_deadline = \"60s\"\n".to_owned();
    let world = World::with_config(&[KeyKind::P256], &config);
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(half_open(world.server.address()).await);
    }
    let surplus = ["keyserver_tls_handshake_failures_total", "surplus"];
    wait_for_metric(&world.server, &surplus, |count| count == 12.0).await;
    // The first was closed, the last was not.
    assert_eq!(silent[0].read(&mut [0]).await.unwrap_or(0), 0);
    let last = silent.last_mut().unwrap();
    assert!(
        last.try_read(&mut [0])
            .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    );
    // All places are taken, and yet one who means it comes in.
    world.client().await.ping(b"let in").await.unwrap();
    assert_eq!(world.server.metric(&surplus), Some(13.0));
}
