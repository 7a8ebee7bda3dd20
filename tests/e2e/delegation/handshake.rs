//! A credential in a real handshake: an edge that has its key and not the certificate's presents it, and clients of others
//! verify it: NSS, the TLS library of Firefox, and tlslite-ng. They share no reading of the RFC with this project.

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use keyserver_client::{CredentialKey, DelegatedCredential, SignatureScheme};
use keyserver_tests::{KeyKind, Log, parts, server};

use super::{HOUR, KINDS, PATIENCE, World};

/// What an edge says to who asks for a page.
const PAGE: &str = "by a delegated credential";

/// An edge on tlslite-ng. Killed when dropped.
struct Edge {
    child: Child,
    log: Log,
    port: String,
}

impl Drop for Edge {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The programs of this test, and a key server.
struct Stage {
    world: World,
    python: PathBuf,
    tstclnt: PathBuf,
}

impl Stage {
    /// `None`, after saying so, where a program is missing.
    fn new() -> Option<Self> {
        let python = parts::python_with_tlslite()?;
        let [tstclnt, certutil] =
            ["tstclnt", "certutil"].map(|name| parts::program_of("libnss3-tools", name));
        let (tstclnt, certutil) = (tstclnt?, certutil?);
        let world = World::new(&KINDS.map(|(kind, _)| kind), "");
        let stage = Self {
            world,
            python,
            tstclnt,
        };
        let database = stage.database();
        std::fs::create_dir(stage.world.fixture.path("nss")).unwrap();
        let ca = stage.world.fixture.path("pki/ca.pem");
        for arguments in [
            &["-N", "--empty-password"][..],
            &["-A", "-n", "ca", "-t", "C,,", "-i", ca.to_str().unwrap()],
        ] {
            let mut command = Command::new(&certutil);
            let output = command.args(arguments).args(["-d", &database]).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        }
        Some(stage)
    }

    /// NSS's name of its database, which knows the authority of the fixture and no other.
    fn database(&self) -> String {
        format!("sql:{}", self.world.fixture.path("nss").display())
    }

    fn script() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("interop/delegated_handshake.py")
    }

    fn edge(&self, certificate: &Path, credential: &[u8], key: &CredentialKey) -> Edge {
        let fixture = &self.world.fixture;
        let arguments = [
            Self::script(),
            "serve".into(),
            certificate.to_owned(),
            fixture.write("credential", credential),
            fixture.write("credential.key", key.pkcs8_der()),
        ];
        let (child, log) = server::spawn(&self.python, &arguments);
        let listening = log.wait_for(PATIENCE, |line| line.contains("listening on "));
        let line = listening.unwrap_or_else(|| panic!("the edge does not listen:\n{log}"));
        let port = line.trim().rsplit(':').next().unwrap().to_owned();
        Edge { child, log, port }
    }

    /// Whether NSS got the page from an edge, and what it said meanwhile.
    fn nss(&self, edge: &Edge, more: &[&str]) -> (bool, String) {
        let request = (self.world.fixture).write("request", "GET / HTTP/1.0\r\n\r\n");
        let output = Command::new(&self.tstclnt)
            .args(["-h", "localhost", "-4", "-p", &edge.port])
            .args(["-V", "tls1.3:tls1.3", "-v", "-d", &self.database(), "-A"])
            .arg(request)
            .args(more)
            .output()
            .unwrap();
        let page = String::from_utf8_lossy(&output.stdout);
        let said = format!("{page}{}", String::from_utf8_lossy(&output.stderr));
        (output.status.success() && page.contains(PAGE), said)
    }

    /// As [`Self::nss`], by the client of tlslite-ng.
    fn tlslite(&self, edge: &Edge) -> (bool, String) {
        let output = Command::new(&self.python)
            .arg(Self::script())
            .args(["connect", &edge.port])
            .output()
            .unwrap();
        let page = String::from_utf8_lossy(&output.stdout);
        let said = format!("{page}{}", String::from_utf8_lossy(&output.stderr));
        (output.status.success() && page.contains(PAGE), said)
    }

