//! Safe handles over the AWS-LC functions that `aws-lc-rs` does not reach.
//!
//! `aws-lc-rs` ties the hash function of a signature to the algorithm, has neither SHA-1, SHA-224 nor MD5+SHA-1
//! for signing, no RSA without padding, and allocates for each Ed25519 signature. So
//! RSA, ECDSA and Ed25519 go through the C functions here; ML-DSA, digests, randomness and the
//! verification in tests go through `aws-lc-rs`.
//!
//! There is one AWS-LC object per key. A second one, built through `aws-lc-rs` for the hashes it
//! knows, would double the memory of 100,000 keys and hold a second copy of each secret, to run
//! the same code of the same library. The price: each RSA operation takes that object's lock twice,
//! to borrow and return a blinding factor, for some 20 ns out of 200 us.
//!
//! AWS-LC blinds every RSA operation and checks every result with the public exponent before it
//! hands it out (`rsa_default_private_transform`); a test below breaks a key to prove it.
//! It queues errors per thread; every failing call here empties that queue.

#![expect(
    unsafe_code,
    reason = "this file and its folder are the only ones of this crate that call C functions"
)]

mod digest;
mod point;

use std::ffi::c_int;
use std::ptr::{NonNull, null, null_mut};

use aws_lc_sys as sys;
use zeroize::Zeroizing;

pub(crate) use digest::digest;

use crate::der;
use crate::job::Hash;

/// AWS-LC said no. Its reasons go nowhere: they could describe a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

/// Turns AWS-LC's "1 is success" into a result and drops the thread's queued errors otherwise.
fn succeeded(returned: c_int) -> Result<(), Refused> {
    if returned == 1 {
        Ok(())
    } else {
        forget_errors();
        Err(Refused)
    }
}

fn forget_errors() {
    // SAFETY: takes no arguments and touches only the calling thread's error queue.
    unsafe { sys::ERR_clear_error() }
}

/// The number AWS-LC knows a hash function by.
const fn nid(hash: Hash) -> c_int {
    match hash {
        Hash::Md5Sha1 => sys::NID_md5_sha1,
        Hash::Sha1 => sys::NID_sha1,
        Hash::Sha224 => sys::NID_sha224,
        Hash::Sha256 => sys::NID_sha256,
        Hash::Sha384 => sys::NID_sha384,
        Hash::Sha512 => sys::NID_sha512,
    }
}

/// The description of a hash function, for PSS; null for MD5+SHA-1, which PSS does not know and
/// every caller here refuses.
fn message_digest(hash: Hash) -> *const sys::EVP_MD {
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one arm runs, and one note covers all"
    )]
    // SAFETY: these take no arguments and return pointers to constants that live for ever.
    unsafe {
        match hash {
            Hash::Md5Sha1 => null(),
            Hash::Sha1 => sys::EVP_sha1(),
            Hash::Sha224 => sys::EVP_sha224(),
            Hash::Sha256 => sys::EVP_sha256(),
            Hash::Sha384 => sys::EVP_sha384(),
            Hash::Sha512 => sys::EVP_sha512(),
        }
    }
}

/// `RSA_PSS_SALTLEN_DIGEST`: the salt is as long as the hash.
const SALT_AS_LONG_AS_HASH: c_int = -1;

/// An RSA private key inside AWS-LC.
pub(crate) struct Rsa {
    object: NonNull<sys::RSA>,
    modulus_len: usize,
}

// SAFETY: an RSA object belongs to no thread; `rsa.h` ties nothing in it to the one that made it.
unsafe impl Send for Rsa {}
// SAFETY: only functions that `rsa.h` calls non-mutating are used after construction, and it lets
// threads run those at once: what they cache inside (blinding, Montgomery values) is behind a lock.
unsafe impl Sync for Rsa {}

impl Drop for Rsa {
    fn drop(&mut self) {
        // SAFETY: `object` came from RSA_private_key_from_bytes or its public twin, is owned here alone, and is not used
        // afterwards. AWS-LC wipes the numbers as it frees them.
        unsafe { sys::RSA_free(self.object.as_ptr()) }
    }
}

