//! Where the binaries under test are.
//!
//! Cargo tells a test the path of its own package's binaries only, so these are looked for
//! beside the test itself: in `target/debug` or `target/release`. One that is missing, or older
//! than a source file of the packages it is made from, is built first. `KEYSERVER_BIN_DIR` names a
//! directory to use as it is.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The daemon.
pub fn keyserver() -> PathBuf {
    binary("keyserver", "keyserver")
}

/// The daemon's control tool.
pub fn ksctl() -> PathBuf {
    binary("keyserver", "ksctl")
}

/// The load generator.
pub fn loadgen() -> PathBuf {
    binary("loadgen", "loadgen")
}

/// The PKCS#11 module.
pub fn pkcs11_module() -> PathBuf {
    library("keyserver-pkcs11", "libkeyserver_pkcs11.so")
}

/// The client library's example of an HTTPS server whose key is elsewhere.
pub fn https_edge() -> PathBuf {
    let target = ["--example", "https_edge"];
    up_to_date("keyserver-client", "examples/https_edge", &target)
}

/// A program of `accel` that marks the bytes of a key exchange for valgrind to follow.
pub fn undefined_key_exchange() -> PathBuf {
    let target = ["--example", "undefined_key_exchange"];
    up_to_date("accel", "examples/undefined_key_exchange", &target)
}

/// The C library, shared; the static one, `libkeyserver_client.a`, is beside it.
pub fn c_library() -> PathBuf {
    library("keyserver-capi", "libkeyserver_client.so")
}

/// Runs a command under a seccomp filter that refuses `io_uring_setup`.
pub fn without_io_uring() -> PathBuf {
    binary("confined", "without-io-uring")
}

/// Runs a command under a seccomp filter that refuses all system calls but those it is told.
pub fn allow_only() -> PathBuf {
    binary("confined", "allow-only")
}

/// The root of the source tree.
pub fn source_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace above this package")
}

/// The binary `name` of `package`, up to date.
fn binary(package: &str, name: &str) -> PathBuf {
    up_to_date(package, name, &["--bin", name])
}

/// The library of `package`, up to date.
fn library(package: &str, file: &str) -> PathBuf {
    up_to_date(package, file, &["--lib"])
}

fn up_to_date(package: &str, name: &str, target: &[&str]) -> PathBuf {
    if let Some(given) = env::var_os("KEYSERVER_BIN_DIR") {
        return PathBuf::from(given).join(name);
    }
    let path = directory().join(name);
    let built = fs::metadata(&path)
        .and_then(|m| m.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH);
    if newest_source() > built {
        build(package, target);
    }
    path
}

/// `target/debug` or `target/release`: where this test's own executable lies, less `deps`.
fn directory() -> PathBuf {
    let test = env::current_exe().expect("the path of this test");
    let directory = test.parent().expect("the directory of this test");
    let inner = ["deps", "examples"]
        .iter()
        .any(|name| directory.ends_with(name));
    if inner {
        directory.parent().expect("the profile's directory")
    } else {
        directory
    }
    .into()
}

fn build(package: &str, target: &[&str]) {
    let directory = directory();
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(source_root())
        .args(["build", "--quiet", "-p", package])
        .args(target);
    command
        .arg("--target-dir")
        .arg(directory.parent().expect("the target directory"));
    if directory.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().expect("cargo starts");
    assert!(status.success(), "building {package} failed: {command:?}");
}

/// When a source file of the binaries was last changed.
fn newest_source() -> SystemTime {
    let mut pending: Vec<PathBuf> = [
        "accel/examples",
        "accel/src",
        "accel/lanes/src",
        "client-lib/src",
        "client-lib/capi/src",
        "client-lib/pkcs11/src",
        "client-lib/protocol/src",
    ]
    .into_iter()
    .chain(["client-lib/examples", "keyserver/src", "loadgen/src"])
    .chain(["tests/confined/src", "Cargo.lock"])
    .map(|path| source_root().join(path))
    .collect();
    let mut newest = SystemTime::UNIX_EPOCH;
    while let Some(path) = pending.pop() {
        if let Ok(entries) = fs::read_dir(&path) {
            pending.extend(entries.flatten().map(|entry| entry.path()));
        } else if let Ok(modified) = fs::metadata(&path).and_then(|m| m.modified()) {
            newest = newest.max(modified);
        }
    }
    newest
}
