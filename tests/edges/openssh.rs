//! OpenSSH: public keys from the token, and a login with one.

use std::fs;
use std::path::Path;
use std::process::Command;

use keyserver_tests::fixture::free_address;
use keyserver_tests::{KeyKind, binaries, parts};

use crate::edge::{Background, Edge, run};

#[test]
fn lists_keys_and_logs_in() {
    let (Some(keygen), Some(ssh), Some(sshd)) = (
        parts::program_of("openssh-client", "ssh-keygen"),
        parts::program_of("openssh-client", "ssh"),
        parts::program_of("openssh-server", "sshd"),
    ) else {
        return;
    };
    // sshd wants this folder whoever starts it; the service makes it where it runs as one.
    if !Path::new("/run/sshd").is_dir() && fs::create_dir("/run/sshd").is_err() {
        parts::missing("/run/sshd, which root has to make,");
        return;
    }
    let edge = Edge::new(&[KeyKind::Rsa2048, KeyKind::P256]);
    let keys = run(edge
        .command(&keygen)
        .arg("-D")
        .arg(binaries::pkcs11_module()));
    for wanted in ["ssh-rsa ", "ecdsa-sha2-nistp256 "] {
        assert!(keys.contains(wanted), "{keys}");
    }

    let host_key = edge.path("host_key");
    let mut make = Command::new(&keygen);
    run(make
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&host_key));
    let address = free_address();
    let user = run(Command::new("id").arg("-un"));
    for (line, kind) in keys
        .lines()
        .map(|line| (line, line.split(' ').next().unwrap()))
    {
        let authorized = edge.fixture.write("authorized_keys", format!("{line}\n"));
        let text = format!(
            "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
             UsePAM no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPidFile none\n",
            host_key.display(),
            authorized.display()
        );
        let config = edge.fixture.write("sshd_config", text);
        let mut server = Command::new(&sshd);
        let mut server = Background::start(server.args(["-D", "-e", "-f"]).arg(config));
        server.wait_for(address);
        let mut login = edge.command(&ssh);
        login.args([
            "-F",
            "none",
            "-p",
            &address.port().to_string(),
            "-o",
            "BatchMode=yes",
        ]);
        login.args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
        ]);
        login.args(["-o", "IdentityFile=none", "-o", "IdentityAgent=none", "-I"]);
        login.arg(binaries::pkcs11_module());
        login.args([&format!("{}@127.0.0.1", user.trim()), "echo logged in"]);
        assert_eq!(
            run(&mut login).trim(),
            "logged in",
            "{kind}: {}",
            server.log
        );
    }
}
