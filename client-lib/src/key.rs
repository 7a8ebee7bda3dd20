//! Naming a key: the subject key identifier.
//!
//! A key server finds a key by its SKI, SHA-1 over the subjectPublicKey bits of the key (RFC 5280,
//! section 4.2.1.2, method 1). It can be computed from whatever holds the public key. The extension
//! of the same name in a certificate is *not* used: authorities may put anything there.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use keyless_protocol::{KeyEntry, Ski};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};

use crate::der::{self, Tag};
use crate::error::ConfigError;

/// Names one key on a server.
///
/// ```
/// use keyserver_client::KeyId;
///
/// let key: KeyId = "0f1e2d3c4b5a69788796a5b4c3d2e1f000112233".parse()?;
/// assert_eq!(key.to_string(), "0f1e2d3c4b5a69788796a5b4c3d2e1f000112233");
/// assert!("0f1e".parse::<KeyId>().is_err());
/// # Ok::<(), keyserver_client::ConfigError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId {
    ski: Ski,
}

impl KeyId {
    /// The key with this SKI.
    #[must_use]
    pub const fn from_ski(ski: Ski) -> Self {
        Self { ski }
    }

    /// The key of a certificate, PEM or DER. Of a PEM chain the first certificate counts.
    ///
    /// # Errors
    ///
    /// What is given holds no certificate.
    pub fn from_certificate(certificate: &[u8]) -> Result<Self, ConfigError> {
        let pem = CertificateDer::from_pem_slice(certificate).ok();
        let der = pem
            .as_ref()
            .map_or(certificate, |certificate| certificate.as_ref());
        let spki = public_key_of(der).ok_or_else(|| {
            ConfigError::new("no certificate found: expected PEM or DER of an X.509 certificate")
        })?;
        Self::from_public_key(spki)
    }

    /// The key with this `SubjectPublicKeyInfo`, PEM (`BEGIN PUBLIC KEY`) or DER.
    ///
    /// # Errors
    ///
    /// What is given holds no `SubjectPublicKeyInfo`.
    pub fn from_public_key(spki: &[u8]) -> Result<Self, ConfigError> {
        let pem = SubjectPublicKeyInfoDer::from_pem_slice(spki).ok();
        let der = pem.as_ref().map_or(spki, |spki| spki.as_ref());
        let bits = key_bits(der).ok_or_else(|| {
            ConfigError::new("no public key found: expected PEM or DER of a SubjectPublicKeyInfo")
        })?;
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, bits);
        let ski = hash.as_ref().try_into();
        ski.map(Self::from_ski)
            .map_err(|_| ConfigError::new("SHA-1 did not give 20 bytes"))
    }

    /// The 20 bytes as they go on the wire.
    #[must_use]
    pub const fn ski(&self) -> Ski {
        self.ski
    }
}

impl From<Ski> for KeyId {
    fn from(ski: Ski) -> Self {
        Self::from_ski(ski)
    }
}

impl TryFrom<&KeyEntry> for KeyId {
    type Error = ConfigError;

    fn try_from(entry: &KeyEntry) -> Result<Self, ConfigError> {
        entry.ski.parse()
    }
}

impl FromStr for KeyId {
    type Err = ConfigError;

    /// Reads 40 hexadecimal digits.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let wrong = || {
            ConfigError::new(format_args!(
                "`{text}` is no subject key identifier: expected 40 hexadecimal digits"
            ))
        };
        if text.len() != 40 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut ski = [0; 20];
        for (byte, digits) in ski.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| wrong())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self { ski })
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ski.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// The `SubjectPublicKeyInfo` of a certificate (RFC 5280, section 4.1).
pub(crate) fn public_key_of(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = der::value(certificate, Tag::SEQUENCE)?;
    let (mut fields, _) = der::value(certificate, Tag::SEQUENCE)?;
    if let Some((_, rest)) = der::value(fields, Tag::EXPLICIT_0) {
        fields = rest; // version, absent in version 1
    }
    let (_, fields) = der::value(fields, Tag::INTEGER)?; // serial number
    let (_, fields) = der::value(fields, Tag::SEQUENCE)?; // signature algorithm
    let (_, fields) = der::value(fields, Tag::SEQUENCE)?; // issuer
    let (_, fields) = der::value(fields, Tag::SEQUENCE)?; // validity
    let (_, fields) = der::value(fields, Tag::SEQUENCE)?; // subject
    let (_, rest) = der::value(fields, Tag::SEQUENCE)?;
    fields.get(..fields.len() - rest.len())
}

