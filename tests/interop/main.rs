//! A client that knows only the protocol, against the real server.
//!
//! The client is Python: `keyless.py` speaks raw frames over TLS on memory buffers, `keys.py`
//! verifies results with the package `cryptography`. It shares no code with the Rust codec or client.
//! Each suite of checks beside this file runs over TLS 1.2 and 1.3, and against every I/O backend:
//! epoll, io_uring, and what `auto` takes where a seccomp filter refuses io_uring.
//!
//! To run one suite by hand against a server that is already there, see `run.py`.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test says what it ran, and where it failed by panicking there"
)]

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use keyserver_tests::{
    ClientRule, Fixture, KeyKind, KeyServer, Pki, ServerConfig, SoftHsm, Usage, binaries, parts,
};

/// How the server's connections are driven.
#[derive(Clone, Copy, Debug)]
enum Io {
    Epoll,
    Uring,
    /// `auto` in a process that may not create an io_uring.
    AutoRefused,
}

impl Io {
    fn start(self, fixture: &Fixture, config: ServerConfig) -> KeyServer {
        match self {
            Self::Epoll => KeyServer::start(fixture, &config.io_backend("epoll")),
            Self::Uring => KeyServer::start(fixture, &config.io_backend("uring")),
            Self::AutoRefused => KeyServer::start_under(
                &[binaries::without_io_uring()],
                fixture,
                &config.io_backend("auto"),
            ),
        }
    }

    /// The backend that must be in use.
    const fn taken(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Epoll | Self::AutoRefused => "epoll",
        }
    }
}

/// The type of the server's certificate; decides the cipher suite of TLS 1.2.
#[derive(Clone, Copy)]
enum Certificate {
    Ecdsa,
    Rsa,
}

/// The keys that every suite uses.
const KEYS: [KeyKind; 5] = [
    KeyKind::Rsa2048,
    KeyKind::P256,
    KeyKind::P384,
    KeyKind::P521,
    KeyKind::Ed25519,
];

/// The keys that can be in a token of SoftHSM.
const TOKEN_KEYS: [KeyKind; 7] = [
    KeyKind::Rsa2048,
    KeyKind::Rsa3072,
    KeyKind::Rsa4096,
    KeyKind::P256,
    KeyKind::P384,
    KeyKind::P521,
    KeyKind::Ed25519,
];

/// A directory with the certificates of all clients that the checks connect as.
fn fixture(certificate: Certificate, keys: &[KeyKind]) -> Fixture {
    let fixture = match certificate {
        Certificate::Ecdsa => Fixture::new(),
        Certificate::Rsa => Fixture::with_rsa_certificate(),
    };
    for kind in keys {
        fixture.add_key(kind.name(), *kind);
    }
    for name in [
        "sign-only",
        "decrypt-only",
        "one-key",
        "tls-edge",
        "master",
        "premaster",
        "compatible",
        "raw",
        "tickets",
        "seal",
        "no-grant",
        "unknown",
    ] {
        fixture.write_identity(name, &fixture.pki.client(name));
    }
    let master = format!("keyserver ticket master 1\n{}\n", "5c".repeat(32));
    fixture.write("tickets.master", master);
    let any_usage = fixture.pki.client_with("edge-1", Usage::Unrestricted);
    fixture.write_identity("any-usage", &any_usage);
    fixture.write_identity(
        "server-usage",
        &fixture.pki.client_with("edge-1", Usage::Server),
    );
    fixture.write_identity("stranger", &Pki::named("another CA").client("edge-1"));
    fixture.write_identity("forged", &Pki::new().client("edge-1"));
    fixture
}

fn config() -> ServerConfig {
    let mut config = ServerConfig::default();
    let no_grant = ClientRule {
        keys: vec![],
        ..ClientRule::new("no-grant", &[])
    };
    let one_key = ClientRule {
        keys: vec!["p-256".into()],
        ..ClientRule::new("one-key", &["sign-digest"])
    };
    config.clients.extend([
        ClientRule::new("sign-only", &["sign-digest"]),
        ClientRule::new("decrypt-only", &["decrypt-raw"]),
        ClientRule::new("tls-edge", &["tls13-sign", "tls12-sign"]),
        ClientRule::new("master", &["tls12-master"]),
        ClientRule::new("premaster", &["decrypt-premaster"]),
        ClientRule::new("compatible", &["decrypt-compatible"]),
        ClientRule::new("raw", &["decrypt-raw"]),
        ClientRule::new("tickets", &["tickets"]),
        ClientRule::new("seal", &["seal"]),
        no_grant,
        one_key,
    ]);
    config.extra =
        "[ledger]\ndirectory = \"ledger\"\n[tickets]\nmaster = \"tickets.master\"\n".into();
    config
}

