//! nginx with Debian's PKCS#11 engine: workers that were forked, reloads, a key server that goes.

use std::env;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use keyserver_tests::fixture::free_address;
use keyserver_tests::{KeyKind, parts};
use nix::sys::signal::Signal;

use crate::edge::{AT_ONCE, Background, Edge, PATIENCE, engine_is_there, outcome, run};
use crate::pages;

/// What every site answers.
pub(crate) const BODY: &str = "served from the edge";

pub(crate) struct Nginx {
    pub(crate) edge: Edge,
    pub(crate) process: Background,
    /// One for each site, in the order of the kinds given.
    pub(crate) addresses: Vec<SocketAddr>,
    kinds: Vec<KeyKind>,
    workers: usize,
}

/// nginx, with the engine beside it; `None` after saying that the test is skipped.
pub(crate) fn program() -> Option<PathBuf> {
    parts::program_of("nginx-light", "nginx").filter(|_| engine_is_there())
}

impl Nginx {
    pub(crate) fn start(program: &PathBuf, kinds: &[KeyKind], workers: usize) -> Self {
        Self::start_on(Edge::new(kinds), program, kinds, workers)
    }

    pub(crate) fn start_on(
        edge: Edge,
        program: &PathBuf,
        kinds: &[KeyKind],
        workers: usize,
    ) -> Self {
        let command = edge.command(program);
        Self::start_with(edge, command, kinds, workers)
    }

    /// As [`Self::start`], by a command that only lacks nginx's own arguments.
    pub(crate) fn start_with(
        edge: Edge,
        mut command: Command,
        kinds: &[KeyKind],
        workers: usize,
    ) -> Self {
        let addresses: Vec<SocketAddr> = kinds.iter().map(|_| free_address()).collect();
        command.arg("-c").arg(edge.path("nginx.conf"));
        command.args(["-e", "stderr"]);
        write_config(&edge, kinds, &addresses, workers, true);
        let mut process = Background::start(&mut command);
        for address in &addresses {
            process.wait_for(*address);
        }
        Self {
            edge,
            process,
            addresses,
            kinds: kinds.into(),
            workers,
        }
    }

    /// Reads the configuration again, with the keys on the key server or in files.
    fn reload(&self, remote: bool) {
        write_config(
            &self.edge,
            &self.kinds,
            &self.addresses,
            self.workers,
            remote,
        );
        self.process.signal(Signal::SIGHUP);
    }

    /// Ends it in an orderly way.
    pub(crate) fn stop(self) -> Edge {
        self.process.signal(Signal::SIGQUIT);
        self.process.wait();
        self.edge
    }

    /// Handshakes with every site in both versions of TLS, by a client that verifies them.
    pub(crate) fn handshakes(&self, count: usize) -> Command {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/edges/handshakes.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(self.edge.path("pki/ca.pem"));
        command.args([count.to_string(), "4".into()]);
        for address in &self.addresses {
            for version in ["1.2", "1.3"] {
                command.arg(format!("{}/{version}", address.port()));
            }
        }
        command
    }

    fn curl(&self) -> Command {
        self.edge.fetch(self.addresses[0].port(), "/")
    }
}

/// Writes `nginx.conf`, with the lines of the page. `remote` says where the keys are.
fn write_config(
    edge: &Edge,
    kinds: &[KeyKind],
    addresses: &[SocketAddr],
    workers: usize,
    remote: bool,
) {
    let mut text = format!(
        "daemon off;\npid {pid};\nerror_log stderr;\nuser www-data;\nworker_processes {workers};\n\
         worker_shutdown_timeout 30;\nenv KEYSERVER_PKCS11_LOG;\n{top}\
         events {{ worker_connections 256; }}\nhttp {{\naccess_log off;\ndefault_type text/plain;\n\
         ssl_session_cache off;\nssl_session_tickets off;\n\
         ssl_protocols TLSv1.2 TLSv1.3;\n",
        pid = edge.path("nginx.pid").display(),
        top = if remote {
            pages::block("nginx", "nginx", 0)
        } else {
            String::new()
        },
    );
    for folder in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        writeln!(text, "{folder}_temp_path {};", edge.path(folder).display()).unwrap();
    }
    for (kind, address) in kinds.iter().zip(addresses) {
        let name = kind.name();
        let certificate = edge.path(&format!("sites/{name}.pem"));
        let lines = pages::block("nginx", "nginx", 1);
        let mut lines = pages::with_site(&lines, name, &certificate);
        if !remote {
            let key = edge.path(&format!("keys/{name}.key"));
            lines = format!("ssl_certificate {};\n", certificate.display());
            lines += &pages::block("nginx", "nginx", 2)
                .replace("/etc/nginx/keys/shop.key", &key.display().to_string());
        }
        writeln!(
            text,
            "server {{\nlisten {address} ssl;\n{lines}\
             location / {{ return 200 \"{BODY}\"; }}\n\
             location /connection {{ return 200 \"$connection\"; }}\n}}",
        )
        .unwrap();
    }
    text.push_str("}\n");
    edge.fixture.write("nginx.conf", text);
}

