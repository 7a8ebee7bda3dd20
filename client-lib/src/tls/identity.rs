//! Who the client is, whom it trusts, and with what TLS settings it connects.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::error::{ConfigError, Error, Fault, TlsError};

/// The credentials of a client: the authority it trusts, its own certificate chain and private key.
///
/// One identity serves any number of connections; cloning it is cheap and shares the store of TLS
/// sessions, so that a reconnect can resume.
///
/// Connections offer TLS 1.3 with AES-256-GCM first and the hybrid X25519MLKEM768 key exchange
/// preferred, and TLS 1.2 with ECDHE and AES-256-GCM for servers that speak nothing newer.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let ca = rcgen::generate_simple_self_signed(["ca".to_owned()])?;
/// # let (ca_pem, chain_pem, key_pem) = (ca.cert.pem(), ca.cert.pem(), ca.signing_key.serialize_pem());
/// use keyserver_client::TlsIdentity;
///
/// let identity = TlsIdentity::from_pem(ca_pem.as_bytes(), chain_pem.as_bytes(), key_pem.as_bytes())?;
///
/// // What is missing is said in words.
/// let error = TlsIdentity::from_pem(b"", chain_pem.as_bytes(), key_pem.as_bytes()).unwrap_err();
/// assert!(error.to_string().contains("no certificate"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TlsIdentity {
    config: Arc<ClientConfig>,
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}

impl TlsIdentity {
    /// Builds an identity from PEM text: the certificates of the authority that signs servers, the
    /// client's own chain (its certificate first), and the client's private key (PKCS#8, PKCS#1 or
    /// SEC1).
    ///
    /// # Errors
    ///
    /// A part that holds no usable PEM object, a certificate that cannot be read, or a key that
    /// does not belong to the certificate.
    pub fn from_pem(
        authority: &[u8],
        certificate: &[u8],
        private_key: &[u8],
    ) -> Result<Self, ConfigError> {
        let mut roots = RootCertStore::empty();
        for root in certificates(authority, "the certificate authority")? {
            roots.add(root).map_err(|error| {
                ConfigError::new(format_args!(
                    "the certificate authority cannot be used: {error}"
                ))
            })?;
        }
        let chain = certificates(certificate, "the client certificate")?;
        let key = PrivateKeyDer::from_pem_slice(private_key).map_err(|error| {
            ConfigError::new(format_args!(
                "the client's private key holds no PEM private key (PKCS#8, PKCS#1 or SEC1): {error}"
            ))
        })?;
        Self::new(roots, chain, key)
    }

    /// As [`TlsIdentity::from_pem`], reading the three parts from files.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, or any error of [`TlsIdentity::from_pem`]; both name the file.
    pub fn from_files(
        authority: impl AsRef<Path>,
        certificate: impl AsRef<Path>,
        private_key: impl AsRef<Path>,
    ) -> Result<Self, ConfigError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|error| {
                ConfigError::new(format_args!("cannot read {}: {error}", path.display()))
            })
        };
        let paths = [
            authority.as_ref(),
            certificate.as_ref(),
            private_key.as_ref(),
        ];
        let [authority, certificate, private_key] = paths;
        let (authority, certificate) = (read(authority)?, read(certificate)?);
        let private_key = zeroize::Zeroizing::new(read(private_key)?);
        Self::from_pem(&authority, &certificate, &private_key).map_err(|error| {
            let [authority, certificate, private_key] = paths.map(Path::display);
            ConfigError::new(format_args!(
                "{error} (read from {authority}, {certificate} and {private_key})"
            ))
        })
    }

    /// The same identity with its own, empty store of sessions when `enabled`, or with none at all.
    ///
    /// Without resumption every connection pays a full handshake, which is what a load test of
    /// handshakes wants to see.
    #[must_use]
    pub fn resumption(&self, enabled: bool) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = if enabled {
            Resumption::in_memory_sessions(SESSIONS_REMEMBERED)
        } else {
            Resumption::disabled()
        };
        Self {
            config: Arc::new(config),
        }
    }

    fn new(
        roots: RootCertStore,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, ConfigError> {
        let mut provider = default_provider();
        provider.cipher_suites = vec![
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        ];
        provider.kx_groups = vec![
            kx_group::X25519MLKEM768,
            kx_group::X25519,
            kx_group::SECP256R1,
            kx_group::SECP384R1,
        ];
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| ConfigError::new(format_args!("no usable TLS version: {error}")))?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| {
                ConfigError::new(format_args!(
                    "the client certificate and its private key cannot be used together: {error}"
                ))
            })?;
        config.resumption = Resumption::in_memory_sessions(SESSIONS_REMEMBERED);
        Ok(Self {
            config: Arc::new(config),
        })
    }

    pub(crate) fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    pub(crate) fn server_name(name: &str) -> Result<ServerName<'static>, ConfigError> {
        ServerName::try_from(name.to_owned()).map_err(|_| {
            ConfigError::new(format_args!(
                "`{name}` is neither a DNS name nor an IP address; `server_name` is the name in \
                 the server's certificate, without a port"
            ))
        })
    }
}

