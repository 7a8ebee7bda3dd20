//! The public halves of the keys under load: found by asking the server, or read from a directory for a stock server
//! that cannot be asked.

use std::fs;
use std::path::Path;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keyless_protocol::{KeyEntry, Ski};
use rustls_pki_types::pem::{PemObject, SectionKind};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey as X509PublicKey;

use crate::mix::{Class, KeyKind};

/// The right a client needs to ask for signatures.
const RIGHT_SIGN: &str = "sign-digest";
/// Have the strings of TLS 1.2 and 1.3 signed.
const RIGHT_TLS12: &str = "tls12-sign";
const RIGHT_TLS13: &str = "tls13-sign";
/// The rights of which a client needs one to ask for decryptions. The second answers a ciphertext once.
const RIGHTS_DECRYPT: [&str; 2] = ["decrypt-raw", "decrypt-compatible"];

/// One key to ask for, and to check answers with.
#[derive(Clone, Debug)]
pub struct PublicKey {
    /// What requests name it by: SHA-1 of the subjectPublicKey bits (RFC 5280, 4.2.1.2, method 1).
    pub ski: Ski,
    /// Its type.
    pub kind: KeyKind,
    /// DER `SubjectPublicKeyInfo`.
    pub spki: Vec<u8>,
    /// The rights the server says we have; `None` when it was not asked.
    pub operations: Option<Vec<String>>,
    /// Its label on the server or its file, for messages.
    pub origin: String,
}

impl PublicKey {
    /// Reads a DER `SubjectPublicKeyInfo`. `Ok(None)`: a sound key of a type no class asks for.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn from_spki(spki: &[u8], origin: &str) -> Result<Option<Self>, String> {
        let bad = || format!("{origin}: not a readable public key (DER SubjectPublicKeyInfo)");
        let (rest, info) = SubjectPublicKeyInfo::from_der(spki).map_err(|_| bad())?;
        if !rest.is_empty() {
            return Err(bad());
        }
        let kind = match info.algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.1" => match info.parsed().map_err(|_| bad())? {
                X509PublicKey::RSA(rsa) => match rsa.modulus.iter().position(|byte| *byte != 0) {
                    Some(zeros) => match rsa.modulus.len() - zeros {
                        256 => KeyKind::Rsa2048,
                        384 => KeyKind::Rsa3072,
                        512 => KeyKind::Rsa4096,
                        _ => return Ok(None),
                    },
                    None => return Err(bad()),
                },
                _ => return Err(bad()),
            },
            "1.2.840.10045.2.1" => {
                let curve = info
                    .algorithm
                    .parameters
                    .as_ref()
                    .and_then(|any| any.as_oid().ok());
                match curve.ok_or_else(bad)?.to_id_string().as_str() {
                    "1.2.840.10045.3.1.7" => KeyKind::P256,
                    "1.3.132.0.34" => KeyKind::P384,
                    "1.3.132.0.35" => KeyKind::P521,
                    _ => return Ok(None),
                }
            }
            "1.3.101.112" => KeyKind::Ed25519,
            _ => return Ok(None),
        };
        let hash = digest::digest(
            &digest::SHA1_FOR_LEGACY_USE_ONLY,
            &info.subject_public_key.data,
        );
        let ski = hash.as_ref().try_into().map_err(|_| bad())?;
        let key = Self {
            ski,
            kind,
            spki: spki.to_vec(),
            operations: None,
            origin: origin.to_owned(),
        };
        Ok(Some(key))
    }

    /// Reads an entry of the server's key list, and checks that the identifier is the one its key has.
    ///
    /// # Errors
    /// What is wrong with the entry; that is the server's fault.
    pub fn from_entry(entry: &KeyEntry) -> Result<Option<Self>, String> {
        let origin = format!("key `{}` of the server's list", entry.label);
        let spki = STANDARD
            .decode(&entry.spki)
            .map_err(|_| format!("{origin}: its public key is not base64"))?;
        let Some(mut key) = Self::from_spki(&spki, &origin)? else {
            return Ok(None);
        };
        if entry.ski_bytes() != Some(key.ski) {
            return Err(format!(
                "{origin}: the identifier {} does not belong to its public key",
                entry.ski
            ));
        }
        key.operations = Some(entry.operations.clone());
        Ok(Some(key))
    }

    /// Whether we may ask it for this class, as far as we know.
    #[must_use]
    pub fn serves(&self, class: Class) -> bool {
        let rights: &[&str] = match class {
            Class::Decrypt(_) => &RIGHTS_DECRYPT,
            Class::Ping | Class::Sign(_) => &[RIGHT_SIGN],
            Class::Tls12(_) => &[RIGHT_TLS12],
            Class::Tls13(_) => &[RIGHT_TLS13],
        };
        let granted = match &self.operations {
            Some(operations) => {
                (operations.iter()).any(|operation| rights.contains(&operation.as_str()))
            }
            None => true,
        };
        granted && class.key_kind() == Some(self.kind)
    }
}

