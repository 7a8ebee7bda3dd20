//! The rights a grant can name, and which request needs which.

use std::fmt;

use accel::KeyType;
use keyless_protocol::Opcode;

use super::purpose::Purpose;
use crate::handshake::Version;

/// One right, as written in `allow = [...]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Right {
    /// Sign what is proven to be a TLS 1.3 CertificateVerify.
    Tls13Sign,
    /// Sign what is proven to be a TLS 1.2 ServerKeyExchange.
    Tls12Sign,
    /// Turn an encrypted premaster secret into a master secret.
    Tls12Master,
    /// The same, after proof of the client's Finished message.
    Tls12MasterProof,
    /// Issue delegated credentials (RFC 9345).
    Delegate,
    /// Hand out session ticket keys.
    Tickets,
    /// Seal and unseal session tickets on the server.
    Seal,
    /// Sign any digest or message. The caller chooses what is signed.
    SignDigest,
    /// Decrypt to a premaster secret of fixed form.
    DecryptPremaster,
    /// Decrypt for stock clients, with a synthetic padding.
    DecryptCompatible,
    /// The raw private RSA operation. It can sign as well as decrypt: full use of the key.
    DecryptRaw,
}

impl Right {
    /// Every right, in the order of documentation.
    pub const ALL: [Self; 11] = [
        Self::Tls13Sign,
        Self::Tls12Sign,
        Self::Tls12Master,
        Self::Tls12MasterProof,
        Self::Delegate,
        Self::Tickets,
        Self::Seal,
        Self::SignDigest,
        Self::DecryptPremaster,
        Self::DecryptCompatible,
        Self::DecryptRaw,
    ];

