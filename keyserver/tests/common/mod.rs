//! A directory with certificates, keys and a configuration, as an operator would have it.

#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::unwrap_used,
    reason = "every test binary compiles this file and uses a part of it"
)]

#[cfg(feature = "trial")]
pub(crate) mod edge;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};

/// A directory of its own, removed at the end.
pub(crate) struct Site {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// The contract's smallest configuration, with free ports, and one right that is served.
pub(crate) const MINIMAL: &str = r#"
[listen]
address = "127.0.0.1:0"

[tls]
certificate = "pki/server.pem"        # chain, PEM
private_key = "pki/server-key.pem"
client_ca   = "pki/ca.pem"

[admin]
socket = "run/admin.sock"
[metrics]
address = "127.0.0.1:0"

[[keys]]
directory = "keys"

[[clients]]
name   = "edge-1"
match  = "dns:edge-1"
[[clients.grants]]
keys   = ["*"]
allow  = ["tls13-sign", "tls12-sign", "sign-digest"]
"#;

impl Site {
    /// A CA, a server certificate, no keys, and [`MINIMAL`] as configuration.
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("pki")).unwrap();
        fs::create_dir(directory.path().join("keys")).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut ca = params("Test CA");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = ca.self_signed(&key).unwrap();
        let site = Self {
            directory,
            issuer: Issuer::new(ca, key),
        };
        site.write("pki/ca.pem", &certificate.pem());
        let mut server = params("server");
        server.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
        let (certificate, key) = site.issue(server);
        site.write("pki/server.pem", &certificate.pem());
        site.write_private("pki/server-key.pem", &key.serialize_pem());
        site.configure(MINIMAL);
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("keyserver.toml")
    }

    pub(crate) fn configure(&self, text: &str) {
        self.write("keyserver.toml", text);
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    /// Writes a file that only its owner may read.
    pub(crate) fn write_private(&self, name: &str, content: &str) {
        write_private(&self.path(name), content);
    }

    /// Adds `keys/NAME.key`, a new P-256 key, and returns its DER SubjectPublicKeyInfo.
    pub(crate) fn add_key(&self, name: &str) -> KeyPair {
        let key = KeyPair::generate().unwrap();
        self.write_private(&format!("keys/{name}.key"), &key.serialize_pem());
        key
    }

    /// A certificate of the CA for a new key.
    pub(crate) fn issue(&self, params: CertificateParams) -> (Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A certificate of the CA for a key that there is.
    pub(crate) fn certify(&self, params: CertificateParams, key: &KeyPair) -> Certificate {
        params.signed_by(key, &self.issuer).unwrap()
    }

    /// A client certificate with this DNS name.
    pub(crate) fn client(&self, dns: &str) -> Certificate {
        let mut client = params(dns);
        client.subject_alt_names = vec![SanType::DnsName(dns.try_into().unwrap())];
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(client).0
    }
}

/// A certificate with this common name and nothing else.
pub(crate) fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

fn write_private(path: &Path, content: &str) {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .unwrap();
    file.write_all(content.as_bytes()).unwrap();
}