/// Measures how long a server waits for a handshake. Two seconds are what it has that is not told otherwise, and not enough
/// on a busy machine for the handshakes of the other suites.
fn run_with_the_usual_handshake_deadline(io: Io) {
    let fixture = fixture(Certificate::Ecdsa, &KEYS);
    let mut config = config();
    config
        .extra
        .push_str("[limits]\nhandshake_deadline = \"2s\"\n");
    let server = io.start(&fixture, config);
    let suite = "handshake_deadline";
    check(suite, io, Certificate::Ecdsa, &fixture, server);
}

/// Starts a server and runs one suite against it.
fn run(suite: &str, io: Io, certificate: Certificate, keys: &[KeyKind]) {
    let fixture = fixture(certificate, keys);
    let server = io.start(&fixture, config());
    check(suite, io, certificate, &fixture, server);
}

/// Runs one suite against a server whose keys are all in a token.
fn run_over_token(suite: &str, io: Io) {
    let Some(hsm) = SoftHsm::new() else { return };
    hsm.add_token("bank");
    let certificate = Certificate::Ecdsa;
    let fixture = fixture(certificate, &[]);
    let mut config = config();
    // Checks send more at once than a queue of the usual length takes from one client.
    config.extra.push_str("[pkcs11]\nqueue = 1024\n");
    for (id, kind) in (1..).zip(TOKEN_KEYS) {
        hsm.add_key("bank", kind, kind.name(), id);
        let public = format!("keys/{}.pub", kind.name());
        fixture.write(public, hsm.public_key("bank", kind, id));
        config.extra.push_str(&hsm.entry("bank", kind.name()));
    }
    let config = config.io_backend(io.taken());
    let server = KeyServer::start_under(&hsm.wrapper(), &fixture, &config);
    check(suite, io, certificate, &fixture, server);
}

/// Runs the checks of RSA key exchange against a server whose key is in a token. OpenSSL, which records
/// handshakes with the key, has a copy.
fn run_key_exchange_over_token(down_at_the_start: bool) {
    let Some(hsm) = SoftHsm::new() else { return };
    hsm.add_token("bank");
    // With a key in a file, the server is ready while the slot is down.
    let fixture = fixture(Certificate::Ecdsa, &[KeyKind::P256]);
    let private = KeyKind::Rsa2048.generate();
    fs::create_dir(fixture.path("elsewhere")).expect("a directory");
    fixture.write("elsewhere/rsa-2048.key", &private);
    fixture.write("pki/rsa-2048.pem", fixture.pki.site(&private));
    hsm.import_der("bank", &private, "rsa-2048", 1);
    let public = hsm.public_key("bank", KeyKind::Rsa2048, 1);
    fixture.write("keys/rsa-2048.pub", public);
    let shim = hsm.faulty("bank");
    let mut config = config();
    config
        .extra
        .push_str(&hsm.entry_through(&shim.module, "bank", "rsa-2048"));
    config
        .extra
        .push_str("certificate = \"pki/rsa-2048.pem\"\nrequired = false\n");
    config.extra.push_str("[pkcs11]\nqueue = 1024\n");
    if down_at_the_start {
        shim.from_the_start("fail C_Login 0x30 * 1 *");
    }
    let server = Io::Epoll.start(&fixture, config);
    if down_at_the_start {
        let up = ["keyserver_hsm_up{", "token=\"bank\""];
        assert_eq!(server.metric(&up), Some(0.0), "{}", server.log());
        shim.control.tell("reset");
        let end = Instant::now() + Duration::from_secs(60);
        while server.metric(&up) != Some(1.0) {
            assert!(Instant::now() < end, "{}", server.log());
            thread::sleep(Duration::from_millis(50));
        }
    }
    check(
        "key_exchange",
        Io::Epoll,
        Certificate::Ecdsa,
        &fixture,
        server,
    );
}

/// Runs one suite against a server that has been started.
fn check(suite: &str, io: Io, certificate: Certificate, fixture: &Fixture, mut server: KeyServer) {
    let Some(python) = parts::python_with_cryptography() else {
        return;
    };
    let build = server.metrics();
    let io_label = format!("io=\"{}\"", io.taken());
    assert!(
        build
            .lines()
            .any(|l| l.starts_with("keyserver_build_info{") && l.contains(&io_label)),
        "{io:?} should be served by {}:\n{build}",
        io.taken()
    );
    let open_files = server.open_files();
    let certificate = match certificate {
        Certificate::Ecdsa => "ecdsa",
        Certificate::Rsa => "rsa",
    };
    let output = Command::new(python)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/run.py"))
        .arg(suite)
        .arg(fixture.path(""))
        .arg(server.address().ip().to_string())
        .arg(server.address().port().to_string())
        .arg(certificate)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("Python starts");
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", String::from_utf8_lossy(&output.stderr));
    let log = server.log().clone();
    assert!(
        output.status.success(),
        "a check of {suite} failed; the server said:\n{log}"
    );
    assert!(server.is_running(), "the server ended by itself:\n{log}");
    assert!(
        log.matching("panicked").is_empty(),
        "something panicked:\n{log}"
    );
    // The metrics were read over a connection that may still have been open when they were counted.
    server.wait_for_open_files(open_files + 1);
    let status = server.stop();
    assert!(
        status.success(),
        "after SIGTERM it ended with {status}:\n{log}"
    );
}

