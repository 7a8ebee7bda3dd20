//! The objects a host sees: for each key a private and a public half, and the certificates.
//!
//! Two sources name keys: the certificates configured here, and the list of keys that the server
//! grants this client (opcode 0x48). A key that both name has the certificate's label and the
//! list's rights.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cryptoki_sys::{
    CK_OBJECT_CLASS, CK_OBJECT_HANDLE, CKO_CERTIFICATE, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY,
};
use keyserver_client::{KeyEntry, KeyId, Ski};

use crate::attribute::{self, Value};
use crate::certificate::Certificate;
use crate::public_key::{Kind, PublicKey};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Certificate,
    PrivateKey,
    PublicKey,
}

impl Class {
    pub(crate) const fn number(self) -> CK_OBJECT_CLASS {
        match self {
            Self::Certificate => CKO_CERTIFICATE,
            Self::PrivateKey => CKO_PRIVATE_KEY,
            Self::PublicKey => CKO_PUBLIC_KEY,
        }
    }
}

/// One object.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) handle: CK_OBJECT_HANDLE,
    pub(crate) class: Class,
    pub(crate) label: Arc<str>,
    /// `CKA_ID`: the SKI, the same on all objects of one key, so that hosts find them together.
    pub(crate) id: Ski,
    pub(crate) key: Arc<PublicKey>,
    /// The key's certificate, where one is configured.
    pub(crate) certificate: Option<Arc<Certificate>>,
    /// What a decryption may be tried for: the server has the last word.
    pub(crate) opens: Opens,
}

impl Object {
    /// The DER subject of the key's certificate; empty without one.
    pub(crate) fn subject(&self) -> &[u8] {
        self.certificate.as_ref().map_or(&[], |it| &it.subject)
    }

    /// Whether the object has every one of these attribute values.
    pub(crate) fn matches(&self, template: &[(cryptoki_sys::CK_ATTRIBUTE_TYPE, &[u8])]) -> bool {
        template.iter().all(|(wanted, value)| {
            matches!(attribute::value(self, *wanted), Value::Bytes(found) if found == *value)
        })
    }
}

/// All objects, in a fixed order: certificates, private keys, public keys; by label within each.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    list: Vec<Arc<Object>>,
    by_handle: HashMap<CK_OBJECT_HANDLE, Arc<Object>>,
}

/// What is known of one key.
struct Known {
    label: Arc<str>,
    key: Arc<PublicKey>,
    certificate: Option<Arc<Certificate>>,
    opens: Opens,
}

/// What the server opens with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opens {
    /// Nothing, as far as it tells.
    Nothing,
    /// Premaster secrets of RSA key exchanges, without their padding.
    Premasters,
    /// Blocks with a padding: the block's own, or one that stands for every padding.
    Blocks,
}

impl Opens {
    /// What a key's list of rights says. `decrypt-raw` is for everything; of the other two the one that says least
    /// about a ciphertext is taken (`docs/protocol.md`, RSA key exchange).
    fn of_rights(rights: &[String]) -> Self {
        let has = |right: &str| rights.iter().any(|granted| granted == right);
        match (
            has("decrypt-raw"),
            has("decrypt-premaster"),
            has("decrypt-compatible"),
        ) {
            (true, _, _) | (false, false, true) => Self::Blocks,
            (false, true, _) => Self::Premasters,
            (false, false, false) => Self::Nothing,
        }
    }
}

impl Objects {
    /// The objects of these certificates and of this list of keys; `None` when the server does not
    /// tell. Then a decryption is worth a try with every RSA key.
    pub(crate) fn new(certificates: &[Arc<Certificate>], keys: Option<&[KeyEntry]>) -> Self {
        let mut known: BTreeMap<KeyId, Known> = BTreeMap::new();
        for certificate in certificates {
            known.entry(certificate.key.id).or_insert_with(|| Known {
                label: certificate.label.as_str().into(),
                key: Arc::new(certificate.key.clone()),
                certificate: Some(Arc::clone(certificate)),
                opens: match (keys, &certificate.key.kind) {
                    (None, Kind::Rsa { .. }) => Opens::Blocks,
                    _ => Opens::Nothing,
                },
            });
        }
        for entry in keys.unwrap_or_default() {
            let spki = BASE64_STANDARD.decode(&entry.spki).ok();
            let Some(key) = spki.and_then(|spki| PublicKey::from_spki(&spki)) else {
                continue; // A type that PKCS#11 has no name for.
            };
            let opens = match key.kind {
                Kind::Rsa { .. } => Opens::of_rights(&entry.operations),
                _ => Opens::Nothing,
            };
            known
                .entry(key.id)
                .or_insert_with(|| Known {
                    label: entry.label.as_str().into(),
                    key: Arc::new(key),
                    certificate: None,
                    opens,
                })
                .opens = opens;
        }
        let mut objects = Self::default();
        let mut known: Vec<Known> = known.into_values().collect();
        known.sort_by(|a, b| a.label.cmp(&b.label));
        for certificate in certificates {
            objects.add(certificate_object(certificate));
        }
        for class in [Class::PrivateKey, Class::PublicKey] {
            for known in &known {
                objects.add(key_object(known, class));
            }
        }
        objects
    }

