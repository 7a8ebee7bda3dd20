//! `check`, and what `check` and `run` refuse alike.

use std::fs;
use std::process::Command;

use crate::common::{MINIMAL, Site};
use crate::{keyserver, stderr, stdout, text};

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
    site.configure(&MINIMAL.replace("\"sign-digest\"]", "\"delegate\", \"decrypt-raw\"]"));
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
        report.contains("no operation of this version uses delegate;"),
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
