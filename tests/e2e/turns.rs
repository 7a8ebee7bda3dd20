//! Pipelines of what an I/O thread does by itself: they come in turns, and end.

use std::time::{Duration, Instant};

use keyless_protocol::{Opcode, Request};
use keyserver_tests::{ClientRule, Fixture, KeyKind, KeyServer, ServerConfig, Wire, http};

use crate::on_both_backends;

on_both_backends!(
    pings_are_answered_beside_pipelines_of_key_lists,
    every_refusal_of_a_long_pipeline_is_sent,
);

/// More than are looked at for one page.
const KEYS: usize = 5000;
const HOGS: usize = 64;

/// In seconds, since what it shows is that the thread is not held: it was, for minutes.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server with `KEYS` keys; `edge-1` may use one of them, with these settings.
fn start(backend: &str, keys: usize, more: &str) -> (Fixture, KeyServer) {
    let fixture = Fixture::new();
    for number in 0..keys {
        fixture.add_key(&format!("key-{number:04}"), KeyKind::Ed25519);
    }
    fixture.add_key("shop", KeyKind::P256);
    let mut few = ClientRule::new("edge-1", &["sign-digest"]);
    few.keys = vec!["shop".to_owned()];
    few.conditions = more.to_owned();
    let config = ServerConfig {
        clients: vec![few],
        ..ServerConfig::default().io_backend(backend)
    };
    let server = KeyServer::start(&fixture, &config);
    (fixture, server)
}

async fn pings_are_answered_beside_pipelines_of_key_lists(backend: &str) {
    let (fixture, server) = start(backend, KEYS, "");
    let connect = |_| Wire::connect(&fixture, server.address(), "edge-1");
    let ping = |wire: &mut Wire| {
        let began = Instant::now();
        wire.ask(&Request::new(1, Opcode::Ping)).unwrap();
        began.elapsed()
    };
    let mut honest = connect(0);
    let mut hogs: Vec<_> = (0..HOGS).map(connect).collect();
    for wire in &mut hogs {
        ping(wire);
    }
    let page = Request::new(7, Opcode::KeyList);
    for wire in &mut hogs {
        wire.send(&vec![page; 250]);
    }
    for _ in 0..20 {
        let took = ping(&mut honest);
        assert!(took < PATIENCE, "{took:?}");
        let alive = http::get(server.metrics_address(), "/livez").unwrap();
        assert_eq!(alive.status, 200, "{}", alive.body);
        std::thread::sleep(Duration::from_millis(100));
    }
    // Who pipelines is served all the same, in turns.
    for wire in &mut hogs {
        wire.receive();
    }
}

/// What is left behind a cap when the pause for refusals begins is served after it.
async fn every_refusal_of_a_long_pipeline_is_sent(backend: &str) {
    let (fixture, server) = start(backend, 0, "rate = \"1/h\"");
    let mut wire = Wire::connect(&fixture, server.address(), "edge-1");
    let path = fixture.path("keys/shop.key");
    let key = accel::load_file(&path, &accel::LoadRules::default()).unwrap();
    let sign = Request {
        ski: Some(key.key.ski()),
        payload: &[7; 32],
        ..Request::new(7, Opcode::EcdsaSignSha256)
    };
    // Twice what may wait for a reader.
    let requests = vec![sign; 600];
    wire.send(&requests);
    for _ in requests {
        wire.receive();
    }
}
