//! Delegated credentials (RFC 9345) from the real server: verified by a program that knows the RFC only and by NSS, and not issued
//! where they should not be.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use keyserver_client::{
    CredentialKey, DelegatedCredential, Error, ErrorCode, KeyId, SignatureScheme, TlsIdentity,
    blocking,
};
use keyserver_tests::{ClientRule, Fixture, KeyKind, KeyServer, ServerConfig, binaries, parts};
use nix::sys::signal::Signal;

mod handshake;

const PATIENCE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_hours(1);

/// The keys that TLS 1.3 signs with, and the scheme of each.
const KINDS: [(KeyKind, SignatureScheme); 4] = [
    (KeyKind::P256, SignatureScheme::EcdsaP256Sha256),
    (KeyKind::P384, SignatureScheme::EcdsaP384Sha384),
    (KeyKind::Rsa2048, SignatureScheme::RsaPssSha256),
    (KeyKind::Ed25519, SignatureScheme::Ed25519),
];

/// A server whose keys have certificates beside them that may delegate; `edge-1` may ask, `edge-2` may not.
struct World {
    fixture: Fixture,
    config: ServerConfig,
    server: KeyServer,
}

impl World {
    fn new(kinds: &[KeyKind], extra: &str) -> Self {
        let fixture = Fixture::new();
        for kind in kinds {
            let key = std::fs::read(fixture.add_key(kind.name(), *kind)).unwrap();
            let certificate = fixture.pki.delegating_site(&key);
            fixture.write(format!("keys/{}.crt", kind.name()), certificate);
        }
        fixture.write_identity("edge-2", &fixture.pki.client("edge-2"));
        let config = ServerConfig {
            clients: vec![
                ClientRule::new("edge-1", &["delegate"]),
                ClientRule::new("edge-2", &["tls13-sign"]),
            ],
            extra: extra.to_owned(),
            ..ServerConfig::default()
        };
        let server = KeyServer::start(&fixture, &config);
        Self {
            fixture,
            config,
            server,
        }
    }

    fn restart(&mut self, signal: Signal) {
        self.server.signal(signal);
        self.server.wait();
        self.server = KeyServer::start(&self.fixture, &self.config);
    }

    fn client(&self, name: &str) -> blocking::Client {
        let path = |name: String| self.fixture.path(name);
        let identity = TlsIdentity::from_files(
            path("pki/ca.pem".to_owned()),
            path(format!("pki/{name}.pem")),
            path(format!("pki/{name}-key.pem")),
        );
        blocking::Client::builder("localhost", identity.unwrap())
            .server(self.server.address().to_string())
            .deadline(PATIENCE)
            .connect_limit(PATIENCE)
            .build()
            .unwrap()
    }

    fn certificate(&self, kind: KeyKind) -> PathBuf {
        self.fixture.path(format!("keys/{}.crt", kind.name()))
    }

    fn key(&self, kind: KeyKind) -> KeyId {
        KeyId::from_certificate(&std::fs::read(self.certificate(kind)).unwrap()).unwrap()
    }

    /// Has a credential of the P-256 key issued to `edge-1`.
    fn delegate(&self, lifetime: Duration) -> Result<DelegatedCredential, Error> {
        let own = CredentialKey::generate().unwrap();
        let scheme = SignatureScheme::EcdsaP256Sha256;
        (self.client("edge-1")).delegate(&self.key(KeyKind::P256), scheme, &own, lifetime)
    }

    fn reload(&self) {
        self.server.signal(Signal::SIGHUP);
        let reloaded = |line: &str| line.contains("configuration reloaded");
        assert!(self.server.log().wait_for(PATIENCE, reloaded).is_some());
    }

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
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>, code: ErrorCode) {
    let error = result.unwrap_err();
    assert!(
        matches!(error, Error::Refused(found) if found == code),
        "{error}"
    );
}

/// Every kind of key that TLS 1.3 signs with, verified from the text of the RFC.
#[test]
fn credentials_are_what_the_rfc_says() {
    let Some(python) = parts::python_with_cryptography() else {
        return;
    };
    let kinds = KINDS.map(|(kind, _)| kind);
    let world = World::new(&kinds, "");
    for (kind, scheme) in KINDS {
        let own = CredentialKey::generate().unwrap();
        let client = world.client("edge-1");
        for (lifetime, most) in [(Duration::ZERO, HOUR), (HOUR / 2, HOUR / 2)] {
            let credential = client
                .delegate(&world.key(kind), scheme, &own, lifetime)
                .unwrap();
            let output = Command::new(&python)
                .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/delegated_credential.py"))
                .arg(world.certificate(kind))
                .arg(world.fixture.write("credential", credential.as_bytes()))
                .arg(most.as_secs().to_string())
                .arg(world.fixture.write("credential.key", own.pkcs8_der()))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert_eq!(
                said,
                format!("verified {:04x}\n", scheme.as_u16()),
                "{kind:?}: {output:?}"
            );
        }
    }
    let keys = world.client("edge-1").keys().unwrap();
    assert!(
        keys.iter().all(|key| key.operations == ["delegate"]),
        "{keys:?}"
    );
}

