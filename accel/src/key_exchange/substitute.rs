//! What stands in for the secret of a block that does not conform.
//!
//! Everything comes from `kdk = HMAC-SHA-256(SHA-256(dP || dQ), "kdk1")`, with the two private exponents, that of the
//! larger prime first, each in k bytes: as secret as the key, the same on every box that holds it in whatever form, and of
//! no use for anything else. (The one exponent d is not the same in all forms of a key.) What depends on the ciphertext c
//! comes of one code, so that c is hashed once. The scheme is that of draft-irtf-cfrg-rsa-guidance ("implicit rejection"),
//! for a message of known length.
//!
//! ```text
//!  premaster secret   client_version[2] || the first 46 bytes of HMAC-SHA-384(kdk, "pms" || c)
//!  block of k bytes   key[32] || start[16] = HMAC-SHA-384(kdk, "block" || c)
//!                     stream = AES-256-CTR(key, start), its first k bytes: E(start), E(start + 1), ..
//!                     00 02 || stream[2..k-49], a zero made a one || 00 || stream[k-48..k]
//! ```
//!
//! **Why nobody can tell either from random bytes.** HMAC-SHA-384 is a pseudo-random function (Bellare, CRYPTO 2006),
//! and no text begins with both labels: under an unknown kdk each ciphertext has a code of its own, independent of all
//! others. A code is used as a key once, for at most 1,024 bytes; that a stream of so few blocks repeats none is no
//! hint, and short of that counter mode is as good as the cipher (Bellare, Desai, Jokipii and Rogaway, FOCS 1997). The
//! part of the stream that every answer shows, the padding, says nothing of the part that stands in for a secret.

use std::fmt;

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
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

/// Bytes of a value of HMAC-SHA-384.
const CODE_LEN: usize = 48;

/// Makes the substitutes of one key. Wiped on drop by AWS-LC.
pub(crate) struct Substitutes(hmac::Key);

impl fmt::Debug for Substitutes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Substitutes")
    }
}

impl Substitutes {
    /// From what only the holder of the key knows: its private exponents, or the root of [`challenge`].
    pub(crate) fn new(secret: &[u8]) -> Self {
        let secret = digest::digest(&digest::SHA256, secret);
        let outer = hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref());
        let kdk = hmac::sign(&outer, b"kdk1");
        Self(hmac::Key::new(hmac::HMAC_SHA384, kdk.as_ref()))
    }

    /// In place of a premaster secret. The first two bytes are overwritten by the version.
    pub(super) fn premaster(&self, ciphertext: &[u8]) -> Zeroizing<[u8; SECRET_LEN]> {
        let code = self.code(b"pms", ciphertext);
        let mut secret = Zeroizing::new([0; SECRET_LEN]);
        // 46 bytes of the code stand behind the version.
        for (out, byte) in secret.iter_mut().skip(2).zip(code.iter()) {
            *out = *byte;
        }
        secret
    }

    /// In place of a whole block: as many bytes as it has, which depend on the ciphertext alone.
    pub(super) fn block(&self, ciphertext: &[u8], block: &mut [u8]) -> Option<()> {
        let code = self.code(b"block", ciphertext);
        let (key, start) = code.split_last_chunk::<16>()?;
        let key = UnboundCipherKey::new(&AES_256, key).ok()?;
        let start = EncryptionContext::Iv128(FixedLength::from(start));
        block.fill(0);
        let key = EncryptingKey::ctr(key).ok()?;
        key.less_safe_encrypt(block, start).ok()?;
        Some(())
    }

    fn code(&self, label: &[u8], ciphertext: &[u8]) -> Zeroizing<[u8; CODE_LEN]> {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(label);
        context.update(ciphertext);
        let mut code = Zeroizing::new([0; CODE_LEN]);
        for (out, byte) in code.iter_mut().zip(context.sign().as_ref()) {
            *out = *byte;
        }
        code
    }
}
