//! Hash values of messages in one call, without the allocation of `aws-lc-rs`.

use aws_lc_sys as sys;

use crate::job::{Hash, MAX_HASH_LEN};

/// The hash value of `message` in the first `hash.len()` bytes; nothing for MD5+SHA-1, of which
/// AWS-LC has no function of this kind.
pub(crate) fn digest(hash: Hash, message: &[u8]) -> Option<[u8; MAX_HASH_LEN]> {
    let mut out = [0; MAX_HASH_LEN];
    let (data, length, value) = (message.as_ptr(), message.len(), out.as_mut_ptr());
    #[expect(
        clippy::multiple_unsafe_ops_per_block,
        reason = "one arm runs, and one note covers all"
    )]
    // SAFETY: `data` and `length` are of one live slice. Each function writes its own length, at most
    // the 64 bytes of `out`.
    unsafe {
        match hash {
            Hash::Md5Sha1 => return None,
            Hash::Sha1 => {
                sys::SHA1(data, length, value);
            }
            Hash::Sha224 => {
                sys::SHA224(data, length, value);
            }
            Hash::Sha256 => {
                sys::SHA256(data, length, value);
            }
            Hash::Sha384 => {
                sys::SHA384(data, length, value);
            }
            Hash::Sha512 => {
                sys::SHA512(data, length, value);
            }
        }
    }
    Some(out)
}
