//! The load generator against the real server: every answer of a mixed load is checked, and the
//! server's own counters agree with the result.

use std::path::Path;
use std::process::{Command, Output};

use keyserver_tests::{KeyKind, ServerConfig, binaries};
use serde_json::Value;

use crate::World;

const KEYS: [KeyKind; 5] = [
    KeyKind::Rsa2048,
    KeyKind::P256,
    KeyKind::P384,
    KeyKind::P521,
    KeyKind::Ed25519,
];

fn loadgen(world: &World, more: &[&str]) -> Output {
    let mut command = Command::new(binaries::loadgen());
    command.args(["run", "--target", &world.server.address().to_string()]);
    command.args([
        "--server-name",
        "localhost",
        "--timeout",
        "30s",
        "--no-progress",
    ]);
    for (option, file) in [
        ("--ca", "ca.pem"),
        ("--cert", "edge-1.pem"),
        ("--key", "edge-1-key.pem"),
    ] {
        command
            .arg(option)
            .arg(world.fixture.path(Path::new("pki").join(file)));
    }
    command.args(more).output().unwrap()
}

/// The result document of a run that ended with status 0.
fn result(world: &World, more: &[&str]) -> Value {
    let output = loadgen(world, &[more, &["--format", "json"]].concat());
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{errors}{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn count(result: &Value, path: &str) -> u64 {
    let value = result.pointer(path).and_then(Value::as_u64);
    value.unwrap_or_else(|| panic!("{path} is no count in {result}"))
}

fn a_mixed_load_verifies(backend: &str) {
    let mut config = ServerConfig::default().io_backend(backend);
    let rights = ["sign-digest", "decrypt-raw", "tls13-sign", "tls12-sign"];
    config.clients = vec![keyserver_tests::ClientRule::new("edge-1", &rights)];
    let world = World::with_config(&KEYS, &config);
    let mix = "rsa2048=3,p256=4,p384=1,p521=1,ed25519=4,rsa2048-decrypt=1,ping=6,\
               tls13-p256=2,tls13-ed25519=1,tls13-rsa2048=1,tls12-p384=1,tls12-rsa2048=1";
    // Objectives are about the answers, not about how fast a busy machine gives them.
    let always = [
        "-w",
        "0s",
        "--verify",
        "all",
        "--fail-on",
        "slo",
        "--slo",
        "errors<0%",
    ];
    for load in [
        &["-r", "300", "-d", "3s", "-c", "4"][..],
        &[
            "--closed",
            "-n",
            "1000",
            "-c",
            "4",
            "--inflight-per-conn",
            "16",
            "--pad",
            "pkcs1",
        ],
    ] {
        let result = result(&world, &[&["--mix", mix], &always[..], load].concat());
        let requests = count(&result, "/result/requests");
        assert!(requests >= 600, "{result}");
        assert_eq!(count(&result, "/result/ok"), requests);
        assert_eq!(count(&result, "/result/verified"), requests);
        assert_eq!(count(&result, "/result/wrong_signatures"), 0);
        assert_eq!(result["result"]["errors"], serde_json::json!({}));
        assert_eq!(result["target"]["server"]["server"], "keyserver");
        for class in 0..12 {
            assert!(
                count(&result, &format!("/result/by_class/{class}/ok")) > 0,
                "{result}"
            );
        }
    }
}

#[test]
fn a_mixed_load_verifies_on_epoll() {
    a_mixed_load_verifies("epoll");
}

#[test]
fn a_mixed_load_verifies_on_uring() {
    a_mixed_load_verifies("uring");
}

#[test]
fn a_class_without_a_grant_is_refused_before_the_load() {
    let config = ServerConfig {
        clients: vec![keyserver_tests::ClientRule::new("edge-1", &["sign-digest"])],
        ..ServerConfig::default()
    };
    let world = World::with_config(&KEYS, &config);
    let output = loadgen(&world, &["--closed", "--mix", "rsa2048-decrypt"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains("rsa2048-decrypt") && errors.contains("p256"),
        "{errors}"
    );
}
