//! The real binaries, as people and systemd use them: a file for each command.

#![allow(
    clippy::allow_attributes,
    clippy::unwrap_used,
    clippy::panic,
    clippy::assertions_on_result_states,
    reason = "test helpers fail the test; the lints exempt only the test functions themselves"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::Site;
use keyserver::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

mod check;
#[path = "../common/mod.rs"]
mod common;
mod documents;
mod http;
mod ksctl;
mod run;
#[cfg(feature = "trial")]
mod trial;

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
