//! The server's certificate and its rules for peers, as one `rustls::ServerConfig`.
//!
//! * TLS 1.2 for stock clients: ECDHE with AES-256-GCM and nothing else. Tickets resume.
//! * TLS 1.3: X25519MLKEM768 first, then X25519, P-256, P-384. No tickets: an edge keeps its
//!   connections, and every ticket would cost a message per handshake.
//! * A client certificate is always demanded. One without an extended key usage is accepted, one
//!   that allows serverAuth only is not.
//! * No ALPN, no early data.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::aws_lc_rs::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::{Tls, TlsVersion};
use crate::secret_file;

/// What [`load`] makes of the `[tls]` table.
#[derive(Debug)]
pub struct ServerTls {
    /// For new connections.
    pub config: Arc<ServerConfig>,
    /// End of validity of the leaf, seconds since 1970.
    pub not_after: i64,
    /// The certificates of the client authorities, as DER.
    pub roots: BTreeSet<Vec<u8>>,
}

/// A file of the `[tls]` table cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateError {
    key: &'static str,
    path: PathBuf,
    problem: String,
    fix: &'static str,
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}): {}; {}",
            self.key,
            self.path.display(),
            self.problem,
            self.fix
        )
    }
}

impl std::error::Error for CertificateError {}

/// Reads the certificate, its key and the client CA, and builds the TLS rules.
///
/// # Errors
///
/// [`CertificateError`] names the configuration key, the file, what is wrong and what to do.
pub fn load(tls: &Tls) -> Result<ServerTls, CertificateError> {
    let chain = read_certificates("tls.certificate", &tls.certificate)?;
    let not_after = chain
        .first()
        .and_then(|leaf| X509Certificate::from_der(leaf).ok())
        .map(|(_, leaf)| leaf.validity().not_after.timestamp());
    let not_after = not_after.ok_or_else(|| {
        let fix = "export it again as PEM, leaf first";
        error(
            "tls.certificate",
            &tls.certificate,
            "the first certificate is not X.509",
            fix,
        )
    })?;
    let key = read_key(tls)?;
    let provider = Arc::new(provider(tls));
    let certified =
        CertifiedKey::from_der(chain, key, &provider).map_err(|problem| mismatch(tls, &problem))?;
    let authorities = read_certificates("tls.client_ca", &tls.client_ca)?;
    let roots = authorities.iter().map(|der| der.to_vec()).collect();
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::new(root_store(&tls.client_ca, authorities)?),
        Arc::clone(&provider),
    )
    .build()
    .map_err(|problem| {
        let fix = "put the certificate that signs your clients into it, as PEM";
        error("tls.client_ca", &tls.client_ca, problem, fix)
    })?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(tls))
        .map_err(|problem| {
            let fix = "this is a fault of the server; please report it";
            error("tls", &tls.certificate, problem, fix)
        })?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(|problem| {
        let fix = "the system's random source failed; try again";
        error("tls", &tls.certificate, problem, fix)
    })?;
    Ok(ServerTls {
        config: Arc::new(config),
        not_after,
        roots,
    })
}

/// Seconds since 1970; negative before.
#[must_use]
pub fn unix_seconds(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
    }
}

fn provider(tls: &Tls) -> CryptoProvider {
    let hybrid: &'static dyn SupportedKxGroup = kx_group::X25519MLKEM768;
    CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        ],
        kx_groups: if tls.require_post_quantum {
            vec![hybrid]
        } else {
            vec![
                hybrid,
                kx_group::X25519,
                kx_group::SECP256R1,
                kx_group::SECP384R1,
            ]
        },
        ..aws_lc_rs::default_provider()
    }
}

fn versions(tls: &Tls) -> &'static [&'static SupportedProtocolVersion] {
    static ONLY_1_3: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    static FROM_1_2: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    // TLS 1.2 has no group with ML-KEM.
    if tls.require_post_quantum || tls.minimum == TlsVersion::V1_3 {
        &ONLY_1_3
    } else {
        &FROM_1_2
    }
}

/// Checks that the first certificate in `certificate` carries the public key `spki` (DER).
///
/// # Errors
///
/// It cannot be read, or belongs to another key than that of `key_file`.
pub fn check_belongs(
    certificate: &Path,
    key_file: &Path,
    spki: &[u8],
) -> Result<(), CertificateError> {
    let chain = read_certificates("keys.certificate", certificate)?;
    let leaf = chain
        .first()
        .and_then(|leaf| X509Certificate::from_der(leaf).ok());
    if leaf.is_some_and(|(_, leaf)| leaf.public_key().raw == spki) {
        return Ok(());
    }
    let what = format!("it does not belong to the key {}", key_file.display());
    let fix = "name the certificate that was issued for this key, or remove `certificate`";
    Err(error("keys.certificate", certificate, what, fix))
}

