//! What a client hears from a server that has too much to do: by the code that it understands, and
//! every time. And what it does not hear: that it is at a cap of its own connection.

#![cfg(feature = "trial")]
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "test helpers fail the test; the lints exempt only the test functions themselves"
)]

mod common;

use std::io::{ErrorKind, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use accel::{Backend, Class, Engine, EngineChoice, EngineConfig, Job, Single, VerifyRate};
use common::edge::{Edge, identity};
use common::{MINIMAL, Site};
use keyserver::Server;
use keyserver::config::Config;
use keyserver_client::{ErrorCode, Opcode, Request};

const RSA: &str = include_str!("../../accel/tests/keys/rsa2048.pkcs8.pem");

/// As many as a connection may have in flight, and therefore as many as may wait in a class.
const IN_FLIGHT: u32 = 32;

#[test]
fn every_request_is_answered_and_every_refusal_has_its_name() {
    let site = Site::new();
    site.write_private("keys/rsa.key", RSA);
    site.configure(&format!(
        "{MINIMAL}\n[accel]\nthreads = 1\nengine = \"single\"\n\
         [limits]\nin_flight_per_connection = {IN_FLIGHT}\nqueue_time = \"1ms\"\n"
    ));
    let server = Server::start(Config::load(&site.config()).unwrap()).unwrap();
    let identity = identity(&site);
    let key = accel::Key::from_bytes(RSA.as_bytes()).unwrap();
    let request = Request {
        ski: Some(key.ski()),
        payload: &[7; 32],
        ..Request::new(0, Opcode::RsaPssSignSha256)
    };
    let extended = Request {
        extended: true,
        ..request
    };
    let mut edges: Vec<Edge> = (0..8)
        .map(|_| Edge::connect(&identity, server.local_addr()))
        .collect();

    // One connection that uses all that it may have in flight is served.
    edges[0].ask(&extended, IN_FLIGHT);
    assert_eq!(edges[0].answers(32), [(None, None); 32]);

    // Eight of them, one half of which understands our codes, are more than there is room for. On a
    // busy machine they may come one after the other; then they try again.
    let (mut busy, mut internal) = (0, 0);
    for _ in 0..100 {
        for (number, edge) in edges.iter_mut().enumerate() {
            let request = if number % 2 == 0 { &extended } else { &request };
            edge.ask(request, IN_FLIGHT);
        }
        for (number, edge) in edges.iter_mut().enumerate() {
            for answer in edge.answers(32) {
                match answer {
                    (None, None) => {}
                    (Some(ErrorCode::Busy), Some(1..)) if number % 2 == 0 => busy += 1,
                    (Some(ErrorCode::Internal), None) if number % 2 == 1 => internal += 1,
                    other => panic!("connection {number} heard {other:?}"),
                }
            }
        }
        if busy > 0 && internal > 0 {
            break;
        }
    }
    assert!(busy > 0 && internal > 0, "{busy} {internal}");

    // A signature takes longer than a microsecond.
    let hurried = Request {
        deadline_us: Some(1),
        ..extended
    };
    edges[0].ask(&hurried, 1);
    assert_eq!(
        edges[0].answers(1),
        [(Some(ErrorCode::DeadlineExceeded), None)]
    );
    let metrics = server.state().metrics.encode().unwrap();
    let refused = format!(
        "keyserver_queue_refusals_total{{class=\"rsa2048\",reason=\"busy\"}} {}\n",
        busy + internal
    );
    let late = "keyserver_queue_refusals_total{class=\"rsa2048\",reason=\"too-late\"} 1\n";
    assert!(
        metrics.contains(&refused) && metrics.contains(late),
        "{metrics}"
    );
    server.stop();
}

/// The rest waits in the socket; it is not refused, and never under way together.
#[test]
fn a_connection_at_its_cap_is_not_read_from_and_not_refused() {
    const CAP: u32 = 4;
    let site = Site::new();
    site.write_private("keys/rsa.key", RSA);
    site.configure(&format!(
        "{MINIMAL}\n[accel]\nthreads = 1\nengine = \"single\"\n\
         [limits]\nin_flight_per_connection = {CAP}\nqueue_time = \"10s\"\njob_deadline = \"60s\"\n"
    ));
    let server = Server::start(Config::load(&site.config()).unwrap()).unwrap();
    let key = accel::Key::from_bytes(RSA.as_bytes()).unwrap();
    let request = Request {
        ski: Some(key.ski()),
        payload: &[7; 32],
        extended: true,
        ..Request::new(0, Opcode::RsaPssSignSha256)
    };
    let mut edge = Edge::connect(&identity(&site), server.local_addr());
    edge.ask(&request, 500);
    let (mut answers, mut most) = (Vec::new(), 0);
    while answers.len() < 500 {
        most = most.max(server.state().metrics.inflight_now());
        answers.extend(edge.answers(1));
    }
    assert!(answers.iter().all(|answer| *answer == (None, None)));
    assert!((1..=i64::from(CAP)).contains(&most), "{most} in flight");
    server.stop();
}

/// What it asks for stays with the client until it takes the answers.
#[test]
fn a_connection_that_takes_no_answers_is_not_read_from() {
    /// Far above what the buffers of two sockets and the cap come to.
    const BYTES_MAX: usize = 256 << 20;
    let site = Site::new();
    site.write_private("keys/rsa.key", RSA);
    site.configure(&format!(
        "{MINIMAL}\n[limits]\noutput_per_connection = \"66KiB\"\n"
    ));
    let server = Server::start(Config::load(&site.config()).unwrap()).unwrap();
    let mut edge = Edge::connect(&identity(&site), server.local_addr());
    edge.stream.set_nonblocking(true).unwrap();

    let (mut asked, mut sent, mut out) = (0, 0, Vec::new());
    let mut moved = keyserver::clock::now();
    while moved.elapsed() < Duration::from_secs(2) {
        assert!(
            sent < BYTES_MAX,
            "{sent} bytes were read from a client that reads nothing"
        );
        if out.is_empty() {
            for _ in 0..64 {
                let ping = Request {
                    id: asked,
                    payload: &[7; 900],
                    ..Request::new(0, Opcode::Ping)
                };
                edge.connection.submit(&ping).unwrap();
                asked += 1;
            }
            edge.connection.transmit(&mut out).unwrap();
        }
        match edge.stream.write(&out) {
            Ok(length) => {
                out.drain(..length);
                sent += length;
                moved = keyserver::clock::now();
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                std::thread::yield_now();
            }
        }
    }

    // Nothing was lost: everything that was sent is answered, and what was half sent, too.
    edge.stream.set_nonblocking(false).unwrap();
    let mut rest = edge.stream.try_clone().unwrap();
    let writer = std::thread::spawn(move || rest.write_all(&out));
    let answers = edge.answers(asked as usize);
    assert!(answers.iter().all(|answer| *answer == (None, None)));
    writer.join().unwrap().unwrap();
    server.stop();
}

/// AWS-LC, which counts how many of its batches are under way one within the other, now and at most.
#[derive(Clone, Default)]
struct Nesting(Arc<AtomicUsize>, Arc<AtomicUsize>);

impl Backend for Nesting {
    fn name(&self) -> &'static str {
        "nesting"
    }

    fn lanes(&self, _: Class) -> usize {
        1
    }

    fn checks_results(&self) -> bool {
        true
    }

    fn run(&self, jobs: &mut [Job<'_>]) {
        Single.run(jobs);
    }

    fn run_yielding(&self, jobs: &mut [Job<'_>], between: &mut dyn FnMut()) {
        let depth = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        self.1.fetch_max(depth, Ordering::Relaxed);
        Single.run_yielding(jobs, between);
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Brief work is slipped in between long operations. Between brief ones there is no hurry: their results are to leave together,
/// and not one by one.
#[test]
fn brief_work_interrupts_long_work_and_not_its_own_kind() {
    let site = Site::new();
    site.write_private("keys/rsa.key", RSA);
    let brief = site.add_key("brief");
    site.configure(&format!("{MINIMAL}\n[accel]\nthreads = 1\n"));
    let nesting = Nesting::default();
    let choice = EngineConfig {
        engine: EngineChoice::Single,
        verify_ecdsa: VerifyRate::NEVER,
        calibration: Duration::ZERO,
    };
    let engine = Engine::with_backends(choice, Box::new(nesting.clone()), None).unwrap();
    let server = Server::start_on(Config::load(&site.config()).unwrap(), engine).unwrap();
    let long = accel::Key::from_bytes(RSA.as_bytes()).unwrap();
    let brief = accel::Key::from_bytes(brief.serialize_pem().as_bytes()).unwrap();
    let request = |ski, opcode| Request {
        ski: Some(ski),
        payload: &[7; 32],
        extended: true,
        ..Request::new(0, opcode)
    };
    let long = request(long.ski(), Opcode::RsaPssSignSha256);
    let brief = request(brief.ski(), Opcode::EcdsaSignSha256);
    let mut edge = Edge::connect(&identity(&site), server.local_addr());
    edge.ask(&brief, 200);
    edge.answers(200);
    assert_eq!(nesting.1.load(Ordering::Relaxed), 1);
    let began = keyserver::clock::now();
    while nesting.1.load(Ordering::Relaxed) == 1 {
        assert!(began.elapsed() < Duration::from_secs(30));
        edge.ask(&long, 8);
        let first = edge.answers(1).len();
        edge.ask(&brief, 8);
        edge.answers(16 - first);
    }
    assert_eq!(nesting.1.load(Ordering::Relaxed), 2);
    server.stop();
}
