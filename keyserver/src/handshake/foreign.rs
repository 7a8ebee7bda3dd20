//! What other protocols sign, as far as it could be mistaken for a TLS 1.2 key exchange.
//!
//! The string of TLS 1.2 has no context of its own: it begins with 64 bytes that two parties choose
//! at random. So whoever plays both could try to choose them such that the string means something
//! elsewhere, 0x41 would sign it, and a certificate request or an SSH signature would result. Such
//! strings are refused. That an honest handshake begins like one by chance happens less than once
//! in a hundred million.
//!
//! - ASN.1 objects: certificates, requests, revocation lists, OCSP responses, CMS attributes. Each
//!   is one SEQUENCE (or SET) from the first byte to the last, filled by elements.
//! - SSH signatures of files (the format SSHSIG) begin with that word. Other things that SSH signs
//!   are longer than any of our strings, or hash values and shorter.
//!
//! Web signatures (JWS, and with it ACME) are printable text, and byte 64 of a key exchange, 0x03,
//! is not.

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// What the first element in a signed object can be: a version or serial number, an algorithm or
/// name, an explicit version or responder.
const FIRST_CHILDREN: [u8; 5] = [0x02, SEQUENCE, 0xa0, 0xa1, 0xa2];

/// Whether `string` could have a meaning outside of TLS.
pub(super) fn is_signed_elsewhere(string: &[u8]) -> bool {
    string.starts_with(b"SSHSIG") || is_asn1_object(string)
}

/// Whether the whole of `bytes` is a SEQUENCE or SET whose content is one element after another.
/// Lengths may have any form of BER: a verifier somewhere may be lenient.
fn is_asn1_object(bytes: &[u8]) -> bool {
    let Some((SEQUENCE | SET, content, [])) = element(bytes) else {
        return false;
    };
    let mut rest = content;
    while let Some((_, _, after)) = element(rest) {
        rest = after;
    }
    let is_filled = rest.is_empty();
    is_filled
        && content
            .first()
            .is_some_and(|tag| FIRST_CHILDREN.contains(tag))
}

/// The element at the front of `bytes`: its tag, its content, and what follows it. One of
/// indefinite length reaches to the end.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], after) = bytes.split_first_chunk()?;
    let (length, after) = match first {
        0x80 => (after.len(), after),
        0..=0x7f => (usize::from(first), after),
        0x81..=0x88 => {
            let (digits, after) = after.split_at_checked(usize::from(first & 0x7f))?;
            let value = digits.iter().try_fold(0_usize, |value, digit| {
                Some(value.checked_mul(256)? | usize::from(*digit))
            });
            (value?, after)
        }
        _ => return None,
    };
    let (content, rest) = after.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_fills_the_string_with_elements() {
        for (bytes, is_object) in [
            (&[SEQUENCE, 3, 2, 1, 0][..], true),
            (&[SET, 2, SEQUENCE, 0], true),
            (&[SEQUENCE, 0x81, 3, 2, 1, 0], true),
            (&[SEQUENCE, 0x83, 0, 0, 3, 2, 1, 0], true),
            (&[SEQUENCE, 0x80, 2, 1, 0, 0, 0], true),
            (&[SEQUENCE, 7, 0xa0, 3, 2, 1, 2, 5, 0], true),
            // Too short, too long, not filled, nothing, another first element, another tag.
            (&[SEQUENCE, 4, 2, 1, 0], false),
            (&[SEQUENCE, 2, 2, 1, 0], false),
            (&[SEQUENCE, 4, 2, 1, 0, 5], false),
            (&[SEQUENCE, 0], false),
            (&[SEQUENCE, 3, 4, 1, 0], false),
            (&[4, 3, 2, 1, 0], false),
            (&[SEQUENCE, 0xff, 2, 1, 0], false),
            (
                &[SEQUENCE, 0x88, 255, 255, 255, 255, 255, 255, 255, 255],
                false,
            ),
            (&[], false),
        ] {
            assert_eq!(is_asn1_object(bytes), is_object, "{bytes:02x?}");
        }
        assert!(is_signed_elsewhere(b"SSHSIG"));
    }
}
