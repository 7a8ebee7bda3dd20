//! A lane that computes wrongly: the client gets the right answer, and the operator is told.

#![cfg(feature = "trial")]
#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "test helpers fail the test; the lints exempt only the test functions themselves"
)]

mod common;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use accel::{
    Backend, Class, Engine, EngineChoice, EngineConfig, Hash, Job, JobError, Key, Operation,
    ProofError, Single, Trust, VerifyRate,
};
use common::{Site, params};
use keyless_protocol::info::ski_to_hex;
use keyserver::admin::status::Status;
use keyserver::clock;
use keyserver::config::Config;
use keyserver::{Server, logging};
use keyserver_client::{Client, KeyId, SignatureAlgorithm, TlsIdentity};
use rcgen::{ExtendedKeyUsagePurpose, SanType};

const KEY: &str = include_str!("../../accel/tests/keys/rsa2048.pkcs8.pem");

/// Lanes whose every result has a wrong bit, and whose check sees it.
struct Faulty;

impl Backend for Faulty {
    fn name(&self) -> &'static str {
        "faulty"
    }

    fn lanes(&self, _: Class) -> usize {
        8
    }

    fn checks_results(&self) -> bool {
        true
    }

    fn run(&self, jobs: &mut [Job<'_>]) {
        Single.run(jobs);
        for job in jobs {
            job.output[100] ^= 1;
            job.result = Err(JobError::CheckFailed);
        }
    }
}

/// What the server logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The lines of level ERROR.
    fn errors(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        (text.lines().filter(|line| line.contains("ERROR")))
            .map(str::to_owned)
            .collect()
    }

    /// Waits for so many lines of level ERROR.
    fn wait_for_errors(&self, count: usize) -> Vec<String> {
        let began = clock::now();
        while self.errors().len() < count {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{:?}",
                self.errors()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        self.errors()
    }
}

fn client_of(site: &Site, address: SocketAddr) -> keyserver_client::ClientBuilder {
    let mut edge = params("edge-1");
    edge.subject_alt_names = vec![SanType::DnsName("edge-1".try_into().unwrap())];
    edge.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let (certificate, key) = site.issue(edge);
    site.write("edge.pem", &certificate.pem());
    site.write_private("edge-key.pem", &key.serialize_pem());
    let identity = TlsIdentity::from_files(
        site.path("pki/ca.pem"),
        site.path("edge.pem"),
        site.path("edge-key.pem"),
    );
    Client::builder(address.to_string(), "localhost", identity.unwrap())
        .deadline(Duration::from_secs(60))
}

fn metrics(address: SocketAddr) -> String {
    http(address, "/metrics")
}

fn http(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(
            format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").as_bytes(),
        )
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// One test in this file: the log of a process can be set up once.
#[test]
fn a_faulty_lane_is_logged_counted_and_never_believed() {
    let log = Log::default();
    let writer = log.clone();
    logging::init_to("info", logging::Format::Text, move || writer.clone()).unwrap();
    let site = Site::new();
    site.write_private("keys/shop.key", KEY);
    let engine = Engine::with_lanes(
        EngineConfig {
            engine: EngineChoice::Lanes,
            verify_ecdsa: VerifyRate::NEVER,
            calibration: Duration::ZERO,
        },
        Some(Box::new(Faulty)),
    );
    let config = Config::load(&site.config()).unwrap();
    let server = Server::start_on(config, engine.unwrap()).unwrap();
    assert_eq!(Status::of(server.state()).check_failures, 0);
    assert!(!Status::of(server.state()).to_string().contains("ALARM"));

    // One request: the answer is AWS-LC's, not the lane's.
    let key = Key::from_bytes(KEY.as_bytes()).unwrap();
    let id = KeyId::from_public_key(key.spki_der()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let (runtime, builder) = (runtime.unwrap(), client_of(&site, server.local_addr()));
    let signature = runtime.block_on(async {
        let client = builder.connect().await.unwrap();
        client
            .sign(&id, SignatureAlgorithm::RsaPkcs1Sha256, &[7; 32])
            .await
            .unwrap()
    });
    let mut expected = Vec::new();
    let operation = Operation::RsaPkcs1Sign(Hash::Sha256);
    Single.run(&mut [Job::new(&key, operation, &[7; 32], &mut expected)]);
    assert_eq!(signature.as_slice(), expected.as_slice());

    // The operator is told in the log, in the metrics and in the status.
    let lines = log.wait_for_errors(2);
    assert_eq!(lines.len(), 2, "{lines:?}");
    for part in [
        "this machine computes wrongly, take it out of service",
        "class=\"rsa2048\"",
        &ski_to_hex(&key.ski()),
        "backend=\"faulty\"",
        "check=the backend's own",
        "redone=true",
    ] {
        assert!(lines[0].contains(part), "{part} is not in {}", lines[0]);
    }
    let text = metrics(server.metrics_addr().unwrap());
    assert!(text.contains("keyserver_key_operation_check_failures_total 1\n"));
    assert!(text.contains("keyserver_key_operation_fallbacks_total 1\n"));
    let status = Status::of(server.state());
    assert_eq!(status.check_failures, 1);
    assert!(status.to_string().contains("\nALARM        1 result "));

    is_in_quarantine(&server, &key, &expected, &text);
    assert!(
        lines[1].contains("in quarantine: operations run one by one"),
        "{lines:?}"
    );
    server.stop();
    assert_eq!(log.errors().len(), 2, "{:?}", log.errors());
}

/// What erred is not asked again for this class; the next request is not even tried on it.
fn is_in_quarantine(server: &Server, key: &Key, expected: &[u8], text: &str) {
    let status = Status::of(server.state());
    assert_eq!(status.quarantine.len(), 1);
    let line = "\nQUARANTINE   rsa2048: one by one and all verified; then `ksctl engine release";
    assert!(status.to_string().contains(line), "{status}");
    assert!(text.contains("keyserver_engine_quarantine{class=\"rsa2048\"} 1\n"));
    assert!(text.contains("keyserver_engine_quarantine{class=\"rsa4096\"} 0\n"));
    let ready = http(server.metrics_addr().unwrap(), "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    assert!(
        ready.ends_with("rsa2048 is in quarantine: single\n"),
        "{ready}"
    );
    let mut output = Vec::new();
    let operation = Operation::RsaPkcs1Sign(Hash::Sha256);
    (server.state().engine()).run(&mut [Job::new(key, operation, &[7; 32], &mut output)]);
    assert_eq!(output, expected);
    assert_eq!(Status::of(server.state()).check_failures, 1);
    // They are not released as long as they err.
    let refused = server.state().engine().release(Class::Rsa2048);
    assert_eq!(refused, Err(ProofError::Wrong));
    assert_eq!(server.state().engine().trust(Class::Rsa2048), Trust::Single);
}
