//! A directory laid out as an operator would, and the configuration of a server in it.
//!
//! ```text
//! keyserver.toml   pki/ca.pem           pki/server.pem   pki/server-key.pem
//! keys/NAME.key    pki/CLIENT.pem       pki/CLIENT-key.pem      run/    state/
//! ```

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::keys::KeyKind;
use crate::pki::{Identity, Pki};

/// The directory of one test; removed with everything in it when dropped.
pub struct Fixture {
    directory: TempDir,
    /// The authority that issued the certificates in it.
    pub pki: Pki,
}

impl Default for Fixture {
    fn default() -> Self {
        Self::new()
    }
}

/// How many files a test and the server that it starts may have open: some come with a crowd of connections, and a shell
/// allows 1,024.
const OPEN_FILES: u64 = 16 * 1024;

/// Allows as many, if the system lets this process. Otherwise a test that needs them says so.
fn allow_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < OPEN_FILES
    {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES.min(hard), hard);
    }
}

impl Fixture {
    /// A directory with a certificate authority, a P-256 server certificate and the client
    /// `edge-1`. It has no keys yet.
    pub fn new() -> Self {
        let pki = Pki::new();
        let identity = pki.server();
        Self::with_server_identity(pki, &identity)
    }

    /// As [`Self::new`], with an RSA-2048 server certificate.
    pub fn with_rsa_certificate() -> Self {
        let pki = Pki::new();
        let identity = pki.rsa_server();
        Self::with_server_identity(pki, &identity)
    }

    fn with_server_identity(pki: Pki, identity: &Identity) -> Self {
        allow_open_files();
        let directory = tempfile::Builder::new().prefix("keyserver-test-").tempdir();
        let fixture = Self {
            directory: directory.expect("a temporary directory"),
            pki,
        };
        for name in ["pki", "keys", "run", "state"] {
            let path = fixture.path(name);
            fs::DirBuilder::new()
                .mode(0o700)
                .create(path)
                .expect("a directory");
        }
        fixture.write("pki/ca.pem", fixture.pki.certificate());
        fixture.write_identity("server", identity);
        let client = fixture.pki.client("edge-1");
        fixture.write_identity("edge-1", &client);
        fixture
    }

    /// A path in the directory.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(relative)
    }

    /// Writes a file that only its owner may read, replacing what was there.
    pub fn write(&self, relative: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(relative);
        let mut options = fs::OpenOptions::new();
        let file = options
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path);
        file.expect("a file")
            .write_all(contents.as_ref())
            .expect("the file's contents");
        path
    }

    /// Writes `pki/NAME.pem` and `pki/NAME-key.pem`.
    pub fn write_identity(&self, name: &str, identity: &Identity) {
        self.write(format!("pki/{name}.pem"), &identity.certificate);
        self.write(format!("pki/{name}-key.pem"), &identity.private_key);
    }

    /// Makes a key and writes it to `keys/NAME.key` as PKCS#8 DER.
    pub fn add_key(&self, name: &str, kind: KeyKind) -> PathBuf {
        self.write(format!("keys/{name}.key"), kind.generate())
    }

    /// Writes `config` to `keyserver.toml`.
    pub fn write_config(&self, config: &ServerConfig) -> PathBuf {
        self.write("keyserver.toml", config.to_toml())
    }
}

/// One client of the configuration and what it may do.
#[derive(Clone, Debug)]
pub struct ClientRule {
    /// The client's name, and the DNS name its certificate is recognised by.
    pub name: String,
    /// The keys of its only grant; with none there is no grant.
    pub keys: Vec<String>,
    /// The rights of its only grant.
    pub allow: Vec<String>,
    /// More settings of that grant, a line each.
    pub conditions: String,
}

impl ClientRule {
    /// A client that may use every key with these rights.
    pub fn new(name: &str, allow: &[&str]) -> Self {
        let allow = allow.iter().map(|&right| right.into()).collect();
        Self {
            name: name.into(),
            keys: vec!["*".into()],
            allow,
            conditions: String::new(),
        }
    }
}

/// A configuration to the published contract, with what tests vary.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen for clients.
    pub address: SocketAddr,
    /// Where to serve metrics and health.
    pub metrics: SocketAddr,
    /// `io.backend`; left out when `None`.
    pub io_backend: Option<String>,
    /// What the keys are for: more settings of the `[[keys]]` entry.
    pub purpose: String,
    /// Who may do what.
    pub clients: Vec<ClientRule>,
    /// More TOML, after everything else: start it with a table header. Without `handshake_deadline` in it, handshakes have
    /// 30 seconds.
    pub extra: String,
}

/// Free ports on loopback, keys for both purposes, and the client `edge-1` with the rights to sign
/// digests and to decrypt with every key.
impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            address: free_address(),
            metrics: free_address(),
            io_backend: None,
            purpose: "dual_use_until = 2099-12-31".into(),
            clients: vec![ClientRule::new("edge-1", &["sign-digest", "decrypt-raw"])],
            extra: String::new(),
        }
    }
}

impl ServerConfig {
    /// The same with `io.backend` set.
    #[must_use]
    pub fn io_backend(mut self, backend: &str) -> Self {
        self.io_backend = Some(backend.into());
        self
    }

    /// The text of the file.
    pub fn to_toml(&self) -> String {
        let mut text = format!(
            r#"[listen]
address = "{address}"

[tls]
certificate = "pki/server.pem"
private_key = "pki/server-key.pem"
client_ca = "pki/ca.pem"

[admin]
socket = "run/admin.sock"
state = "state"

[metrics]
address = "{metrics}"

[[keys]]
directory = "keys"
{purpose}
"#,
            purpose = self.purpose,
            address = self.address,
            metrics = self.metrics,
        );
        if let Some(backend) = &self.io_backend {
            writeln!(text, "\n[io]\nbackend = \"{backend}\"").expect("text grows");
        }
        for client in &self.clients {
            let name = &client.name;
            writeln!(
                text,
                "\n[[clients]]\nname = \"{name}\"\nmatch = \"dns:{name}\""
            )
            .expect("text grows");
            if !client.keys.is_empty() {
                let (keys, allow) = (&client.keys, &client.allow);
                writeln!(
                    text,
                    "[[clients.grants]]\nkeys = {keys:?}\nallow = {allow:?}"
                )
                .expect("text grows");
                // The raw operation must have an end.
                if allow.iter().any(|right| right == "decrypt-raw") {
                    text.push_str("expires = 2099-12-31\n");
                }
                writeln!(text, "{}", client.conditions).expect("text grows");
            }
        }
        text.push('\n');
        if self.extra.contains("handshake_deadline") {
            text.push_str(&self.extra);
            return text;
        }
        // Two seconds are for a server that has its CPUs; tests run beside each other, and beside compilers.
        let limits = "[limits]\nhandshake_deadline = \"30s\"\n";
        let rest = self.extra.split_once("[limits]\n");
        let (before, after) = rest.unwrap_or(("", &self.extra));
        text + before + limits + after
    }
}

/// A loopback address that nobody listens on at the moment.
///
/// The port lies below the range from which the kernel takes ports for outgoing connections, so
/// that it does not hand out the same one before the server binds it. Tests run in parallel
/// processes, so each starts elsewhere.
pub fn free_address() -> SocketAddr {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % COUNT;
        let port = u16::try_from(port).expect("a port below 65536");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
    panic!("no port between {FIRST} and {} is free", FIRST + COUNT);
}
