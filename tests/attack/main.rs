//! `keyserver selftest --attack`, which shows what a client can do that it should not: each attack works against a
//! server that makes the mistake it is about, and fails against the real one.
//!
//! | module | shows that |
//! |---|---|
//! | [`mistakes`] | each attack finds its mistake in a naive server, and finds nothing in one that makes none |
//! | [`real`] | nothing is found in `keyserver` with sensible rights, before and after a restart; rights that are too wide are |
//! | [`secrets`] | no jump and no address in the machine code depends on what a ciphertext opens to |
//! | [`naive`] | the naive server: a few hundred lines, one switch for each mistake |
//!
//! The comparison of times is short here. The long one, a hundred thousand requests of each class for each way of opening
//! a ciphertext, takes about a quarter of an hour of a machine that does nothing else, and more where the disk of the
//! temporary folder is slow to sync. A folder in memory also makes times differ less by themselves:
//!
//! ```text
//! TMPDIR=/dev/shm KEYSERVER_ATTACK_SAMPLES=100000 cargo test --release -p keyserver-tests --test attack \
//!     everything_holds_over_epoll -- --nocapture
//! ```
//!
//! It needs optimised code: without, refusals differ by half a microsecond, and it says so.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends where something is wrong, and says so by panicking there"
)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use keyserver_tests::{Fixture, binaries};

mod mistakes;
mod naive;
mod real;
mod secrets;

/// What an attack came to, and why.
type Report = BTreeMap<String, (String, String)>;

/// Attacks as `edge-1`, with `edge-2` as the second client. Returns the report and whether the command said that all
/// held.
fn attack(fixture: &Fixture, address: SocketAddr, options: &[&str]) -> (Report, bool) {
    let mut command = Command::new(binaries::keyserver());
    command
        .args([
            "selftest",
            "--attack",
            "--json",
            "--server-name",
            "localhost",
        ])
        .args(["--target", &address.to_string()])
        .args(options);
    for (option, file) in [
        ("--ca", "pki/ca.pem"),
        ("--cert", "pki/edge-1.pem"),
        ("--key", "pki/edge-1-key.pem"),
        ("--other-cert", "pki/edge-2.pem"),
        ("--other-key", "pki/edge-2-key.pem"),
    ] {
        command.arg(option).arg(fixture.path(file));
    }
    let output = command.output().unwrap();
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        let said = String::from_utf8_lossy(&output.stderr);
        panic!("{error}: the attack printed no report: {said}")
    });
    let row = |row: &serde_json::Value| {
        let text = |name: &str| row[name].as_str().unwrap().to_owned();
        (text("name"), (text("verdict"), text("why")))
    };
    let report: Report = json["attacks"]
        .as_array()
        .unwrap()
        .iter()
        .map(row)
        .collect();
    for (name, (verdict, why)) in &report {
        println!("{name:<19} {verdict:<8} {why}");
    }
    (report, output.status.success())
}

/// The attacks that came to this.
fn of<'r>(report: &'r Report, verdict: &str) -> Vec<&'r str> {
    let rows = report.iter().filter(|(_, (found, _))| found == verdict);
    rows.map(|(name, _)| &**name).collect()
}
