//! Rights through a running server: who is who, every condition of a grant with a request that it lets through and one
//! that it refuses, limits, the purpose of keys, and what `ksctl acl explain` says about each.

use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use keyless_protocol::info::{KeyList, ServerInfo};
use keyless_protocol::{ErrorCode, Opcode, Request, Ski};
use keyserver_tests::handshakes::{Handshake, tls12_string, tls13_string};
use keyserver_tests::wire::Answer;
use keyserver_tests::{
    ClientRule, Fixture, KeyKind, KeyServer, ServerConfig, Wire, binaries, clock,
};
use nix::sys::signal::Signal;
use rcgen::{KeyPair, PublicKeyData};

mod conditions;
mod limits;
mod refusals;

const ECDSA: u16 = 0x0403;

/// A server, what is around it, and the SKI of its key `shop`.
struct Site {
    fixture: Fixture,
    config: ServerConfig,
    server: KeyServer,
}

impl Site {
    /// With the P-256 key `shop` and an identity for every client of the configuration.
    fn start(fixture: Fixture, config: ServerConfig) -> Self {
        fixture.add_key("shop", KeyKind::P256);
        for client in &config.clients {
            fixture.write_identity(&client.name, &fixture.pki.client(&client.name));
        }
        let server = KeyServer::start(&fixture, &config);
        Self {
            fixture,
            config,
            server,
        }
    }

    fn connect(&self, name: &str) -> Wire {
        Wire::connect(&self.fixture, self.server.address(), name)
    }

    fn restart(&mut self, signal: Signal) {
        self.server.signal(signal);
        self.server.wait();
        self.server = KeyServer::start(&self.fixture, &self.config);
    }

