//! The certificates of the keys, as far as they are known here, and whether they may delegate.

use std::collections::HashMap;
use std::path::Path;

use accel::{CERTIFICATE_ENDINGS, Key, KeyTable};
use keyless_protocol::Ski;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::KeySource;
use crate::tls::certs::{self, CertificateError};

/// `id-ce-delegationUsage`, 1.3.6.1.4.1.44363.44 (RFC 9345, section 4.2).
const DELEGATION_USAGE: [u8; 9] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0x82, 0xda, 0x4b, 0x2c];

/// Its value: an ASN.1 NULL.
const NULL: [u8; 2] = [0x05, 0x00];

/// A certificate that may delegate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delegator {
    /// DER.
    pub certificate: Vec<u8>,
    /// Begin of validity, seconds since 1970.
    pub not_before: u64,
    /// End of validity, seconds since 1970.
    pub not_after: u64,
}

/// The certificate of a key, or why it cannot delegate.
type Known = Result<Delegator, &'static str>;

/// The certificates by the SKI of their keys.
#[derive(Debug, Default)]
pub struct Certificates {
    by_ski: HashMap<Ski, Known>,
}

impl Certificates {
    /// Finds the certificate of each key: what its `[[keys]]` entry names, or what lies beside its file.
    ///
    /// # Errors
    ///
    /// A certificate that the configuration names cannot be read. Those beside key files were looked at when the keys
    /// were loaded.
    pub fn find(sources: &[KeySource], keys: &KeyTable) -> Result<Self, CertificateError> {
        let mut found = Self::default();
        for path in sources
            .iter()
            .filter_map(|source| source.certificate.as_deref())
        {
            found.add_named(&certs::read_leaf(path)?, keys);
        }
        for (_, entry) in keys.iter() {
            if found.by_ski.contains_key(&entry.key.ski()) {
                continue;
            }
            let beside = CERTIFICATE_ENDINGS
                .iter()
                .map(|ending| entry.path.with_extension(ending));
            for path in beside.filter(|path| *path != entry.path && path.is_file()) {
                if let Some(leaf) = leaf_beside(&path) {
                    found.add(&leaf, &entry.key);
                }
            }
        }
        Ok(found)
    }

    /// Adds a certificate that may be of any of the keys.
    fn add_named(&mut self, leaf: &[u8], keys: &KeyTable) {
        let Ok((_, parsed)) = X509Certificate::from_der(leaf) else {
            return;
        };
        let ski = accel::ski_of(&parsed.public_key().subject_public_key.data);
        if let Some((_, key)) = keys.by_ski(&ski) {
            self.add(leaf, key);
        }
    }

    /// Adds a certificate if it is of this key.
    fn add(&mut self, leaf: &[u8], key: &Key) {
        if let Ok((_, parsed)) = X509Certificate::from_der(leaf)
            && parsed.public_key().raw == key.spki_der()
        {
            let known = delegator(leaf, &parsed);
            self.by_ski.entry(key.ski()).or_insert(known);
        }
    }

    /// The certificate of a key.
    ///
    /// # Errors
    ///
    /// Why there is none, or why it cannot delegate.
    pub fn of(&self, ski: &Ski) -> Result<&Delegator, &'static str> {
        let known = self
            .by_ski
            .get(ski)
            .ok_or("the certificate of the key is not known: name it in [[keys]] `certificate`")?;
        known.as_ref().map_err(|why| *why)
    }
}

/// The first certificate of a PEM or DER file that was found, not named; nothing where there is none.
fn leaf_beside(path: &Path) -> Option<Vec<u8>> {
    certs::read_leaf(path).ok().or_else(|| {
        let der = std::fs::read(path).ok()?;
        X509Certificate::from_der(&der).is_ok().then_some(der)
    })
}

