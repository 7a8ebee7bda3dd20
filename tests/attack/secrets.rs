//! What no attacker over a network can measure well enough, valgrind sees in one run: a jump or an address that depends
//! on a secret.

use std::process::{Command, Output};

use keyserver_tests::{binaries, parts};

/// What valgrind ends with when it has complained.
const COMPLAINED: i32 = 99;

fn under_valgrind(arguments: &[&str]) -> Option<Output> {
    let valgrind = parts::program("valgrind")?;
    let mut command = Command::new(valgrind);
    command
        .arg("--quiet")
        .arg(format!("--error-exitcode={COMPLAINED}"))
        .arg(binaries::undefined_key_exchange())
        .args(arguments);
    Some(command.output().unwrap())
}

/// Unpadding, the choice of a substitute, and the PRF of AWS-LC, in every form of an answer.
#[test]
#[cfg(target_arch = "x86_64")]
fn nothing_branches_on_a_secret() {
    let Some(output) = under_valgrind(&[]) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(printed, "10 answers were made\n");
}

#[test]
#[cfg(target_arch = "x86_64")]
fn a_naive_check_is_complained_of() {
    let Some(output) = under_valgrind(&["naive"]) else {
        return;
    };
    assert_eq!(output.status.code(), Some(COMPLAINED));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("depends on uninitialised value"), "{said}");
}
