//! A private key, ready for use.

use std::fmt;
use std::hint::black_box;
use std::sync::OnceLock;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{
    KeyPair, ML_DSA_44, ML_DSA_44_SIGNING, ML_DSA_65, ML_DSA_65_SIGNING, ML_DSA_87,
    ML_DSA_87_SIGNING, ParsedPublicKey, PqdsaKeyPair,
};
use zeroize::Zeroizing;

use crate::aws_lc::{Curve, Ec, Ed25519, Rsa};
use crate::class::{Class, KeyType};
use crate::der::{self, Container, EcPrivateKey, Pkcs8, RsaPrivateKey};
use crate::error::KeyError;
use crate::job::Operation;
use crate::key_exchange::{Substitutes, challenge};
use crate::parts::RsaParts;
use crate::pem;
#[cfg(feature = "pkcs11")]
use crate::pkcs11::TokenKey;
use crate::simd::LaneState;

/// Contents of the object identifiers that name algorithms and curves.
pub(crate) mod oid {
    /// rsaEncryption, 1.2.840.113549.1.1.1.
    pub(crate) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    /// id-ecPublicKey, 1.2.840.10045.2.1.
    pub(crate) const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    /// secp256r1, 1.2.840.10045.3.1.7.
    pub(crate) const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    /// secp384r1, 1.3.132.0.34.
    pub(crate) const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
    /// secp521r1, 1.3.132.0.35.
    pub(crate) const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];
    /// id-Ed25519, 1.3.101.112 (RFC 8410).
    pub(crate) const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
    /// id-ml-dsa-44, 2.16.840.1.101.3.4.3.17 (RFC 9881).
    pub(crate) const ML_DSA_44: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x11];
    /// id-ml-dsa-65, the next in line.
    pub(crate) const ML_DSA_65: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x12];
    /// id-ml-dsa-87, the one after.
    pub(crate) const ML_DSA_87: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x13];
}

/// What is tolerated in a key. The default tolerates nothing unusual.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyRules {
    /// Accept an RSA public exponent other than 65537, if it is odd, at least 3 and at most 33 bits long.
    pub any_exponent: bool,
}

/// A private key with its public half and identifiers.
///
/// Send and Sync; meant to sit in an `Arc` and be used by many threads at once. Its secrets are
/// wiped on drop and never shown.
pub struct Key {
    key_type: KeyType,
    material: Material,
    spki: Box<[u8]>,
    ski: [u8; 20],
    modulus_digest: Option<Box<[u8; 32]>>,
    lane_state: LaneState,
    /// Boxed, as whatever only some kinds of keys have: there may be a hundred thousand others.
    substitutes: OnceLock<Box<Substitutes>>,
}

/// One of very many; what is behind it is the material itself.
const _: () = assert!(size_of::<Key>() <= 128);

/// The secret half, in the form each algorithm computes with.
pub(crate) enum Material {
    Rsa(Rsa, Box<RsaParts>),
    Ec(Ec, Zeroizing<Vec<u8>>),
    Ed25519(Box<Ed25519>),
    MlDsa(Box<(PqdsaKeyPair, ParsedPublicKey)>),
    /// There is none in this process: a token holds it.
    #[cfg(feature = "pkcs11")]
    Token(TokenKey),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key")
            .field("key_type", &self.key_type)
            .field("ski", &Hex(&self.ski))
            .finish_non_exhaustive()
    }
}

/// Shows bytes as lower-case hex.
struct Hex<'a>(&'a [u8]);

