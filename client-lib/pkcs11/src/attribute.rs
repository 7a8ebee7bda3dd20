//! The value of each attribute of each object.

use std::borrow::Cow;

use cryptoki_sys as ck;
use cryptoki_sys::{CK_ATTRIBUTE_TYPE, CK_ULONG};

use crate::object::{Class, Object, Opens};
use crate::public_key::Kind;

/// What an object answers when it is asked for an attribute.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Bytes(Cow<'a, [u8]>),
    /// It has one, and never tells: part of a private key.
    Sensitive,
    /// Objects of this class have no such attribute.
    Unknown,
}

impl<'a> Value<'a> {
    const fn bytes(bytes: &'a [u8]) -> Self {
        Self::Bytes(Cow::Borrowed(bytes))
    }

    const fn flag(set: bool) -> Self {
        Self::bytes(if set { &[ck::CK_TRUE] } else { &[ck::CK_FALSE] })
    }

    fn number(number: CK_ULONG) -> Self {
        Self::Bytes(Cow::Owned(number.to_ne_bytes().to_vec()))
    }
}

/// The value of `wanted` of `object`.
pub(crate) fn value(object: &Object, wanted: CK_ATTRIBUTE_TYPE) -> Value<'_> {
    match common(object, wanted) {
        Value::Unknown => match object.class {
            Class::PrivateKey => private_key(object, wanted),
            Class::PublicKey => public_key(object, wanted),
            Class::Certificate => certificate(object, wanted),
        },
        found => found,
    }
}

fn common(object: &Object, wanted: CK_ATTRIBUTE_TYPE) -> Value<'_> {
    match wanted {
        ck::CKA_CLASS => Value::number(object.class.number()),
        ck::CKA_TOKEN => Value::flag(true),
        // There is no login, so nothing is hidden before it.
        ck::CKA_PRIVATE | ck::CKA_MODIFIABLE | ck::CKA_COPYABLE | ck::CKA_DESTROYABLE => {
            Value::flag(false)
        }
        ck::CKA_LABEL => Value::bytes(object.label.as_bytes()),
        ck::CKA_ID => Value::bytes(&object.id),
        ck::CKA_SUBJECT => Value::bytes(object.subject()),
        ck::CKA_PUBLIC_KEY_INFO => Value::bytes(&object.key.spki),
        ck::CKA_START_DATE | ck::CKA_END_DATE => Value::bytes(&[]),
        _ => Value::Unknown,
    }
}

/// The attributes that both halves of a key have.
fn key(object: &Object, wanted: CK_ATTRIBUTE_TYPE) -> Value<'_> {
    match (wanted, &object.key.kind) {
        (ck::CKA_KEY_TYPE, _) => Value::number(object.key.key_type()),
        (ck::CKA_DERIVE | ck::CKA_LOCAL, _) => Value::flag(false),
        (ck::CKA_KEY_GEN_MECHANISM, _) => Value::number(ck::CK_UNAVAILABLE_INFORMATION),
        (ck::CKA_MODULUS, Kind::Rsa { modulus, .. }) => Value::bytes(modulus),
        (ck::CKA_MODULUS_BITS, Kind::Rsa { modulus, .. }) => Value::number(bits(modulus)),
        (ck::CKA_PUBLIC_EXPONENT, Kind::Rsa { exponent, .. }) => Value::bytes(exponent),
        (ck::CKA_EC_PARAMS, Kind::Ec { curve, .. } | Kind::Ed25519 { curve, .. }) => {
            Value::bytes(curve)
        }
        // On the private half too: libp11 asks for it there first.
        (ck::CKA_EC_POINT, _) => object
            .key
            .wrapped_point()
            .map_or(Value::Unknown, |point| Value::Bytes(Cow::Owned(point))),
        _ => Value::Unknown,
    }
}

fn private_key(object: &Object, wanted: CK_ATTRIBUTE_TYPE) -> Value<'_> {
    match wanted {
        ck::CKA_SENSITIVE | ck::CKA_ALWAYS_SENSITIVE | ck::CKA_NEVER_EXTRACTABLE | ck::CKA_SIGN => {
            Value::flag(true)
        }
        ck::CKA_DECRYPT => Value::flag(object.opens != Opens::Nothing),
        ck::CKA_EXTRACTABLE
        | ck::CKA_ALWAYS_AUTHENTICATE
        | ck::CKA_SIGN_RECOVER
        | ck::CKA_UNWRAP
        | ck::CKA_WRAP_WITH_TRUSTED => Value::flag(false),
        ck::CKA_PRIVATE_EXPONENT
        | ck::CKA_PRIME_1
        | ck::CKA_PRIME_2
        | ck::CKA_EXPONENT_1
        | ck::CKA_EXPONENT_2
        | ck::CKA_COEFFICIENT
            if matches!(object.key.kind, Kind::Rsa { .. }) =>
        {
            Value::Sensitive
        }
        ck::CKA_VALUE if !matches!(object.key.kind, Kind::Rsa { .. }) => Value::Sensitive,
        _ => key(object, wanted),
    }
}

fn public_key(object: &Object, wanted: CK_ATTRIBUTE_TYPE) -> Value<'_> {
    match wanted {
        // What the key is for. This module itself leaves verifying to the host.
        ck::CKA_VERIFY => Value::flag(true),
        ck::CKA_ENCRYPT | ck::CKA_VERIFY_RECOVER | ck::CKA_WRAP | ck::CKA_TRUSTED => {
            Value::flag(false)
        }
        _ => key(object, wanted),
    }
}

fn certificate(object: &Object, wanted: CK_ATTRIBUTE_TYPE) -> Value<'_> {
    let Some(certificate) = &object.certificate else {
        return Value::Unknown;
    };
    match wanted {
        ck::CKA_CERTIFICATE_TYPE => Value::number(ck::CKC_X_509),
        ck::CKA_CERTIFICATE_CATEGORY => Value::number(ck::CK_CERTIFICATE_CATEGORY_TOKEN_USER),
        ck::CKA_TRUSTED => Value::flag(false),
        ck::CKA_ISSUER => Value::bytes(&certificate.issuer),
        ck::CKA_SERIAL_NUMBER => Value::bytes(&certificate.serial_number),
        ck::CKA_VALUE => Value::bytes(&certificate.der),
        _ => Value::Unknown,
    }
}

/// Bits of a big-endian number without leading zero bytes.
fn bits(number: &[u8]) -> CK_ULONG {
    let first = number.first().map_or(0, |byte| byte.leading_zeros());
    let bytes = CK_ULONG::try_from(number.len()).unwrap_or(0);
    (bytes * 8).saturating_sub(CK_ULONG::from(first))
}