/// Reads every certificate and public key in a directory, by file name order: PEM (`CERTIFICATE`, `PUBLIC KEY`) or DER.
/// Of a file with several certificates the first counts: that is the leaf, the rest is its chain.
///
/// # Errors
/// Which file cannot be read or understood, and that nothing usable was found.
pub fn read_directory(directory: &Path) -> Result<Vec<PublicKey>, String> {
    let unreadable = |error| format!("--public-keys {}: {error}", directory.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let known = path.extension().and_then(|extension| extension.to_str());
        if known.is_some_and(|extension| ["pem", "crt", "cer", "der", "pub"].contains(&extension)) {
            paths.push(path);
        }
    }
    paths.sort();
    let mut keys: Vec<PublicKey> = Vec::new();
    for path in &paths {
        let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        if let Some(key) = read_public_key(&bytes, &path.display().to_string())?
            && keys.iter().all(|other| other.ski != key.ski)
        {
            keys.push(key);
        }
    }
    if keys.is_empty() {
        return Err(format!(
            "--public-keys {}: no certificate or public key of a supported type in it (*.pem, *.crt, *.cer, *.der, *.pub)",
            directory.display()
        ));
    }
    Ok(keys)
}

/// The public key in one file.
fn read_public_key(bytes: &[u8], origin: &str) -> Result<Option<PublicKey>, String> {
    if !bytes.starts_with(b"-----") && !bytes.windows(11).any(|window| window == b"-----BEGIN ") {
        return match X509Certificate::from_der(bytes) {
            Ok((_, certificate)) => PublicKey::from_spki(certificate.public_key().raw, origin),
            Err(_) => PublicKey::from_spki(bytes, origin),
        };
    }
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes) {
        let (kind, der) = section.map_err(|_| format!("{origin}: not readable as PEM"))?;
        match kind {
            SectionKind::Certificate => {
                let (_, certificate) = X509Certificate::from_der(&der)
                    .map_err(|_| format!("{origin}: not a readable certificate"))?;
                return PublicKey::from_spki(certificate.public_key().raw, origin);
            }
            SectionKind::PublicKey => return PublicKey::from_spki(&der, origin),
            _ => {}
        }
    }
    Err(format!(
        "{origin}: no CERTIFICATE or PUBLIC KEY in it (private keys are not needed here)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(algorithm: &'static rcgen::SignatureAlgorithm) -> rcgen::KeyPair {
        rcgen::KeyPair::generate_for(algorithm).unwrap()
    }

    #[test]
    fn certificates_and_public_keys_are_found_in_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let p256 = key(&rcgen::PKCS_ECDSA_P256_SHA256);
        let p384 = key(&rcgen::PKCS_ECDSA_P384_SHA384);
        let ed25519 = key(&rcgen::PKCS_ED25519);
        let certificate = rcgen::CertificateParams::new(["a.example".into()])
            .unwrap()
            .self_signed(&p256)
            .unwrap();
        fs::write(directory.path().join("a.crt"), certificate.pem()).unwrap();
        fs::write(directory.path().join("a-again.der"), certificate.der()).unwrap();
        fs::write(directory.path().join("b.pub"), p384.public_key_pem()).unwrap();
        fs::write(
            directory.path().join("c.der"),
            rcgen::PublicKeyData::subject_public_key_info(&ed25519),
        )
        .unwrap();
        fs::write(directory.path().join("readme.txt"), "not a key").unwrap();

        let keys = read_directory(directory.path()).unwrap();
        let kinds: Vec<KeyKind> = keys.iter().map(|key| key.kind).collect();
        assert_eq!(kinds, [KeyKind::P256, KeyKind::P384, KeyKind::Ed25519]);
        assert!(keys[0].serves(Class::Sign(KeyKind::P256)));
        assert!(!keys[0].serves(Class::Sign(KeyKind::P384)));
    }

    #[test]
    fn what_is_not_a_key_is_named() {
        let directory = tempfile::tempdir().unwrap();
        assert!(
            read_directory(directory.path())
                .unwrap_err()
                .contains("no certificate")
        );
        fs::write(
            directory.path().join("x.pem"),
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        )
        .unwrap();
        assert!(
            read_directory(directory.path())
                .unwrap_err()
                .contains("x.pem")
        );
        let error = read_directory(&directory.path().join("missing")).unwrap_err();
        assert!(error.contains("missing"), "{error}");
    }

    #[test]
    fn a_list_entry_must_carry_its_own_identifier() {
        let pair = key(&rcgen::PKCS_ECDSA_P256_SHA256);
        let spki = rcgen::PublicKeyData::subject_public_key_info(&pair);
        let ski = PublicKey::from_spki(&spki, "x").unwrap().unwrap().ski;
        let mut entry = KeyEntry {
            ski: ski.iter().map(|byte| format!("{byte:02x}")).collect(),
            key_type: "p-256".into(),
            spki: STANDARD.encode(&spki),
            operations: vec!["sign-digest".into()],
            label: "shop".into(),
            ..KeyEntry::default()
        };
        let found = PublicKey::from_entry(&entry).unwrap().unwrap();
        assert!(found.serves(Class::Sign(KeyKind::P256)));
        entry.operations.clear();
        assert!(
            !PublicKey::from_entry(&entry)
                .unwrap()
                .unwrap()
                .serves(Class::Sign(KeyKind::P256))
        );
        entry.ski = "00".repeat(20);
        assert!(PublicKey::from_entry(&entry).unwrap_err().contains("shop"));
    }
}