    /// Adds an object unless its handle is taken: the same certificate in two files, or two keys
    /// whose identifiers begin with the same 60 bits, which nobody has seen.
    fn add(&mut self, object: Object) {
        let object = Arc::new(object);
        if self.by_handle.contains_key(&object.handle) {
            return;
        }
        self.by_handle.insert(object.handle, Arc::clone(&object));
        self.list.push(object);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.list.iter()
    }

    pub(crate) fn with_handle(&self, handle: CK_OBJECT_HANDLE) -> Option<&Arc<Object>> {
        self.by_handle.get(&handle)
    }
}

fn certificate_object(certificate: &Arc<Certificate>) -> Object {
    let hash = digest::digest(&digest::SHA256, &certificate.der);
    Object {
        handle: handle(Class::Certificate, hash.as_ref()),
        class: Class::Certificate,
        label: certificate.label.as_str().into(),
        id: certificate.key.id.ski(),
        key: Arc::new(certificate.key.clone()),
        certificate: Some(Arc::clone(certificate)),
        opens: Opens::Nothing,
    }
}

fn key_object(known: &Known, class: Class) -> Object {
    Object {
        handle: handle(class, &known.key.id.ski()),
        class,
        label: Arc::clone(&known.label),
        id: known.key.id.ski(),
        key: Arc::clone(&known.key),
        certificate: known.certificate.clone(),
        opens: known.opens,
    }
}

/// 60 bits of what names the object, and its class in the lowest four. So an object has the same
/// handle in every process, and a handle that a master process found is good in its workers.
fn handle(class: Class, name: &[u8]) -> CK_OBJECT_HANDLE {
    let number = name.iter().take(8).fold(0, |sum: CK_OBJECT_HANDLE, byte| {
        sum << 8 | CK_OBJECT_HANDLE::from(*byte)
    });
    number << 4 | (class.number() & 0xf)
}

#[cfg(test)]
mod tests {
    use cryptoki_sys as ck;

    use super::*;
    use crate::certificate::{read_directory, tests::pem};

    fn certificates() -> Vec<Arc<Certificate>> {
        let folder = tempfile::tempdir().unwrap();
        for (name, algorithm) in [
            ("shop", &rcgen::PKCS_ECDSA_P256_SHA256),
            ("old", &rcgen::PKCS_RSA_SHA256),
        ] {
            std::fs::write(folder.path().join(format!("{name}.pem")), pem(algorithm)).unwrap();
        }
        let found = read_directory(folder.path()).unwrap();
        found.into_iter().map(Arc::new).collect()
    }

    fn entry(key: &PublicKey, label: &str, operations: &[&str]) -> KeyEntry {
        KeyEntry {
            ski: key.id.to_string(),
            key_type: "any".into(),
            spki: BASE64_STANDARD.encode(&key.spki),
            operations: operations.iter().map(|it| (*it).to_owned()).collect(),
            label: label.into(),
            ..KeyEntry::default()
        }
    }

    #[test]
    fn three_objects_a_key_with_one_identifier() {
        let certificates = certificates();
        let objects = Objects::new(&certificates, None);
        assert_eq!(objects.iter().count(), 6);
        for object in objects.iter() {
            let found = objects.with_handle(object.handle).unwrap();
            assert!(Arc::ptr_eq(found, object));
            assert_ne!(object.handle, 0, "zero is no handle");
        }
        let id = certificates[1].key.id.ski();
        let same: Vec<_> = objects
            .iter()
            .filter(|it| it.matches(&[(ck::CKA_ID, &id)]))
            .collect();
        assert_eq!(same.len(), 3);
        assert!(
            same.iter()
                .all(|it| it.matches(&[(ck::CKA_LABEL, b"shop")]))
        );
        let again = Objects::new(&certificates, None);
        let handles = |it: &Objects| it.iter().map(|it| it.handle).collect::<Vec<_>>();
        assert_eq!(handles(&again), handles(&objects));
    }

