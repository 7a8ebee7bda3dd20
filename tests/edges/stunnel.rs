//! stunnel before a plain HTTP service: the key server's own health page.

use keyserver_tests::fixture::free_address;
use keyserver_tests::{KeyKind, parts};

use crate::edge::{Background, Edge, engine_is_there, run};
use crate::pages;

#[test]
fn carries_requests_for_each_kind_of_key() {
    let Some(program) = parts::program_of("stunnel4", "stunnel4") else {
        return;
    };
    if !engine_is_there() {
        return;
    }
    let kinds = [KeyKind::Rsa2048, KeyKind::P256];
    let edge = Edge::new(&kinds);
    let page = pages::block("stunnel", "ini", 0);
    let (top, site) = page.split_at(page.find("[https]").unwrap());
    let mut text = format!("foreground = yes\npid =\n{top}");
    let addresses = kinds.map(|kind| (kind.name(), free_address()));
    for (name, address) in addresses {
        let certificate = edge.path(&format!("sites/{name}.pem"));
        text += &pages::with_site(site, name, &certificate)
            .replace("[https]", &format!("[{name}]"))
            .replace("= 443", &format!("= {address}"))
            .replace(
                "127.0.0.1:8080",
                &edge.server().metrics_address().to_string(),
            );
    }
    let config = edge.fixture.write("stunnel.conf", text);
    let mut process = Background::start(edge.command(program).arg(config));
    for (name, address) in addresses {
        process.wait_for(address);
        for version in ["1.2", "1.3"] {
            let mut fetch = edge.fetch(address.port(), "/metrics");
            fetch.args([&format!("--tlsv{version}"), "--tls-max", version]);
            let page = run(&mut fetch);
            assert!(
                page.contains("keyserver_"),
                "{name} {version}: {}",
                process.log
            );
        }
    }
}