/// How many handshakes the test makes: a few hundred, or what the environment says.
fn handshake_count() -> usize {
    let given = env::var("KEYSERVER_EDGE_HANDSHAKES").ok();
    given.map_or(400, |text| text.parse().unwrap())
}

/// Eight workers, RSA and P-256, TLS 1.2 and 1.3, and a reload every second meanwhile. Run the full
/// count with `KEYSERVER_EDGE_HANDSHAKES=10000`.
#[test]
fn handshakes_succeed_while_it_is_reloaded() {
    let Some(program) = program() else { return };
    let nginx = Nginx::start(&program, &[KeyKind::Rsa2048, KeyKind::P256], 8);
    let (count, done) = (handshake_count(), AtomicBool::new(false));
    let reloads = thread::scope(|scope| {
        let reloader = scope.spawn(|| {
            let mut reloads = 0;
            while !done.load(Ordering::Relaxed) {
                nginx.process.signal(Signal::SIGHUP);
                reloads += 1;
                thread::sleep(Duration::from_secs(1));
            }
            reloads
        });
        let printed = run(&mut nginx.handshakes(count));
        done.store(true, Ordering::Relaxed);
        assert_eq!(
            printed.lines().next(),
            Some(&*format!("ok {count} failed 0")),
            "{printed}"
        );
        reloader.join().unwrap()
    });
    println!("{count} handshakes, 0 failed, {reloads} reloads");
    assert!(reloads > 0);
    let signed = |operation: &str| {
        let sample = ["keyserver_requests_total", operation, "result=\"ok\""];
        nginx.edge.server().metric(&sample).unwrap_or(0.0)
    };
    // Half of the handshakes are with each key, and the whole of TLS 1.3 with RSA is PSS.
    let quarter = f64::from(u32::try_from(count / 4).unwrap());
    assert!(
        signed("\"ecdsa-sign-sha256\"") >= quarter,
        "{}",
        nginx.edge.server().metrics()
    );
    assert!(
        signed("\"rsa-pss-sign-sha256\"") >= quarter,
        "{}",
        nginx.edge.server().metrics()
    );
}

/// While the key server is away, new handshakes fail at once; when it is back they succeed, and
/// nginx was not restarted. An established connection does not notice.
#[test]
fn a_key_server_that_comes_back_is_used_again() {
    let Some(program) = program() else { return };
    let mut nginx = Nginx::start(&program, &[KeyKind::P256], 2);
    assert_eq!(run(&mut nginx.curl()), BODY);

    nginx.edge.stop_server();
    let begin = Instant::now();
    let failed = outcome(&mut nginx.curl());
    assert!(
        !failed.status.success(),
        "a handshake without the key server"
    );
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());

    nginx.edge.start_server();
    let deadline = Instant::now() + PATIENCE;
    while !outcome(&mut nginx.curl()).status.success() {
        assert!(Instant::now() < deadline, "{}", nginx.process.log);
    }
}

/// The page's way back: the key in a file again, and no key server; and forth again.
#[test]
fn it_rolls_back_to_a_key_in_a_file() {
    let Some(program) = program() else { return };
    let mut nginx = Nginx::start(&program, &[KeyKind::P256], 1);
    assert_eq!(run(&mut nginx.curl()), BODY);
    nginx.edge.stop_server();
    nginx.reload(false);
    let served = |nginx: &Nginx| {
        let deadline = Instant::now() + PATIENCE;
        while !outcome(&mut nginx.curl()).status.success() {
            assert!(Instant::now() < deadline, "{}", nginx.process.log);
        }
    };
    served(&nginx);
    nginx.edge.start_server();
    let signed = |nginx: &Nginx| {
        let sample = [
            "keyserver_requests_total",
            "\"ecdsa-sign-sha256\"",
            "result=\"ok\"",
        ];
        nginx.edge.server().metric(&sample).unwrap_or(0.0)
    };
    assert!(signed(&nginx) < 1.0, "{}", nginx.edge.server().metrics());
    nginx.reload(true);
    let deadline = Instant::now() + PATIENCE;
    while signed(&nginx) < 1.0 {
        served(&nginx);
        assert!(Instant::now() < deadline, "{}", nginx.process.log);
    }
}