/// The subjectPublicKey bits of a `SubjectPublicKeyInfo`, without the count of unused bits.
fn key_bits(spki: &[u8]) -> Option<&[u8]> {
    let (fields, _) = der::value(spki, Tag::SEQUENCE)?;
    let (_, fields) = der::value(fields, Tag::SEQUENCE)?; // algorithm
    let (bits, _) = der::value(fields, Tag::BIT_STRING)?;
    match bits.split_first()? {
        (0, bits) => Some(bits),
        _ => None,
    }
}

/// What kind of key a `SubjectPublicKeyInfo` holds, as far as TLS signs with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyType {
    Rsa,
    P256,
    P384,
    P521,
    Ed25519,
}

impl KeyType {
    /// By the object identifiers of RFC 8017 (appendix A.1), RFC 5480 (2.1.1) and RFC 8410 (3).
    pub(crate) fn of(spki: &[u8]) -> Option<Self> {
        const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
        const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
        const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
        const P384: &[u8] = &[0x2b, 0x81, 0x04, 0, 0x22];
        const P521: &[u8] = &[0x2b, 0x81, 0x04, 0, 0x23];
        const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

        let (fields, _) = der::value(spki, Tag::SEQUENCE)?;
        let (algorithm, _) = der::value(fields, Tag::SEQUENCE)?;
        let (name, parameters) = der::value(algorithm, Tag::OBJECT)?;
        match name {
            RSA => Some(Self::Rsa),
            ED25519 => Some(Self::Ed25519),
            EC => match der::value(parameters, Tag::OBJECT)?.0 {
                P256 => Some(Self::P256),
                P384 => Some(Self::P384),
                P521 => Some(Self::P521),
                _ => None,
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::PublicKeyData;

    #[test]
    fn certificate_and_public_key_name_the_same_key() {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let by_pem = KeyId::from_certificate(made.cert.pem().as_bytes()).unwrap();
        let by_der = KeyId::from_certificate(made.cert.der()).unwrap();
        let spki = made.signing_key.subject_public_key_info();
        let by_spki = KeyId::from_public_key(&spki).unwrap();
        let by_spki_pem =
            KeyId::from_public_key(made.signing_key.public_key_pem().as_bytes()).unwrap();
        assert_eq!(by_pem, by_der);
        assert_eq!(by_pem, by_spki);
        assert_eq!(by_pem, by_spki_pem);
        // The bits of a P-256 key are its uncompressed point.
        let point = made.signing_key.der_bytes();
        let expected = digest(&SHA1_FOR_LEGACY_USE_ONLY, point);
        assert_eq!(by_pem.ski(), expected.as_ref());
    }

    #[test]
    fn the_type_of_a_key_is_told() {
        use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
        let spki = |algorithm| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            key.subject_public_key_info()
        };
        assert_eq!(
            KeyType::of(&spki(&PKCS_ECDSA_P384_SHA384)),
            Some(KeyType::P384)
        );
        assert_eq!(KeyType::of(&spki(&PKCS_ED25519)), Some(KeyType::Ed25519));
        assert_eq!(KeyType::of(b"junk"), None);
    }

    #[test]
    fn junk_is_refused_at_every_length() {
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let der = made.cert.der();
        for length in 0..der.len() {
            let _ = KeyId::from_certificate(&der[..length]);
        }
        for junk in [
            &b""[..],
            b"junk",
            &[0x30, 0x80],
            &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff],
        ] {
            KeyId::from_certificate(junk).unwrap_err();
            KeyId::from_public_key(junk).unwrap_err();
        }
    }

    #[test]
    fn hexadecimal_text_only() {
        let text = "00ff".repeat(10);
        assert_eq!(text.parse::<KeyId>().unwrap().to_string(), text);
        for wrong in [
            "",
            "00",
            &"0g".repeat(20),
            &"+1".repeat(20),
            &"ü".repeat(20),
        ] {
            wrong.parse::<KeyId>().unwrap_err();
        }
    }
}
