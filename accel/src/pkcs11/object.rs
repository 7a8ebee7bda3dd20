//! A private key on a token: found by its URI, its public half read.

use cryptoki::mechanism::MechanismType;
use cryptoki::object::{
    Attribute, AttributeType, KeyType as TokenKeyType, ObjectClass, ObjectHandle,
};
use cryptoki::session::Session;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::error::TokenError;
use super::failure::Failure;
use super::mechanism::Abilities;
use super::uri::TokenUri;
use crate::der;
use crate::key::oid;

/// `CKP_ML_DSA_44` and its two neighbours (PKCS#11 3.2).
const ML_DSA_SETS: [(u64, &[u8]); 3] = [
    (1, oid::ML_DSA_44),
    (2, oid::ML_DSA_65),
    (3, oid::ML_DSA_87),
];
/// What `CKA_EC_PARAMS` holds for Ed25519 where it is not the object identifier: the curve's name as a
/// `PrintableString` (PKCS#11 3.0, section 2.3.5).
const EDWARDS25519: &[u8] = b"\x13\x0cedwards25519";

/// Why a key was not found: the token's fault, or the configuration's.
#[derive(Debug)]
pub(super) enum NotFound {
    Failure(Failure),
    Error(TokenError),
}

impl From<cryptoki::error::Error> for NotFound {
    fn from(error: cryptoki::error::Error) -> Self {
        Self::Failure(error.into())
    }
}

impl NotFound {
    pub(super) fn into_error(self, uri: &TokenUri) -> TokenError {
        match self {
            Self::Failure(failure) => TokenError::token(uri, &failure),
            Self::Error(error) => error,
        }
    }
}

/// A key as it was found on a token.
#[derive(Debug)]
pub(super) struct Found {
    /// Good until the next login or initialization.
    pub(super) handle: u64,
    pub(super) abilities: Abilities,
    /// Its `SubjectPublicKeyInfo`; `None` when the token tells nobody.
    pub(super) spki: Option<Vec<u8>>,
}

/// A session, and what is to be told before each call in it.
pub(super) struct Watched<'a> {
    pub(super) session: &'a Session,
    pub(super) begins: &'a dyn Fn(),
}

impl Watched<'_> {
    fn find_objects(
        &self,
        template: &[Attribute],
    ) -> Result<Vec<ObjectHandle>, cryptoki::error::Error> {
        (self.begins)();
        self.session.find_objects(template)
    }

    fn get_attributes(
        &self,
        object: ObjectHandle,
        wanted: &[AttributeType],
    ) -> Result<Vec<Attribute>, cryptoki::error::Error> {
        (self.begins)();
        self.session.get_attributes(object, wanted)
    }
}

/// Finds the one private key that fits.
pub(super) fn find(
    session: &Watched<'_>,
    uri: &TokenUri,
    mechanisms: &[MechanismType],
    logged_in: bool,
) -> Result<Found, NotFound> {
    let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
    template.extend(uri.object().map(|label| Attribute::Label(label.into())));
    template.extend(uri.id().map(|id| Attribute::Id(id.into())));
    let objects = session.find_objects(&template)?;
    let handle = match objects[..] {
        [one] => one,
        [] => {
            return Err(NotFound::Error(TokenError::NoKey {
                uri: Box::new(uri.clone()),
                logged_in,
            }));
        }
        _ => {
            return Err(NotFound::Error(TokenError::SeveralKeys {
                uri: Box::new(uri.clone()),
                count: objects.len(),
            }));
        }
    };
    let mut abilities = Abilities::of_token(mechanisms);
    let rights = session.get_attributes(handle, &[AttributeType::Sign, AttributeType::Decrypt])?;
    for right in rights {
        match right {
            Attribute::Sign(allowed) => abilities.sign = allowed,
            Attribute::Decrypt(allowed) => abilities.decrypt = allowed,
            _ => {}
        }
    }
    Ok(Found {
        handle: handle.handle(),
        abilities,
        spki: public_key(session, handle)?,
    })
}