/// The first certificate in `certificate`, DER.
///
/// # Errors
///
/// The file cannot be read, or holds no certificate.
pub fn read_leaf(certificate: &Path) -> Result<Vec<u8>, CertificateError> {
    let chain = read_certificates("keys.certificate", certificate)?;
    Ok(chain.first().map(|leaf| leaf.to_vec()).unwrap_or_default())
}

/// The public key (DER `SubjectPublicKeyInfo`) in the first certificate of `certificate`.
///
/// # Errors
///
/// The file holds no certificate.
#[cfg(feature = "pkcs11")]
pub(crate) fn read_spki(certificate: &Path) -> Result<Vec<u8>, CertificateError> {
    let chain = read_certificates("keys.certificate", certificate)?;
    let leaf = chain
        .first()
        .and_then(|leaf| X509Certificate::from_der(leaf).ok());
    leaf.map(|(_, leaf)| leaf.public_key().raw.to_vec())
        .ok_or_else(|| {
            let what = "the first certificate in it cannot be read";
            let fix = "name the certificate that was issued for this key, or remove `certificate`";
            error("keys.certificate", certificate, what, fix)
        })
}

fn read_certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let fix = "give a PEM file with at least one BEGIN CERTIFICATE block";
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|problem| error(key, path, pem_problem(&problem), fix))?;
    if chain.is_empty() {
        return Err(error(key, path, "there is no certificate in it", fix));
    }
    Ok(chain)
}

/// Reads the server's own key, under the rules of key files.
fn read_key(tls: &Tls) -> Result<PrivateKeyDer<'static>, CertificateError> {
    let path = &tls.private_key;
    let unread = |problem| {
        let what = pem_problem(&pem::Error::Io(problem));
        let fix = "give the PEM key that belongs to tls.certificate";
        error("tls.private_key", path, what, fix)
    };
    let file = File::open(path).map_err(unread)?;
    if let Some(problem) = secret_file::open_to_others(&file, path).map_err(unread)? {
        return Err(error("tls.private_key", path, problem, secret_file::FIX));
    }
    PrivateKeyDer::from_pem_reader(BufReader::new(file)).map_err(|problem| {
        let (what, fix) = match &problem {
            pem::Error::NoItemsFound => (
                "there is no private key in it".to_owned(),
                "give an unencrypted PEM key: PKCS#8, PKCS#1 or SEC1",
            ),
            other => (
                pem_problem(other),
                "give the PEM key that belongs to tls.certificate",
            ),
        };
        error("tls.private_key", path, what, fix)
    })
}

fn root_store(
    path: &Path,
    authorities: Vec<CertificateDer<'static>>,
) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for (number, certificate) in (1..).zip(authorities) {
        roots.add(certificate).map_err(|problem| {
            let what = format!("certificate number {number} cannot be a CA ({problem})");
            error("tls.client_ca", path, what, "replace it, or take it out")
        })?;
    }
    Ok(roots)
}

/// The certificate and the key were read, but do not work together.
fn mismatch(tls: &Tls, problem: &rustls::Error) -> CertificateError {
    let path = &tls.private_key;
    match problem {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => error(
            "tls.private_key",
            path,
            format!(
                "this key does not belong to the certificate {}",
                tls.certificate.display()
            ),
            "set tls.private_key and tls.certificate to files of one pair",
        ),
        other => error(
            "tls.private_key",
            path,
            format!("the key cannot be used ({other})"),
            "use an RSA key of 2048 bits or more, a P-256/384/521 key or an Ed25519 key",
        ),
    }
}

fn pem_problem(problem: &pem::Error) -> String {
    match problem {
        pem::Error::Io(io) => format!("the file cannot be read ({io})"),
        // The texts of the others would quote the file, which may be a private key.
        pem::Error::MissingSectionEnd { .. } => "a PEM block has no END line".to_owned(),
        _ => "this is not PEM".to_owned(),
    }
}

fn error(
    key: &'static str,
    path: &Path,
    problem: impl fmt::Display,
    fix: &'static str,
) -> CertificateError {
    CertificateError {
        key,
        path: path.to_owned(),
        problem: problem.to_string(),
        fix,
    }
}
