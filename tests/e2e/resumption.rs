//! Resumption across edges: two HTTPS edges of the client library's example, each with a key server of its own that has the same
//! master, and `openssl s_client` that takes a session from one to the other.

use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use keyserver_client::{Error, ErrorCode, KeyId, blocking};
use keyserver_tests::{
    ClientRule, Fixture, KeyKind, KeyServer, Log, ServerConfig, binaries, parts, server,
};

/// Time for what takes a refresh of an edge, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A key server, and an edge of its own in front of the same site.
struct Site {
    fixture: Fixture,
    server: Option<KeyServer>,
    edge: Edge,
}

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

/// Makes a ticket master with the server's own command.
fn new_master(path: &Path) {
    let output = Command::new(binaries::keyserver())
        .args(["tickets", "new-master"])
        .arg(path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

fn config(right: &str) -> ServerConfig {
    ServerConfig {
        clients: vec![ClientRule::new(
            "edge-1",
            &["tls13-sign", "tls12-sign", right],
        )],
        extra: "[tickets]\nmaster = \"tickets.master\"\n".to_owned(),
        ..ServerConfig::default()
    }
}

/// A server with the key and the master of `first`, or new ones; in front of it an edge that shows `chain`.
fn start(first: Option<&Site>, right: &str, resumption: &str) -> Site {
    let fixture = Fixture::new();
    let chain = match first {
        None => {
            let key = std::fs::read(fixture.add_key("shop", KeyKind::P256)).unwrap();
            new_master(&fixture.path("tickets.master"));
            fixture.write("shop.pem", fixture.pki.site(&key))
        }
        Some(first) => {
            for name in ["keys/shop.key", "tickets.master"] {
                fixture.write(name, std::fs::read(first.fixture.path(name)).unwrap());
            }
            first.fixture.path("shop.pem")
        }
    };
    let server = KeyServer::start(&fixture, &config(right));
    let path = |name: &str| fixture.path(name).display().to_string();
    let arguments = [
        "127.0.0.1:0".to_owned(),
        chain.display().to_string(),
        server.address().to_string(),
        "localhost".to_owned(),
        path("pki/ca.pem"),
        path("pki/edge-1.pem"),
        path("pki/edge-1-key.pem"),
        resumption.to_owned(),
    ];
    let (child, log) = server::spawn(binaries::https_edge(), &arguments);
    let line = log
        .wait_for(PATIENCE, |line| line.contains("listening on "))
        .unwrap_or_else(|| panic!("the edge does not listen:\n{log}"));
    let address = line.rsplit_once(' ').unwrap().1.trim().to_owned();
    Site {
        fixture,
        server: Some(server),
        edge: Edge {
            child,
            log,
            address,
        },
    }
}

impl Site {
    fn ksctl(&self, arguments: &[&str]) -> String {
        let output = Command::new(binaries::ksctl())
            .arg("--socket")
            .arg(self.fixture.path("run/admin.sock"))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn client(&self) -> blocking::Client {
        let path = |name: &str| self.fixture.path(name);
        let identity = keyserver_client::TlsIdentity::from_files(
            path("pki/ca.pem"),
            path("pki/edge-1.pem"),
            path("pki/edge-1-key.pem"),
        );
        blocking::Client::builder("localhost", identity.unwrap())
            .server(self.server.as_ref().unwrap().address().to_string())
            .deadline(PATIENCE)
            .connect_limit(PATIENCE)
            .build()
            .unwrap()
    }
}

/// One request through `openssl s_client`, with a session from a file or to a file; whether it was resumed.
fn request(edge: &Edge, version: &str, session: &[&str]) -> bool {
    let mut child = Command::new("openssl")
        .args(["s_client", "-connect", &edge.address, version, "-ign_eof"])
        .args(["-servername", "localhost"])
        .args(session)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A refused handshake closes the pipe, which the output then tells of.
    drop((child.stdin.take().unwrap()).write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n"));
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        text.contains("on another machine"),
        "{version} {session:?}:\n{text}\n{}",
        edge.log
    );
    let resumed = text.lines().any(|line| line.starts_with("Reused, "));
    assert_ne!(
        resumed,
        text.lines().any(|line| line.starts_with("New, ")),
        "{text}"
    );
    resumed
}

/// Begins a session at `edge`.
fn begin(edge: &Edge, version: &str, file: &str) {
    assert!(!request(edge, version, &["-sess_out", file]), "{version}");
}

/// Whether `edge` resumes the session.
fn resumes(edge: &Edge, version: &str, file: &str) -> bool {
    request(edge, version, &["-sess_in", file])
}

/// Edges resume each other's sessions, of both versions, through an outage of both key servers. Once the epoch is revoked they do
/// not; new sessions are then shared again.
#[test]
fn edges_resume_each_others_sessions_until_the_epoch_is_revoked() {
    if parts::program("openssl").is_none() {
        return;
    }
    let one = start(None, "tickets", "shared");
    let mut other = start(Some(&one), "tickets", "shared");
    let file = |name: &str| one.fixture.path(name).display().to_string();
    let versions = ["-tls1_3", "-tls1_2"];
    for version in versions {
        let session = file(version);
        begin(&one.edge, version, &session);
        for edge in [&other.edge, &one.edge, &other.edge] {
            assert!(resumes(edge, version, &session), "{version}\n{}", edge.log);
        }
    }
    // A resumed handshake needs no key: the second edge goes on without its server.
    other.server.take().unwrap().stop();
    assert!(resumes(&other.edge, "-tls1_3", &file("-tls1_3")));
    other.server = Some(KeyServer::start(&other.fixture, &restarted(&other)));

    for site in [&one, &other] {
        let said = site.ksctl(&[
            "tickets",
            "revoke-epoch",
            "shop",
            "--reason",
            "an edge was lost",
        ]);
        assert!(said.contains("generation 1"), "{said}");
    }
    let deadline = Instant::now() + PATIENCE;
    for edge in [&other.edge, &one.edge] {
        for version in versions {
            while resumes(edge, version, &file(version)) {
                assert!(
                    Instant::now() < deadline,
                    "{version}: still resumed after it was revoked"
                );
                thread::sleep(Duration::from_millis(200));
            }
        }
    }
    for version in versions {
        let session = file("new");
        begin(&other.edge, version, &session);
        assert!(
            resumes(&one.edge, version, &session),
            "{version}: new epochs are shared"
        );
    }
    // On disk before the command returned: the generation outlives the server.
    let status = other.ksctl(&["status", "--json"]);
    assert!(status.contains("\"ticket_generation\": 1"), "{status}");
    assert!(one.ksctl(&["status"]).contains("resumption in"));
}

/// The configuration that a site's server was started with: its edge knows the address.
fn restarted(site: &Site) -> ServerConfig {
    let text = std::fs::read_to_string(site.fixture.path("keyserver.toml")).unwrap();
    let addresses: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("address = \"")?.strip_suffix('"'))
        .map(|address| address.parse().unwrap())
        .collect();
    ServerConfig {
        address: addresses[0],
        metrics: addresses[1],
        ..config("tickets")
    }
}

/// The same with tickets that the servers seal: a revocation counts at once, and so does a disabled key.
#[test]
fn sealed_tickets_are_opened_at_both_edges_and_by_nobody_after_a_revocation() {
    if parts::program("openssl").is_none() {
        return;
    }
    let one = start(None, "seal", "sealed");
    let other = start(Some(&one), "seal", "sealed");
    let file = |name: &str| one.fixture.path(name).display().to_string();
    for version in ["-tls1_3", "-tls1_2"] {
        let session = file(version);
        begin(&one.edge, version, &session);
        assert!(
            resumes(&other.edge, version, &session),
            "{version}\n{}",
            other.edge.log
        );
        assert!(resumes(&one.edge, version, &session), "{version}");
    }
    let generation = other.ksctl(&[
        "tickets",
        "revoke-epoch",
        "--all",
        "--to",
        "7",
        "--reason",
        "a drill",
    ]);
    assert!(generation.contains("generation 7"), "{generation}");
    for version in ["-tls1_3", "-tls1_2"] {
        assert!(!resumes(&other.edge, version, &file(version)), "{version}");
        assert!(
            resumes(&one.edge, version, &file(version)),
            "{version}: a server of its own mind"
        );
    }
    one.ksctl(&[
        "tickets",
        "revoke-epoch",
        "--all",
        "--to",
        "7",
        "--reason",
        "a drill",
    ]);
    assert!(!resumes(&one.edge, "-tls1_3", &file("-tls1_3")));
    begin(&one.edge, "-tls1_3", &file("new"));
    assert!(
        resumes(&other.edge, "-tls1_3", &file("new")),
        "both are at generation 7"
    );
}

/// Who may have keys, what a blocked client's keys are worth, and the codes that a client sees.
#[test]
fn tickets_follow_rights_and_stops() {
    let one = start(None, "tickets", "shared");
    let client = one.client();
    let key =
        KeyId::from_certificate(&std::fs::read(one.fixture.path("shop.pem")).unwrap()).unwrap();
    let refused = |error: Error, code| {
        assert!(
            matches!(error, Error::Refused(found) if found == code),
            "{error}"
        )
    };
    let before = client.ticket_keys(&key).unwrap();
    assert_eq!(before.keys.len(), 4);
    assert_eq!(before.epoch_seconds, 3600);
    // The right to have keys is not the right to have something sealed.
    refused(
        client.seal(&key, b"session").unwrap_err(),
        ErrorCode::Denied,
    );
    refused(
        client.ticket_keys(&KeyId::from_ski([9; 20])).unwrap_err(),
        ErrorCode::Denied,
    );
    // Blocking a client makes what it has worth nothing to the others.
    one.ksctl(&["clients", "block", "edge-1", "--reason", "it was stolen"]);
    refused(client.ticket_keys(&key).unwrap_err(), ErrorCode::Denied);
    one.ksctl(&["clients", "unblock", "edge-1", "--reason", "it was found"]);
    let after = client.ticket_keys(&key).unwrap();
    assert!(
        after
            .keys
            .iter()
            .all(|key| before.keys.iter().all(|old| old.name != key.name))
    );
    // So does disabling the key, and sealing the server.
    for (stop, resume, code) in [
        (
            &["keys", "disable", "shop"][..],
            &["keys", "enable", "shop"][..],
            ErrorCode::KeyDisabled,
        ),
        (&["seal"], &["unseal"], ErrorCode::Sealed),
    ] {
        let before = client.ticket_keys(&key).unwrap();
        one.ksctl(&[stop, &["--reason", "a drill"]].concat());
        refused(client.ticket_keys(&key).unwrap_err(), code);
        one.ksctl(&[resume, &["--reason", "over"]].concat());
        assert_ne!(
            client.ticket_keys(&key).unwrap().keys,
            before.keys,
            "{stop:?}"
        );
    }
    // A reload that takes the right away, or the client, does not take away what it has.
    let before = client.ticket_keys(&key).unwrap();
    let with = std::fs::read_to_string(one.fixture.path("keyserver.toml")).unwrap();
    one.fixture
        .write("keyserver.toml", with.replace("edge-1", "edge-2"));
    one.ksctl(&["reload", "--wait"]);
    one.ksctl(&["clients", "block", "edge-1", "--reason", "it is gone"]);
    one.fixture.write("keyserver.toml", &with);
    one.ksctl(&["reload", "--wait"]);
    one.ksctl(&["clients", "unblock", "edge-1", "--reason", "it is back"]);
    assert_ne!(client.ticket_keys(&key).unwrap().keys, before.keys);
}

#[test]
fn a_revocation_is_in_the_audit_log_and_the_master_is_not() {
    let one = start(None, "tickets", "shared");
    let log = one.server.as_ref().unwrap().log();
    one.ksctl(&[
        "tickets",
        "revoke-epoch",
        "shop",
        "--reason",
        "for the record",
    ]);
    let line = log.wait_for(PATIENCE, |line| {
        line.contains("ticket keys revoked by command")
    });
    assert!(
        line.is_some_and(|line| line.contains("for the record") && line.contains("uid")),
        "{log}"
    );
    assert!(
        !format!("{log}").contains(&secret_of(&one)),
        "the master is in the log"
    );
}

/// The digits in the master's file.
fn secret_of(site: &Site) -> String {
    let text = std::fs::read_to_string(site.fixture.path("tickets.master")).unwrap();
    text.lines().nth(1).unwrap().to_owned()
}

/// Sealing without the keys leaving the server, and what does not open.
#[test]
fn what_one_server_seals_another_unseals_for_the_same_key_only() {
    let one = start(None, "seal", "sealed");
    let other = start(Some(&one), "seal", "sealed");
    let key =
        KeyId::from_certificate(&std::fs::read(one.fixture.path("shop.pem")).unwrap()).unwrap();
    let (client, peer) = (one.client(), other.client());
    let sealed = client.seal(&key, b"a session").unwrap();
    assert_eq!(peer.unseal(&key, &sealed).unwrap().as_slice(), b"a session");
    let refused = |error: Error, code| {
        assert!(
            matches!(error, Error::Refused(found) if found == code),
            "{error}"
        )
    };
    refused(
        peer.unseal(&key, &sealed[1..]).unwrap_err(),
        ErrorCode::CryptoFailure,
    );
    refused(
        client.seal(&key, &vec![0; 16_385]).unwrap_err(),
        ErrorCode::CryptoFailure,
    );
    refused(
        client.seal(&key, &[]).unwrap_err(),
        ErrorCode::CryptoFailure,
    );
    assert_eq!(
        client
            .unseal(&key, &client.seal(&key, &vec![7; 16_384]).unwrap())
            .unwrap()
            .len(),
        16_384
    );
    refused(client.ticket_keys(&key).unwrap_err(), ErrorCode::Denied);
    // An epoch of three hours ago, by hand: its header says so.
    let mut old = sealed.clone();
    let epoch = u64::from_be_bytes(old[1..9].try_into().unwrap()) - 3;
    old[1..9].copy_from_slice(&epoch.to_be_bytes());
    refused(
        peer.unseal(&key, &old).unwrap_err(),
        ErrorCode::SealingKeyExpired,
    );
    other.ksctl(&["tickets", "revoke-epoch", "shop", "--reason", "a drill"]);
    refused(
        peer.unseal(&key, &sealed).unwrap_err(),
        ErrorCode::SealingKeyExpired,
    );
    assert_eq!(
        client.unseal(&key, &sealed).unwrap().as_slice(),
        b"a session"
    );
    let info = client.server_info().unwrap().unwrap();
    for opcode in [0x21, 0x22, 0x44, 0x46] {
        assert!(info.opcodes.contains(&opcode), "{opcode:#x}");
    }
    let keys = client.keys().unwrap();
    assert_eq!(keys[0].operations, ["tls13-sign", "tls12-sign", "seal"]);
}

/// Without a master a server answers as stock ones do, and shows nobody what it has not.
#[test]
fn a_server_without_a_master_answers_as_a_stock_one() {
    let fixture = Fixture::new();
    fixture.add_key("shop", KeyKind::P256);
    let server = KeyServer::start(&fixture, &ServerConfig::default());
    let path = |name: &str| fixture.path(name);
    let identity = keyserver_client::TlsIdentity::from_files(
        path("pki/ca.pem"),
        path("pki/edge-1.pem"),
        path("pki/edge-1-key.pem"),
    );
    let client = blocking::Client::builder("localhost", identity.unwrap())
        .server(server.address().to_string())
        .deadline(PATIENCE)
        .build()
        .unwrap();
    let key = KeyId::try_from(&client.keys().unwrap()[0]).unwrap();
    let refused = |error: Error, code| {
        assert!(
            matches!(error, Error::Refused(found) if found == code),
            "{error}"
        );
    };
    refused(client.seal(&key, b"x").unwrap_err(), ErrorCode::Internal);
    refused(client.unseal(&key, b"x").unwrap_err(), ErrorCode::Internal);
    refused(client.ticket_keys(&key).unwrap_err(), ErrorCode::BadOpcode);
    let info = client.server_info().unwrap().unwrap();
    assert!(!info.opcodes.contains(&0x21) && !info.opcodes.contains(&0x46));
    let output = Command::new(binaries::keyserver())
        .args(["tickets", "new-master"])
        .arg(path("keys/shop.key"))
        .output()
        .unwrap();
    assert!(!output.status.success(), "a file is never overwritten");
}
