//! The encodings that turn a hash value into the number an RSA key signs (RFC 8017, section 9).

use aws_lc_rs::digest::{self, Algorithm, Context};
use aws_lc_rs::rand;

use crate::job::Hash;

/// Longest hash value in bytes.
const MAX_HASH_LEN: usize = 64;

/// Why there is no encoding. The caller redoes the job on the reference backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoEncoding;

/// EMSA-PKCS1-v1_5 (section 9.2): `00 01 FF .. FF 00 DigestInfo`, filling `out`, which is as long as
/// the modulus. MD5 with SHA-1 has no `DigestInfo` around it (RFC 2246, section 7.4.3).
pub(crate) fn pkcs1(hash: Hash, value: &[u8], out: &mut [u8]) -> Result<(), NoEncoding> {
    let prefix = digest_info(hash);
    let tail = prefix.len() + value.len();
    // At least eight bytes of padding.
    let padding = out.len().checked_sub(tail + 3).ok_or(NoEncoding)?;
    if padding < 8 || value.len() != hash.len() {
        return Err(NoEncoding);
    }
    let (frame, content) = out.split_at_mut(padding + 3);
    frame.fill(0xff);
    if let [zero, one, .., end] = frame {
        (*zero, *one, *end) = (0, 1, 0);
    }
    let (info, hash) = content.split_at_mut(prefix.len());
    info.copy_from_slice(prefix);
    hash.copy_from_slice(value);
    Ok(())
}

/// EMSA-PSS (section 9.1) with a random salt as long as the hash and MGF1 over the same hash, filling
/// `out`, which is as long as a modulus whose length is a multiple of eight bits.
pub(crate) fn pss(hash: Hash, value: &[u8], out: &mut [u8]) -> Result<(), NoEncoding> {
    let mut salt = [0; MAX_HASH_LEN];
    let salt = salt.get_mut(..hash.len()).ok_or(NoEncoding)?;
    rand::fill(salt).map_err(|_| NoEncoding)?;
    pss_with_salt(hash, value, salt, out)
}

fn pss_with_salt(hash: Hash, value: &[u8], salt: &[u8], out: &mut [u8]) -> Result<(), NoEncoding> {
    let algorithm = algorithm(hash).ok_or(NoEncoding)?;
    if value.len() != hash.len() {
        return Err(NoEncoding);
    }
    // H = Hash(eight zeros, hash value, salt)
    let mut context = Context::new(algorithm);
    context.update(&[0; 8]);
    context.update(value);
    context.update(salt);
    let h = context.finish();

    // EM = (zeros 01 salt) xor mask, H, BC; the top bit is cleared so that EM is below the modulus.
    let db_len = out.len().checked_sub(hash.len() + 1).ok_or(NoEncoding)?;
    let (db, tail) = out.split_at_mut(db_len);
    let zeros = db_len.checked_sub(salt.len() + 1).ok_or(NoEncoding)?;
    let content = std::iter::repeat_n(0, zeros)
        .chain([1])
        .chain(salt.iter().copied());
    for (out, byte) in db.iter_mut().zip(content) {
        *out = byte;
    }
    xor_mask(algorithm, h.as_ref(), db);
    if let Some(first) = db.first_mut() {
        *first &= 0x7f;
    }
    for (out, byte) in tail
        .iter_mut()
        .zip(h.as_ref().iter().copied().chain([0xbc]))
    {
        *out = byte;
    }
    Ok(())
}

/// MGF1 (appendix B.2.1): exclusive-ors Hash(seed, 0), Hash(seed, 1), .. onto `out`.
fn xor_mask(algorithm: &'static Algorithm, seed: &[u8], out: &mut [u8]) {
    for (counter, chunk) in (0_u32..).zip(out.chunks_mut(algorithm.output_len())) {
        let mut context = Context::new(algorithm);
        context.update(seed);
        context.update(&counter.to_be_bytes());
        let mask = context.finish();
        for (byte, mask) in chunk.iter_mut().zip(mask.as_ref()) {
            *byte ^= mask;
        }
    }
}

/// `None` for MD5 with SHA-1, which PSS does not know.
fn algorithm(hash: Hash) -> Option<&'static Algorithm> {
    match hash {
        Hash::Md5Sha1 => None,
        Hash::Sha1 => Some(&digest::SHA1_FOR_LEGACY_USE_ONLY),
        Hash::Sha224 => Some(&digest::SHA224),
        Hash::Sha256 => Some(&digest::SHA256),
        Hash::Sha384 => Some(&digest::SHA384),
        Hash::Sha512 => Some(&digest::SHA512),
    }
}

/// DER of everything in a `DigestInfo` before the hash value (RFC 8017, section 9.2, note 1).
pub(crate) const fn digest_info(hash: Hash) -> &'static [u8] {
    match hash {
        Hash::Md5Sha1 => &[],
        Hash::Sha1 => &[
            0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04,
            0x14,
        ],
        Hash::Sha224 => &[
            0x30, 0x2d, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
            0x04, 0x05, 0x00, 0x04, 0x1c,
        ],
        Hash::Sha256 => &[
            0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
            0x01, 0x05, 0x00, 0x04, 0x20,
        ],
        Hash::Sha384 => &[
            0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
            0x02, 0x05, 0x00, 0x04, 0x30,
        ],
        Hash::Sha512 => &[
            0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
            0x03, 0x05, 0x00, 0x04, 0x40,
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pkcs1_has_its_fixed_frame() {
        let mut out = [0xaa; 256];
        pkcs1(Hash::Sha256, &[7; 32], &mut out).unwrap();
        assert_eq!(out[..3], [0, 1, 0xff]);
        assert_eq!(out[256 - 32 - 20..256 - 32 - 19], [0]);
        assert_eq!(out[256 - 32..], [7; 32]);
        assert!(out[2..256 - 52].iter().all(|byte| *byte == 0xff));
        assert_eq!(pkcs1(Hash::Sha256, &[7; 31], &mut out), Err(NoEncoding));
        assert_eq!(pkcs1(Hash::Sha512, &[7; 64], &mut [0; 80]), Err(NoEncoding));
    }

    #[test]
    fn pss_unmasks_to_what_went_in() {
        for hash in Hash::ALL.into_iter().skip(1) {
            let (value, salt) = (vec![3; hash.len()], vec![9; hash.len()]);
            let mut out = vec![0xaa; 256];
            pss_with_salt(hash, &value, &salt, &mut out).unwrap();
            assert_eq!(out.last(), Some(&0xbc));
            assert_eq!(out[0] & 0x80, 0);
            let (db, tail) = out.split_at_mut(256 - hash.len() - 1);
            xor_mask(algorithm(hash).unwrap(), &tail[..hash.len()], db);
            assert!(db.ends_with(&salt));
            assert_eq!(db[db.len() - salt.len() - 1], 1);
            assert!(
                db[1..db.len() - salt.len() - 1]
                    .iter()
                    .all(|byte| *byte == 0)
            );
        }
        assert_eq!(pss(Hash::Md5Sha1, &[0; 36], &mut [0; 256]), Err(NoEncoding));
    }

    #[test]
    fn salts_differ() {
        let (mut one, mut two) = ([0; 256], [0; 256]);
        pss(Hash::Sha256, &[1; 32], &mut one).unwrap();
        pss(Hash::Sha256, &[1; 32], &mut two).unwrap();
        assert_ne!(one, two);
    }
}
