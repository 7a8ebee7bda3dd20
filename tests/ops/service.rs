//! The daemon towards a service manager: the messages of sd_notify(3), and a listening socket that
//! it inherits.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use keyserver_tests::fixture::free_address;
use keyserver_tests::{ClientRule, Fixture, KeyServer, ServerConfig, parts};
use nix::sys::signal::Signal;

use crate::client::{self, KEY};

/// How long to wait for a message. Busy machines need most of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tells the daemon to say that it is alive twice in this time.
const WATCHDOG: Duration = Duration::from_secs(1);

/// The socket of a service manager, as the daemon sees it.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Manager {
    fn new(fixture: &Fixture) -> Self {
        let path = fixture.path("run/notify.sock");
        let socket = UnixDatagram::bind(&path).expect("a datagram socket");
        Self { socket, path }
    }

    /// What a command line begins with to run under this manager.
    fn wrapper(&self) -> Vec<PathBuf> {
        let notify = format!("NOTIFY_SOCKET={}", self.path.display());
        let watchdog = format!("WATCHDOG_USEC={}", WATCHDOG.as_micros());
        ["/usr/bin/env".into(), notify, watchdog]
            .into_iter()
            .map(PathBuf::from)
            .collect()
    }

    /// Waits for a message with this line, and returns the whole message.
    fn wait_for(&self, line: &str, server: &KeyServer) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Some(left) = deadline
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
        {
            self.socket
                .set_read_timeout(Some(left))
                .expect("a time limit");
            let mut buffer = [0; 4096];
            let Ok(length) = self.socket.recv(&mut buffer) else {
                break;
            };
            let message = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if message.lines().any(|found| found == line) {
                return message;
            }
            seen.push(message);
        }
        panic!(
            "no `{line}` among {seen:?}; the server's log:\n{}",
            server.log()
        );
    }
}

/// A fixture with one key, and a configuration that stops at once.
fn fixture() -> (Fixture, ServerConfig) {
    let fixture = Fixture::new();
    fixture.add_key(KEY.0, KEY.1);
    let config = ServerConfig {
        clients: vec![ClientRule::new("edge-1", &["sign-digest"])],
        extra: "[shutdown]\nspread = \"0s\"\nlimit = \"5s\"\n".to_owned(),
        ..ServerConfig::default()
    };
    (fixture, config)
}

#[test]
fn the_service_manager_hears_of_start_life_reload_and_stop() {
    let (fixture, config) = fixture();
    let manager = Manager::new(&fixture);
    let server = KeyServer::start_under(&manager.wrapper(), &fixture, &config);
    manager.wait_for("READY=1", &server);
    client::use_server(&fixture, server.address());

    // Alive, and again, within the time in which it has to say so twice. A busy machine makes some of them late, not all.
    manager.wait_for("WATCHDOG=1", &server);
    let mut between = Vec::new();
    while between.last().is_none_or(|passed| *passed >= WATCHDOG) {
        assert!(between.len() < 10, "{between:?} between signs of life");
        let last = Instant::now();
        manager.wait_for("WATCHDOG=1", &server);
        between.push(last.elapsed());
    }

    server.signal(Signal::SIGHUP);
    let reloading = manager.wait_for("RELOADING=1", &server);
    let stamp = reloading
        .lines()
        .find_map(|line| line.strip_prefix("MONOTONIC_USEC="));
    assert!(
        stamp.is_some_and(|stamp| stamp.parse::<u64>().is_ok()),
        "{reloading:?}"
    );
    manager.wait_for("READY=1", &server);

    // A reload that fails ends too: the old state serves on.
    fixture.write("keys/broken.key", "not a key");
    server.signal(Signal::SIGHUP);
    manager.wait_for("RELOADING=1", &server);
    manager.wait_for("READY=1", &server);
    let complaint = server
        .log()
        .wait_for(PATIENCE, |line| line.contains("broken.key"));
    assert!(
        complaint.is_some(),
        "the log does not name the file:\n{}",
        server.log()
    );
    client::use_server(&fixture, server.address());

    server.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1", &server);
    assert!(server.stop().success());
}