    #[test]
    fn the_servers_list_adds_keys_and_decides_about_decrypting() {
        let certificates = certificates();
        let (old, shop) = (&certificates[0].key, &certificates[1].key);
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&pair);
        let other = PublicKey::from_spki(&spki).unwrap();
        let list = [
            entry(old, "ignored", &["sign-digest"]),
            entry(shop, "ignored", &["decrypt-raw"]),
            entry(&other, "other", &[]),
        ];
        let objects = Objects::new(&certificates, Some(&list));
        let private: Vec<_> = objects
            .iter()
            .filter(|it| it.class == Class::PrivateKey)
            .collect();
        let labels: Vec<&str> = private.iter().map(|it| &*it.label).collect();
        assert_eq!(labels, ["old", "other", "shop"]);
        assert!(
            private.iter().all(|it| it.opens == Opens::Nothing),
            "not granted, or no RSA key"
        );
        let list = [entry(old, "old", &["sign-digest", "decrypt-raw"])];
        let objects = Objects::new(&certificates, Some(&list));
        let old = objects
            .iter()
            .find(|it| it.matches(&[(ck::CKA_DECRYPT, &[1])]))
            .unwrap();
        assert_eq!(&*old.label, "old");
        let alone = Objects::new(&certificates, None);
        assert!(
            alone.iter().any(|it| it.opens == Opens::Blocks),
            "a stock server does not tell"
        );
    }

    #[test]
    fn of_the_rights_to_decrypt_the_one_that_says_least_is_used() {
        let [raw, premaster, compatible] =
            ["decrypt-raw", "decrypt-premaster", "decrypt-compatible"];
        for (rights, opens) in [
            (&["sign-digest", "tls12-master"][..], Opens::Nothing),
            (&[compatible], Opens::Blocks),
            (&[raw], Opens::Blocks),
            (&["sign-digest", premaster], Opens::Premasters),
            (&[compatible, premaster], Opens::Premasters),
            (&[compatible, premaster, raw], Opens::Blocks),
        ] {
            let rights: Vec<String> = rights.iter().map(|&right| right.into()).collect();
            assert_eq!(Opens::of_rights(&rights), opens, "{rights:?}");
        }
    }

    #[test]
    fn attributes_tell_what_is_public_and_nothing_else() {
        let certificates = certificates();
        let objects = Objects::new(&certificates, None);
        let find = |class: Class, label: &str| {
            let found = objects
                .iter()
                .find(|it| it.class == class && &*it.label == label);
            Arc::clone(found.unwrap())
        };
        let rsa = find(Class::PrivateKey, "old");
        let bytes = |object: &Object, wanted| match attribute::value(object, wanted) {
            Value::Bytes(bytes) => bytes.into_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(bytes(&rsa, ck::CKA_MODULUS).len(), 256);
        assert_eq!(bytes(&rsa, ck::CKA_MODULUS_BITS), 2048_u64.to_ne_bytes());
        for secret in [
            ck::CKA_PRIVATE_EXPONENT,
            ck::CKA_PRIME_1,
            ck::CKA_COEFFICIENT,
        ] {
            assert_eq!(attribute::value(&rsa, secret), Value::Sensitive);
        }
        assert_eq!(attribute::value(&rsa, ck::CKA_EC_PARAMS), Value::Unknown);
        let ec = find(Class::PrivateKey, "shop");
        assert_eq!(attribute::value(&ec, ck::CKA_VALUE), Value::Sensitive);
        assert_eq!(bytes(&ec, ck::CKA_EC_POINT).len(), 67);
        let certificate = find(Class::Certificate, "shop");
        assert_eq!(bytes(&certificate, ck::CKA_VALUE), certificates[1].der);
        assert_eq!(
            bytes(&certificate, ck::CKA_CLASS),
            CKO_CERTIFICATE.to_ne_bytes()
        );
        assert_eq!(attribute::value(&certificate, ck::CKA_SIGN), Value::Unknown);
    }
}
