//! What other protocols sign, as far as it could be mistaken for a TLS 1.2 key exchange.
//!
//! The string of TLS 1.2 has no context of its own: it begins with 64 bytes that two parties choose
//! at random. So whoever plays both could try to choose them such that the string means something
//! elsewhere, 0x41 would sign it, and a certificate request or an SSH signature would result. Such
//! strings are refused. That an honest handshake looks like one by chance happens less than once
//! in a hundred million, and a client that tries again has new random bytes.
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

/// The bit of a tag whose element consists of elements.
const CONSTRUCTED: u8 = 0x20;

/// What ends an element of indefinite length.
const END_OF_CONTENTS: [u8; 2] = [0, 0];

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
/// Lengths may have any form of BER (ITU-T X.690, section 8.1.3): a verifier somewhere may be lenient.
fn is_asn1_object(bytes: &[u8]) -> bool {
    let Some((SEQUENCE | SET, length, rest)) = head(bytes) else {
        return false;
    };
    let content = match length {
        Length::Definite(length) => (length == rest.len()).then_some(rest),
        Length::Indefinite => rest.strip_suffix(&END_OF_CONTENTS),
    };
    let is_first_child = |tag: &u8| FIRST_CHILDREN.contains(tag);
    content.is_some_and(|content| content.first().is_some_and(is_first_child) && is_filled(content))
}

/// Whether `rest` is one element after another, and nothing else.
fn is_filled(mut rest: &[u8]) -> bool {
    // Elements of indefinite length that have begun: what follows is in them, as far as the end of their contents.
    let mut open = 0_usize;
    while !rest.is_empty() {
        let after = if let Some(after) = rest.strip_prefix(&END_OF_CONTENTS) {
            open.checked_sub(1).map(|fewer| {
                open = fewer;
                after
            })
        } else {
            match head(rest) {
                Some((_, Length::Definite(length), rest)) => rest.get(length..),
                Some((tag, Length::Indefinite, rest)) if tag & CONSTRUCTED != 0 => {
                    open += 1;
                    Some(rest)
                }
                _ => None,
            }
        };
        let Some(after) = after else {
            return false;
        };
        rest = after;
    }
    open == 0
}

/// How long the content of an element is.
enum Length {
    /// So many bytes.
    Definite(usize),
    /// As far as the end of contents.
    Indefinite,
}

/// The tag and the length at the front of `bytes`, and what follows them.
fn head(bytes: &[u8]) -> Option<(u8, Length, &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk()?;
    match first {
        0..=0x7f => Some((tag, Length::Definite(usize::from(first)), rest)),
        0x80 => Some((tag, Length::Indefinite, rest)),
        0x81..=0x88 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let value = digits.iter().try_fold(0_usize, |value, digit| {
                Some(value.checked_mul(256)? | usize::from(*digit))
            });
            Some((tag, Length::Definite(value?), rest))
        }
        _ => None,
    }
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
            (&[SEQUENCE, 7, 0xa0, 0x80, 2, 1, 2, 0, 0], true),
            (&[SEQUENCE, 8, 0xa0, 0x80, SET, 0x80, 0, 0, 0, 0], true),
            (&[SEQUENCE, 0x80, 0xa0, 0x80, 2, 1, 2, 0, 0, 0, 0], true),
            (&[SEQUENCE, 7, 0xa0, 3, 2, 1, 2, 5, 0], true),
            // Too short, too long, not filled, nothing, another first element, another tag.
            (&[SEQUENCE, 4, 2, 1, 0], false),
            (&[SEQUENCE, 2, 2, 1, 0], false),
            (&[SEQUENCE, 4, 2, 1, 0, 5], false),
            (&[SEQUENCE, 0], false),
            (&[SEQUENCE, 3, 4, 1, 0], false),
            (&[4, 3, 2, 1, 0], false),
            // An indefinite length that does not end, ends early, ends twice, or is that of an integer.
            (&[SEQUENCE, 0x80, 2, 1, 0], false),
            (&[SEQUENCE, 0x80, 2, 1, 0, 0, 0, 5, 0], false),
            (&[SEQUENCE, 0x80, 2, 1, 0, 0, 0, 0, 0], false),
            (&[SEQUENCE, 5, 0xa0, 0x80, 2, 1, 2], false),
            (&[SEQUENCE, 7, 2, 0x80, 2, 1, 2, 0, 0], false),
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