    /// The name in configuration, key list and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tls13Sign => "tls13-sign",
            Self::Tls12Sign => "tls12-sign",
            Self::Tls12Master => "tls12-master",
            Self::Tls12MasterProof => "tls12-master-proof",
            Self::Delegate => "delegate",
            Self::Tickets => "tickets",
            Self::Seal => "seal",
            Self::SignDigest => "sign-digest",
            Self::DecryptPremaster => "decrypt-premaster",
            Self::DecryptCompatible => "decrypt-compatible",
            Self::DecryptRaw => "decrypt-raw",
        }
    }

    /// The right with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|right| right.name() == name)
    }

    /// Whether any operation of this version needs it. Granting another one changes nothing,
    /// and `keyserver check` says so.
    #[must_use]
    pub const fn is_served(self) -> bool {
        matches!(
            self,
            Self::Tls13Sign
                | Self::Tls12Sign
                | Self::Tls12Master
                | Self::Delegate
                | Self::Tickets
                | Self::Seal
                | Self::SignDigest
                | Self::DecryptPremaster
                | Self::DecryptCompatible
                | Self::DecryptRaw
        )
    }

    /// Whether the right can be used with a key of this type.
    #[must_use]
    pub const fn fits(self, key: KeyType) -> bool {
        match self {
            Self::Tls13Sign | Self::Delegate => Version::Tls13.has_a_scheme_for(key),
            Self::Tls12Sign => Version::Tls12.has_a_scheme_for(key),
            // ML-DSA signs messages, not digests.
            Self::SignDigest => {
                !matches!(key, KeyType::MlDsa44 | KeyType::MlDsa65 | KeyType::MlDsa87)
            }
            Self::Tls12Master
            | Self::DecryptPremaster
            | Self::DecryptCompatible
            | Self::DecryptRaw => matches!(key, KeyType::Rsa { .. }),
            Self::Tickets | Self::Seal => true,
            Self::Tls12MasterProof => false,
        }
    }

    /// What a key must be for to be used so; nothing where the private key is not used.
    #[must_use]
    pub const fn purpose(self) -> Option<Purpose> {
        match self {
            Self::Tls13Sign | Self::Tls12Sign | Self::Delegate | Self::SignDigest => {
                Some(Purpose::Sign)
            }
            Self::Tls12Master
            | Self::Tls12MasterProof
            | Self::DecryptPremaster
            | Self::DecryptCompatible
            | Self::DecryptRaw => Some(Purpose::KeyExchange),
            Self::Tickets | Self::Seal => None,
        }
    }

    /// Whether the answer is that of a key exchange: it goes through the ledger of ciphertexts.
    #[must_use]
    pub const fn is_key_exchange(self) -> bool {
        matches!(
            self,
            Self::Tls12Master
                | Self::Tls12MasterProof
                | Self::DecryptPremaster
                | Self::DecryptCompatible
        )
    }

    /// The right that a key operation needs, the least if several will do. `None`: this version does not
    /// serve the opcode. Which of the rights to decrypt [`Opcode::RsaDecrypt`] needs depends on what is sent
    /// as well; see [`super::admit`].
    #[must_use]
    pub const fn required_by(opcode: Opcode) -> Option<Self> {
        match opcode {
            Opcode::RsaSignMd5Sha1
            | Opcode::RsaSignSha1
            | Opcode::RsaSignSha224
            | Opcode::RsaSignSha256
            | Opcode::RsaSignSha384
            | Opcode::RsaSignSha512
            | Opcode::EcdsaSignMd5Sha1
            | Opcode::EcdsaSignSha1
            | Opcode::EcdsaSignSha224
            | Opcode::EcdsaSignSha256
            | Opcode::EcdsaSignSha384
            | Opcode::EcdsaSignSha512
            | Opcode::Ed25519Sign
            | Opcode::RsaPssSignSha256
            | Opcode::RsaPssSignSha384
            | Opcode::RsaPssSignSha512 => Some(Self::SignDigest),
            Opcode::Tls12Master => Some(Self::Tls12Master),
            Opcode::RsaDecrypt => Some(Self::DecryptCompatible),
            Opcode::RsaDecryptRaw => Some(Self::DecryptRaw),
            Opcode::SignTls13 => Some(Self::Tls13Sign),
            Opcode::SignTls12 => Some(Self::Tls12Sign),
            Opcode::DelegateCredential => Some(Self::Delegate),
            Opcode::TicketKeys => Some(Self::Tickets),
            Opcode::Seal | Opcode::Unseal => Some(Self::Seal),
            _ => None,
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of rights: one bit each.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Rights(u16);

impl Rights {
    /// No right at all.
    pub const NONE: Self = Self(0);

    /// Whether `right` is in the set.
    #[must_use]
    pub const fn contains(self, right: Right) -> bool {
        self.0 & (1 << right as u8) != 0
    }

    /// The set with `right` in it.
    #[must_use]
    pub const fn with(self, right: Right) -> Self {
        Self(self.0 | 1 << right as u8)
    }

    /// Everything that is in either set.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether there is nothing in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The rights in the set, in the order of [`Right::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Right> {
        Right::ALL
            .into_iter()
            .filter(move |right| self.contains(*right))
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<T: IntoIterator<Item = Right>>(iter: T) -> Self {
        iter.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Right::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        for right in Right::ALL {
            assert_eq!(Right::from_name(right.name()), Some(right));
        }
        assert_eq!(Right::from_name("sign"), None);
    }

    #[test]
    fn every_opcode_of_the_table_needs_the_right_that_is_documented() {
        for opcode in Opcode::ALL {
            let expected = match opcode.as_byte() {
                0x01 => Some(Right::DecryptCompatible),
                0x08 => Some(Right::DecryptRaw),
                0x42 => Some(Right::Tls12Master),
                0x02..=0x07 | 0x12..=0x18 | 0x35..=0x37 => Some(Right::SignDigest),
                0x40 => Some(Right::Tls13Sign),
                0x41 => Some(Right::Tls12Sign),
                0x44 => Some(Right::Delegate),
                0x46 => Some(Right::Tickets),
                0x21 | 0x22 => Some(Right::Seal),
                _ => None,
            };
            assert_eq!(Right::required_by(opcode), expected, "{opcode:?}");
        }
    }

    #[test]
    fn sets_hold_exactly_what_was_put_in() {
        let set: Rights = [Right::SignDigest, Right::Tls13Sign].into_iter().collect();
        assert!(set.contains(Right::SignDigest) && !set.contains(Right::DecryptRaw));
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [Right::Tls13Sign, Right::SignDigest]
        );
        assert_eq!(format!("{set:?}"), r#"{"tls13-sign", "sign-digest"}"#);
        assert!(Rights::NONE.is_empty());
    }

    #[test]
    fn tls_signing_is_for_keys_with_a_scheme() {
        assert!(Right::Tls13Sign.fits(KeyType::MlDsa65));
        assert!(!Right::Tls13Sign.fits(KeyType::P521));
        assert!(Right::Tls12Sign.fits(KeyType::P521));
        assert!(!Right::Tls12Sign.fits(KeyType::Ed25519));
    }

    #[test]
    fn raw_decryption_is_for_rsa_keys_only() {
        assert!(Right::DecryptRaw.fits(KeyType::Rsa { bits: 2048 }));
        assert!(!Right::DecryptRaw.fits(KeyType::P256));
        assert!(Right::SignDigest.fits(KeyType::Ed25519));
        assert!(!Right::SignDigest.fits(KeyType::MlDsa44));
    }
}