    /// NSS's reason to refuse what an edge presents.
    fn refusal(&self, edge: &Edge) -> String {
        let (served, said) = self.nss(edge, &["-B"]);
        assert!(!served, "{said}\n{}", edge.log);
        let reason = said.split(|c: char| !c.is_ascii_uppercase() && c != '_');
        let mut reasons =
            reason.filter(|word| word.starts_with("SSL_ERROR") || word.starts_with("SEC_ERROR"));
        reasons.next().unwrap_or(&said).to_owned()
    }

    fn delegate(
        &self,
        kind: KeyKind,
        scheme: SignatureScheme,
        own: &CredentialKey,
        lifetime: Duration,
    ) -> DelegatedCredential {
        let client = self.world.client("edge-1");
        let key = self.world.key(kind);
        client.delegate(&key, scheme, own, lifetime).unwrap()
    }
}

/// The edge has no key that it could sign with for a client without the extension. NSS takes no credential that an RSA key
/// (by the scheme of `rsaEncryption` keys) or an Ed25519 key has signed, so there tlslite-ng alone verifies.
#[test]
fn foreign_clients_complete_a_handshake_by_a_credential() {
    let Some(stage) = Stage::new() else {
        return;
    };
    for (kind, scheme) in KINDS {
        let own = CredentialKey::generate().unwrap();
        let credential = stage.delegate(kind, scheme, &own, HOUR);
        let edge = stage.edge(&stage.world.certificate(kind), credential.as_bytes(), &own);
        let (served, said) = stage.tlslite(&edge);
        assert!(served, "{kind:?}: {said}\n{}", edge.log);
        let (served, said) = stage.nss(&edge, &["-B"]);
        if [KeyKind::P256, KeyKind::P384].contains(&kind) {
            let taken = said.contains("Received a Delegated Credential");
            assert!(served && taken, "{kind:?}: {said}\n{}", edge.log);
        }
        let (served, said) = stage.nss(&edge, &[]);
        assert!(!served, "{kind:?}, and no credential wanted: {said}");

        let flipped = flipped(&credential);
        let edge = stage.edge(&stage.world.certificate(kind), &flipped, &own);
        let (served, said) = stage.tlslite(&edge);
        assert!(!served, "{kind:?}, with a wrong signature: {said}");
    }
}

/// One bit of the signature, which ends the structure.
fn flipped(credential: &DelegatedCredential) -> Vec<u8> {
    let mut bytes = credential.as_bytes().to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    bytes
}

/// What is not in order fails there, each for its own reason; so what passes was looked at.
#[test]
fn nss_refuses_what_is_no_credential() {
    let Some(stage) = Stage::new() else {
        return;
    };
    let (kind, scheme) = KINDS[0];
    let certificate = stage.world.certificate(kind);
    let own = CredentialKey::generate().unwrap();
    let credential = stage.delegate(kind, scheme, &own, HOUR);

    let edge = stage.edge(&certificate, &flipped(&credential), &own);
    assert_eq!(stage.refusal(&edge), "SSL_ERROR_DC_BAD_SIGNATURE");

    // Another certificate for the same key, without leave to delegate.
    let fixture = &stage.world.fixture;
    let key = std::fs::read(fixture.path(format!("keys/{}.key", kind.name()))).unwrap();
    let plain = fixture.write("plain.pem", fixture.pki.site(&key));
    let edge = stage.edge(&plain, credential.as_bytes(), &own);
    assert_eq!(stage.refusal(&edge), "SSL_ERROR_DC_INVALID_KEY_USAGE");

    // The key of another credential.
    let other = CredentialKey::generate().unwrap();
    let edge = stage.edge(&certificate, credential.as_bytes(), &other);
    assert_eq!(stage.refusal(&edge), "SEC_ERROR_BAD_SIGNATURE");

    // A second, and past it. NSS has no clock but the machine's.
    let short = stage.delegate(kind, scheme, &own, Duration::from_secs(1));
    let issued = Instant::now();
    let edge = stage.edge(&certificate, short.as_bytes(), &own);
    std::thread::sleep(Duration::from_secs(2).saturating_sub(issued.elapsed()));
    assert_eq!(stage.refusal(&edge), "SSL_ERROR_DC_EXPIRED");
}