impl fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Key {
    /// Reads a private key from PEM text or DER, in PKCS#8, PKCS#1 or SEC 1 form, under the strict
    /// default rules. The caller's buffer stays the caller's to wipe.
    ///
    /// # Errors
    ///
    /// [`KeyError`] says what is wrong with the bytes and what to do about it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        Self::from_bytes_with(bytes, KeyRules::default())
    }

    /// The same under other rules.
    ///
    /// # Errors
    ///
    /// [`KeyError`] says what is wrong with the bytes and what to do about it.
    pub fn from_bytes_with(bytes: &[u8], rules: KeyRules) -> Result<Self, KeyError> {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(KeyError::Empty);
        }
        if pem::looks_like_pem(bytes) {
            let sections = pem::sections(bytes)?;
            Self::from_sections(&sections, rules)
        } else {
            Self::from_der(bytes, rules)
        }
    }

    /// The one private key among the blocks of a PEM file; parameters, certificates and public keys
    /// beside it are passed over.
    pub(crate) fn from_sections(
        sections: &[pem::Section<'_>],
        rules: KeyRules,
    ) -> Result<Self, KeyError> {
        let mut keys = sections
            .iter()
            .filter(|section| section.label.ends_with("PRIVATE KEY"));
        let Some(first) = keys.next() else {
            return Err(KeyError::NoPrivateKey);
        };
        let others = keys.count();
        if others > 0 {
            return Err(KeyError::SeveralKeys { count: others + 1 });
        }
        match first.label {
            "ENCRYPTED PRIVATE KEY" => Err(KeyError::Encrypted),
            "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => {
                Self::from_der(&first.der, rules)
            }
            _ => Err(KeyError::UnsupportedAlgorithm),
        }
    }

    pub(crate) fn from_der(der: &[u8], rules: KeyRules) -> Result<Self, KeyError> {
        match Container::detect(der)? {
            Container::Encrypted => Err(KeyError::Encrypted),
            Container::Pkcs1 => Self::rsa(der, rules),
            Container::Sec1 => Self::ec(der, None, None),
            Container::Pkcs8 => {
                let outer = Pkcs8::decode(der)?;
                match outer.algorithm {
                    oid::RSA => Self::rsa(outer.private_key, rules),
                    oid::EC => Self::ec(outer.private_key, outer.curve, outer.public_key),
                    oid::ED25519 => Self::ed25519(outer.private_key, outer.public_key),
                    oid::ML_DSA_44 => Self::ml_dsa(KeyType::MlDsa44, der, outer.public_key),
                    oid::ML_DSA_65 => Self::ml_dsa(KeyType::MlDsa65, der, outer.public_key),
                    oid::ML_DSA_87 => Self::ml_dsa(KeyType::MlDsa87, der, outer.public_key),
                    _ => Err(KeyError::UnsupportedAlgorithm),
                }
            }
        }
    }

    fn rsa(der: &[u8], rules: KeyRules) -> Result<Self, KeyError> {
        let decoded = RsaPrivateKey::decode(der)?;
        let parts = RsaParts::new(&decoded, rules.any_exponent)?;
        let rsa = Rsa::from_pkcs1(der).map_err(|_| KeyError::Inconsistent)?;
        let bits = u16::try_from(parts.modulus_bits()).map_err(|_| KeyError::Malformed)?;
        let public = der::rsa_public_key(decoded.n, decoded.e);
        let digest = modulus_digest(decoded.n);
        Ok(Self::assemble(
            KeyType::Rsa { bits },
            Material::Rsa(rsa, Box::new(parts)),
            (oid::RSA, der::NULL_PARAMETERS),
            &public,
            Some(digest),
        ))
    }

    fn ec(
        der: &[u8],
        outer_curve: Option<&[u8]>,
        outer_public: Option<&[u8]>,
    ) -> Result<Self, KeyError> {
        let decoded = EcPrivateKey::decode(der)?;
        if let (Some(outer), Some(inner)) = (outer_curve, decoded.curve)
            && outer != inner
        {
            return Err(KeyError::Inconsistent);
        }
        let curve_oid = outer_curve.or(decoded.curve).ok_or(KeyError::Malformed)?;
        let (key_type, curve) = match curve_oid {
            oid::P256 => (KeyType::P256, Curve::P256),
            oid::P384 => (KeyType::P384, Curve::P384),
            oid::P521 => (KeyType::P521, Curve::P521),
            _ => return Err(KeyError::UnsupportedAlgorithm),
        };
        let scalar = fit_scalar(decoded.scalar, curve.scalar_len())?;
        let ec = Ec::from_scalar(curve, &scalar).map_err(|_| KeyError::Inconsistent)?;
        let public = ec.public_point().map_err(|_| KeyError::Inconsistent)?;
        for stored in [decoded.public_key, outer_public].into_iter().flatten() {
            if !same_point(stored, &public) {
                return Err(KeyError::PublicKeyMismatch);
            }
        }
        let parameters = der::object_identifier(curve_oid);
        Ok(Self::assemble(
            key_type,
            Material::Ec(ec, scalar),
            (oid::EC, &parameters),
            &public,
            None,
        ))
    }

    fn ed25519(private_key: &[u8], stored_public: Option<&[u8]>) -> Result<Self, KeyError> {
        let seed: &[u8; 32] = der::octet_string(private_key)?
            .try_into()
            .map_err(|_| KeyError::Malformed)?;
        let ed25519 = Ed25519::from_seed(seed);
        let public = *ed25519.public_key();
        if stored_public.is_some_and(|stored| stored != public) {
            return Err(KeyError::PublicKeyMismatch);
        }
        Ok(Self::assemble(
            KeyType::Ed25519,
            Material::Ed25519(Box::new(ed25519)),
            (oid::ED25519, &[]),
            &public,
            None,
        ))
    }

    fn ml_dsa(
        key_type: KeyType,
        pkcs8: &[u8],
        stored_public: Option<&[u8]>,
    ) -> Result<Self, KeyError> {
        let (signing, verification, oid) = match key_type {
            KeyType::MlDsa44 => (&ML_DSA_44_SIGNING, &ML_DSA_44, oid::ML_DSA_44),
            KeyType::MlDsa65 => (&ML_DSA_65_SIGNING, &ML_DSA_65, oid::ML_DSA_65),
            _ => (&ML_DSA_87_SIGNING, &ML_DSA_87, oid::ML_DSA_87),
        };
        let pair = PqdsaKeyPair::from_pkcs8(signing, pkcs8).map_err(|_| KeyError::Inconsistent)?;
        let public = pair.public_key().as_ref().to_vec();
        if stored_public.is_some_and(|stored| stored != public) {
            return Err(KeyError::PublicKeyMismatch);
        }
        let parsed =
            ParsedPublicKey::new(verification, &public).map_err(|_| KeyError::Inconsistent)?;
        Ok(Self::assemble(
            key_type,
            Material::MlDsa(Box::new((pair, parsed))),
            (oid, &[]),
            &public,
            None,
        ))
    }

    /// A key that a token holds, by its `SubjectPublicKeyInfo`.
    #[cfg(feature = "pkcs11")]
    pub(crate) fn from_token(spki: &[u8], token: TokenKey) -> Result<Self, KeyError> {
        let info = der::PublicKeyInfo::decode(spki)?;
        let digest = token.public().modulus().map(modulus_digest);
        let curve = info.curve.map(der::object_identifier);
        let parameters = match &curve {
            Some(curve) => curve,
            None if info.algorithm == oid::RSA => der::NULL_PARAMETERS,
            None => &[],
        };
        Ok(Self::assemble(
            token.key_type(),
            Material::Token(token),
            (info.algorithm, parameters),
            info.public_key,
            digest,
        ))
    }

    fn assemble(
        key_type: KeyType,
        material: Material,
        (algorithm, parameters): (&[u8], &[u8]),
        public: &[u8],
        modulus_digest: Option<[u8; 32]>,
    ) -> Self {
        Self {
            key_type,
            material,
            spki: der::subject_public_key_info(algorithm, parameters, public).into(),
            ski: ski_of(public),
            modulus_digest: modulus_digest.map(Box::new),
            lane_state: LaneState::default(),
            substitutes: OnceLock::new(),
        }
    }

    /// The subject key identifier: SHA-1 over the bits of `subjectPublicKey` (RFC 5280, section 4.2.1.2,
    /// method 1). Clients ask for keys by it.
    #[must_use]
    pub const fn ski(&self) -> [u8; 20] {
        self.ski
    }

    /// SHA-256 over the modulus written in upper-case hex, for RSA keys: the older way to ask for a
    /// key.
    #[must_use]
    pub fn modulus_digest(&self) -> Option<[u8; 32]> {
        self.modulus_digest.as_deref().copied()
    }

    /// Algorithm and size.
    #[must_use]
    pub const fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The queue class of this key's jobs.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.key_type.class()
    }

    /// The public key as DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// Length of the modulus in bytes, called k in RFC 8017, for RSA keys.
    #[must_use]
    pub const fn modulus_len(&self) -> Option<usize> {
        match self.key_type {
            KeyType::Rsa { bits } => Some((bits as usize).div_ceil(8)),
            _ => None,
        }
    }

    /// Whether this key can do the operation.
    #[must_use]
    pub const fn supports(&self, operation: Operation) -> bool {
        operation.fits(self.key_type)
    }

    /// Where the private half is, if a token holds it; `None` for a key in memory.
    #[cfg(feature = "pkcs11")]
    #[must_use]
    pub const fn token(&self) -> Option<&TokenKey> {
        match &self.material {
            Material::Token(token) => Some(token),
            Material::Rsa(..) | Material::Ec(..) | Material::Ed25519(_) | Material::MlDsa(..) => {
                None
            }
        }
    }

    /// Whether a token holds the private half.
    pub(crate) const fn is_in_token(&self) -> bool {
        #[cfg(feature = "pkcs11")]
        let held = matches!(self.material, Material::Token(..));
        #[cfg(not(feature = "pkcs11"))]
        let held = false;
        held
    }

    /// Reads what says which key this is.
    pub(crate) fn touch(&self) {
        black_box((self.key_type, self.ski[0]));
    }

    /// Reads what a use of each of these keys will read, and has no other effect: for keys that are in no cache, all of
    /// these reads wait for memory together.
    ///
    /// Of an RSA key only what says so: its numbers are more than a core reads at once, and its operation takes
    /// a thousand times as long.
    pub(crate) fn warm<'a>(keys: impl Iterator<Item = &'a Self> + Clone) {
        keys.clone().for_each(Self::touch);
        for scalar in keys.filter_map(Self::ec_scalar) {
            black_box((scalar.first().copied(), scalar.last().copied()));
        }
    }

    pub(crate) const fn material(&self) -> &Material {
        &self.material
    }

    /// What the lane backend has prepared for this key.
    pub(crate) const fn lane_state(&self) -> &LaneState {
        &self.lane_state
    }

    /// The numbers of an RSA key.
    pub(crate) const fn rsa_parts(&self) -> Option<&RsaParts> {
        match &self.material {
            Material::Rsa(_, parts) => Some(&**parts),
            Material::Ec(..) | Material::Ed25519(_) | Material::MlDsa(..) => None,
            #[cfg(feature = "pkcs11")]
            Material::Token(..) => None,
        }
    }

    /// Whether `input` may enter the bare private operation of this key, see [`Operation::RsaPrivate`]:
    /// k bytes, and a number above 1 and below n - 1. That much everybody can see without the key.
    #[must_use]
    pub fn accepts_raw_input(&self, input: &[u8]) -> bool {
        match &self.material {
            Material::Rsa(_, parts) => parts.accepts_raw_input(input),
            Material::Ec(..) | Material::Ed25519(_) | Material::MlDsa(..) => false,
            #[cfg(feature = "pkcs11")]
            Material::Token(token) => token
                .public()
                .modulus()
                .is_some_and(|n| crate::parts::is_raw_input(input, n)),
        }
    }

    /// What stands in for badly padded premaster secrets; RSA keys only. Made at first use from the private
    /// exponents, or, for a key in a token, by [`Self::prepare_key_exchange`].
    pub(crate) fn substitutes(&self) -> Option<&Substitutes> {
        if let Some(parts) = self.rsa_parts() {
            let make = || Box::new(Substitutes::new(&parts.exponents()));
            return Some(self.substitutes.get_or_init(make));
        }
        self.substitutes.get().map(Box::as_ref)
    }

    /// What an RSA key in a token has to open once, by [`Operation::RsaPrivate`], before it can answer key
    /// exchanges: it takes the place of the private exponent, from which the substitutes for badly padded
    /// secrets are made otherwise. `None` when that has been done, and for every other key.
    #[must_use]
    pub fn key_exchange_challenge(&self) -> Option<Vec<u8>> {
        let length = self.modulus_len()?;
        let wanted = self.is_in_token() && self.substitutes.get().is_none();
        wanted.then(|| challenge(self.spki_der(), length))
    }

    /// Keeps what the token has made of [`Self::key_exchange_challenge`]. It is a secret: wipe it after.
    pub fn prepare_key_exchange(&self, opened: &[u8]) {
        // Another request may have been first, with the same result.
        let made = Substitutes::new(opened);
        let _ = self.substitutes.set(Box::new(made));
    }

    /// The scalar of an elliptic-curve key, big endian, as long as the curve's order.
    pub(crate) fn ec_scalar(&self) -> Option<&[u8]> {
        match &self.material {
            Material::Ec(_, scalar) => Some(scalar),
            Material::Rsa(..) | Material::Ed25519(_) | Material::MlDsa(..) => None,
            #[cfg(feature = "pkcs11")]
            Material::Token(..) => None,
        }
    }
}