/// The public half of a private key: from the private object itself, from the public object or the
/// certificate of the same identifier (or label, where there is no identifier).
fn public_key(
    session: &Watched<'_>,
    private: ObjectHandle,
) -> Result<Option<Vec<u8>>, cryptoki::error::Error> {
    if let Some(spki) = spki_of(session, private)? {
        return Ok(Some(spki));
    }
    let mut same = Vec::new();
    let names = [AttributeType::Id, AttributeType::Label];
    for name in session.get_attributes(private, &names)? {
        match name {
            Attribute::Id(id) if !id.is_empty() => same.insert(0, Attribute::Id(id)),
            Attribute::Label(label) if !label.is_empty() => same.push(Attribute::Label(label)),
            _ => {}
        }
    }
    let Some(name) = same.into_iter().next() else {
        return Ok(None);
    };
    let of_class = |class| session.find_objects(&[Attribute::Class(class), name.clone()]);
    for public in of_class(ObjectClass::PUBLIC_KEY)? {
        if let Some(spki) = spki_of(session, public)? {
            return Ok(Some(spki));
        }
    }
    for certificate in of_class(ObjectClass::CERTIFICATE)? {
        for value in session.get_attributes(certificate, &[AttributeType::Value])? {
            if let Attribute::Value(der) = value
                && let Ok((_, parsed)) = X509Certificate::from_der(&der)
            {
                return Ok(Some(parsed.public_key().raw.to_vec()));
            }
        }
    }
    Ok(None)
}

/// Puts `SubjectPublicKeyInfo` together from the attributes of a public or private object.
fn spki_of(
    session: &Watched<'_>,
    object: ObjectHandle,
) -> Result<Option<Vec<u8>>, cryptoki::error::Error> {
    let wanted = [
        AttributeType::KeyType,
        AttributeType::Modulus,
        AttributeType::PublicExponent,
        AttributeType::EcParams,
        AttributeType::EcPoint,
    ];
    let mut public = Public::default();
    public.take(session.get_attributes(object, &wanted)?);
    // Asked only where it can be: to older modules these attributes are unknown, and for a private key
    // the value is its secret.
    if public.key_type == Some(TokenKeyType::ML_DSA) {
        let class = session.get_attributes(object, &[AttributeType::Class])?;
        if class.contains(&Attribute::Class(ObjectClass::PUBLIC_KEY)) {
            let more = [AttributeType::ParameterSet, AttributeType::Value];
            public.take(session.get_attributes(object, &more)?);
        }
    }
    Ok(public.spki())
}

/// The attributes that make up a public key.
#[derive(Default)]
struct Public {
    key_type: Option<TokenKeyType>,
    modulus: Vec<u8>,
    exponent: Vec<u8>,
    curve: Vec<u8>,
    point: Vec<u8>,
    parameter_set: Option<u64>,
    value: Vec<u8>,
}

impl Public {
    fn take(&mut self, attributes: Vec<Attribute>) {
        for attribute in attributes {
            match attribute {
                Attribute::KeyType(key_type) => self.key_type = Some(key_type),
                Attribute::Modulus(bytes) => self.modulus = bytes,
                Attribute::PublicExponent(bytes) => self.exponent = bytes,
                Attribute::EcParams(bytes) => self.curve = bytes,
                Attribute::EcPoint(bytes) => self.point = bytes,
                Attribute::ParameterSet(set) => self.parameter_set = Some(**set),
                Attribute::Value(bytes) => self.value = bytes,
                _ => {}
            }
        }
    }

    fn spki(&self) -> Option<Vec<u8>> {
        let key_type = self.key_type?;
        if key_type == TokenKeyType::RSA {
            let (n, e) = (number(&self.modulus)?, number(&self.exponent)?);
            let public = der::rsa_public_key(n, e);
            return Some(der::subject_public_key_info(
                oid::RSA,
                der::NULL_PARAMETERS,
                &public,
            ));
        }
        if key_type == TokenKeyType::EC {
            der::decode_object_identifier(&self.curve).ok()?;
            let point = self.point()?;
            return Some(der::subject_public_key_info(oid::EC, &self.curve, point));
        }
        if key_type == TokenKeyType::EC_EDWARDS {
            let named = self.curve == EDWARDS25519
                || der::decode_object_identifier(&self.curve) == Ok(oid::ED25519);
            let point = self.point().filter(|point| named && point.len() == 32)?;
            return Some(der::subject_public_key_info(oid::ED25519, &[], point));
        }
        if key_type == TokenKeyType::ML_DSA {
            let set = self.parameter_set?;
            let (_, algorithm) = ML_DSA_SETS.into_iter().find(|(id, _)| *id == set)?;
            return Some(der::subject_public_key_info(algorithm, &[], &self.value));
        }
        None
    }

