//! The real daemon as a process.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::binaries;
use crate::fixture::{Fixture, ServerConfig};
use crate::http;
use crate::logs::Log;

/// How long a start or a stop may take. Slow builds and busy machines need most of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often to look again while waiting.
const GLANCE: Duration = Duration::from_millis(10);

/// A running `keyserver run --config`. Killed when dropped.
pub struct KeyServer {
    child: Child,
    log: Log,
    address: SocketAddr,
    metrics: SocketAddr,
}

impl KeyServer {
    /// Writes the configuration, starts the daemon on it and waits until it says it is ready.
    pub fn start(fixture: &Fixture, config: &ServerConfig) -> Self {
        Self::start_under(&[], fixture, config)
    }

    /// As [`Self::start`], with the daemon's command line behind `wrapper`: a program that changes
    /// something about the process and then executes the rest of its arguments.
    pub fn start_under(wrapper: &[PathBuf], fixture: &Fixture, config: &ServerConfig) -> Self {
        let mut server = Self::launch(wrapper, fixture, config);
        server.wait_until_ready();
        server
    }

    /// Starts the daemon on a configuration it is expected to refuse; returns how it ended and what
    /// it printed.
    pub fn start_failing(fixture: &Fixture, config: &ServerConfig) -> (ExitStatus, Log) {
        Self::start_failing_under(&[], fixture, config)
    }

    /// As [`Self::start_failing`], behind `wrapper` as in [`Self::start_under`].
    pub fn start_failing_under(
        wrapper: &[PathBuf],
        fixture: &Fixture,
        config: &ServerConfig,
    ) -> (ExitStatus, Log) {
        let mut server = Self::launch(wrapper, fixture, config);
        let status = server.wait();
        server.log.wait_until_closed();
        (status, server.log.clone())
    }

    fn launch(wrapper: &[PathBuf], fixture: &Fixture, config: &ServerConfig) -> Self {
        let config_file = fixture.write_config(config);
        let command_line = wrapper
            .iter()
            .map(|part| part.clone().into_os_string())
            .chain([
                binaries::keyserver().into(),
                "run".into(),
                "--config".into(),
            ])
            .chain([config_file.into_os_string()])
            .collect::<Vec<OsString>>();
        let (program, arguments) = command_line.split_first().expect("a program");
        let (child, log) = spawn(program, arguments);
        Self {
            child,
            log,
            address: config.address,
            metrics: config.metrics,
        }
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child's status") {
                self.log.wait_until_closed();
                panic!(
                    "the server ended with {status} before it was ready:\n{}",
                    self.log
                );
            }
            if http::get(self.metrics, "/readyz").is_ok_and(|response| response.status == 200) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "the server is not ready yet:\n{}",
                self.log
            );
            thread::sleep(GLANCE);
        }
    }

    /// Where it listens for clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it serves metrics and health.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        http::get(self.metrics, "/metrics")
            .expect("the metrics")
            .body
    }

    /// The value of the first sample whose name and labels contain every part.
    pub fn metric(&self, parts: &[&str]) -> Option<f64> {
        http::sample(&self.metrics(), parts)
    }

    /// What it has printed so far.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its open file descriptors. Only root may look at them; to others it tells how many there are, with that
    /// of the question.
    pub fn open_files(&self) -> usize {
        match fs::read_dir(format!("/proc/{}/fd", self.pid())) {
            Ok(descriptors) => descriptors.count(),
            Err(_) => (self.metrics().lines())
                .find_map(|line| line.strip_prefix("process_open_fds ")?.parse().ok())
                .expect("the process runs"),
        }
    }

    /// Waits until it has at most this many open file descriptors.
    pub fn wait_for_open_files(&self, at_most: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.open_files() > at_most {
            let open = self.open_files();
            assert!(
                Instant::now() < deadline,
                "{open} open files, not {at_most}:\n{}",
                self.log
            );
            thread::sleep(GLANCE);
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child's status").is_none()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process id");
        signal::kill(Pid::from_raw(pid), signal).expect("the signal is delivered");
    }

    /// Asks it to drain and end, and waits until it has.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child's status") {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "the server does not end:\n{}",
                self.log
            );
            thread::sleep(GLANCE);
        }
    }
}

impl Drop for KeyServer {
    fn drop(&mut self) {
        // It may have ended already; then there is nothing left to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Starts a program with its output gathered in a log.
pub fn spawn(program: impl AsRef<OsStr>, arguments: &[impl AsRef<OsStr>]) -> (Child, Log) {
    let program = program.as_ref();
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
    let log = Log::default();
    log.follow(child.stdout.take().expect("a pipe"));
    log.follow(child.stderr.take().expect("a pipe"));
    (child, log)
}