impl Rsa {
    /// Builds a key from `RSAPrivateKey` DER. AWS-LC checks that n = p*q, that d inverts e, and that the
    /// remaining numbers follow from these.
    pub(crate) fn from_pkcs1(der: &[u8]) -> Result<Self, Refused> {
        // SAFETY: pointer and length are of one live slice, from which AWS-LC copies.
        let object = unsafe { sys::RSA_private_key_from_bytes(der.as_ptr(), der.len()) };
        let Some(object) = NonNull::new(object) else {
            forget_errors();
            return Err(Refused);
        };
        // SAFETY: `object` is a valid RSA object, just made.
        let size = unsafe { sys::RSA_size(object.as_ptr()) };
        Ok(Self {
            object,
            modulus_len: usize::try_from(size).unwrap_or(usize::MAX),
        })
    }

    /// Builds the public half alone from `RSAPublicKey` DER; its private operations all fail.
    #[cfg(feature = "pkcs11")]
    pub(crate) fn from_public(der: &[u8]) -> Result<Self, Refused> {
        // SAFETY: pointer and length are of one live slice, from which AWS-LC copies.
        let object = unsafe { sys::RSA_public_key_from_bytes(der.as_ptr(), der.len()) };
        let Some(object) = NonNull::new(object) else {
            forget_errors();
            return Err(Refused);
        };
        // SAFETY: `object` is a valid RSA object, just made.
        let size = unsafe { sys::RSA_size(object.as_ptr()) };
        Ok(Self {
            object,
            modulus_len: usize::try_from(size).unwrap_or(usize::MAX),
        })
    }

    /// PKCS#1 v1.5 signature into `out`, which must be as long as the modulus.
    pub(crate) fn sign_pkcs1(
        &self,
        hash: Hash,
        digest: &[u8],
        out: &mut [u8],
    ) -> Result<(), Refused> {
        if digest.len() != hash.len() || out.len() != self.modulus_len {
            return Err(Refused);
        }
        let mut written = 0;
        // SAFETY: `digest` is as long as `hash` makes it, `out` has RSA_size bytes, which is all that RSA_sign
        // writes; the object is valid for the life of `self`.
        let returned = unsafe {
            sys::RSA_sign(
                nid(hash),
                digest.as_ptr(),
                digest.len(),
                out.as_mut_ptr(),
                &raw mut written,
                self.object.as_ptr(),
            )
        };
        succeeded(returned)?;
        // A shorter result would leave zeros at its end and pass for a signature.
        if usize::try_from(written) == Ok(out.len()) {
            Ok(())
        } else {
            Err(Refused)
        }
    }

    /// PSS signature with MGF1 of the same hash and a salt as long as it, into `out`, which must be
    /// as long as the modulus.
    pub(crate) fn sign_pss(
        &self,
        hash: Hash,
        digest: &[u8],
        out: &mut [u8],
    ) -> Result<(), Refused> {
        let md = message_digest(hash);
        if md.is_null() || digest.len() != hash.len() {
            return Err(Refused);
        }
        let mut written = 0;
        // SAFETY: `digest` is as long as `md` makes it, AWS-LC writes at most `out.len()` bytes to `out`,
        // `md` is not null, and the object is valid for the life of `self`.
        let returned = unsafe {
            sys::RSA_sign_pss_mgf1(
                self.object.as_ptr(),
                &raw mut written,
                out.as_mut_ptr(),
                out.len(),
                digest.as_ptr(),
                digest.len(),
                md,
                md,
                SALT_AS_LONG_AS_HASH,
            )
        };
        succeeded(returned)?;
        if written == out.len() {
            Ok(())
        } else {
            Err(Refused)
        }
    }

    /// input^d mod n, padding untouched. `input` and `out` must be as long as the modulus.
    pub(crate) fn private_raw(&self, input: &[u8], out: &mut [u8]) -> Result<(), Refused> {
        let mut written = 0;
        // SAFETY: lengths are those of live slices, AWS-LC writes at most `out.len()` bytes and
        // refuses an input of the wrong length; the object is valid for the life of `self`.
        let returned = unsafe {
            sys::RSA_decrypt(
                self.object.as_ptr(),
                &raw mut written,
                out.as_mut_ptr(),
                out.len(),
                input.as_ptr(),
                input.len(),
                sys::RSA_NO_PADDING,
            )
        };
        succeeded(returned)?;
        if written == out.len() {
            Ok(())
        } else {
            Err(Refused)
        }
    }

