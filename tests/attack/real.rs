//! The real server, as a process of its own, attacked by one of its clients.

use std::time::Duration;
use std::{env, fs};

use keyserver_tests::{Fixture, KeyKind, KeyServer, ServerConfig, clock};

use crate::{attack, of};

/// Two edges, each with a site of its own, that share three keys of RSA key exchanges: one for each right that opens
/// ciphertexts.
const CLIENTS: &str = r#"
[ledger]
directory = "ledger"

[[keys]]
directory = "exchanges"
purpose = "key-exchange"

[[clients]]
name = "edge-1"
match = "dns:edge-1"
[[clients.grants]]
keys = ["site", "site-*"]
allow = ["tls13-sign", "tls12-sign"]
[[clients.grants]]
keys = ["old-master"]
allow = ["tls12-master"]
[[clients.grants]]
keys = ["old-premaster"]
allow = ["decrypt-premaster"]
[[clients.grants]]
keys = ["old-compatible"]
allow = ["decrypt-compatible"]

[[clients]]
name = "edge-2"
match = "dns:edge-2"
[[clients.grants]]
keys = ["other"]
allow = ["tls13-sign", "tls12-sign"]
[[clients.grants]]
keys = ["old-master"]
allow = ["tls12-master"]
[[clients.grants]]
keys = ["old-premaster"]
allow = ["decrypt-premaster"]
[[clients.grants]]
keys = ["old-compatible"]
allow = ["decrypt-compatible"]
"#;

const KEYS: [(&str, KeyKind); 9] = [
    ("keys/site", KeyKind::P256),
    ("keys/site-p384", KeyKind::P384),
    ("keys/site-ed25519", KeyKind::Ed25519),
    ("keys/site-rsa", KeyKind::Rsa2048),
    ("keys/site-ml-dsa", KeyKind::MlDsa44),
    ("keys/other", KeyKind::P256),
    ("exchanges/old-master", KeyKind::Rsa2048),
    ("exchanges/old-premaster", KeyKind::Rsa2048),
    ("exchanges/old-compatible", KeyKind::Rsa2048),
];

fn fixture(keys: &[(&str, KeyKind)]) -> Fixture {
    let fixture = Fixture::new();
    fixture.write_identity("edge-2", &fixture.pki.client("edge-2"));
    fs::create_dir(fixture.path("exchanges")).unwrap();
    for (path, kind) in keys {
        fixture.write(format!("{path}.key"), kind.generate());
    }
    fixture
}

fn config(backend: &str, clients: &str) -> ServerConfig {
    ServerConfig {
        purpose: "purpose = \"sign\"".to_owned(),
        clients: Vec::new(),
        extra: clients.to_owned(),
        ..ServerConfig::default().io_backend(backend)
    }
}

/// Requests of each class where times are compared. Few show that the comparison is fair; a hundred thousand, that
/// there is nothing to be seen.
fn samples() -> String {
    env::var("KEYSERVER_ATTACK_SAMPLES").unwrap_or_else(|_| "40".to_owned())
}

/// With the rights of a careful owner nothing is found, and what was opened before a kill is not opened after it.
fn everything_holds(backend: &str) {
    let fixture = fixture(&KEYS);
    let config = config(backend, CLIENTS);
    let server = KeyServer::start(&fixture, &config);
    let recording = fixture.path("recording");
    let options = [
        "--recording",
        recording.to_str().unwrap(),
        "--samples",
        &samples(),
    ];
    let (report, all_held) = attack(&fixture, server.address(), &options);
    assert!(all_held, "{}", server.log());
    assert_eq!(of(&report, "skipped"), ["replay-later"]);
    assert_eq!(of(&report, "held").len(), 21);
    // None of it held because honest requests are refused too.
    for (name, (_, why)) in &report {
        let is_empty = ["so were honest", "every way was refused"];
        assert!(
            !is_empty.iter().any(|text| why.contains(text)),
            "{name}: {why}"
        );
    }
    let ways = &report["padding-error"].1;
    for way in [
        "0x42 with old-master",
        "0x01 with a version with old-premaster",
        "0x01 with old-compatible",
    ] {
        assert!(ways.contains(way), "{ways}");
    }
    // The owner sees the replays.
    assert!(server.metric(&["keyserver_rejected_total", "replay"]) > Some(5.0));
    let patience = Duration::from_secs(30);
    let alarms = (server.log()).wait_for_matching(patience, "replay_decrypt", 1);
    assert!(!alarms.is_empty(), "{}", server.log());

    // Killed, not asked.
    drop(server);
    let server = KeyServer::start(&fixture, &config);
    let only = [&options[..2], &["--only", "replay-later"]].concat();
    let (report, _) = attack(&fixture, server.address(), &only);
    assert_eq!(of(&report, "held"), ["replay-later"]);
    assert!(server.stop().success());
}

#[test]
fn everything_holds_over_epoll() {
    everything_holds("epoll");
}

#[test]
fn everything_holds_over_uring() {
    everything_holds("uring");
}

