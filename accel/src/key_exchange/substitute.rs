//! What stands in for the secret of a block that does not conform.
//!
//! Everything comes from `kdk = HMAC-SHA-256(SHA-256(d), "kdk1")`, with the private exponent d written
//! in k bytes: as secret as the key, the same on every box that holds it, and of no use for anything
//! else. What depends on the ciphertext is `HMAC-SHA-384(kdk, label || ciphertext)`. The scheme is that
//! of draft-irtf-cfrg-rsa-guidance ("implicit rejection"), for a message of known length.

use std::fmt;

use aws_lc_rs::{digest, hmac};
use zeroize::Zeroizing;

use super::unpad::SECRET_LEN;

/// A number below a modulus of `modulus_len` bytes, of which only the holder of the key knows the e-th root.
/// A token does not tell its private exponent; the root of this number is as secret, and always the same.
/// It is no padded block of any kind, so no other operation ever gives it away.
pub(crate) fn challenge(public_key: &[u8], modulus_len: usize) -> Vec<u8> {
    let mut number = vec![0; modulus_len];
    // The first byte stays zero, so that the number is below the modulus.
    let rest = number.get_mut(1..).unwrap_or_default();
    for (counter, chunk) in (0_u32..).zip(rest.chunks_mut(32)) {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"keyserver: root for implicit rejection");
        context.update(&counter.to_be_bytes());
        context.update(public_key);
        for (out, byte) in chunk.iter_mut().zip(context.finish().as_ref()) {
            *out = *byte;
        }
    }
    number
}

/// Makes the substitutes of one key. Wiped on drop by AWS-LC.
pub(crate) struct Substitutes(hmac::Key);

impl fmt::Debug for Substitutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Substitutes")
    }
}

impl Substitutes {
    /// From the private exponent and the length of the modulus in bytes.
    pub(crate) fn new(private_exponent: &[u8], modulus_len: usize) -> Self {
        let leading_zeros = modulus_len.saturating_sub(private_exponent.len());
        let mut padded = Zeroizing::new(vec![0; leading_zeros]);
        padded.reserve_exact(private_exponent.len());
        padded.extend_from_slice(private_exponent);
        let secret = digest::digest(&digest::SHA256, &padded);
        let outer = hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref());
        let kdk = hmac::sign(&outer, b"kdk1");
        Self(hmac::Key::new(hmac::HMAC_SHA384, kdk.as_ref()))
    }

    /// In place of a premaster secret. The first two bytes are overwritten by the version.
    pub(super) fn premaster(&self, ciphertext: &[u8]) -> Zeroizing<[u8; SECRET_LEN]> {
        let tag = self.tag(b"pms", ciphertext, &[]);
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        // 46 bytes of the tag stand behind the version.
        for (out, byte) in secret.iter_mut().skip(2).zip(tag.as_ref()) {
            *out = *byte;
        }
        secret
    }

    /// In place of all 48 bytes, the version among them.
    pub(super) fn secret(&self, ciphertext: &[u8]) -> Zeroizing<[u8; SECRET_LEN]> {
        let tag = self.tag(b"pms48", ciphertext, &[]);
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        for (out, byte) in secret.iter_mut().zip(tag.as_ref()) {
            *out = *byte;
        }
        secret
    }

    /// Fills `out` with bytes that are not zero and depend on the ciphertext alone.
    ///
    /// A zero becomes a one. That bends the distribution, which matters to nobody: the bytes only have
    /// to be fixed, and to have nothing to do with the true padding.
    pub(super) fn padding(&self, ciphertext: &[u8], out: &mut [u8]) {
        for (number, chunk) in (0_u32..).zip(out.chunks_mut(SECRET_LEN)) {
            let tag = self.tag(b"ps", ciphertext, &number.to_be_bytes());
            for (out, byte) in chunk.iter_mut().zip(tag.as_ref()) {
                *out = byte | u8::from(*byte == 0);
            }
        }
        out.iter_mut().for_each(|byte| debug_assert_ne!(*byte, 0));
    }

    fn tag(&self, label: &[u8], ciphertext: &[u8], number: &[u8]) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(label);
        context.update(ciphertext);
        context.update(number);
        context.sign()
    }
}