    /// input^e mod n into `out`; false when AWS-LC refuses the lengths or the number.
    pub(crate) fn public_raw(&self, input: &[u8], out: &mut [u8]) -> bool {
        let mut written = 0;
        // SAFETY: as in `private_raw`.
        let returned = unsafe {
            sys::RSA_encrypt(
                self.object.as_ptr(),
                &raw mut written,
                out.as_mut_ptr(),
                out.len(),
                input.as_ptr(),
                input.len(),
                sys::RSA_NO_PADDING,
            )
        };
        succeeded(returned).is_ok() && written == out.len()
    }

    /// Whether `signature` is a PKCS#1 v1.5 signature of `digest`.
    pub(crate) fn verify_pkcs1(&self, hash: Hash, digest: &[u8], signature: &[u8]) -> bool {
        // SAFETY: lengths are those of live slices, and RSA_verify checks both; the object is valid
        // for the life of `self`.
        let returned = unsafe {
            sys::RSA_verify(
                nid(hash),
                digest.as_ptr(),
                digest.len(),
                signature.as_ptr(),
                signature.len(),
                self.object.as_ptr(),
            )
        };
        succeeded(returned).is_ok()
    }

    /// Whether `signature` is a PSS signature of `digest` with a salt as long as the hash.
    pub(crate) fn verify_pss(&self, hash: Hash, digest: &[u8], signature: &[u8]) -> bool {
        let md = message_digest(hash);
        if md.is_null() {
            return false;
        }
        // SAFETY: lengths are those of live slices, and AWS-LC checks both; `md` is not null; the object
        // is valid for the life of `self`.
        let returned = unsafe {
            sys::RSA_verify_pss_mgf1(
                self.object.as_ptr(),
                digest.as_ptr(),
                digest.len(),
                md,
                md,
                SALT_AS_LONG_AS_HASH,
                signature.as_ptr(),
                signature.len(),
            )
        };
        succeeded(returned).is_ok()
    }
}

/// The curves that are loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    /// Length of a scalar and of a coordinate in bytes.
    pub(crate) const fn scalar_len(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    fn group(self) -> *const sys::EC_GROUP {
        #[expect(
            clippy::multiple_unsafe_ops_per_block,
            reason = "one arm runs, and one note covers all"
        )]
        // SAFETY: these take no arguments and return pointers to constants that live for ever.
        unsafe {
            match self {
                Self::P256 => sys::EC_group_p256(),
                Self::P384 => sys::EC_group_p384(),
                Self::P521 => sys::EC_group_p521(),
            }
        }
    }
}

/// Longest `ECDSA-Sig-Value` in bytes: two integers of 66 bytes on P-521, with their headers.
pub(crate) const MAX_ECDSA_LEN: usize = 139;

/// An elliptic-curve private key inside AWS-LC.
pub(crate) struct Ec {
    object: NonNull<sys::EC_KEY>,
    curve: Curve,
}

// SAFETY: an EC_KEY belongs to no thread; `ec_key.h` ties nothing in it to the one that made it.
unsafe impl Send for Ec {}
// SAFETY: only functions taking a `const EC_KEY *` are used after construction, and `ec_key.h` lets
// threads run those at once.
unsafe impl Sync for Ec {}

impl Drop for Ec {
    fn drop(&mut self) {
        // SAFETY: `object` came from EC_KEY_parse_private_key or EC_KEY_new, is owned here alone, and is
        // not used afterwards. AWS-LC wipes the scalar as it frees it.
        unsafe { sys::EC_KEY_free(self.object.as_ptr()) }
    }
}

impl Ec {
    /// Builds a key from its scalar, `curve.scalar_len()` bytes big endian, and computes the public point.
    /// Refuses zero and scalars not below the order.
    pub(crate) fn from_scalar(curve: Curve, scalar: &[u8]) -> Result<Self, Refused> {
        let mut encoded = Zeroizing::new(Vec::new());
        der::write_ec_private_key(scalar, &mut encoded);
        let mut cbs = sys::CBS {
            data: encoded.as_ptr(),
            len: encoded.len(),
        };
        // SAFETY: `cbs` spans the live buffer `encoded`, from which AWS-LC copies, and the group is a constant.
        let object = unsafe { sys::EC_KEY_parse_private_key(&raw mut cbs, curve.group()) };
        let Some(object) = NonNull::new(object) else {
            forget_errors();
            return Err(Refused);
        };
        Ok(Self { object, curve })
    }

