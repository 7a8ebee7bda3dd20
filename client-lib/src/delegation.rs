//! Delegated credentials (RFC 9345): a key of the edge's own, vouched for by the certificate's key.
//!
//! ```text
//!   CredentialKey::generate ── public key, proof ──▶ key server ── DelegatedCredential ──▶ the TLS stack, with the private key
//! ```
//!
//! For clients that understand them, the edge then signs handshakes itself: one operation of the key server an hour, and no
//! outage of it before the credential ends. rustls cannot serve them; BoringSSL, NSS and others can.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::pkcs8::Document;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use keyless_protocol::delegation::{Credential, EXPORTER_LEN, Request as DelegationRequest};
use keyless_protocol::{Opcode, Reply, Request, SignatureScheme};

use crate::blocking::Client;
use crate::calls;
use crate::error::Error;
use crate::fleet::is_worth_another_try;
use crate::key::KeyId;
use crate::servers::Servers;
use crate::tls::once;

/// The key of a credential: P-256, made here and known nowhere else. Wiped when dropped.
pub struct CredentialKey {
    pair: EcdsaKeyPair,
    pkcs8: Document,
    spki: PublicKeyX509Der<'static>,
}

impl fmt::Debug for CredentialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialKey").finish_non_exhaustive()
    }
}

impl CredentialKey {
    /// Makes a new key. Use each for one credential.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] when the system has no randomness.
    pub fn generate() -> Result<Self, Error> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
            .map_err(|_| Error::input("no key could be made: the system has no randomness"))?;
        let failed = |_| Error::input("no key could be made: the cryptographic library failed");
        let pkcs8 = pair.to_pkcs8v1().map_err(failed)?;
        let spki = pair.public_key().as_der().map_err(failed)?;
        Ok(Self { pair, pkcs8, spki })
    }

    /// The private key, PKCS#8 DER: for the TLS stack that will serve the credential.
    #[must_use]
    pub fn pkcs8_der(&self) -> &[u8] {
        self.pkcs8.as_ref()
    }

    /// The public key, DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        self.spki.as_ref()
    }

    /// What a credential for this key will sign handshakes with.
    #[must_use]
    pub fn scheme(&self) -> SignatureScheme {
        SignatureScheme::EcdsaP256Sha256
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let signature = self.pair.sign(&SystemRandom::new(), message);
        signature
            .map(|signature| signature.as_ref().to_vec())
            .map_err(|_| Error::input("the credential's key cannot sign"))
    }
}

/// A credential that a key server has issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DelegatedCredential {
    bytes: Vec<u8>,
    valid_time: u32,
}

impl DelegatedCredential {
    /// The `DelegatedCredential` of RFC 9345, section 4: what goes into the certificate's `delegated_credential` extension.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How long after the certificate's notBefore it ends.
    #[must_use]
    pub fn valid_time(&self) -> Duration {
        Duration::from_secs(self.valid_time.into())
    }

    fn read(answer: Vec<u8>, key: &CredentialKey, scheme: SignatureScheme) -> Result<Self, Error> {
        let credential = Credential::decode(&answer).map_err(Error::protocol)?;
        let is_ours = credential.spki == key.spki_der()
            && credential.algorithm == key.scheme().as_u16()
            && credential.scheme == scheme.as_u16();
        if !is_ours {
            return Err(Error::protocol(
                "the credential is not the one that was asked for",
            ));
        }
        let valid_time = credential.valid_time;
        Ok(Self {
            bytes: answer,
            valid_time,
        })
    }
}

