//! Java's SunPKCS11. keytool lists what is in the token and signs certificate requests with it,
//! which OpenSSL verifies.

use keyserver_tests::{KeyKind, parts};

use crate::edge::{Edge, outcome, run};
use crate::pages;

#[test]
fn signs_requests() {
    let (Some(keytool), Some(openssl)) = (
        parts::program_of("default-jre-headless", "keytool"),
        parts::program("openssl"),
    ) else {
        return;
    };
    let edge = Edge::new(&[KeyKind::Rsa2048, KeyKind::P256]);
    let config = pages::with_module(&pages::block("tools", "text", 0));
    edge.fixture.write("java.cfg", config);
    let tool = |action: &[&str]| {
        let mut command = edge.command(&keytool);
        command
            .args(action)
            .args(["-keystore", "NONE", "-storetype", "PKCS11"]);
        command.args([
            "-storepass",
            "unused",
            "-J-Xshare:auto",
            "-J-XX:TieredStopAtLevel=1",
        ]);
        command.args(["-providerClass", "sun.security.pkcs11.SunPKCS11"]);
        command.args(["-providerArg", "java.cfg"]);
        command
    };
    let listed = run(&mut tool(&["-list"]));
    assert_eq!(listed.matches("PrivateKeyEntry").count(), 2, "{listed}");
    for (name, algorithm) in [
        ("rsa-2048", "SHA256withRSA"),
        ("rsa-2048", "SHA512withRSA"),
        ("p-256", "SHA256withECDSA"),
    ] {
        let action = [
            "-certreq",
            "-alias",
            name,
            "-sigalg",
            algorithm,
            "-file",
            "request.pem",
        ];
        run(&mut tool(&action));
        let mut verify = edge.command(&openssl);
        let verified = outcome(verify.args(["req", "-verify", "-noout", "-in", "request.pem"]));
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert!(said.contains("verify OK"), "{name} {algorithm}: {said}");
    }
}