    /// Builds the public half alone from a point as SEC 1, section 2.3.3 writes it; signing fails. Refuses
    /// what is not a point of the curve.
    #[cfg(feature = "pkcs11")]
    pub(crate) fn from_point(curve: Curve, point: &[u8]) -> Result<Self, Refused> {
        // SAFETY: takes no arguments and returns a new object, or null.
        let object = NonNull::new(unsafe { sys::EC_KEY_new() }).ok_or(Refused)?;
        let key = Self { object, curve };
        // SAFETY: the object is valid and nothing else uses it yet; the group is a constant.
        succeeded(unsafe { sys::EC_KEY_set_group(key.object.as_ptr(), curve.group()) })?;
        // SAFETY: the group is a constant; the result is a new point, or null.
        let new = NonNull::new(unsafe { sys::EC_POINT_new(curve.group()) }).ok_or(Refused)?;
        // SAFETY: the new point is of this group, pointer and length are of one live slice, and a null
        // context is allowed. AWS-LC checks that the point is on the curve.
        let read = succeeded(unsafe {
            sys::EC_POINT_oct2point(
                curve.group(),
                new.as_ptr(),
                point.as_ptr(),
                point.len(),
                null_mut(),
            )
        });
        let set = read.and_then(|()| {
            // SAFETY: object and point are valid and of one group; AWS-LC copies the point.
            succeeded(unsafe { sys::EC_KEY_set_public_key(key.object.as_ptr(), new.as_ptr()) })
        });
        // SAFETY: the point was made above, is owned here alone, and is not used afterwards.
        unsafe { sys::EC_POINT_free(new.as_ptr()) };
        set.map(|()| key)
    }

    /// The public point, uncompressed (SEC 1, section 2.3.3): 4, x, y.
    pub(crate) fn public_point(&self) -> Result<Vec<u8>, Refused> {
        let mut point = vec![0; 1 + 2 * self.curve.scalar_len()];
        // SAFETY: the object is valid for the life of `self`, and so is the point it lends.
        let public = unsafe { sys::EC_KEY_get0_public_key(self.object.as_ptr()) };
        // SAFETY: `public` is a point on the same group, AWS-LC writes at most `point.len()` bytes, and
        // a null context is allowed.
        let written = unsafe {
            sys::EC_POINT_point2oct(
                self.curve.group(),
                public,
                sys::point_conversion_form_t::POINT_CONVERSION_UNCOMPRESSED,
                point.as_mut_ptr(),
                point.len(),
                null_mut(),
            )
        };
        if written == point.len() {
            Ok(point)
        } else {
            forget_errors();
            Err(Refused)
        }
    }

    /// ECDSA over `digest`, which AWS-LC truncates to the order; returns the length of the DER
    /// signature in `out`. The nonce is random, hedged with the key and the digest.
    pub(crate) fn sign(
        &self,
        digest: &[u8],
        out: &mut [u8; MAX_ECDSA_LEN],
    ) -> Result<usize, Refused> {
        let mut written = 0;
        // SAFETY: ECDSA_sign writes at most ECDSA_size bytes, which is at most MAX_ECDSA_LEN on the curves
        // of `Curve`; `digest` is a live slice; the object is valid for the life of `self`.
        let returned = unsafe {
            sys::ECDSA_sign(
                0,
                digest.as_ptr(),
                digest.len(),
                out.as_mut_ptr(),
                &raw mut written,
                self.object.as_ptr(),
            )
        };
        succeeded(returned)?;
        usize::try_from(written).map_err(|_| Refused)
    }

    /// Whether `signature` is a signature of `digest`.
    pub(crate) fn verify(&self, digest: &[u8], signature: &[u8]) -> bool {
        // SAFETY: lengths are those of live slices; the object is valid for the life of `self`.
        let returned = unsafe {
            sys::ECDSA_verify(
                0,
                digest.as_ptr(),
                digest.len(),
                signature.as_ptr(),
                signature.len(),
                self.object.as_ptr(),
            )
        };
        succeeded(returned).is_ok()
    }
}

/// Length of an Ed25519 signature in bytes.
pub(crate) const ED25519_SIGNATURE_LEN: usize = 64;

/// An Ed25519 key pair: AWS-LC works on plain bytes here, so there is no object behind it.
pub(crate) struct Ed25519 {
    /// Seed and public key, the form AWS-LC signs with.
    private: Zeroizing<[u8; 64]>,
    public: [u8; 32],
}

