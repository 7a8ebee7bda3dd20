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
//! - COSE signatures (RFC 9052, section 4.4; RFC 9338): an array of CBOR that begins with the word `Signature1`,
//!   `Signature`, or one of `CounterSignature`.
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
    string.starts_with(b"SSHSIG") || is_asn1_object(string) || is_cose(string)
}

/// Whether `bytes` begin as a `Sig_structure` of COSE or a countersignature does. Heads may have any form of CBOR.
fn is_cose(bytes: &[u8]) -> bool {
    // Arrays (0x80 and more) and texts (0x60 and more) whose length is in the first byte, in so many after it, or not given.
    fn after_head(bytes: &[u8], kind: u8) -> Option<&[u8]> {
        let (&first, rest) = bytes.split_first()?;
        let more = match first.checked_sub(kind)? {
            0..=0x17 | 0x1f => 0,
            0x18 => 1,
            0x19 => 2,
            0x1a => 4,
            0x1b => 8,
            _ => return None,
        };
        rest.get(more..)
    }
    let context = after_head(bytes, 0x80).and_then(|rest| after_head(rest, 0x60));
    context.is_some_and(|context| {
        context.starts_with(b"Signature") || context.starts_with(b"CounterSignature")
    })
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

    #[test]
    fn cose_begins_with_an_array_and_its_context() {
        for (bytes, is_one) in [
            (&b"\x84\x6aSignature1\x43"[..], true),
            (b"\x85\x69Signature\x40", true),
            (b"\x85\x70CounterSignature\x40", true),
            (b"\x86\x73CounterSignatureV2\x40", true),
            (b"\x98\x04\x78\x0aSignature1", true),
            (b"\x9f\x79\x00\x0aSignature1", true),
            (b"\x9b\0\0\0\0\0\0\0\x04\x6aSignature1", true),
            (b"\x84\x6aEncrypt0..", false),
            (b"\x84\x4aSignature1", false),
            (b"\x64\x6aSignature1", false),
            (b"\x9c\x6aSignature1", false),
            (b"\x84", false),
            (b"\x9b\0", false),
        ] {
            assert_eq!(is_signed_elsewhere(bytes), is_one, "{bytes:02x?}");
        }
    }
}