impl From<der::DerError> for KeyError {
    fn from(_: der::DerError) -> Self {
        Self::Malformed
    }
}

/// The subject key identifier of a public key, given by the bits of its `subjectPublicKey`: their SHA-1 (RFC 5280,
/// section 4.2.1.2, method 1).
#[must_use]
pub fn ski_of(public: &[u8]) -> [u8; 20] {
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, public);
    let mut ski = [0; 20];
    ski.copy_from_slice(hash.as_ref());
    ski
}

/// Brings a scalar to its curve's length: some tools drop leading zeros, some add them.
fn fit_scalar(scalar: &[u8], length: usize) -> Result<Zeroizing<Vec<u8>>, KeyError> {
    let surplus = scalar.len().saturating_sub(length);
    let (head, tail) = scalar.split_at(surplus);
    if head.iter().any(|byte| *byte != 0) {
        return Err(KeyError::Inconsistent);
    }
    let mut fitted = Zeroizing::new(vec![0; length]);
    for (to, from) in fitted.iter_mut().rev().zip(tail.iter().rev()) {
        *to = *from;
    }
    Ok(fitted)
}

/// Whether a stored point, compressed or not, is `public`, which is not compressed.
fn same_point(stored: &[u8], public: &[u8]) -> bool {
    match stored.split_first() {
        Some((4, _)) => stored == public,
        Some((sign @ (2 | 3), x)) => {
            public.get(1..=x.len()) == Some(x)
                && x.len() * 2 + 1 == public.len()
                && public.last().is_some_and(|y| (y & 1) == (sign & 1))
        }
        _ => false,
    }
}

fn modulus_digest(n: &[u8]) -> [u8; 32] {
    let text: String = n.iter().map(|byte| format!("{byte:02X}")).collect();
    // A number is written without leading zeros, so an odd count of digits loses its first.
    let digits = text.trim_start_matches('0');
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, digits.as_bytes()).as_ref());
    out
}