/// The demands of RFC 9345, section 4.2, on a certificate.
fn delegator(der: &[u8], parsed: &X509Certificate<'_>) -> Known {
    let extension = parsed
        .extensions()
        .iter()
        .find(|extension| extension.oid.as_bytes() == DELEGATION_USAGE)
        .ok_or("the certificate has no DelegationUsage extension: ask for one that has")?;
    if extension.critical || extension.value != NULL {
        return Err("the certificate's DelegationUsage extension is not as RFC 9345 has it");
    }
    let signs =
        (parsed.key_usage().ok().flatten()).is_some_and(|usage| usage.value.digital_signature());
    if !signs {
        return Err("the certificate's key usage lacks digitalSignature");
    }
    let seconds = |time: i64| u64::try_from(time).unwrap_or(0);
    Ok(Delegator {
        certificate: der.to_vec(),
        not_before: seconds(parsed.validity().not_before.timestamp()),
        not_after: seconds(parsed.validity().not_after.timestamp()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{CertificateParams, CustomExtension, KeyPair, KeyUsagePurpose};

    use super::*;

    /// DelegationUsage with this value.
    fn usage(value: &[u8]) -> CustomExtension {
        CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 44363, 44], value.to_vec())
    }

    fn certificate(usages: Vec<KeyUsagePurpose>, extensions: Vec<CustomExtension>) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.key_usages = usages;
        params.custom_extensions = extensions;
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().to_vec()
    }

    /// A key file in `directory` that holds nothing, with the key it stands for, and a certificate of that key.
    fn loaded(directory: &Path, label: &str) -> (accel::LoadedKey, Vec<u8>) {
        let pair = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![format!("{label}.example")]).unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.custom_extensions = vec![usage(&NULL)];
        let certificate = params.self_signed(&pair).unwrap().der().to_vec();
        let key = accel::LoadedKey {
            label: label.to_owned(),
            path: directory.join(label).with_extension("key"),
            key: Arc::new(Key::from_bytes(&pair.serialize_der()).unwrap()),
        };
        (key, certificate)
    }

    /// A certificate beside a key is compared with that key and with no other, so that the work grows with the
    /// number of keys and not with its square. Nobody else's is found that way.
    #[test]
    fn a_certificate_beside_a_key_is_that_keys_alone() {
        let directory = tempfile::tempdir().unwrap();
        let (one, certificate) = loaded(directory.path(), "one");
        let (other, others) = loaded(directory.path(), "other");
        let skis = [one.key.ski(), other.key.ski()];
        let keys = KeyTable::new(vec![one, other]).unwrap();
        let file =
            |name: &str, der: &[u8]| std::fs::write(directory.path().join(name), der).unwrap();
        let find = || {
            let found = Certificates::find(&[], &keys).unwrap();
            skis.map(|ski| found.of(&ski).ok().map(|known| known.certificate.clone()))
        };
        file("one.crt", &others);
        assert_eq!(find(), [None, None]);
        file("one.crt", &certificate);
        file("other.cer", &others);
        assert_eq!(find(), [Some(certificate.clone()), Some(others.clone())]);
        // One that is named may be of any key.
        let mut found = Certificates::default();
        found.add_named(&others, &keys);
        assert!(found.of(&skis[0]).ok().is_none());
        assert_eq!(found.of(&skis[1]).unwrap().certificate, others);
    }

    #[test]
    fn only_a_certificate_that_says_so_may_delegate() {
        let signing = || vec![KeyUsagePurpose::DigitalSignature];
        let mut critical = usage(&NULL);
        critical.set_criticality(true);
        for (der, good) in [
            (certificate(signing(), vec![usage(&NULL)]), true),
            (certificate(signing(), vec![]), false),
            (certificate(signing(), vec![usage(&[4, 0])]), false),
            (certificate(signing(), vec![usage(&[5, 0, 0])]), false),
            (certificate(signing(), vec![critical]), false),
            (certificate(vec![], vec![usage(&NULL)]), false),
            (
                certificate(vec![KeyUsagePurpose::KeyAgreement], vec![usage(&NULL)]),
                false,
            ),
        ] {
            let (_, parsed) = X509Certificate::from_der(&der).unwrap();
            let known = delegator(&der, &parsed);
            assert_eq!(known.is_ok(), good, "{known:?}");
            if let Ok(known) = known {
                assert_eq!(known.certificate, der);
                assert!(known.not_before < known.not_after);
            }
        }
    }
}
