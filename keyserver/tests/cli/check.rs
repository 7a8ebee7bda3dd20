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
    let grants = MINIMAL
        .replace("\"sign-digest\"]", "\"tls13-sign\"]\n")
        .replace("\"keys\"\n", "\"keys\"\ndual_use_until = 2099-12-31\n")
        + "[[clients.grants]]\nkeys = [\"shop\"]\nallow = [\"decrypt-raw\"]\nexpires = 2099-06-30\n";
    site.configure(&grants);
    let output = keyserver(&["check", "--config", text(&site.config())]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report = stdout(&output);
    assert!(
        report.contains("keys           1: 1 p-256; each has signed once for a test"),
        "{report}"
    );
    assert!(report.contains("belongs to its key, ends in "), "{report}");
    assert!(
        report.contains("holds decrypt-raw, until 2099-06-30. It is full use of the key"),
        "{report}"
    );
    assert!(
        report.contains(
            "keyserver.toml:17: key \"shop\" may both sign and open key exchanges, until 2099-12-31"
        ),
        "{report}"
    );
    assert!(
        !report.contains('\u{1b}'),
        "colour without a terminal: {report}"
    );
}

#[test]
fn a_grant_that_asks_a_key_for_what_it_is_not_is_an_error() {
    let site = Site::new();
    site.add_key("shop");
    let other = MINIMAL.replace("\"keys\"\n", "\"keys\"\npurpose = \"key-exchange\"\n");
    site.configure(&other.replace("[\"*\"]", "[\"shop\"]"));
    for command in ["check", "run"] {
        let output = keyserver(&[command, "--config", text(&site.config())]);
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        let error = stderr(&output);
        assert!(
            error.contains(
                "keyserver.toml:24: client \"edge-1\" is granted tls13-sign, tls12-sign, sign-digest on key \"shop\", \
                 which is for `purpose = \"key-exchange\"`"
            ),
            "{error}"
        );
        assert!(
            error.contains("keyserver.toml:17)\n  fix: name another key"),
            "{error}"
        );
    }
    // A glob names nothing in particular: such a grant gives nothing, and check says so.
    site.configure(&other);
    let output = keyserver(&["check", "--config", text(&site.config())]);
    assert!(output.status.success(), "{}", stderr(&output));
    let warning =
        "client \"edge-1\": no key that fits \"*\" is for tls13-sign, tls12-sign, sign-digest";
    assert!(stdout(&output).contains(warning), "{}", stdout(&output));
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