impl Client {
    /// Has a credential issued (opcode 0x44, right `delegate`): `key` names the certificate's key, which signs with `scheme`;
    /// `lifetime` of zero leaves it to the server, which gives an hour if it may. Ask for the next one when half of it is over.
    ///
    /// The proof that this edge has the credential's key is bound to the connection it is sent over. So each call makes a
    /// connection of its own, to one server after the other until one answers, and closes it. Each server may take as long as
    /// the client's deadline says. In async code use
    /// `spawn_blocking`: it is one call an hour.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use keyserver_client::{CredentialKey, KeyId, SignatureScheme, TlsIdentity, blocking::Client};
    ///
    /// let identity = TlsIdentity::from_files("ca.pem", "edge-1.pem", "edge-1-key.pem")?;
    /// let client = Client::builder("keys.internal", identity).server("keys.internal:2407").build()?;
    /// let key = KeyId::from_certificate(&std::fs::read("shop.pem")?)?;
    ///
    /// let own = CredentialKey::generate()?;
    /// let scheme = SignatureScheme::EcdsaP256Sha256; // shop.pem has a P-256 key
    /// let credential = client.delegate(&key, scheme, &own, Duration::ZERO)?;
    /// // To the TLS stack: own.pkcs8_der() and credential.as_bytes().
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] with [`Denied`](crate::ErrorCode::Denied) when the server does not have the key, does not grant this,
    /// its certificate cannot delegate, the credential would live too long, or this client has too many; any other [`Error`], that
    /// of the last server that was tried.
    pub fn delegate(
        &self,
        key: &KeyId,
        scheme: SignatureScheme,
        own: &CredentialKey,
        lifetime: Duration,
    ) -> Result<DelegatedCredential, Error> {
        let lifetime = u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX);
        let ask = |exporter: &[u8; EXPORTER_LEN]| frame(key, scheme, own, lifetime, exporter);
        let settings = self.settings();
        let (identity, name) = (&settings.identity, &settings.server_name);
        let mut last = Error::Closed;
        for address in addresses(&settings.servers)? {
            let answer = once(identity, name, &address, self.deadline(), &ask);
            match answer.and_then(|frame| outcome(&frame)) {
                Ok(answer) => return DelegatedCredential::read(answer, own, scheme),
                Err(error) if is_worth_another_try(&error) => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

/// The servers, those of this zone first, with services looked up now.
fn addresses(servers: &Servers) -> Result<Vec<String>, Error> {
    let mut list = servers.list().to_vec();
    let mut failure = None;
    for source in servers.sources() {
        match source.look_up(servers.name_servers()) {
            Ok(found) => list.extend(found.servers),
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if list.is_empty() => Err(Error::network("looking up servers", error)),
        _ => {
            list.sort_by_key(|(_, place)| place.tier);
            Ok(list.into_iter().map(|(address, _)| address).collect())
        }
    }
}

/// The request, as one frame.
fn frame(
    key: &KeyId,
    scheme: SignatureScheme,
    own: &CredentialKey,
    lifetime: u32,
    exporter: &[u8; EXPORTER_LEN],
) -> Result<Vec<u8>, Error> {
    let bare = DelegationRequest {
        lifetime,
        algorithm: own.scheme().as_u16(),
        spki: own.spki_der(),
        proof: &[],
    };
    let proof = own.sign(&bare.proven(exporter, &key.ski()))?;
    let mut payload = Vec::new();
    DelegationRequest {
        proof: &proof,
        ..bare
    }
    .encode(&mut payload);
    let request = Request {
        ski: Some(key.ski()),
        signature_scheme: Some(scheme.as_u16()),
        extended: true,
        payload: &payload,
        ..Request::new(1, Opcode::DelegateCredential)
    };
    let mut frame = Vec::new();
    request.encode(&mut frame).map_err(Error::input)?;
    Ok(frame)
}

fn outcome(frame: &[u8]) -> Result<Vec<u8>, Error> {
    let (frame, _) = keyless_protocol::split_frame(frame)
        .ok_or_else(|| Error::protocol("the answer is no whole frame"))?;
    calls::outcome(Reply::decode(frame).map_err(Error::protocol)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_new_each_time_and_shows_nothing() {
        let (one, other) = (
            CredentialKey::generate().unwrap(),
            CredentialKey::generate().unwrap(),
        );
        assert_ne!(one.spki_der(), other.spki_der());
        assert_eq!(one.spki_der().len(), 91);
        assert_eq!(format!("{one:?}"), "CredentialKey { .. }");
        // Of a P-256 key (RFC 5480): its algorithm, and a point that is not compressed.
        let head = b"\x30\x59\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x03\x42\x00\x04";
        assert!(one.spki_der().starts_with(head));
        // The public key in the PKCS#8 document is the one that is sent.
        let point = &one.spki_der()[26..];
        assert!(
            one.pkcs8_der()
                .windows(point.len())
                .any(|window| window == point)
        );
    }

    #[test]
    fn servers_of_this_zone_come_first() {
        let mut servers = Servers::default();
        servers.add("far:1".to_owned(), 1);
        servers.add("near:1".to_owned(), 0);
        assert_eq!(addresses(&servers).unwrap(), ["near:1", "far:1"]);
    }

    #[test]
    fn a_credential_for_another_key_is_not_taken() {
        let (own, other) = (
            CredentialKey::generate().unwrap(),
            CredentialKey::generate().unwrap(),
        );
        let scheme = SignatureScheme::RsaPssSha256;
        let mut answer = Vec::new();
        Credential {
            valid_time: 3600,
            algorithm: 0x0403,
            spki: own.spki_der(),
            scheme: scheme.as_u16(),
            signature: &[1; 256],
        }
        .encode(&mut answer);
        let read = DelegatedCredential::read(answer.clone(), &own, scheme).unwrap();
        assert_eq!(read.valid_time(), Duration::from_hours(1));
        assert_eq!(read.as_bytes(), answer);
        DelegatedCredential::read(answer.clone(), &other, scheme).unwrap_err();
        DelegatedCredential::read(answer.clone(), &own, SignatureScheme::EcdsaP256Sha256)
            .unwrap_err();
        DelegatedCredential::read(answer[1..].to_vec(), &own, scheme).unwrap_err();
    }
}
