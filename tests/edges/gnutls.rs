//! gnutls-serv, as its page starts it. It signs, and for `TLS_RSA` decrypts into a buffer of 48 bytes.

use std::path::Path;
use std::process::Stdio;

use keyserver_tests::fixture::free_address;
use keyserver_tests::{KeyKind, parts};

use crate::edge::{Background, Edge, run};
use crate::pages;

pub(crate) const KINDS: [KeyKind; 2] = [KeyKind::Rsa2048, KeyKind::P256];

/// Under each of the rights with which the module opens a key exchange: that of the page, the one that gives a block with a
/// padding of its own, each with every ciphertext once, and the raw one.
#[test]
fn serves_every_key_exchange() {
    let Some(program) = parts::program_of("gnutls-bin", "gnutls-serv") else {
        return;
    };
    let page = pages::rights("gnutls", 0);
    assert_eq!(page, ["sign-digest", "decrypt-premaster"]);
    let ledger = "[ledger]\ndirectory = \"ledger\"\n";
    for (right, extra) in [
        ("decrypt-premaster", ledger),
        ("decrypt-compatible", ledger),
        ("decrypt-raw", ""),
    ] {
        let edge = Edge::with_rights(&KINDS, &["sign-digest", right], extra);
        serve_every_key_exchange(&program, &edge);
        let decrypted = [
            "keyserver_requests_total",
            "\"rsa-decrypt\"",
            "result=\"ok\"",
        ];
        let metrics = edge.server().metrics();
        assert_eq!(
            edge.server().metric(&decrypted),
            Some(1.0),
            "{right}: {metrics}"
        );
    }
}

/// A page over TLS 1.3, over TLS 1.2 with each kind of key, and with RSA key exchange.
pub(crate) fn serve_every_key_exchange(program: &Path, edge: &Edge) {
    let address = free_address();
    let mut command = edge.command(program);
    // The first site is the page's; the second is given in the same way.
    let page = pages::arguments("gnutls", "gnutls-serv").join(" ");
    let (first, site) = page.split_at(page.find("--x509certfile").unwrap());
    command.args(pages::with_module(first).split_whitespace());
    for kind in KINDS {
        let certificate = edge.path(&format!("sites/{}.pem", kind.name()));
        let site = pages::with_site(site, kind.name(), &certificate);
        command.args(site.split_whitespace());
    }
    command.args(["--noticket", "--port", &address.port().to_string()]);
    // It asks for a PIN on the terminal when it believes that there is one.
    let mut server = Background::start(command.stdin(Stdio::null()));
    server.wait_for(address);
    let ciphers = |name: &'static str| ["--tls-max", "1.2", "--ciphers", name];
    for (options, wanted) in [
        (&["--tlsv1.3"][..], "TLS1.3"),
        (&ciphers("ECDHE-RSA-AES128-GCM-SHA256"), "ECDHE-RSA"),
        (&ciphers("ECDHE-ECDSA-AES128-GCM-SHA256"), "ECDHE-ECDSA"),
        (&ciphers("AES128-GCM-SHA256"), "RSA"),
    ] {
        let page = run(edge.fetch(address.port(), "/").args(options));
        assert!(page.contains(wanted), "{options:?}: {page}\n{}", server.log);
    }
}
