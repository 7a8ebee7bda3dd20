//! The real binaries, as people and systemd use them.

#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    clippy::assertions_on_result_states,
    reason = "test helpers fail the test; the lints exempt only the test functions themselves"
)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::{MINIMAL, Site};
use keyserver::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Nothing here takes longer, on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(60);

fn keyserver(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_keyserver"))
        .args(arguments)
        .output()
        .unwrap()
}

fn ksctl(site: &Site, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ksctl"));
    command
        .arg("--socket")
        .arg(site.path("run/admin.sock"))
        .args(arguments)
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `keyserver run`, and what it logs.
struct Daemon {
    child: Child,
    lines: Receiver<String>,
    metrics: SocketAddr,
}

impl Daemon {
    fn start(site: &Site) -> Self {
        Self::start_with(site, |_| {})
    }

    fn start_with(site: &Site, prepare: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyserver"));
        command
            .arg("run")
            .arg("--config")
            .arg(site.config())
            .args(["--log-format", "json"]);
        command.stderr(Stdio::piped()).env_remove("KEYSERVER_LOG");
        prepare(&mut command);
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let mut daemon = Self {
            child,
            lines,
            metrics: ([127, 0, 0, 1], 0).into(),
        };
        let line = daemon.wait_for("metrics and health");
        daemon.metrics = line["address"].as_str().unwrap().parse().unwrap();
        daemon.wait_for("serving");
        daemon
    }

    /// The next log line with this text.
    fn wait_for(&self, message: &str) -> serde_json::Value {
        let end = clock::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(clock::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("no log line says {message:?}"));
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if line["message"].as_str().unwrap().contains(message) {
                return line;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        let end = clock::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(clock::now() < end, "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn get(&self, target: &str) -> String {
        self.http(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }

    fn http(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).unwrap();
        response
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(feature = "trial")]
#[test]
fn the_demo_verifies_every_operation_and_leaves_nothing_behind() {
    let temporary = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyserver"));
    let output = command
        .args(["demo", "--once"])
        .env("TMPDIR", temporary.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    for key in [
        "rsa-2048", "rsa-3072", "rsa-4096", "p-256", "p-384", "p-521", "ed25519",
    ] {
        assert!(
            text.lines()
                .any(|line| line.contains(key) && line.contains("verified")),
            "{text}"
        );
    }
    assert_eq!(text.matches(" decrypt ").count(), 3, "{text}");
    assert!(text.contains("\nAll 10 operations verified, "), "{text}");
    assert_eq!(
        fs::read_dir(temporary.path()).unwrap().count(),
        0,
        "the directory stayed"
    );
}

#[cfg(feature = "trial")]
#[test]
fn the_demo_keeps_its_own_directory_and_touches_no_other() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("demo");
    let output = keyserver(&["demo", "--once", "--dir", text(&directory)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let check = keyserver(&["check", "--config", text(&directory.join("keyserver.toml"))]);
    assert!(check.status.success(), "{}", stderr(&check));
    assert!(
        stdout(&check).contains("holds decrypt-raw, until "),
        "{}",
        stdout(&check)
    );
    let again = keyserver(&["demo", "--once", "--dir", text(&directory)]);
    assert_eq!(again.status.code(), Some(2));
    assert!(
        stderr(&again).contains("is not empty"),
        "{}",
        stderr(&again)
    );
}

#[cfg(feature = "trial")]
#[test]
fn init_writes_what_check_accepts_and_overwrites_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let directory = temporary.path().join("server");
    let output = keyserver(&[
        "init",
        text(&directory),
        "--server-name",
        "keys.example.com",
    ]);
    assert!(output.status.success(), "{}", stderr(&output));
    let config = directory.join("keyserver.toml");
    let check = keyserver(&["check", "--config", text(&config)]);
    assert!(check.status.success(), "{}", stderr(&check));
    assert!(
        stdout(&check).contains("no key is loaded"),
        "{}",
        stdout(&check)
    );
    for private in ["pki/ca-key.pem", "pki/server-key.pem", "pki/client-key.pem"] {
        let mode = fs::metadata(directory.join(private))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{private}");
    }
    fs::remove_file(directory.join("pki/ca-key.pem")).unwrap();
    let before = fs::read(&config).unwrap();
    let again = keyserver(&["init", text(&directory)]);
    assert_eq!(again.status.code(), Some(2));
    assert!(
        stderr(&again).contains("exist and are not overwritten"),
        "{}",
        stderr(&again)
    );
    assert_eq!(fs::read(&config).unwrap(), before);
    assert!(!directory.join("pki/ca-key.pem").exists());
}

#[test]
fn what_cannot_start_says_why_and_ends_with_2() {
    let site = Site::new();
    site.add_key("shop");
    let config = site.config();
    let fails = |command: &str, expected: &str| {
        let output = keyserver(&[command, "--config", text(&config)]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(
            stderr(&output).contains(expected),
            "{command}: {}",
            stderr(&output)
        );
    };
    for command in ["run", "check"] {
        site.configure(&MINIMAL.replace("client_ca", "client_cas"));
        fails(
            command,
            "keyserver.toml:8: unknown key `client_cas` in [tls]",
        );
        site.configure(MINIMAL);
        site.write_private("keys/torn.key", "-----BEGIN PRIVATE KEY-----\nMIG");
        fails(command, "keys/torn.key");
        fs::remove_file(site.path("keys/torn.key")).unwrap();
        fs::copy(site.path("keys/shop.key"), site.path("keys/twin.key")).unwrap();
        fails(command, "keys/twin.key");
        fs::remove_file(site.path("keys/twin.key")).unwrap();
    }
    let missing = keyserver(&["run", "--config", "/nonexistent/keyserver.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("create it with `keyserver init DIR`"));
    for wrong in [
        &["frobnicate"][..],
        &["run", "--confg", "x"],
        &[],
        &["completions", "tcsh"],
    ] {
        let output = keyserver(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn check_reports_what_is_right_and_warns_without_failing() {
    let site = Site::new();
    site.add_key("shop");
    site.configure(&MINIMAL.replace("\"sign-digest\"]", "\"decrypt-raw\"]"));
    let output = keyserver(&["check", "--config", text(&site.config())]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report = stdout(&output);
    assert!(
        report.contains("keys           1: 1 p-256; each has signed once for a test"),
        "{report}"
    );
    assert!(report.contains("belongs to its key, ends in "), "{report}");
    assert!(
        report.contains("decrypt-raw, without an end; set `expires = YYYY-MM-DD`"),
        "{report}"
    );
    assert!(
        report.contains("no operation of this version uses tls13-sign, tls12-sign"),
        "{report}"
    );
    assert!(
        !report.contains('\u{1b}'),
        "colour without a terminal: {report}"
    );
}

#[test]
fn the_configuration_may_come_from_the_environment() {
    let site = Site::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyserver"));
    let output = command
        .arg("check")
        .env("KEYSERVER_CONFIG", site.config())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_wrong_log_level_is_an_error() {
    let site = Site::new();
    let mut command = Command::new(env!("CARGO_BIN_EXE_keyserver"));
    command
        .args(["run", "--config", text(&site.config())])
        .env("KEYSERVER_LOG", "loud=very");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("KEYSERVER_LOG=loud=very"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn the_binaries_document_themselves() {
    for (arguments, expected) in [
        (
            &["version"][..],
            concat!("keyserver ", env!("CARGO_PKG_VERSION")),
        ),
        (&["completions", "bash"], "_keyserver()"),
        (&["completions", "zsh"], "#compdef keyserver"),
        (&["man"], ".TH keyserver 1"),
        (&["--help"], "Exit codes:"),
    ] {
        let output = keyserver(arguments);
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            stderr(&output)
        );
        assert!(
            stdout(&output).contains(expected),
            "{arguments:?}: {}",
            stdout(&output)
        );
    }
    let temporary = tempfile::tempdir().unwrap();
    assert!(keyserver(&["man", text(temporary.path())]).status.success());
    assert!(temporary.path().join("keyserver-run.1").exists());
}

#[test]
fn health_and_metrics_are_served() {
    let site = Site::new();
    site.add_key("shop");
    let daemon = Daemon::start(&site);
    assert!(daemon.get("/livez").starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(daemon.get("/readyz").ends_with("\r\n\r\nready\n"));
    assert!(daemon.get("/nothing").starts_with("HTTP/1.1 404 "));
    assert!(
        daemon
            .http("POST /livez HTTP/1.1\r\n\r\n")
            .starts_with("HTTP/1.1 405 ")
    );
    assert!(
        daemon
            .http("HEAD /livez HTTP/1.1\r\n\r\n")
            .ends_with("\r\n\r\n")
    );
    assert!(
        daemon
            .http("\u{16}\u{3}\u{1}\r\n\r\n")
            .starts_with("HTTP/1.1 400 ")
    );
    let state = daemon.get("/state");
    let (_, body) = state.split_once("\r\n\r\n").unwrap();
    let state: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (state["state"].as_str(), state["keys"].as_u64()),
        (Some("serving"), Some(1))
    );

    let metrics = daemon.get("/metrics");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    for name in [
        "keyserver_build_info{version=",
        "keyserver_keys 1\n",
        "keyserver_cert_expiry_timestamp_seconds ",
        "keyserver_config_last_reload_successful 1\n",
        "keyserver_config_last_reload_success_timestamp_seconds ",
        "keyserver_tls_handshakes_total{resumed=\"no\"} 0\n",
        "keyserver_request_duration_seconds_bucket{le=\"+Inf\",stage=\"total\"} 0\n",
        "keyserver_queue_depth{class=\"p256\"} 0\n",
        "keyserver_connections 0\n",
        "keyserver_inflight 0\n",
        "keyserver_key_operation_check_failures_total 0\n",
        "process_resident_memory_bytes ",
        "process_open_fds ",
    ] {
        assert!(metrics.contains(name), "{name} is missing:\n{metrics}");
    }
}

#[test]
fn a_silent_scraper_keeps_nobody_waiting() {
    let site = Site::new();
    let daemon = Daemon::start(&site);
    let silent: Vec<_> = (0..8)
        .map(|_| TcpStream::connect(daemon.metrics).unwrap())
        .collect();
    let began = clock::now();
    for _ in 0..20 {
        assert!(daemon.get("/livez").starts_with("HTTP/1.1 200 OK\r\n"));
    }
    // The silent ones would have held a single thread for two seconds each.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    // They are closed in the end, so they cannot use up the places.
    for mut stream in silent {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(matches!(stream.read(&mut [0; 16]), Ok(0) | Err(_)));
    }
}

#[test]
fn a_long_request_head_is_refused() {
    let site = Site::new();
    let daemon = Daemon::start(&site);
    let long = format!("GET /livez HTTP/1.1\r\nX: {}\r\n", "x".repeat(9000));
    let mut stream = TcpStream::connect(daemon.metrics).unwrap();
    stream.write_all(long.as_bytes()).unwrap();
    let mut response = Vec::new();
    // Closing on unread input may reset the connection; what counts is that it ends.
    let _ = stream.read_to_end(&mut response);
    assert!(response.is_empty() || response.starts_with(b"HTTP/1.1 400 "));
}

#[test]
fn ksctl_shows_and_reloads_a_running_server() {
    let site = Site::new();
    site.add_key("shop");
    let mut daemon = Daemon::start(&site);
    let mode = fs::metadata(site.path("run/admin.sock"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o660);
    let status = ksctl(&site, &["status"]);
    assert!(
        stdout(&status).starts_with("state        serving for "),
        "{}",
        stdout(&status)
    );
    let json: serde_json::Value =
        serde_json::from_slice(&ksctl(&site, &["status", "--json"]).stdout).unwrap();
    assert_eq!(json["config"].as_str(), site.config().to_str());
    assert_eq!(stdout(&ksctl(&site, &["ready"])), "ready\n");

    site.add_key("bank");
    let reload = ksctl(&site, &["reload", "--wait"]);
    assert!(reload.status.success(), "{}", stderr(&reload));
    let report = stdout(&reload);
    assert!(
        report.starts_with("reloaded: generation 2, 2 keys (1 new, 0 gone), 1 client"),
        "{report}"
    );

    site.write_private("keys/torn.key", "torn");
    let reload = ksctl(&site, &["reload", "--wait"]);
    assert_eq!(reload.status.code(), Some(1));
    assert!(
        stderr(&reload).contains("keys/torn.key"),
        "{}",
        stderr(&reload)
    );
    assert!(
        daemon
            .get("/metrics")
            .contains("\nkeyserver_config_last_reload_successful 0\n")
    );
    assert!(daemon.get("/metrics").contains("\nkeyserver_keys 2\n"));
    assert!(stdout(&ksctl(&site, &["status"])).contains("the last reload FAILED"));

    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.exit_code(), Some(0));
    assert!(!site.path("run/admin.sock").exists());
    let gone = ksctl(&site, &["ready"]);
    assert_eq!(gone.status.code(), Some(3));
    assert!(
        stderr(&gone).contains("is the server running"),
        "{}",
        stderr(&gone)
    );
}

#[test]
fn the_control_socket_answers_every_line_and_refuses_what_it_cannot_read() {
    let site = Site::new();
    let _daemon = Daemon::start(&site);
    let ask = |line: &str| {
        let mut stream = UnixStream::connect(site.path("run/admin.sock")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        let mut reply = String::new();
        BufReader::new(stream).read_line(&mut reply).unwrap();
        reply
    };
    assert!(ask("{\"v\":1,\"command\":\"status\"}\n").starts_with("{\"v\":1,\"status\":{"));
    assert!(ask("{\"v\":2,\"command\":\"status\"}\n").contains("speaks version 1"));
    assert!(ask("{\"v\":1,\"command\":\"seal\"}\n").contains("does not know the command"));
    assert!(ask("hello\n").contains("this is not a command"));
    assert!(ask(&format!("{}\n", "x".repeat(5000))).contains("this is not a command"));
}

#[test]
fn a_socket_left_behind_is_replaced_and_one_in_use_is_not() {
    let site = Site::new();
    let mut first = Daemon::start(&site);
    let second = keyserver(&["run", "--config", text(&site.config())]);
    assert_eq!(second.status.code(), Some(2));
    assert!(
        stderr(&second).contains("another server answers on it"),
        "{}",
        stderr(&second)
    );
    assert!(
        ksctl(&site, &["ready"]).status.success(),
        "the first one still answers"
    );
    first.signal(Signal::SIGKILL);
    first.exit_code();
    assert!(site.path("run/admin.sock").exists());
    let third = Daemon::start(&site);
    assert!(ksctl(&site, &["ready"]).status.success());
    drop(third);

    fs::remove_file(site.path("run/admin.sock")).unwrap();
    site.write("run/admin.sock", "precious");
    let output = keyserver(&["run", "--config", text(&site.config())]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("not a socket"),
        "{}",
        stderr(&output)
    );
    assert_eq!(
        fs::read_to_string(site.path("run/admin.sock")).unwrap(),
        "precious"
    );
}

#[test]
fn a_stuck_server_does_not_hang_ready_for_ever() {
    let site = Site::new();
    fs::create_dir(site.path("run")).unwrap();
    let listener = UnixListener::bind(site.path("run/admin.sock")).unwrap();
    let closer = std::thread::spawn(move || drop(listener.accept().unwrap()));
    let output = ksctl(&site, &["ready"]);
    closer.join().unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(!output.stderr.is_empty());
}

#[test]
fn hangup_reloads_and_a_broken_key_changes_nothing() {
    let site = Site::new();
    site.add_key("shop");
    let daemon = Daemon::start(&site);
    site.add_key("bank");
    daemon.signal(Signal::SIGHUP);
    assert_eq!(daemon.wait_for("configuration reloaded")["keys"], 2);
    site.write_private("keys/torn.key", "torn");
    daemon.signal(Signal::SIGHUP);
    let line = daemon.wait_for("reload failed, the old configuration stays in force");
    assert!(
        line["message"].as_str().unwrap().contains("keys/torn.key"),
        "{line}"
    );
    assert!(daemon.get("/readyz").starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(daemon.get("/metrics").contains("\nkeyserver_keys 2\n"));
}

#[test]
fn systemd_is_told_what_happens() {
    let site = Site::new();
    let socket = UnixDatagram::bind(site.path("notify")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut daemon = Daemon::start_with(&site, |command| {
        command
            .env("NOTIFY_SOCKET", site.path("notify"))
            .env("WATCHDOG_USEC", "300000");
        command.env_remove("WATCHDOG_PID");
    });
    // Read all the time, as systemd does: a full queue would hold the server up.
    let (send, messages) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            let _ = send.send(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    });
    let wait_for = |wanted: &str| {
        let end = clock::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(clock::now());
            let message = messages.recv_timeout(left);
            let message = message.unwrap_or_else(|_| panic!("systemd was not told {wanted}"));
            if message.lines().any(|line| line.starts_with(wanted)) {
                return message;
            }
        }
    };
    assert!(wait_for("READY=1").contains("STATUS=Serving on 127.0.0.1:"));
    wait_for("WATCHDOG=1");
    daemon.signal(Signal::SIGHUP);
    assert!(wait_for("RELOADING=1").contains("\nMONOTONIC_USEC="));
    wait_for("READY=1");
    wait_for("WATCHDOG=1");
    daemon.signal(Signal::SIGTERM);
    wait_for("STOPPING=1");
    assert_eq!(daemon.exit_code(), Some(0));
}
