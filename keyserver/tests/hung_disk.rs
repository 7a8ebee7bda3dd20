//! A disk that does not answer: what needs it ends, signing goes on, on the same connection too.

#![cfg(feature = "trial")]
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "test helpers fail the test; the lints exempt only the test functions themselves"
)]

mod common;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use common::edge::delegating::{Answered, Delegating};
use common::edge::{Answer, Edge, identity};
use common::{MINIMAL, Site, params};
use keyserver::config::Config;
use keyserver::{Server, clock};
use keyserver_client::{ErrorCode, Opcode, Request};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use rcgen::{CustomExtension, KeyPair, KeyUsagePurpose};

const RSA: &str = include_str!("../../accel/tests/keys/rsa2048.pkcs8.pem");
const P256: &str = include_str!("../../accel/tests/keys/p256.pkcs8.pem");

/// As many as a connection may have in flight; three quarters of them may open ciphertexts.
const IN_FLIGHT: u32 = 64;
const AT_LEDGER: u32 = 48;

fn site() -> Site {
    let site = Site::new();
    site.write_private("keys/sign.key", P256);
    fs::create_dir(site.path("exchange")).unwrap();
    site.write_private("exchange/shop.key", RSA);
    site.configure(&format!(
        r#"{MINIMAL}
[[clients.grants]]
keys = ["shop"]
allow = ["decrypt-compatible"]
[[keys]]
directory = "exchange"
purpose = "key-exchange"
[ledger]
directory = "ledger"
[accel]
threads = 1
[limits]
in_flight_per_connection = {IN_FLIGHT}
queue_time = "5s"
job_deadline = "1s"
"#
    ));
    site
}

/// Waits until something holds, with a bound that only a server that hangs comes to.
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let limit = clock::now() + Duration::from_secs(30);
    while !holds() {
        assert!(clock::now() < limit, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How many of these have this answer.
fn count(answers: &[Answer], code: Option<ErrorCode>) -> usize {
    answers.iter().filter(|answer| answer.0 == code).count()
}

#[test]
fn a_ledger_that_hangs_takes_no_room_from_signing_and_no_connection_for_ever() {
    let site = site();
    let server = Server::start(Config::load(&site.config()).unwrap()).unwrap();
    let key = |pem: &str| accel::Key::from_bytes(pem.as_bytes()).unwrap().ski();
    let sign = Request {
        ski: Some(key(P256)),
        payload: &[7; 32],
        extended: true,
        ..Request::new(0, Opcode::EcdsaSignSha256)
    };
    let ciphertext = |number: u8| {
        let mut bytes = [number; 256];
        bytes[0] = 0;
        bytes
    };
    let open = |edge: &mut Edge, number: u8| {
        let request = Request {
            ski: Some(key(RSA)),
            payload: &ciphertext(number),
            extended: true,
            ..Request::new(0, Opcode::RsaDecrypt)
        };
        edge.ask(&request, 1);
    };
    let identity = identity(&site);
    let mut edge = Edge::connect(&identity, server.local_addr());
    open(&mut edge, 1);
    assert_eq!(edge.answers(1), [(None, None)]);

    // All that it may have in flight are key exchanges; the ledger takes three quarters of them and says nothing.
    let state = server.state().clone();
    let held = state.ledger.hold_writes();
    for number in 0..u8::try_from(IN_FLIGHT).unwrap() {
        open(&mut edge, 10 + number);
    }
    let others = (IN_FLIGHT - AT_LEDGER) as usize;
    let answers = edge.answers(others);
    assert!(
        answers.iter().all(|answer| answer.0.is_some()),
        "nothing is answered unrecorded: {answers:?}"
    );
    // A slow machine gives the rest of them another answer: the disk is known to hang by then.
    let refused =
        count(&answers, Some(ErrorCode::Busy)) + count(&answers, Some(ErrorCode::Internal));
    assert_eq!(refused, others, "{answers:?}");
    assert_eq!(state.metrics.inflight_now(), i64::from(AT_LEDGER));
    // There is room for signatures on the same connection.
    edge.ask(&sign, IN_FLIGHT);
    assert_eq!(
        count(&edge.answers(IN_FLIGHT as usize), None),
        IN_FLIGHT as usize
    );

    // Soon nothing is opened that could not be recorded, and the operator is told.
    wait_until("the ledger is not writable", || !state.ledger.is_writable());
    open(&mut edge, 2);
    assert_eq!(edge.answers(1), [(Some(ErrorCode::Internal), None)]);
    let report = state.ledger.report().unwrap();
    assert_eq!(report.failure.as_deref(), Some("the disk does not answer"));
    assert!(state.health.stuck().is_empty());

    // A peer that gives up does not leave its connection behind.
    assert_eq!(state.metrics.connections(), 1);
    drop(edge);
    wait_until("the connection stays", || state.metrics.connections() == 0);
    assert_eq!(state.metrics.inflight_now(), i64::from(AT_LEDGER));

    // The disk answers again.
    drop(held);
    wait_until("the ledger stays", || state.ledger.is_writable());
    wait_until("jobs stay behind", || state.metrics.inflight_now() == 0);
    let mut edge = Edge::connect(&identity, server.local_addr());
    open(&mut edge, 3);
    assert_eq!(edge.answers(1), [(None, None)]);
    server.stop();
}

/// A site whose client may have credentials issued, with a state directory.
fn delegating_site() -> Site {
    let site = Site::new();
    site.write_private("keys/sign.key", P256);
    let mut delegating = params("shop");
    delegating.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // DelegationUsage, NULL.
    let usage = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 44363, 44], vec![5, 0]);
    delegating.custom_extensions = vec![usage];
    let certificate = site.certify(delegating, &KeyPair::from_pem(P256).unwrap());
    site.write("keys/sign.crt", &certificate.pem());
    fs::create_dir(site.path("state")).unwrap();
    let with_state = MINIMAL.replace("[admin]", "[admin]\nstate = \"state\"");
    site.configure(&format!(
        r#"{with_state}
[[clients.grants]]
keys = ["sign"]
allow = ["delegate"]
[accel]
threads = 1
[limits]
live_credentials = 10000
queue_time = "5s"
"#
    ));
    site
}

