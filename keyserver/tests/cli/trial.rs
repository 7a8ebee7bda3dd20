//! `demo` and `init`: what the trial build can do on an empty machine.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::{keyserver, stderr, stdout, text};

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
