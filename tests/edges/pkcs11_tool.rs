//! OpenSC's pkcs11-tool, which asks for the interface of version 3.0 first.

use std::path::Path;
use std::process::Command;

use keyserver_tests::{KeyKind, ServerConfig, binaries, parts};

use crate::edge::{AT_ONCE, Edge, outcome, run};

fn tool(edge: &Edge, program: &Path, arguments: &[&str]) -> Command {
    let mut command = edge.command(program);
    command
        .arg("--module")
        .arg(binaries::pkcs11_module())
        .args(arguments);
    command
}

#[test]
fn lists_every_object_and_mechanism() {
    let Some(program) = parts::program_of("opensc", "pkcs11-tool") else {
        return;
    };
    let edge = Edge::new(&[KeyKind::Rsa2048, KeyKind::P256, KeyKind::Ed25519]);
    let objects = run(&mut tool(&edge, &program, &["-O"]));
    for wanted in [
        "Private Key Object",
        "Public Key Object",
        "Certificate Object",
    ] {
        assert_eq!(objects.matches(wanted).count(), 3, "{objects}");
    }
    for label in ["rsa-2048", "p-256", "ed25519"] {
        assert_eq!(objects.matches(label).count(), 3, "{label}: {objects}");
    }
    let mechanisms = run(&mut tool(&edge, &program, &["-M"]));
    for wanted in [
        "RSA-PKCS,",
        "RSA-PKCS-PSS",
        "ECDSA,",
        "EDDSA",
        "SHA384-RSA-PKCS,",
    ] {
        assert!(mechanisms.contains(wanted), "{wanted}: {mechanisms}");
    }
    let token = run(&mut tool(&edge, &program, &["-L"]));
    assert!(token.contains("keyserver"), "{token}");
    assert!(!token.contains("login required"), "{token}");
}

/// One signature by pkcs11-tool and its check by OpenSSL.
struct Case {
    site: &'static str,
    mechanism: &'static str,
    signing: &'static [&'static str],
    /// What is handed over: `message`, or its digest in this file.
    input: &'static str,
    checking: &'static [&'static str],
}

const fn case(site: &'static str, mechanism: &'static str) -> Case {
    Case {
        site,
        mechanism,
        signing: &[],
        input: "message",
        checking: &["-rawin"],
    }
}

const ECDSA: Case = Case {
    signing: &["--signature-format", "openssl"],
    checking: &[],
    ..case("p-256", "ECDSA")
};

const CASES: [Case; 7] = [
    Case {
        checking: &["-rawin", "-digest", "sha256"],
        ..case("rsa-2048", "SHA256-RSA-PKCS")
    },
    Case {
        checking: &["-rawin", "-digest", "sha384"],
        ..case("rsa-2048", "SHA384-RSA-PKCS")
    },
    Case {
        checking: &["-rawin", "-digest", "sha512"],
        ..case("rsa-2048", "SHA512-RSA-PKCS")
    },
    Case {
        signing: &["--hash-algorithm", "SHA256"],
        input: "sha256",
        checking: &[
            "-pkeyopt",
            "digest:sha256",
            "-pkeyopt",
            "rsa_padding_mode:pss",
            "-pkeyopt",
            "rsa_pss_saltlen:32",
        ],
        ..case("rsa-2048", "RSA-PKCS-PSS")
    },
    Case {
        input: "sha256",
        ..ECDSA
    },
    Case {
        site: "p-384",
        input: "sha384",
        ..ECDSA
    },
    case("ed25519", "EDDSA"),
];

#[test]
fn signs_with_every_mechanism() {
    let (Some(program), Some(openssl)) = (
        parts::program_of("opensc", "pkcs11-tool"),
        parts::program("openssl"),
    ) else {
        return;
    };
    let kinds = [
        KeyKind::Rsa2048,
        KeyKind::P256,
        KeyKind::P384,
        KeyKind::Ed25519,
    ];
    let edge = Edge::new(&kinds);
    edge.fixture.write("message", "to be signed");
    for hash in ["sha256", "sha384"] {
        let mut command = edge.command(&openssl);
        run(command.args([
            "dgst",
            &format!("-{hash}"),
            "-binary",
            "-out",
            hash,
            "message",
        ]));
    }
    for case in CASES {
        let id = edge.key_id(case.site);
        let mut sign = tool(
            &edge,
            &program,
            &["--sign", "--id", &id, "-m", case.mechanism],
        );
        run(sign
            .args(["-i", case.input, "-o", "signature"])
            .args(case.signing));
        let mut verify = edge.command(&openssl);
        verify.args(["pkeyutl", "-verify", "-certin", "-sigfile", "signature"]);
        verify.args([
            "-inkey",
            &format!("sites/{}.pem", case.site),
            "-in",
            case.input,
        ]);
        let printed = run(verify.args(case.checking));
        assert!(
            printed.contains("Verified Successfully"),
            "{}: {printed}",
            case.mechanism
        );
    }
}

/// Without the right, and without the server: an error, at once.
#[test]
fn refusals_are_errors_and_come_at_once() {
    let Some(program) = parts::program_of("opensc", "pkcs11-tool") else {
        return;
    };
    let mut config = ServerConfig::default();
    config.clients[0].allow = vec!["decrypt-raw".into()];
    let mut edge = Edge::with_config(&[KeyKind::P256], config);
    edge.fixture.write("digest", [7; 32]);
    let signing = [
        "--sign",
        "--label",
        "p-256",
        "-m",
        "ECDSA",
        "-i",
        "digest",
        "-o",
        "signature",
    ];
    let refused = outcome(&mut tool(&edge, &program, &signing));
    assert!(!refused.status.success());
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.contains("CKR_KEY_FUNCTION_NOT_PERMITTED"), "{why}");

    edge.stop_server();
    let begin = std::time::Instant::now();
    let failed = outcome(&mut tool(&edge, &program, &signing));
    let why = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(why.contains("CKR_DEVICE_ERROR"), "{why}");
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}

#[test]
fn a_wrong_configuration_is_explained() {
    let Some(program) = parts::program_of("opensc", "pkcs11-tool") else {
        return;
    };
    let edge = Edge::new(&[]);
    edge.write_module_config("sever_name = \"oops\"\n");
    let failed = outcome(&mut tool(&edge, &program, &["-L"]));
    assert!(!failed.status.success());
    let why = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert!(
        why.contains("sever_name") && why.contains("pkcs11.toml"),
        "{why}"
    );
}