/// A file of the state directory that is never written to its end: a pipe without a reader in the place of the new one.
struct Hang(PathBuf);

impl Hang {
    fn new(site: &Site, name: &str) -> Self {
        let path = site.path(&format!("state/{name}.new"));
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        Self(path)
    }

    /// The disk answers again. A pipe cannot be flushed, so the write that waited fails.
    fn end(&self) -> File {
        let aside = self.0.with_extension("aside");
        fs::rename(&self.0, &aside).unwrap();
        File::options()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(aside)
            .unwrap()
    }
}

/// As many as a connection may have in flight where nothing else is configured.
const PIPELINE: u32 = 256;

#[test]
fn credentials_that_hang_take_no_room_from_signing() {
    let site = delegating_site();
    let server = Server::start(Config::load(&site.config()).unwrap()).unwrap();
    let ski = accel::Key::from_bytes(P256.as_bytes()).unwrap().ski();
    let sign = Request {
        ski: Some(ski),
        payload: &[7; 32],
        extended: true,
        ..Request::new(0, Opcode::EcdsaSignSha256)
    };
    let identity = identity(&site);
    let state = server.state().clone();
    let mut edge = Delegating::connect(&site, server.local_addr(), ski);
    edge.delegate(0..1);
    assert_eq!(edge.answer(), Answered { id: 0, error: None });

    // All that it may have in flight are credentials. Some wait for the disk, and the others are refused at once: there
    // is room for signatures on the same connection.
    let hang = Hang::new(&site, "credentials");
    edge.delegate(1..1 + PIPELINE);
    edge.ask(&sign, 1000..1000 + PIPELINE);
    let mut signed = 0;
    while signed < PIPELINE {
        match edge.answer() {
            Answered { id: 1000.., error } => {
                assert_eq!(error, None);
                signed += 1;
            }
            Answered { error, .. } => assert!(
                matches!(error, Some(ErrorCode::Busy | ErrorCode::Internal)),
                "nothing is released unwritten: {error:?}"
            ),
        }
    }

    // Once it is known, a request for a credential is refused at once, and the operator is told.
    wait_until("nobody notices", || state.credentials.is_hung());
    let held = state.metrics.inflight_now();
    assert!((1..=i64::from(PIPELINE / 2)).contains(&held), "{held}");
    let mut other = Delegating::connect(&site, server.local_addr(), ski);
    other.delegate(0..1);
    let error = Some(ErrorCode::Internal);
    assert_eq!(other.answer(), Answered { id: 0, error });
    assert!(state.credentials.trouble().is_some());
    assert_eq!(state.metrics.inflight_now(), held);
    let mut plain = Edge::connect(&identity, server.local_addr());
    plain.ask(&sign, 1);
    assert_eq!(plain.answers(1), [(None, None)]);

    // The disk answers again: what waited is refused, and the next is issued.
    let pipe = hang.end();
    wait_until("jobs stay behind", || state.metrics.inflight_now() == 0);
    let limit = clock::now() + Duration::from_secs(30);
    let issued = (1..).any(|id| {
        assert!(clock::now() < limit, "none is issued");
        std::thread::sleep(Duration::from_millis(100));
        other.delegate(id..id + 1);
        other.answer().error.is_none()
    });
    assert!(issued);
    drop(pipe);
    server.stop();
}