/// Whatever is not in order is answered alike, and the log says what it is.
#[test]
fn what_may_not_be_delegated_is_refused() {
    let world = World::new(&[KeyKind::P256, KeyKind::Rsa2048], "");
    // One key with a certificate that does not say so, and one with none.
    let key = std::fs::read(world.fixture.add_key("plain", KeyKind::P256)).unwrap();
    world
        .fixture
        .write("keys/plain.crt", world.fixture.pki.site(&key));
    world.fixture.add_key("bare", KeyKind::P256);
    world.reload();
    let (client, stranger) = (world.client("edge-1"), world.client("edge-2"));
    let own = CredentialKey::generate().unwrap();
    let (p256, rsa) = (world.key(KeyKind::P256), world.key(KeyKind::Rsa2048));
    let scheme = SignatureScheme::EcdsaP256Sha256;
    let keys = stranger.keys().unwrap();
    let bare = keys.iter().find(|key| key.label == "bare").unwrap();
    let bare = KeyId::try_from(bare).unwrap();
    let plain =
        KeyId::from_certificate(&std::fs::read(world.fixture.path("keys/plain.crt")).unwrap())
            .unwrap();
    for (client, key, scheme, lifetime, why) in [
        (&stranger, &p256, scheme, HOUR, "no grant gives delegate"),
        (
            &client,
            &p256,
            SignatureScheme::EcdsaP384Sha384,
            HOUR,
            "does not fit the key",
        ),
        (
            &client,
            &rsa,
            SignatureScheme::RsaPkcs1Sha256,
            HOUR,
            "does not fit the key",
        ),
        (
            &client,
            &p256,
            scheme,
            HOUR + Duration::from_secs(1),
            "longer than the grant allows",
        ),
        (&client, &plain, scheme, HOUR, "no DelegationUsage"),
        (&client, &bare, scheme, HOUR, "is not known"),
    ] {
        refused(
            client.delegate(key, scheme, &own, lifetime),
            ErrorCode::Denied,
        );
        let line = world
            .server
            .log()
            .wait_for(PATIENCE, |line| line.contains(why));
        assert!(line.is_some(), "`{why}` is not in\n{}", world.server.log());
    }
    client.delegate(&p256, scheme, &own, HOUR).unwrap();
    client
        .delegate(&rsa, SignatureScheme::RsaPssSha512, &own, HOUR)
        .unwrap();
    // Only what can be delegated is listed.
    let listed: Vec<_> = client
        .keys()
        .unwrap()
        .into_iter()
        .map(|key| key.label)
        .collect();
    assert_eq!(listed, ["p-256", "rsa-2048"]);
}

/// What is stopped issues nothing; what was issued is counted, through a reload, and seen.
#[test]
fn credentials_are_counted_and_stopped() {
    let world = World::new(&[KeyKind::P256], "[limits]\nlive_credentials = 2\n");
    for (stop, resume, code) in [
        (
            &["keys", "disable", "p-256"][..],
            &["keys", "enable", "p-256"][..],
            ErrorCode::KeyDisabled,
        ),
        (
            &["clients", "block", "edge-1"],
            &["clients", "unblock", "edge-1"],
            ErrorCode::Denied,
        ),
        (&["seal"], &["unseal"], ErrorCode::Sealed),
    ] {
        world.ksctl(&[stop, &["--reason", "a drill"]].concat());
        refused(world.delegate(HOUR), code);
        world.ksctl(&[resume, &["--reason", "over"]].concat());
    }
    assert!(!world.ksctl(&["status"]).contains("horizon"));
    world.delegate(HOUR / 2).unwrap();
    world.delegate(HOUR).unwrap();
    refused(world.delegate(HOUR), ErrorCode::Denied);
    world.reload();
    refused(world.delegate(HOUR), ErrorCode::Denied);
    let status = world.ksctl(&["status"]);
    assert!(
        status.contains("the last of 2 delegated credentials ends in"),
        "{status}"
    );
    assert_eq!(
        world.server.metric(&["keyserver_delegated_credentials"]),
        Some(2.0)
    );
    let issued = world.server.metric(&[
        "keyserver_requests_total",
        "delegate-credential",
        "result=\"ok\"",
    ]);
    assert_eq!(issued, Some(2.0));
    let log = world.server.log();
    let issued = log.wait_for_matching(PATIENCE, "delegated credential issued", 2);
    assert_eq!(issued.len(), 2, "{}", world.server.log());
}

/// The quota is not begun anew by whoever can have the server killed, and what is about is shown.
#[test]
fn credentials_count_after_a_kill() {
    let mut world = World::new(&[KeyKind::P256], "[limits]\nlive_credentials = 2\n");
    world.delegate(HOUR / 2).unwrap();
    // At once: whatever was not done before the answer, is not done.
    world.restart(Signal::SIGKILL);
    world.delegate(HOUR).unwrap();
    world.restart(Signal::SIGKILL);
    refused(world.delegate(HOUR), ErrorCode::Denied);
    let status = world.ksctl(&["status"]);
    assert!(
        status.contains("the last of 2 delegated credentials ends in"),
        "{status}"
    );
    world.restart(Signal::SIGTERM);
    refused(world.delegate(HOUR), ErrorCode::Denied);
}

/// What cannot be written down is not released and takes no place; with the disk back it goes on.
#[test]
fn a_credential_that_cannot_be_written_down_is_not_released() {
    let world = World::new(&[KeyKind::P256], "[limits]\nlive_credentials = 1\n");
    let obstacle = world.fixture.path("state/credentials.new");
    std::fs::create_dir(&obstacle).unwrap();
    for _ in 0..3 {
        refused(world.delegate(HOUR), ErrorCode::Internal);
    }
    let log = world.server.log();
    let alarms = log.wait_for_matching(PATIENCE, "credentials_unwritable", 1);
    assert_eq!(alarms.len(), 1, "{}", world.server.log());
    std::fs::remove_dir(&obstacle).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = world.delegate(HOUR) {
        let found = matches!(error, Error::Refused(ErrorCode::Internal));
        assert!(found && Instant::now() < deadline, "{error}");
        thread::sleep(Duration::from_millis(50));
    }
    refused(world.delegate(HOUR), ErrorCode::Denied);
}
