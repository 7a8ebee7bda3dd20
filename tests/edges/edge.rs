//! An edge: a key server with the keys of some sites, and a folder with all that a proxy needs.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use keyserver_client::KeyId;
use keyserver_tests::{ClientRule, Fixture, KeyKind, KeyServer, Log, ServerConfig, parts};

use crate::pages;

/// How long a program may take to come up or to go, under valgrind on a busy machine too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// What fails at once does so within this time, on a busy machine too: long before the module's deadline.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(15);

/// The names that every site's certificate is good for.
const NAMES: [&str; 2] = ["localhost", "site.example"];

pub(crate) struct Edge {
    pub(crate) fixture: Fixture,
    config: ServerConfig,
    server: Option<KeyServer>,
}

impl Edge {
    /// A key server with a key of each kind, `sites/KIND.pem` with its certificate, and the
    /// configuration of a module that may use all of them as the page's grant allows.
    pub(crate) fn new(kinds: &[KeyKind]) -> Self {
        let rights = pages::rights("README", 1);
        let rights: Vec<&str> = rights.iter().map(String::as_str).collect();
        Self::with_rights(kinds, &rights, "")
    }

    /// As [`Self::new`], with these rights and more settings of the server.
    pub(crate) fn with_rights(kinds: &[KeyKind], rights: &[&str], extra: &str) -> Self {
        let config = ServerConfig {
            clients: vec![ClientRule::new("edge-1", rights)],
            extra: extra.into(),
            ..ServerConfig::default()
        };
        Self::with_config(kinds, config)
    }

    /// A server for a program under valgrind, which makes a handshake take seconds.
    pub(crate) fn for_valgrind(kinds: &[KeyKind]) -> Self {
        let config = ServerConfig {
            extra: "[limits]\nhandshake_deadline = \"60s\"\n".into(),
            ..ServerConfig::default()
        };
        Self::with_config(kinds, config)
    }

    pub(crate) fn with_config(kinds: &[KeyKind], config: ServerConfig) -> Self {
        let fixture = Fixture::new();
        std::fs::create_dir(fixture.path("sites")).unwrap();
        for kind in kinds {
            let site = fixture.pki.site_of_kind(*kind, &NAMES);
            fixture.write(format!("keys/{}.key", kind.name()), &site.private_key);
            fixture.write(format!("sites/{}.pem", kind.name()), &site.certificate);
        }
        let openssl = pages::block("nginx", "ini", 0);
        fixture.write("openssl.cnf", pages::with_module(&openssl));
        let mut edge = Self {
            fixture,
            config,
            server: None,
        };
        edge.write_module_config("");
        edge.start_server();
        edge
    }

    /// Writes `pkcs11.toml` with the settings of the page, the longest deadline that there is, and `more` at its end. These
    /// tests are not about how fast a busy machine is, and what fails must not wait for the deadline.
    pub(crate) fn write_module_config(&self, more: &str) {
        let mut text = String::new();
        let page = pages::block("README", "toml", 0);
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let key = line.split('=').next().unwrap().trim();
            let value = match key {
                "servers" => format!("[\"{}\"]", self.config.address),
                "server_name" => "\"localhost\"".into(),
                "ca" => "\"pki/ca.pem\"".into(),
                "certificate" => "\"pki/edge-1.pem\"".into(),
                "private_key" => "\"pki/edge-1-key.pem\"".into(),
                "certificates" => "\"sites\"".into(),
                unknown => panic!("the page has a setting that no test knows: {unknown}"),
            };
            writeln!(text, "{key} = {value}").unwrap();
        }
        text.push_str("deadline = \"60s\"\n");
        self.fixture.write("pkcs11.toml", text + more);
    }

    pub(crate) fn start_server(&mut self) {
        self.server = Some(KeyServer::start(&self.fixture, &self.config));
    }

    /// Kills it: a host that has lost power says no goodbye either.
    pub(crate) fn stop_server(&mut self) {
        self.server = None;
    }

    pub(crate) fn server(&self) -> &KeyServer {
        self.server.as_ref().unwrap()
    }

    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.fixture.path(relative)
    }

    /// The subject key identifier of a site's key, in hexadecimal.
    pub(crate) fn key_id(&self, site: &str) -> String {
        let certificate = std::fs::read(self.path(&format!("sites/{site}.pem"))).unwrap();
        KeyId::from_certificate(&certificate).unwrap().to_string()
    }

    /// A request over TLS, whose server must prove to be `localhost`; the key server's own settings
    /// are not those of this client.
    pub(crate) fn fetch(&self, port: u16, path: &str) -> Command {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "20", "--cacert"]);
        command.arg(self.path("pki/ca.pem"));
        command.arg(format!("https://localhost:{port}{path}"));
        command
    }

    /// A command that finds the module's configuration and the engine's.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env("KEYSERVER_PKCS11_CONFIG", self.path("pkcs11.toml"))
            .env("OPENSSL_CONF", self.path("openssl.cnf"))
            .current_dir(self.fixture.path(""))
            .stdin(Stdio::null());
        command
    }
}

/// Debian's OpenSSL engine for PKCS#11: whether it is there, after saying that the test is skipped if
/// it is not.
pub(crate) fn engine_is_there() -> bool {
    let there = ["x86_64", "aarch64"]
        .map(|machine| format!("/usr/lib/{machine}-linux-gnu/engines-3/pkcs11.so"))
        .iter()
        .any(|path| Path::new(path).is_file());
    if !there {
        parts::missing("OpenSSL's PKCS#11 engine (Debian: libengine-pkcs11-openssl)");
    }
    there
}

/// Runs a command to its end and returns what it printed on standard output.
pub(crate) fn run(command: &mut Command) -> String {
    let output = outcome(command);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?} ended with {}:\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Runs a command to its end.
pub(crate) fn outcome(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"))
}

/// A program in the background, asked to end when dropped, and killed if it does not.
pub(crate) struct Background {
    child: Child,
    pub(crate) log: Log,
}

impl Background {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?} does not start: {error}"));
        let log = Log::default();
        log.follow(child.stdout.take().unwrap());
        log.follow(child.stderr.take().unwrap());
        Self { child, log }
    }

    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap())
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).unwrap();
    }

    /// Waits until it has ended by itself.
    pub(crate) fn wait(mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end:\n{}", self.log);
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a TCP connection to `address` is accepted.
    pub(crate) fn wait_for(&mut self, address: std::net::SocketAddr) {
        let deadline = Instant::now() + PATIENCE;
        while std::net::TcpStream::connect(address).is_err() {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.log.wait_until_closed();
                panic!("it ended with {status}:\n{}", self.log);
            }
            assert!(Instant::now() < deadline, "nobody listens:\n{}", self.log);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(self.pid(), nix::sys::signal::Signal::SIGTERM);
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
