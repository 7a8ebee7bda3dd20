//! The module before a server that follows the stock column of `docs/protocol.md` and nothing more:
//! a program of its own, in another language.

use keyserver_tests::{KeyKind, parts};

use crate::edge::{Background, Edge, PATIENCE, run};
use crate::nginx::Nginx;
use crate::{gnutls, nginx};

/// What stock servers serve: decryption, RSA signatures, ECDSA signatures, PSS, ping. And the one
/// question that tells them from ours.
const STOCK: [&str; 19] = [
    "0x01", "0x02", "0x03", "0x04", "0x05", "0x06", "0x07", "0x12", "0x13", "0x14", "0x15", "0x16",
    "0x17", "0x18", "0x35", "0x36", "0x37", "0xf1", "0x47",
];

/// An edge with a stock server where its own was.
fn stock_edge(kinds: &[KeyKind]) -> Option<(Edge, Background)> {
    let python = parts::python_with_cryptography()?;
    let mut edge = Edge::new(kinds);
    let address = edge.server().address();
    edge.stop_server();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/edges/stock_server.py");
    let mut command = std::process::Command::new(python);
    command.arg(script).current_dir(edge.path(""));
    command.args([address.ip().to_string(), address.port().to_string()]);
    command.args(["pki/server.pem", "pki/server-key.pem", "pki/ca.pem", "keys"]);
    let mut server = Background::start(&mut command);
    server.wait_for(address);
    Some((edge, server))
}

/// Asserts that nothing was sent which version 1 of the protocol does not know, and that these
/// operations were asked for.
fn check(server: &Background, operations: &[&str]) {
    for operation in operations {
        let request = format!("request {operation} ");
        let asked = |line: &str| line.starts_with(&request);
        assert!(
            server.log.wait_for(PATIENCE, asked).is_some(),
            "no {operation}:\n{}",
            server.log
        );
    }
    let requests = server.log.matching("request 0x");
    for request in &requests {
        let mut words = request.split(' ').skip(1);
        let opcode = words.next().unwrap();
        assert!(STOCK.contains(&opcode), "{request}");
        for tag in words.skip(1) {
            assert!(["0x04", "0x11", "0x12", "0x20"].contains(&tag), "{request}");
        }
    }
}

#[test]
fn nginx_serves_both_kinds_of_keys() {
    let Some(program) = nginx::program() else {
        return;
    };
    let kinds = [KeyKind::Rsa2048, KeyKind::P256];
    let Some((edge, server)) = stock_edge(&kinds) else {
        return;
    };
    let nginx = Nginx::start_on(edge, &program, &kinds, 2);
    let printed = run(&mut nginx.handshakes(40));
    assert!(printed.starts_with("ok 40 failed 0"), "{printed}");
    // ECDSA and PSS with SHA-256, which is what these clients and OpenSSL agree on.
    check(&server, &["0x15", "0x35"]);
}

#[test]
fn gnutls_decrypts_as_well() {
    let Some(program) = parts::program_of("gnutls-bin", "gnutls-serv") else {
        return;
    };
    let Some((edge, server)) = stock_edge(&gnutls::KINDS) else {
        return;
    };
    gnutls::serve_every_key_exchange(&program, &edge);
    check(&server, &["0x15", "0x01"]);
}