    /// The point, in an OCTET STRING as the standard wants it, or bare as some tokens have it.
    fn point(&self) -> Option<&[u8]> {
        let point = der::octet_string(&self.point).unwrap_or(&self.point);
        (!point.is_empty()).then_some(point)
    }
}

/// A number without leading zeros; `None` for zero and for nothing.
fn number(bytes: &[u8]) -> Option<&[u8]> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).filter(|rest| !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::public::PublicKey;

    /// Taken apart and put together again, a key file's public key is the same.
    #[test]
    fn attributes_make_the_public_key_of_the_file() {
        let p256 = Key::from_bytes(include_bytes!("../calibrate/p256.der")).unwrap();
        let info = der::PublicKeyInfo::decode(p256.spki_der()).unwrap();
        let mut wrapped = vec![4, 65];
        wrapped.extend(info.public_key);
        for point in [info.public_key.to_vec(), wrapped] {
            let public = Public {
                key_type: Some(TokenKeyType::EC),
                curve: der::object_identifier(oid::P256),
                point,
                ..Public::default()
            };
            assert_eq!(public.spki().as_deref(), Some(p256.spki_der()));
        }
        let rsa = Key::from_bytes(include_bytes!("../calibrate/rsa-2048.der")).unwrap();
        let info = der::PublicKeyInfo::decode(rsa.spki_der()).unwrap();
        let (n, e) = der::decode_rsa_public_key(info.public_key).unwrap();
        let public = Public {
            key_type: Some(TokenKeyType::RSA),
            modulus: [&[0], n].concat(),
            exponent: [&[0], e].concat(),
            ..Public::default()
        };
        assert_eq!(public.spki().as_deref(), Some(rsa.spki_der()));
        let pem = include_bytes!("../../tests/keys/ed25519.pkcs8.pem");
        let ed25519 = Key::from_bytes(pem).unwrap();
        let info = der::PublicKeyInfo::decode(ed25519.spki_der()).unwrap();
        for curve in [EDWARDS25519.to_vec(), der::object_identifier(oid::ED25519)] {
            let public = Public {
                key_type: Some(TokenKeyType::EC_EDWARDS),
                curve,
                point: info.public_key.to_vec(),
                ..Public::default()
            };
            assert_eq!(public.spki().as_deref(), Some(ed25519.spki_der()));
        }
    }

    #[test]
    fn ml_dsa_keys_are_told_by_their_parameter_set() {
        for (set, name) in [(1, "44"), (2, "65"), (3, "87")] {
            let path = format!(
                "{}/tests/keys/ml-dsa-{name}.pkcs8.pem",
                env!("CARGO_MANIFEST_DIR")
            );
            let key = Key::from_bytes(&std::fs::read(path).unwrap()).unwrap();
            let info = der::PublicKeyInfo::decode(key.spki_der()).unwrap();
            let public = Public {
                key_type: Some(TokenKeyType::ML_DSA),
                parameter_set: Some(set),
                value: info.public_key.to_vec(),
                ..Public::default()
            };
            let spki = public.spki().unwrap();
            assert_eq!(spki, key.spki_der());
            assert_eq!(PublicKey::from_spki(&spki).unwrap().0, key.key_type());
        }
    }

    #[test]
    fn what_is_missing_makes_no_key() {
        for key_type in [
            TokenKeyType::RSA,
            TokenKeyType::EC,
            TokenKeyType::EC_EDWARDS,
            TokenKeyType::ML_DSA,
            TokenKeyType::AES,
        ] {
            let public = Public {
                key_type: Some(key_type),
                ..Public::default()
            };
            assert_eq!(public.spki(), None);
        }
    }
}
