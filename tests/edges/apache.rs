//! Apache: several processes, each with threads that sign side by side, under another account than
//! the one that may read the module's files.

use keyserver_tests::fixture::free_address;
use keyserver_tests::{KeyKind, parts};

use crate::edge::{Background, Edge, engine_is_there, outcome};
use crate::pages;

const MODULES: &str = "/usr/lib/apache2/modules";

#[test]
fn serves_from_threads_of_forked_processes() {
    let Some(program) = parts::program_of("apache2", "apache2") else {
        return;
    };
    if !engine_is_there() {
        return;
    }
    let kinds = [KeyKind::Rsa2048, KeyKind::P256];
    let edge = Edge::new(&kinds);
    let mut text = format!(
        "ServerRoot {root}\nServerName localhost\nPidFile apache.pid\nErrorLog apache.log\n\
         DefaultRuntimeDir {root}\nUser www-data\nGroup www-data\n\
         LoadModule mpm_event_module {MODULES}/mod_mpm_event.so\n\
         LoadModule authz_core_module {MODULES}/mod_authz_core.so\n\
         LoadModule ssl_module {MODULES}/mod_ssl.so\n\
         StartServers 3\nThreadsPerChild 8\n{device}SSLSessionTickets off\n\
         ErrorDocument 403 \"served from the edge\"\n",
        device = pages::block("apache", "apache", 0),
        root = edge.path("").display(),
    );
    let addresses = kinds.map(|kind| (kind.name(), free_address()));
    for (name, address) in addresses {
        let certificate = edge.path(&format!("sites/{name}.pem"));
        let lines = pages::with_site(&pages::block("apache", "apache", 1), name, &certificate);
        text += &format!(
            "Listen {address}\n<VirtualHost {address}>\nSSLEngine on\n{lines}\
             <Location />\nRequire all denied\n</Location>\n</VirtualHost>\n"
        );
    }
    let config = edge.fixture.write("apache.conf", text);
    let mut command = edge.command(program);
    let mut process = Background::start(command.arg("-DFOREGROUND").arg("-f").arg(config));
    for (_, address) in addresses {
        process.wait_for(address);
    }
    let log = || std::fs::read_to_string(edge.path("apache.log")).unwrap_or_default();
    std::thread::scope(|scope| {
        for (name, address) in addresses {
            for version in ["1.2", "1.3"] {
                let (edge, log) = (&edge, &log);
                scope.spawn(move || {
                    for _ in 0..10 {
                        let mut fetch = edge.fetch(address.port(), "/");
                        let answer = outcome(fetch.args(["--tls-max", version]));
                        let body = String::from_utf8_lossy(&answer.stdout).into_owned();
                        assert_eq!(body, "served from the edge", "{name} {version}: {}", log());
                    }
                });
            }
        }
    });
}
