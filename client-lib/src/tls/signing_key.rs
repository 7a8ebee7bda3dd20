//! A private key for rustls servers that is on a key server.
//!
//! ```text
//!   handshake -- message to sign --> RemoteKey -- 0x40 or 0x41, over the blocking client --> server
//!                <-- signature ----------------'
//! ```
//!
//! rustls hands its signer the message, not a hash. So the key server can read what it signs, and
//! the edge needs no right to have digests signed: a `CertificateVerify` of TLS 1.3 goes out as
//! opcode 0x40, a `ServerKeyExchange` of TLS 1.2 as opcode 0x41, and anything else not at all.

use std::fmt;
use std::sync::Arc;

use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{OtherError, SignatureAlgorithm, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};

use crate::blocking::Client;
use crate::error::{ConfigError, Error};
use crate::key::{KeyId, KeyType, public_key_of};
use crate::operation::Operation;

/// A key on a key server, as rustls wants it: a [`SigningKey`] for a server's [`CertifiedKey`].
///
/// rustls signs in the middle of a handshake and cannot await. The signer therefore waits, on the
/// thread that runs the handshake, for about one round trip and never beyond the client's deadline.
/// In an async server run handshakes where waiting is allowed: on threads of their own, or inside
/// `tokio::task::block_in_place` on the multi-thread runtime. On a current-thread runtime one slow
/// signature would hold up every connection.
///
/// Ed25519 keys serve TLS 1.3 only: our servers sign with them for nothing older.
///
/// `examples/https_edge.rs` is a whole HTTPS server whose key is elsewhere.
///
/// ```no_run
/// use std::sync::Arc;
/// use keyserver_client::{RemoteKey, TlsIdentity, blocking::Client};
///
/// let identity = TlsIdentity::from_files("ca.pem", "edge-1.pem", "edge-1-key.pem")?;
/// let client = Client::builder("keys.internal", identity).server("keys.internal:2407").build()?;
/// let certified = RemoteKey::certified(client, &std::fs::read("shop.pem")?)?;
///
/// let resolver = rustls::sign::SingleCertAndKey::from(certified);
/// let config = rustls::ServerConfig::builder_with_provider(
///     rustls::crypto::aws_lc_rs::default_provider().into(),
/// )
/// .with_safe_default_protocol_versions()?
/// .with_no_client_auth()
/// .with_cert_resolver(Arc::new(resolver));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct RemoteKey {
    client: Client,
    key: KeyId,
    key_type: KeyType,
    public_key: SubjectPublicKeyInfoDer<'static>,
}

impl fmt::Debug for RemoteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteKey")
            .field("key", &self.key)
            .field("type", &self.key_type)
            .finish_non_exhaustive()
    }
}

impl RemoteKey {
    /// The key of a certificate, PEM or DER; of a PEM chain the first certificate counts. Nothing is
    /// asked of the key server yet.
    ///
    /// # Errors
    ///
    /// What is given holds no certificate, or its key is of a type that TLS does not sign with here.
    pub fn new(client: Client, certificate: &[u8]) -> Result<Self, ConfigError> {
        let key = KeyId::from_certificate(certificate)?;
        let pem = CertificateDer::from_pem_slice(certificate).ok();
        let der = pem.as_ref().map_or(certificate, |one| one.as_ref());
        let public_key = public_key_of(der).unwrap_or_default();
        let key_type = KeyType::of(public_key).ok_or_else(|| {
            ConfigError::new(
                "the certificate's key is neither RSA, P-256, P-384, P-521 nor Ed25519",
            )
        })?;
        Ok(Self {
            client,
            key,
            key_type,
            public_key: SubjectPublicKeyInfoDer::from(public_key.to_vec()),
        })
    }

    /// A certificate chain, PEM, together with its remote key: what a rustls server serves.
    ///
    /// # Errors
    ///
    /// As [`RemoteKey::new`], or a chain that cannot be read.
    pub fn certified(client: Client, chain: &[u8]) -> Result<CertifiedKey, ConfigError> {
        let key = Self::new(client, chain)?;
        let certificates = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| {
                ConfigError::new(format_args!("the chain cannot be read as PEM: {error}"))
            })?;
        Ok(CertifiedKey::new(certificates, Arc::new(key)))
    }

    /// The name of the key on the server.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.key
    }
}

impl SigningKey for RemoteKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let fits = |scheme: &&SignatureScheme| offered.contains(scheme);
        let scheme = *schemes(self.key_type).iter().find(fits)?;
        let key = self.clone();
        Some(Box::new(RemoteSigner { key, scheme }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        Some(self.public_key.clone())
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.key_type {
            KeyType::Rsa => SignatureAlgorithm::RSA,
            KeyType::P256 | KeyType::P384 | KeyType::P521 => SignatureAlgorithm::ECDSA,
            KeyType::Ed25519 => SignatureAlgorithm::ED25519,
        }
    }
}

