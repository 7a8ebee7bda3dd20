//! gnutls-serv. It signs, and for `TLS_RSA` decrypts into a buffer of 48 bytes.

use std::process::Stdio;

use keyserver_tests::fixture::free_address;
use keyserver_tests::{KeyKind, binaries, parts};

use crate::edge::{Background, Edge, run};

#[test]
fn serves_every_key_exchange() {
    let Some(program) = parts::program_of("gnutls-bin", "gnutls-serv") else {
        return;
    };
    let edge = Edge::new(&[KeyKind::Rsa2048, KeyKind::P256]);
    let address = free_address();
    let mut command = edge.command(program);
    command.arg("--provider").arg(binaries::pkcs11_module());
    command.args([
        "--http",
        "--noticket",
        "--port",
        &address.port().to_string(),
    ]);
    for name in ["rsa-2048", "p-256"] {
        command.args([
            "--x509certfile",
            &format!("sites/{name}.pem"),
            "--x509keyfile",
        ]);
        command.arg(format!("pkcs11:object={name};type=private"));
    }
    // It asks for a PIN on the terminal when it believes that there is one.
    let mut server = Background::start(command.stdin(Stdio::null()));
    server.wait_for(address);
    for (options, wanted) in [
        (&["--tlsv1.3"][..], "TLS1.3"),
        (
            &[
                "--tls-max",
                "1.2",
                "--ciphers",
                "ECDHE-RSA-AES128-GCM-SHA256",
            ],
            "ECDHE-RSA",
        ),
        (
            &[
                "--tls-max",
                "1.2",
                "--ciphers",
                "ECDHE-ECDSA-AES128-GCM-SHA256",
            ],
            "ECDHE-ECDSA",
        ),
        (
            &["--tls-max", "1.2", "--ciphers", "AES128-GCM-SHA256"],
            "RSA",
        ),
    ] {
        let page = run(edge.fetch(address.port(), "/").args(options));
        assert!(page.contains(wanted), "{options:?}: {page}\n{}", server.log);
    }
    let decrypted = [
        "keyserver_requests_total",
        "\"rsa-decrypt\"",
        "result=\"ok\"",
    ];
    assert_eq!(
        edge.server().metric(&decrypted),
        Some(1.0),
        "{}",
        edge.server().metrics()
    );
}
