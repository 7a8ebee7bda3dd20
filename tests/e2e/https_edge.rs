//! The example of the client library: an HTTPS server that holds everything but its private key.
//! Other people's clients connect to it, and verify the certificate and the handshake's signature.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use keyserver_tests::{
    ClientRule, Fixture, KeyKind, KeyServer, Log, ServerConfig, binaries, parts, server,
};

/// The running example. Killed when dropped.
struct Edge {
    child: Child,
    log: Log,
    address: String,
}

impl Drop for Edge {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The line with this text, once it is there.
fn said(log: &Log, text: &str) -> String {
    log.wait_for(Duration::from_secs(30), |line| line.contains(text))
        .unwrap_or_else(|| panic!("`{text}` is not said:\n{log}"))
}

/// An edge with a certificate for a key of this kind, before a server that grants these rights.
fn start(kind: KeyKind, rights: &[&str]) -> (Fixture, KeyServer, Edge) {
    start_program(&binaries::https_edge(), kind, rights)
}

/// As [`start`], with an edge that takes the same arguments.
fn start_program(program: &Path, kind: KeyKind, rights: &[&str]) -> (Fixture, KeyServer, Edge) {
    let fixture = Fixture::new();
    let key = std::fs::read(fixture.add_key("shop", kind)).unwrap();
    fixture.write("shop.pem", fixture.pki.site(&key));
    let config = ServerConfig {
        clients: vec![ClientRule::new("edge-1", rights)],
        ..ServerConfig::default()
    };
    let server = KeyServer::start(&fixture, &config);
    let path = |name: &str| fixture.path(name).display().to_string();
    let arguments = [
        "127.0.0.1:0".to_owned(),
        path("shop.pem"),
        server.address().to_string(),
        "localhost".to_owned(),
        path("pki/ca.pem"),
        path("pki/edge-1.pem"),
        path("pki/edge-1-key.pem"),
    ];
    let (child, log) = server::spawn(program, &arguments);
    let line = said(&log, "listening on ");
    let address = line.rsplit_once(' ').unwrap().1.trim().to_owned();
    let edge = Edge {
        child,
        log,
        address,
    };
    (fixture, server, edge)
}

/// What `openssl s_client` prints about one request.
fn openssl(fixture: &Fixture, edge: &Edge, version: &str) -> String {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &edge.address, version, "-ign_eof"])
        .args(["-verify_return_error", "-verify_hostname", "localhost"])
        .args(["-servername", "localhost", "-CAfile"])
        .arg(fixture.path("pki/ca.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    // A refused handshake closes the pipe, which the output then tells of.
    drop(input.write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n"));
    drop(input);
    let output = child.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn openssl_and_curl_are_served_over_both_versions() {
    let (Some(_), Some(curl)) = (parts::program("openssl"), parts::program("curl")) else {
        return;
    };
    for kind in [KeyKind::P256, KeyKind::Rsa2048, KeyKind::P384] {
        let (fixture, server, edge) = start(kind, &["tls13-sign", "tls12-sign"]);
        for version in ["-tls1_3", "-tls1_2"] {
            let seen = openssl(&fixture, &edge, version);
            assert!(
                seen.contains("on another machine"),
                "{kind:?} {version}:\n{seen}\n{}",
                edge.log
            );
            assert!(
                seen.contains("Verify return code: 0"),
                "{kind:?} {version}:\n{seen}"
            );
        }
        for version in ["--tls-max=1.2", "--tlsv1.3"] {
            let version: Vec<&str> = version.split('=').collect();
            let output = Command::new(&curl)
                .args(version)
                .args(["--silent", "--show-error", "--cacert"])
                .arg(fixture.path("pki/ca.pem"))
                .arg(format!("https://{}/", edge.address))
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(
                text.contains("on another machine"),
                "{kind:?}: {output:?}\n{}",
                edge.log
            );
        }
        drop(edge);
        assert!(server.stop().success());
    }
}

/// The server signs with Ed25519 for TLS 1.3 only.
#[test]
fn ed25519_is_for_tls_1_3() {
    if parts::program("openssl").is_none() {
        return;
    }
    let (fixture, _server, edge) = start(KeyKind::Ed25519, &["tls13-sign", "tls12-sign"]);
    let seen = openssl(&fixture, &edge, "-tls1_3");
    assert!(
        seen.contains("Verify return code: 0"),
        "{seen}\n{}",
        edge.log
    );
    assert!(seen.contains("on another machine"), "{seen}\n{}", edge.log);
}

#[test]
fn without_the_right_no_handshake_is_signed() {
    if parts::program("openssl").is_none() {
        return;
    }
    let (fixture, _server, edge) = start(KeyKind::P256, &["tls13-sign"]);
    let seen = openssl(&fixture, &edge, "-tls1_3");
    assert!(seen.contains("on another machine"), "{seen}\n{}", edge.log);
    let seen = openssl(&fixture, &edge, "-tls1_2");
    assert!(!seen.contains("on another machine"), "{seen}");
    let line = said(&edge.log, "a connection failed");
    assert!(line.contains("denied") || line.contains("Denied"), "{line}");
}

/// The same on BoringSSL, by the example that `tests/boring_edge` builds.
#[test]
fn openssl_is_served_by_boringssl_too() {
    let (Some(program), Some(_)) = (parts::boring_edge(), parts::program("openssl")) else {
        return;
    };
    for kind in [KeyKind::P256, KeyKind::Rsa2048] {
        let rights = ["tls13-sign", "tls12-sign"];
        let (fixture, server, edge) = start_program(&program, kind, &rights);
        for version in ["-tls1_3", "-tls1_2"] {
            let seen = openssl(&fixture, &edge, version);
            let served = seen.contains("on another machine") && seen.contains("return code: 0");
            assert!(served, "{kind:?} {version}:\n{seen}\n{}", edge.log);
        }
        drop(edge);
        assert!(server.stop().success());
    }
    // And without the right it is not.
    let (fixture, _server, edge) = start_program(&program, KeyKind::P256, &["tls13-sign"]);
    let seen = openssl(&fixture, &edge, "-tls1_2");
    assert!(!seen.contains("on another machine"), "{seen}");
}