impl Ed25519 {
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Self {
        let mut private = Zeroizing::new([0; 64]);
        let mut public = [0; 32];
        // SAFETY: AWS-LC reads 32 bytes and writes 32 and 64, the lengths of the three arrays.
        unsafe {
            sys::ED25519_keypair_from_seed(
                public.as_mut_ptr(),
                private.as_mut_ptr(),
                seed.as_ptr(),
            );
        }
        Self { private, public }
    }

    pub(crate) const fn public_key(&self) -> &[u8; 32] {
        &self.public
    }

    pub(crate) fn sign(
        &self,
        message: &[u8],
        out: &mut [u8; ED25519_SIGNATURE_LEN],
    ) -> Result<(), Refused> {
        // SAFETY: `message` is a live slice; AWS-LC writes 64 bytes to `out` and reads 64 of `private`.
        let returned = unsafe {
            sys::ED25519_sign(
                out.as_mut_ptr(),
                message.as_ptr(),
                message.len(),
                self.private.as_ptr(),
            )
        };
        succeeded(returned)
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        verify_ed25519(&self.public, message, signature)
    }
}

/// Whether `signature` is one of `message` by the key pair with this public key.
pub(crate) fn verify_ed25519(public: &[u8; 32], message: &[u8], signature: &[u8]) -> bool {
    if signature.len() != ED25519_SIGNATURE_LEN {
        return false;
    }
    // SAFETY: `message` is a live slice; AWS-LC reads 64 bytes of `signature`, whose length was
    // just checked, and 32 of `public`.
    let returned = unsafe {
        sys::ED25519_verify(
            message.as_ptr(),
            message.len(),
            signature.as_ptr(),
            public.as_ptr(),
        )
    };
    succeeded(returned).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise behind [`crate::Single`]'s `checks_results`: with one CRT value wrong, AWS-LC must
    /// notice that the result does not go back under the public exponent, and return nothing.
    #[test]
    fn aws_lc_withholds_rsa_results_that_do_not_check() {
        let der = include_bytes!("calibrate/rsa-2048.der");
        let numbers = der::RsaPrivateKey::decode(der).unwrap();
        let (digest, ciphertext) = ([7; 32], [7; 256]);

        for damage in [None, Some(0), Some(1), Some(2)] {
            let rsa = Rsa::from_pkcs1(der).unwrap();
            let mut values = [numbers.dp, numbers.dq, numbers.qinv].map(<[u8]>::to_vec);
            if let Some(which) = damage {
                values[which][100] ^= 0x20;
            }
            let [dp, dq, qinv] = values.map(|value| {
                // SAFETY: pointer and length are of one live vector, and a null result makes a new number.
                unsafe { sys::BN_bin2bn(value.as_ptr(), value.len(), null_mut()) }
            });
            // SAFETY: the object is valid and nothing else uses it yet; it takes over the three
            // numbers, which were just made.
            let set = unsafe { sys::RSA_set0_crt_params(rsa.object.as_ptr(), dp, dq, qinv) };
            assert_eq!(set, 1);

            let expected = if damage.is_none() {
                Ok(())
            } else {
                Err(Refused)
            };
            let mut out = [0; 256];
            assert_eq!(rsa.sign_pkcs1(Hash::Sha256, &digest, &mut out), expected);
            assert_eq!(
                rsa.verify_pkcs1(Hash::Sha256, &digest, &out),
                damage.is_none()
            );
            assert_eq!(rsa.sign_pss(Hash::Sha256, &digest, &mut out), expected);
            assert_eq!(rsa.private_raw(&ciphertext, &mut out), expected);
        }
    }

    /// A failure here must not show up as the reason of some later, unrelated one.
    #[test]
    fn no_error_stays_in_the_queue() {
        assert!(Rsa::from_pkcs1(&[0x30, 0]).is_err());
        assert!(Ec::from_scalar(Curve::P256, &[0; 32]).is_err());
        let ec = Ec::from_scalar(Curve::P384, &[1; 48]).unwrap();
        assert!(!ec.verify(&[1; 32], &[0x30, 0]));
        // SAFETY: takes no arguments and reads only this thread's queue.
        assert_eq!(unsafe { sys::ERR_peek_error() }, 0);
    }
}