/// What a key can sign with, best first. PKCS#1 v1.5 is for TLS 1.2 clients that know nothing else.
fn schemes(key_type: KeyType) -> &'static [SignatureScheme] {
    match key_type {
        KeyType::Rsa => &[
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512,
        ],
        KeyType::P256 => &[SignatureScheme::ECDSA_NISTP256_SHA256],
        KeyType::P384 => &[SignatureScheme::ECDSA_NISTP384_SHA384],
        KeyType::P521 => &[SignatureScheme::ECDSA_NISTP521_SHA512],
        KeyType::Ed25519 => &[SignatureScheme::ED25519],
    }
}

/// One handshake's signature.
#[derive(Debug)]
struct RemoteSigner {
    key: RemoteKey,
    scheme: SignatureScheme,
}

impl Signer for RemoteSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        let answer = operation(&self.key.key, self.scheme, message)
            .and_then(|operation| self.key.client.call(operation));
        answer.map_err(|error| rustls::Error::Other(OtherError(Arc::new(error))))
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}

/// What to ask for, by what the message is (RFC 8446, section 4.4.3; RFC 8422, section 5.4).
fn operation(key: &KeyId, scheme: SignatureScheme, message: &[u8]) -> Result<Operation, Error> {
    const SPACES: [u8; 64] = [b' '; 64];
    const CONTEXT: &[u8] = b"TLS 1.3, server CertificateVerify\0";
    /// Where the parameters begin, behind both randoms, and their first byte: a named curve.
    const PARAMETERS: usize = 64;
    const NAMED_CURVE: u8 = 3;

    let number = u16::from(scheme);
    let scheme = keyless_protocol::SignatureScheme::from_u16(number)
        .ok_or_else(|| Error::input(format_args!("no server signs with scheme {number:#06x}")))?;
    let behind = message.strip_prefix(&SPACES);
    if behind.is_some_and(|rest| rest.starts_with(CONTEXT)) {
        Ok(Operation::sign_tls13(key, scheme, message))
    } else if message.get(PARAMETERS) == Some(&NAMED_CURVE) {
        Ok(Operation::sign_tls12(key, scheme, message))
    } else {
        let what = "the message is no server's part of a TLS 1.2 or 1.3 handshake";
        Err(Error::input(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_out_by_what_they_are() {
        let key = KeyId::from_ski([7; 20]);
        let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
        let opcode = |message: &[u8]| {
            let operation = operation(&key, scheme, message).ok()?;
            Some(format!("{operation:?}").contains("SignTls13"))
        };
        let server = [
            &[b' '; 64][..],
            b"TLS 1.3, server CertificateVerify\0",
            &[9; 32],
        ]
        .concat();
        assert_eq!(opcode(&server), Some(true));
        let exchange = [&[9; 64][..], &[3, 0, 0x1d, 32], &[5; 32]].concat();
        assert_eq!(opcode(&exchange), Some(false));
        let client = [
            &[b' '; 64][..],
            b"TLS 1.3, client CertificateVerify\0",
            &[9; 32],
        ]
        .concat();
        assert_eq!(opcode(&client), None);
        assert_eq!(opcode(b"a certificate request"), None);
        assert_eq!(opcode(&[]), None);
    }

    #[test]
    fn every_certificate_type_has_its_schemes() {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let chain = made.cert.pem();
        let key = made.signing_key.serialize_pem();
        let identity =
            crate::TlsIdentity::from_pem(chain.as_bytes(), chain.as_bytes(), key.as_bytes());
        let client = Client::builder("localhost", identity.unwrap()).server("localhost:2407");
        let client = client.build().unwrap();
        let remote = RemoteKey::new(client.clone(), chain.as_bytes()).unwrap();
        assert_eq!(remote.algorithm(), SignatureAlgorithm::ECDSA);
        assert!(
            remote
                .choose_scheme(&[SignatureScheme::RSA_PSS_SHA256])
                .is_none()
        );
        let chosen = remote.choose_scheme(&[
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::ECDSA_NISTP256_SHA256,
        ]);
        assert_eq!(
            chosen.unwrap().scheme(),
            SignatureScheme::ECDSA_NISTP256_SHA256
        );
        RemoteKey::new(client.clone(), b"junk").unwrap_err();
        let certified = RemoteKey::certified(client, chain.as_bytes()).unwrap();
        certified.keys_match().unwrap();
    }
}