macro_rules! suites {
    ($($io:ident: $variant:expr;)*) => {
        $(mod $io {
            use super::{Certificate, Io, KEYS, KeyKind, run, run_with_the_usual_handshake_deadline};

            #[test]
            fn opcodes() {
                run("opcodes", $variant, Certificate::Ecdsa, &KeyKind::ALL);
            }

            #[test]
            fn opcodes_behind_an_rsa_certificate() {
                run("opcodes", $variant, Certificate::Rsa, &KEYS);
            }

            #[test]
            fn handshakes() {
                run("handshakes", $variant, Certificate::Ecdsa, &KeyKind::ALL);
            }

            #[test]
            fn handshake_deadline() {
                run_with_the_usual_handshake_deadline($variant);
            }

            #[test]
            fn key_exchange() {
                run("key_exchange", $variant, Certificate::Ecdsa, &[KeyKind::Rsa2048]);
            }

            #[test]
            fn tickets() {
                run("tickets", $variant, Certificate::Ecdsa, &[KeyKind::Rsa2048, KeyKind::P256]);
            }

            #[test]
            fn pipelining() {
                run("pipelining", $variant, Certificate::Ecdsa, &KEYS);
            }

            #[test]
            fn differences() {
                run("differences", $variant, Certificate::Ecdsa, &KEYS);
            }

            #[test]
            fn fine_print() {
                run("fine_print", $variant, Certificate::Ecdsa, &KEYS);
            }

            #[test]
            fn garbage() {
                run("garbage", $variant, Certificate::Ecdsa, &KEYS);
            }
        })*
    };
}

suites! {
    epoll: Io::Epoll;
    uring: Io::Uring;
    auto_refused: Io::AutoRefused;
}

/// Every opcode with keys that `pkcs11-tool` made in a token.
#[test]
fn opcodes_of_keys_in_a_token() {
    run_over_token("opcodes", Io::Uring);
}

/// Handshake strings, opcodes 0x40 and 0x41, likewise.
#[test]
fn handshakes_of_keys_in_a_token() {
    run_over_token("handshakes", Io::Epoll);
}

/// RSA key exchange, opcodes 0x01 and 0x42, with each right.
#[test]
fn key_exchange_of_a_key_in_a_token() {
    run_key_exchange_over_token(false);
}

/// The token could not be asked for what stands in for the private exponent; it is when it can.
#[test]
fn key_exchange_of_a_key_whose_slot_was_down_at_the_start() {
    run_key_exchange_over_token(true);
}

#[test]
fn a_hung_slot_as_stock_clients_see_it() {
    let Some(hsm) = SoftHsm::new() else { return };
    hsm.add_token("hung");
    hsm.add_key("hung", KeyKind::P256, "p-256", 1);
    let fixture = fixture(Certificate::Ecdsa, &[KeyKind::P384]);
    let public = hsm.public_key("hung", KeyKind::P256, 1);
    fixture.write("keys/p-256.pub", public);
    let shim = hsm.faulty("hung");
    let mut config = config();
    config
        .extra
        .push_str(&hsm.entry_through(&shim.module, "hung", "p-256"));
    config
        .extra
        .push_str("[pkcs11]\ndeadline = \"1500ms\"\ncall_timeout = \"60s\"\n");
    let server = Io::Epoll.start(&fixture, config);
    shim.control.tell("hang C_Sign *");
    check("hung_slot", Io::Epoll, Certificate::Ecdsa, &fixture, server);
}

#[test]
fn fine_print_of_keys_in_a_token() {
    run_over_token("fine_print", Io::Epoll);
}

#[test]
fn differences_of_keys_in_a_token() {
    run_over_token("differences", Io::Epoll);
}

/// One line says which backend was taken and why.
#[test]
fn auto_says_what_it_took_and_why() {
    let fixture = fixture(Certificate::Ecdsa, &[KeyKind::P256]);
    let server = Io::AutoRefused.start(&fixture, config());
    let line = server.log().wait_for(Duration::from_secs(5), |line| {
        line.contains("epoll") && line.contains("io_uring")
    });
    let line = line.expect("a line that names what was taken and what was not");
    assert!(
        line.contains("EPERM") || line.contains("not permitted"),
        "the reason: {line}"
    );
    let log = server.log().clone();
    assert!(server.stop().success());
    assert_eq!(
        log.matching("io_uring").len(),
        1,
        "one line is enough:\n{log}"
    );
}

/// A server told to use io_uring does not quietly do something else.
#[test]
fn uring_demanded_and_refused_ends_the_start() {
    let fixture = fixture(Certificate::Ecdsa, &[KeyKind::P256]);
    let config = config().io_backend("uring");
    let (status, log) =
        KeyServer::start_failing_under(&[binaries::without_io_uring()], &fixture, &config);
    assert!(!status.success());
    assert!(
        log.to_string().contains("io_uring"),
        "it says what it lacks:\n{log}"
    );
}
