//! curl with a client certificate whose key is on the key server.

use keyserver_tests::fixture::free_address;
use keyserver_tests::{KeyKind, parts};

use crate::edge::{Background, Edge, engine_is_there, outcome, run};
use crate::pages;

#[test]
fn presents_a_client_certificate() {
    let (Some(curl), Some(openssl)) = (parts::program("curl"), parts::program("openssl")) else {
        return;
    };
    if !engine_is_there() {
        return;
    }
    let edge = Edge::new(&[KeyKind::P256, KeyKind::Rsa2048]);
    // A server with a key of its own, which lets in whoever has a certificate and shows it.
    let address = free_address();
    let mut server = std::process::Command::new(openssl);
    server.args([
        "s_server",
        "-www",
        "-Verify",
        "1",
        "-verify_return_error",
        "-accept",
    ]);
    server.arg(address.to_string()).current_dir(edge.path(""));
    server.args(["-CAfile", "pki/ca.pem", "-cert", "pki/server.pem", "-key"]);
    server.arg("pki/server-key.pem");
    let mut server = Background::start(&mut server);
    server.wait_for(address);

    let url = format!("https://localhost:{}/", address.port());
    let plain = [
        "--silent",
        "--show-error",
        "--max-time",
        "20",
        "--cacert",
        "pki/ca.pem",
        &url,
    ];
    for name in ["p-256", "rsa-2048"] {
        for version in ["1.2", "1.3"] {
            let version = [&format!("--tlsv{version}"), "--tls-max", version];
            // The page's line, but for its site and its address.
            let mut arguments = pages::arguments("tools", "curl");
            assert_eq!(arguments.pop().as_deref(), Some("https://partner.example/"));
            let line = arguments
                .join(" ")
                .replace("=me;", "=shop;")
                .replace("me.pem", "shop.pem");
            let line = pages::with_site(&line, name, &edge.path(&format!("sites/{name}.pem")));
            let mut command = edge.command(&curl);
            command.args(plain).args(version);
            let page = run(command.args(line.split_whitespace()));
            assert!(
                page.contains("Client certificate"),
                "{name} {version:?}: {page}"
            );
        }
    }
    let without = outcome(edge.command(&curl).args(plain));
    assert!(
        !without.status.success(),
        "the server asks for a certificate"
    );
}