/// Sessions kept for resumption, over all servers of one identity.
const SESSIONS_REMEMBERED: usize = 256;

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| ConfigError::new(format_args!("{what} cannot be read as PEM: {error}")))?;
    if found.is_empty() {
        return Err(ConfigError::new(format_args!(
            "{what}: no certificate found; expected PEM with `BEGIN CERTIFICATE`"
        )));
    }
    Ok(found)
}

/// Turns an error of the TLS library into ours, with the likely cause in words.
pub(crate) fn tls_error(error: rustls::Error) -> Error {
    let (hint, fault) = explain(&error);
    Error::Tls(TlsError {
        source: error,
        hint,
        fault,
    })
}

fn explain(error: &rustls::Error) -> (&'static str, Fault) {
    match error {
        rustls::Error::InvalidCertificate(cause) => match cause {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => (
                "; the server's certificate is not signed by the authority given to this client",
                Fault::Configuration,
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                (
                    "; the server's certificate is for another name: compare `server_name` with its \
                 subject alternative names",
                    Fault::Configuration,
                )
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
                "; the server's certificate has expired, or this machine's clock is wrong",
                Fault::Server,
            ),
            _ => (
                "; the server's certificate cannot be accepted",
                Fault::Server,
            ),
        },
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError,
        ) => (
            "; the server does not accept this client's certificate: is it signed by the \
             server's `client_ca`, in date and fit for client authentication?",
            Fault::Configuration,
        ),
        rustls::Error::AlertReceived(
            AlertDescription::HandshakeFailure | AlertDescription::ProtocolVersion,
        ) => (
            "; the two sides share no TLS version or cipher suite, or the server wants a client \
             certificate of another kind",
            Fault::Configuration,
        ),
        rustls::Error::InvalidMessage(_) => (
            "; what answers there does not speak TLS: check address and port",
            Fault::Server,
        ),
        _ => ("", Fault::Server),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_or_foreign_file_is_named() {
        let error = TlsIdentity::from_pem(b"junk", b"junk", b"junk").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("certificate authority: no certificate"),
            "{error}"
        );
        let error = TlsIdentity::from_files("/nonexistent/ca.pem", "b", "c").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let one = rcgen::generate_simple_self_signed(["one".to_owned()]).unwrap();
        let two = rcgen::generate_simple_self_signed(["two".to_owned()]).unwrap();
        let chain = one.cert.pem();
        let key = two.signing_key.serialize_pem();
        let error = TlsIdentity::from_pem(chain.as_bytes(), chain.as_bytes(), key.as_bytes());
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("cannot be used together")
        );
    }

    #[test]
    fn a_name_with_a_port_is_no_server_name() {
        let error = TlsIdentity::server_name("host:2407").unwrap_err();
        assert!(error.to_string().contains("without a port"), "{error}");
        TlsIdentity::server_name("127.0.0.1").unwrap();
    }

    #[test]
    fn debug_shows_no_key() {
        let one = rcgen::generate_simple_self_signed(["one".to_owned()]).unwrap();
        let (chain, key) = (one.cert.pem(), one.signing_key.serialize_pem());
        let identity =
            TlsIdentity::from_pem(chain.as_bytes(), chain.as_bytes(), key.as_bytes()).unwrap();
        assert_eq!(format!("{identity:?}"), "TlsIdentity { .. }");
    }
}
