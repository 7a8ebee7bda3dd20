//! A certificate authority and keys for trials: what `init` and `demo` write.
//!
//! Nothing made here is meant for production, and everything says so in its name.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use super::Failure;
use crate::clock;

/// Trial certificates end after this time.
const VALIDITY: Duration = Duration::from_secs(365 * 86_400);

/// A clock that is behind by this much still accepts them.
const BACKDATED: Duration = Duration::from_secs(3600);

/// The name of the trial client, in its certificate and in the configuration.
pub(crate) const CLIENT: &str = "edge-1";

/// What [`write_pki`] writes, by path.
#[derive(Debug, Clone)]
pub(crate) struct Pki {
    pub(crate) ca: PathBuf,
    pub(crate) ca_key: PathBuf,
    pub(crate) server: PathBuf,
    pub(crate) server_key: PathBuf,
    pub(crate) client: PathBuf,
    pub(crate) client_key: PathBuf,
}

impl Pki {
    pub(crate) fn in_directory(directory: &Path) -> Self {
        let file = |name: &str| directory.join("pki").join(name);
        Self {
            ca: file("ca.pem"),
            ca_key: file("ca-key.pem"),
            server: file("server.pem"),
            server_key: file("server-key.pem"),
            client: file("client.pem"),
            client_key: file("client-key.pem"),
        }
    }

    pub(crate) fn files(&self) -> [&Path; 6] {
        [
            &self.ca,
            &self.ca_key,
            &self.server,
            &self.server_key,
            &self.client,
            &self.client_key,
        ]
    }
}

/// Makes a CA, a server certificate for `names` and a client certificate, and writes them.
pub(crate) fn write_pki(pki: &Pki, names: &[String]) -> Result<(), Failure> {
    let fault = |error: rcgen::Error| Failure::run(format!("certificates cannot be made: {error}"));
    let ca_key = KeyPair::generate().map_err(fault)?;
    let mut ca = params("keyserver trial CA, not for production");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_certificate = ca.self_signed(&ca_key).map_err(fault)?;
    let ca_key_pem = ca_key.serialize_pem();
    let issuer = Issuer::new(ca, ca_key);

    let server_key = KeyPair::generate().map_err(fault)?;
    let mut server = params("keyserver trial server");
    server.subject_alt_names = alternative_names(names)?;
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server_certificate = server.signed_by(&server_key, &issuer).map_err(fault)?;

    let client_key = KeyPair::generate().map_err(fault)?;
    let mut client = params(CLIENT);
    client.subject_alt_names = alternative_names(&[CLIENT.to_owned()])?;
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client_certificate = client.signed_by(&client_key, &issuer).map_err(fault)?;

    public_file(&pki.ca, &ca_certificate.pem())?;
    private_file(&pki.ca_key, &ca_key_pem)?;
    public_file(&pki.server, &server_certificate.pem())?;
    private_file(&pki.server_key, &server_key.serialize_pem())?;
    public_file(&pki.client, &client_certificate.pem())?;
    private_file(&pki.client_key, &client_key.serialize_pem())
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let now = clock::wall();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + VALIDITY).into();
    params
}

fn alternative_names(names: &[String]) -> Result<Vec<SanType>, Failure> {
    let name = |text: &String| match text.parse() {
        Ok(address) => Ok(SanType::IpAddress(address)),
        Err(_) => text.as_str().try_into().map(SanType::DnsName).map_err(|_| {
            Failure::start(format!(
                "\"{text}\" is neither a host name nor an IP address"
            ))
        }),
    };
    names.iter().map(name).collect()
}

/// Makes a directory that only its owner can enter.
pub(crate) fn private_directory(path: &Path) -> Result<(), Failure> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(cannot_write(path))
}

/// Writes a file that only its owner can read. Never replaces one.
pub(crate) fn private_file(path: &Path, content: &str) -> Result<(), Failure> {
    create(path, content, 0o600)
}

/// Writes a file that everybody may read. Never replaces one.
pub(crate) fn public_file(path: &Path, content: &str) -> Result<(), Failure> {
    create(path, content, 0o644)
}

fn create(path: &Path, content: &str, mode: u32) -> Result<(), Failure> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(content.as_bytes()))
        .map_err(cannot_write(path))
}

fn cannot_write(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |error| {
        Failure::start(format!(
            "{} cannot be written: {error}; choose a directory that you may write to",
            path.display()
        ))
    }
}