/// A ceiling refuses good blocks and bad ones alike, and that is no proof of anything: what depends on an honest answer is
/// never held then, whether the ceiling is used up in the middle of an attack or was before it.
#[test]
fn nothing_is_held_by_a_ceiling_alone() {
    clock::wait_past_midnight();
    let clients = CLIENTS.replace("allow = [", "daily = 10\nallow = [");
    let fixture = fixture(&KEYS);
    let recording = fixture.path("recording");
    let server = KeyServer::start(&fixture, &config("epoll", &clients));
    let options = ["--recording", recording.to_str().unwrap(), "--samples", "8"];
    let runs = [(); 2].map(|()| attack(&fixture, server.address(), &options));
    for (report, is_success) in &runs {
        assert!(!is_success, "it looks as if all had held");
        assert_eq!(of(report, "broken"), [""; 0]);
        let mut held = of(report, "held");
        held.retain(|name| name.starts_with("padding-") || name.starts_with("replay-"));
        assert_eq!(held, [""; 0]);
    }
    let [(midway, _), (before, _)] = &runs;
    // These want refusals, of what no right names.
    let held = [
        "enumerate-answer",
        "enumerate-time",
        "foreign-key",
        "purpose",
        "sign-digest",
    ];
    assert_eq!(of(before, "held"), held);
    for (_, why) in [&midway["padding-repetition"], &before["padding-error"]] {
        assert!(why.contains("`daily`"), "{why}");
    }
    assert!(!recording.exists(), "what was not answered is kept");
    assert!(server.stop().success());
}

/// Rights that are too wide are found, and called by their name.
#[test]
fn rights_that_are_too_wide_are_found() {
    let clients = r#"
[[clients]]
name = "edge-1"
match = "dns:edge-1"
[[clients.grants]]
keys = ["*"]
allow = ["decrypt-raw", "sign-digest"]
expires = "2099-12-31"

[[clients]]
name = "edge-2"
match = "dns:edge-2"
"#;
    let fixture = fixture(&[("keys/shop", KeyKind::Rsa2048)]);
    let config = ServerConfig {
        purpose: "dual_use_until = 2099-12-31".to_owned(),
        ..config("epoll", clients)
    };
    let server = KeyServer::start(&fixture, &config);
    let (report, all_held) = attack(&fixture, server.address(), &["--samples", "8"]);
    assert!(!all_held);
    for (name, right) in [
        ("forge-pkcs1", "decrypt-raw"),
        ("forge-pss", "decrypt-raw"),
        ("sign-digest", "sign-digest"),
    ] {
        let (verdict, why) = &report[name];
        assert_eq!(verdict, "broken");
        assert!(why.contains(&format!("this client holds {right}")), "{why}");
    }
    // Nothing is remembered of what the raw right opens, and its blocks are shown.
    let mut found = of(&report, "broken");
    found.retain(|name| !name.starts_with("forge") && *name != "sign-digest");
    assert_eq!(found, ["padding-separator", "replay-same"]);
    assert!(server.stop().success());
}

/// A glob that gives every right on every key: each key does what it is for, and not the other thing.
#[test]
fn a_key_does_what_it_is_for_and_nothing_else() {
    let clients = r#"
[ledger]
directory = "ledger"

[[keys]]
directory = "exchanges"
purpose = "key-exchange"

[[clients]]
name = "edge-1"
match = "dns:edge-1"
[[clients.grants]]
keys = ["*"]
allow = ["tls13-sign", "tls12-sign", "tls12-master", "decrypt-premaster", "decrypt-compatible"]

[[clients]]
name = "edge-2"
match = "dns:edge-2"
"#;
    let fixture = fixture(&[
        ("keys/site", KeyKind::Rsa2048),
        ("exchanges/old-site", KeyKind::Rsa2048),
    ]);
    let server = KeyServer::start(&fixture, &config("uring", clients));
    let only = [
        "--only",
        "purpose",
        "--only",
        "padding-error",
        "--only",
        "sign-request",
    ];
    let (report, all_held) = attack(&fixture, server.address(), &only);
    assert!(all_held);
    // Two ways to sign and all four to open are refused to one key, three ways to sign and one to open to the other.
    let why = &report["purpose"].1;
    assert!(why.starts_with("9 uses"), "{why}");
    assert!(report["padding-error"].1.contains("with old-site"));
    assert!(
        report["sign-request"]
            .1
            .contains("honest handshakes signed")
    );
    assert!(server.stop().success());
}

/// A client that may do nothing finds nothing out.
#[test]
fn a_client_without_rights_is_refused_alike() {
    let clients = r#"
[[clients]]
name = "edge-1"
match = "dns:edge-1"

[[clients]]
name = "edge-2"
match = "dns:edge-2"
[[clients.grants]]
keys = ["*"]
allow = ["tls13-sign", "tls12-sign"]
"#;
    let fixture = fixture(&[("keys/site", KeyKind::P256)]);
    let server = KeyServer::start(&fixture, &config("uring", clients));
    let (report, all_held) = attack(&fixture, server.address(), &["--samples", "40"]);
    assert!(all_held);
    let held = ["enumerate-answer", "enumerate-time", "foreign-key"];
    assert_eq!(of(&report, "held"), held);
    assert!(server.stop().success());
}