#[test]
fn a_broken_key_at_the_start_is_never_ready() {
    let (fixture, config) = fixture();
    fixture.write("keys/broken.key", "not a key");
    let (status, log) = KeyServer::start_failing(&fixture, &config);
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(
        !log.matching("broken.key").is_empty(),
        "the log does not name the file:\n{log}"
    );
}

#[test]
fn an_inherited_socket_is_served() {
    let program = Path::new("/usr/bin/systemd-socket-activate");
    if !program.exists() {
        parts::missing("systemd-socket-activate (Debian: systemd)");
        return;
    }
    let (fixture, config) = fixture();
    // Not the address in the configuration: that one must stay closed.
    let inherited = free_address();
    let wrapper = [
        program.to_owned(),
        "--fdname=keyless".into(),
        format!("--listen={inherited}").into(),
    ];
    // The daemon starts when the first connection comes in.
    let caller = thread::spawn(move || first_connection(inherited));
    let server = KeyServer::start_under(&wrapper, &fixture, &config);
    drop(caller.join().expect("the first connection"));

    client::use_server(&fixture, inherited);
    assert!(
        TcpStream::connect(config.address).is_err(),
        "the configured address listens too"
    );
    assert!(server.stop().success());
}

/// On the second the kernel would take connections, and nobody would serve them.
#[test]
fn one_socket_is_inherited_and_not_two() {
    let program = Path::new("/usr/bin/systemd-socket-activate");
    if !program.exists() {
        parts::missing("systemd-socket-activate (Debian: systemd)");
        return;
    }
    let (fixture, config) = fixture();
    let inherited = [free_address(), free_address()];
    let listen = inherited.map(|address| format!("--listen={address}").into());
    let wrapper: Vec<PathBuf> = [program.to_owned()].into_iter().chain(listen).collect();
    let caller = thread::spawn(move || first_connection(inherited[1]));
    let (status, log) = KeyServer::start_failing_under(&wrapper, &fixture, &config);
    drop(caller.join().expect("the first connection"));
    assert!(!status.success());
    assert!(!log.matching("several sockets").is_empty(), "{log}");
}

/// Connects as soon as somebody listens.
fn first_connection(address: SocketAddr) -> TcpStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// What the kernel shows of a process that may not be dumped belongs to root, whoever runs it.
#[test]
fn the_daemon_may_not_be_dumped() {
    let fixture = Fixture::new();
    let directory = fixture.path("");
    let is_root = std::fs::metadata(&directory).expect("a directory").uid() == 0;
    let wrapper = if is_root {
        let directory = directory.display();
        let script = format!(
            "chown -R 65534:65534 {directory} && \
             exec setpriv --reuid=65534 --regid=65534 --clear-groups \"$@\""
        );
        ["/bin/sh", "-c", &script, "sh"].map(PathBuf::from).to_vec()
    } else {
        Vec::new()
    };
    let server = KeyServer::start_under(&wrapper, &fixture, &ServerConfig::default());
    let owner = |file: &str| {
        let path = format!("/proc/{}{file}", server.pid());
        std::fs::metadata(path).expect("the process runs").uid()
    };
    assert_ne!(owner(""), 0, "the daemon does not run as root");
    assert_eq!(owner("/environ"), 0);
    // It still finds out about itself.
    for metric in ["process_resident_memory_bytes", "process_open_fds"] {
        assert!(
            server.metric(&[metric]).is_some_and(|value| value > 0.0),
            "{metric}"
        );
    }
}

#[test]
fn a_tls_key_that_others_may_read_keeps_it_from_starting() {
    let fixture = Fixture::new();
    let mode = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(fixture.path("pki/server-key.pem"), mode).expect("changed");
    let (status, log) = KeyServer::start_failing(&fixture, &ServerConfig::default());
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(!log.matching("mode 0644 lets others").is_empty(), "{log}");
}