/// One command of `ksctl`, given over a connection of its own.
fn command(site: &Site, command: &str) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(site.path("run/admin.sock")).unwrap();
    let limit = Some(Duration::from_secs(30));
    stream.set_read_timeout(limit).unwrap();
    // Where it is closed unanswered, whoever reads finds out.
    let _ = writeln!(stream, r#"{{"v":1,"command":{command}}}"#);
    BufReader::new(stream)
}

fn reply(mut stream: BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    line
}

/// As many as are served at one time are given while the disk hangs: one of them keeps its place, and no other.
#[test]
fn commands_are_heard_while_the_disk_hangs() {
    let site = delegating_site();
    let server = Server::start(Config::load(&site.config()).unwrap()).unwrap();
    let state = server.state().clone();
    let hang = Hang::new(&site, "stops");
    let stop = |number: u8| {
        let key = format!("{number:02x}").repeat(20);
        format!(r#"{{"stop":{{"target":{{"key":"{key}"}},"stop":true,"reason":"a test"}}}}"#)
    };
    let first = command(&site, &stop(0));
    wait_until("it does not count", || {
        state.stops.current().iter().count() == 1
    });
    let others: Vec<_> = (1..16)
        .map(|number| command(&site, &stop(number)))
        .collect();
    wait_until("they do not count", || {
        state.stops.current().iter().count() == 16
    });
    for other in others {
        let reply = reply(other);
        assert!(reply.contains("counts, but is not on disk yet"), "{reply}");
    }
    // Their places are free as soon as the server has seen that they are gone.
    wait_until("the next is not heard", || {
        let mut line = String::new();
        let length = command(&site, r#""status""#).read_line(&mut line);
        length.is_ok() && line.starts_with(r#"{"v":1,"status":{"#)
    });
    let pipe = hang.end();
    // The write that hung fails, and what was left to it does not.
    let first = reply(first);
    assert!(first.contains(r#""changed":true"#), "{first}");
    drop(pipe);
    let on_disk = fs::read_to_string(site.path("state/stops")).unwrap();
    assert_eq!(on_disk.matches("a test").count(), 16, "{on_disk}");
    server.stop();
}

/// The end of a server waits for no disk: here for none of the three threads that write.
#[test]
fn a_server_whose_disk_hangs_ends_all_the_same() {
    let site = delegating_site();
    fs::create_dir(site.path("exchange")).unwrap();
    site.write_private("exchange/shop.key", RSA);
    let text = fs::read_to_string(site.config()).unwrap();
    site.configure(&text.replace(
        "[accel]",
        r#"
[[clients.grants]]
keys = ["shop"]
allow = ["decrypt-compatible"]
daily = 1000
[[keys]]
directory = "exchange"
purpose = "key-exchange"
[ledger]
directory = "ledger"
[accel]"#,
    ));
    let server = Server::start(Config::load(&site.config()).unwrap()).unwrap();
    let state = server.state().clone();
    let ski = |pem: &str| accel::Key::from_bytes(pem.as_bytes()).unwrap().ski();
    let hangs = [Hang::new(&site, "credentials"), Hang::new(&site, "meters")];
    let held = state.ledger.hold_writes();
    let mut delegating = Delegating::connect(&site, server.local_addr(), ski(P256));
    delegating.delegate(0..1);
    let mut ciphertext = [7; 256];
    ciphertext[0] = 0;
    let open = Request {
        ski: Some(ski(RSA)),
        payload: &ciphertext,
        extended: true,
        ..Request::new(0, Opcode::RsaDecrypt)
    };
    delegating.ask(&open, 1..2);
    wait_until("nothing hangs", || {
        state.ledger.is_hung() && state.credentials.is_hung()
    });
    let stopping = std::thread::spawn(|| server.stop());
    wait_until("it does not end", || stopping.is_finished());
    stopping.join().unwrap();
    assert!(
        state.meters.health().is_hung(),
        "it was left behind as well"
    );
    drop((held, hangs.map(|hang| hang.end())));
}
