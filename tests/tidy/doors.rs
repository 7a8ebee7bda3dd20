//! One door: a crate that decides something for the whole project is named in one place only, so
//! that replacing it touches that place. The same for `unsafe`.

use crate::lexer;
use crate::tree::{self, File};

/// A crate, as code names it, and the only places that may name it.
const DOORS: &[(&str, &[&str])] = &[
    // The C interface of AWS-LC, for what aws-lc-rs does not offer.
    (
        "aws_lc_sys",
        &["accel/src/aws_lc.rs", "accel/src/aws_lc/", "accel/benches/"],
    ),
    // io_uring: one of the two kinds of I/O thread.
    ("tokio_uring", &["keyserver/src/shard/"]),
    // TLS: the session of the server, of the client, and of tests that play a peer by hand.
    (
        "rustls",
        &[
            "keyserver/src/tls/",
            "client-lib/src/",
            "client-lib/examples/",
            "client-lib/tests/",
            "keyserver/tests/",
            "loadgen/examples/",
            "loadgen/tests/",
            "tests/",
        ],
    ),
    // Hardware security modules.
    ("cryptoki", &["accel/src/pkcs11/"]),
    (
        "cryptoki_sys",
        &[
            "accel/src/pkcs11/raw.rs",
            "client-lib/pkcs11/src/",
            "tests/pkcs11-shim/",
        ],
    ),
    // The store of the ledger.
    ("fjall", &["keyserver/src/ledger/"]),
    // Latency histograms.
    ("hdrhistogram", &["loadgen/"]),
];

/// Where `unsafe` may stand: vector instructions, calls into C and, in the test module, from C; two system
/// calls, an allocator that counts, requests to valgrind.
const UNSAFE: &[&str] = &[
    "accel/lanes/",
    "accel/src/aws_lc.rs",
    "accel/src/aws_lc/",
    "accel/src/pkcs11/raw.rs",
    "tests/pkcs11-shim/",
    "accel/benches/crypto_mb.rs",
    "client-lib/capi/src/api.rs",
    "client-lib/pkcs11/src/api.rs",
    "client-lib/pkcs11/src/api/",
    "keyserver/src/os.rs",
    "accel/examples/undefined_key_exchange.rs",
    "accel/tests/fork.rs",
    "keyserver/tests/allocations/counting.rs",
];

/// Files outside these rules: they are the rules, and say the names.
const RULES: &str = "tests/tidy";

fn check(files: &[File]) -> Vec<String> {
    let mut findings = Vec::new();
    let sources = files.iter().filter(|file| file.has_extension("rs"));
    for file in sources.filter(|file| !file.path.starts_with(RULES)) {
        for (number, line) in lexer::code(&file.text).lines().enumerate() {
            let at = format!("{}:{}", file.path, number + 1);
            for (name, places) in DOORS.iter().filter(|(name, _)| names(line, name)) {
                if !stands_in(&file.path, places) {
                    findings.push(format!(
                        "{at}: names `{name}`, which belongs to {}",
                        places.join(", ")
                    ));
                }
            }
            let is_unsafe = lexer::words(line).any(|word| word == "unsafe");
            if is_unsafe && !stands_in(&file.path, UNSAFE) {
                findings.push(format!(
                    "{at}: `unsafe` may stand in {} only",
                    UNSAFE.join(", ")
                ));
            }
        }
    }
    findings
}

fn stands_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| path.starts_with(place))
}

/// True when a line of code names the crate in a path or a `use`.
fn names(line: &str, name: &str) -> bool {
    let Some(at) = lexer::words(line).position(|word| word == name) else {
        return false;
    };
    let begins_use = lexer::words(line)
        .take(at)
        .any(|word| word == "use" || word == "extern");
    begins_use || line.contains(&format!("{name}::"))
}

/// Manifests of crates that leave the workspace's lints, and with them `unsafe_code = "deny"`.
fn without_lints(files: &[File]) -> Vec<String> {
    let manifests = files
        .iter()
        .filter(|file| file.path.ends_with("/Cargo.toml"));
    manifests
        .filter(|file| !file.text.contains("[lints]\nworkspace = true"))
        .map(|file| format!("{}: does not take the lints of the workspace", file.path))
        .collect()
}

#[test]
fn each_door_is_the_only_one() {
    tree::assert_none(&check(&tree::files()));
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let files = tree::files();
    // The fuzz targets and the example on BoringSSL cannot inherit from a workspace that they are
    // not part of.
    let elsewhere = ["tests/fuzz/", "client-lib/examples/boring_edge/"];
    let ours = files
        .into_iter()
        .filter(|file| !elsewhere.iter().any(|folder| file.path.starts_with(folder)))
        .collect::<Vec<_>>();
    tree::assert_none(&without_lints(&ours));
}

#[test]
fn a_second_door_is_found() {
    let bad = [
        ("loadgen/src/main.rs", "use rustls::ClientConfig;"),
        (
            "keyserver/src/dispatch/mod.rs",
            "let x = tokio_uring::start(y);",
        ),
        ("accel/src/key.rs", "use {aws_lc_sys as sys, std::fmt};"),
        ("keyserver/src/lib.rs", "fn f() { unsafe { g() } }"),
        ("keyserver/src/lib.rs", "pub use hdrhistogram;"),
    ];
    for (path, text) in bad {
        let findings = check(&[File::sample(path, text)]);
        assert_eq!(findings.len(), 1, "{path}: {text}: {findings:?}");
    }
    let good = [
        ("keyserver/src/tls/certs.rs", "use rustls::ServerConfig;"),
        (
            "keyserver/src/lib.rs",
            "// rustls::ServerConfig is unsafe to name here\nlet rustls = 1;",
        ),
        ("accel/src/aws_lc.rs", "unsafe { aws_lc_sys::RSA_free(x) }"),
        (
            "keyserver/src/lib.rs",
            "#![deny(unsafe_code)]\nuse rustls_pki_types::CertificateDer;",
        ),
    ];
    for (path, text) in good {
        tree::assert_none(&check(&[File::sample(path, text)]));
    }
}

#[test]
fn a_crate_without_the_lints_is_found() {
    let bad = File::sample("a/Cargo.toml", "[package]\nname = \"a\"\n");
    assert_eq!(without_lints(&[bad]).len(), 1);
}