    fn ksctl(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binaries::ksctl());
        command
            .arg("--socket")
            .arg(self.fixture.path("run/admin.sock"));
        command.args(arguments).output().unwrap()
    }

    /// What a command prints, which must end with this code.
    fn said(&self, arguments: &[&str], code: i32) -> String {
        let output = self.ksctl(arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(
            output.status.code(),
            Some(code),
            "{arguments:?}: {text}{errors}"
        );
        text + &errors
    }

    /// The answer of `ksctl acl explain`: whether it is yes, and the finding that decided.
    fn explain(&self, arguments: &[&str]) -> (bool, String) {
        let output = self.ksctl(&[&["acl", "explain"], arguments].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        let mut lines = text.lines();
        let verdict = lines
            .next()
            .unwrap_or_else(|| panic!("{arguments:?}: {errors}"));
        assert_eq!(
            output.status.code(),
            Some(i32::from(verdict == "no")),
            "{text}{errors}"
        );
        (verdict == "yes", lines.next().unwrap().trim().to_owned())
    }

    /// `FILE:LINE` of the first line of the configuration that has this in it.
    fn line(&self, part: &str) -> String {
        let file = self.fixture.path("keyserver.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        let line = text.lines().position(|line| line.contains(part)).unwrap();
        format!("{}:{}", file.display(), line + 1)
    }

    /// The SKI of a key, as `edge-1` sees it.
    fn ski(&self, label: &str) -> Ski {
        let list = keys(&mut self.connect("edge-1"));
        let entry = list.keys.iter().find(|entry| entry.label == label).unwrap();
        entry.ski_bytes().unwrap()
    }
}

fn keys(wire: &mut Wire) -> KeyList {
    KeyList::decode(&wire.ask(&Request::new(1, Opcode::KeyList)).unwrap()).unwrap()
}

fn info(wire: &mut Wire) -> ServerInfo {
    ServerInfo::decode(&wire.ask(&Request::new(1, Opcode::ServerInfo)).unwrap()).unwrap()
}

/// A request of a client of ours.
fn request(opcode: Opcode, ski: Ski, payload: &[u8]) -> Request<'_> {
    Request {
        ski: Some(ski),
        payload,
        extended: true,
        ..Request::new(7, opcode)
    }
}

fn sign(wire: &mut Wire, opcode: Opcode, ski: Ski, scheme: u16, payload: &[u8]) -> Answer {
    wire.ask(&Request {
        signature_scheme: Some(scheme),
        ..request(opcode, ski, payload)
    })
}

fn sign13(wire: &mut Wire, ski: Ski) -> Answer {
    sign(wire, Opcode::SignTls13, ski, ECDSA, &tls13_string())
}

fn rule(name: &str, allow: &[&str], conditions: &str) -> ClientRule {
    ClientRule {
        conditions: conditions.into(),
        ..ClientRule::new(name, allow)
    }
}

const DENIED: Answer = Err((ErrorCode::Denied, None));

#[test]
fn a_client_is_who_its_certificate_says_by_each_kind_of_name() {
    let fixture = Fixture::new();
    let spiffe = "spiffe://bank.example/edge";
    fixture.write_identity("by-uri", &fixture.pki.client_of("Bank", "x", spiffe));
    let other = fixture
        .pki
        .client_of("Bank", "edge-7", "spiffe://bank.example/other");
    fixture.write_identity("by-subject", &other);
    let by_key = fixture.pki.client("pinned");
    let key = KeyPair::from_pem(&by_key.private_key).unwrap();
    let hash = digest::digest(&digest::SHA256, &key.subject_public_key_info());
    let hash: String = hash
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    fixture.write_identity("by-key", &by_key);
    // The same name, another key; another organisation; a longer path.
    fixture.write_identity("forged-key", &fixture.pki.client("pinned"));
    fixture.write_identity(
        "forged-subject",
        &fixture.pki.client_of("Bonk", "edge-7", "spiffe://x/y"),
    );
    let longer = fixture
        .pki
        .client_of("Bank", "x", "spiffe://bank.example/edge/2");
    fixture.write_identity("forged-uri", &longer);
    let extra = [
        ("by-uri", format!("uri:{spiffe}")),
        ("by-subject", "subject:CN=edge-7,O=Bank".to_owned()),
        ("by-key", format!("spki-sha256:{hash}")),
    ]
    .map(|(name, matched)| {
        format!(
            "[[clients]]\nname = \"{name}\"\nmatch = \"{matched}\"\n[[clients.grants]]\nkeys = [\"shop\"]\nallow = \
             [\"tls13-sign\"]\n"
        )
    })
    .concat();
    let config = ServerConfig {
        extra,
        ..ServerConfig::default()
    };
    let site = Site::start(fixture, config);
    let ski = site.ski("shop");
    for name in ["by-uri", "by-subject", "by-key"] {
        let mut wire = site.connect(name);
        let client = info(&mut wire).client.unwrap();
        assert_eq!(
            (client.name.as_str(), client.operations),
            (name, vec!["tls13-sign".to_owned()])
        );
        sign13(&mut wire, ski).unwrap();
    }
    for name in ["forged-key", "forged-subject", "forged-uri"] {
        let mut wire = site.connect(name);
        assert_eq!(info(&mut wire).client, None, "{name}");
        assert_eq!(sign13(&mut wire, ski), DENIED, "{name}");
    }
    let by_certificate = format!("uri:{spiffe}");
    let (yes, _) = site.explain(&[
        "--client",
        &by_certificate,
        "--key",
        "shop",
        "--op",
        "tls13-sign",
    ]);
    assert!(yes);
}

#[test]
fn a_key_has_one_purpose_and_a_reload_may_change_it() {
    let fixture = Fixture::new();
    fixture.add_key("rsa", KeyKind::Rsa2048);
    let config = ServerConfig {
        purpose: "purpose = \"key-exchange\"".into(),
        clients: vec![rule("edge-1", &["sign-digest", "decrypt-compatible"], "")],
        extra: "[ledger]\ndirectory = \"ledger\"\n".into(),
        ..ServerConfig::default()
    };
    let mut site = Site::start(fixture, config);
    let ski = site.ski("rsa");
    let mut wire = site.connect("edge-1");
    let mut block = [0x11; 256];
    let mut open = |wire: &mut Wire| {
        block[255] += 1;
        block[0] = 0;
        wire.ask(&request(Opcode::RsaDecrypt, ski, &block))
            .map(|answer| answer.len())
    };
    let signed = |wire: &mut Wire| wire.ask(&request(Opcode::RsaSignSha256, ski, &[7; 32]));
    let asked = |right| ["--client", "edge-1", "--key", "rsa", "--op", right];
    assert_eq!(open(&mut wire), Ok(256));
    assert_eq!(signed(&mut wire), DENIED);
    let listed = keys(&mut wire);
    assert_eq!(listed.keys[0].operations, ["decrypt-compatible"]);
    assert_eq!(listed.keys[0].purpose, "key-exchange");
    let (no, why) = site.explain(&asked("sign-digest"));
    let expected = format!(
        "{}: `purpose`: the key is for the other purpose",
        site.line("purpose =")
    );
    assert_eq!((no, why), (false, expected));
    assert!(site.explain(&asked("decrypt-compatible")).0);

    site.config.purpose = "dual_use_until = 2099-12-31".into();
    site.fixture.write_config(&site.config);
    let report = site.said(&["reload", "--wait"], 0);
    assert!(
        report.contains("may both sign and open key exchanges, until 2099-12-31"),
        "{report}"
    );
    let status = site.said(&["status"], 0);
    assert!(
        status.contains("may both sign and open key exchanges"),
        "{status}"
    );
    assert_eq!(open(&mut wire), Ok(256));
    signed(&mut wire).unwrap();

    site.config.purpose = "purpose = \"sign\"\ndual_use_until = 2020-01-01".into();
    site.fixture.write_config(&site.config);
    site.said(&["reload", "--wait"], 0);
    assert_eq!(open(&mut wire), Err((ErrorCode::Denied, None)));
    signed(&mut wire).unwrap();

    // Named, not by glob, the grant is an error, and the old rules stay in force.
    site.config.purpose = String::new();
    site.config.clients[0].keys = vec!["rsa".into()];
    site.fixture.write_config(&site.config);
    let error = site.said(&["reload", "--wait"], 1);
    assert!(
        error.contains("is granted decrypt-compatible on key \"rsa\""),
        "{error}"
    );
    signed(&mut wire).unwrap();
}
