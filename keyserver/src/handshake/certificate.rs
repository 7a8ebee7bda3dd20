//! The public key in a server's certificate (RFC 8446, section 4.4.2; RFC 5280, section 4.1).

use super::Fault;
use super::extensions::Extensions;
use super::reader::Reader;

/// DER tags on the way to the public key.
const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The DER `SubjectPublicKeyInfo` of the first certificate in the body of a server's
/// `Certificate` message.
pub(super) fn leaf_public_key(body: &[u8]) -> Result<&[u8], Fault> {
    let mut reader = Reader::new(body);
    if !reader.vector8()?.is_empty() {
        return Err(Fault(
            "the server's Certificate message has a request context",
        ));
    }
    let mut list = Reader::new(reader.vector24()?);
    reader.end()?;
    let leaf = list.vector24()?;
    Extensions::read(&mut list)?;
    while !list.is_empty() {
        list.vector24()?;
        Extensions::read(&mut list)?;
    }
    public_key(leaf).ok_or(Fault("the first certificate cannot be read"))
}

/// The `SubjectPublicKeyInfo` of an X.509 certificate. What it means is for the client to judge;
/// here it is compared with that of a key.
fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    let (outer, rest) = element(certificate, SEQUENCE)?;
    if !rest.is_empty() {
        return None;
    }
    let (mut fields, _) = element(outer.content, SEQUENCE)?;
    let fields = &mut fields.content;
    if let Some((_, rest)) = element(fields, VERSION) {
        *fields = rest; // absent in version 1
    }
    let mut next = |tag| {
        let (element, rest) = element(fields, tag)?;
        *fields = rest;
        Some(element)
    };
    next(INTEGER)?; // serial number
    next(SEQUENCE)?; // signature algorithm
    next(SEQUENCE)?; // issuer
    next(SEQUENCE)?; // validity
    next(SEQUENCE)?; // subject
    next(SEQUENCE).map(|key| key.whole)
}

struct Element<'a> {
    whole: &'a [u8],
    content: &'a [u8],
}

/// The DER element with this tag at the front of `bytes`, and what follows it. Lengths are the
/// shortest possible, and at most three bytes, as a handshake message has no room for more.
fn element(bytes: &[u8], tag: u8) -> Option<(Element<'_>, &[u8])> {
    let (&[found, first], after) = bytes.split_first_chunk()?;
    let (length, after) = match first {
        0..=0x7f => (usize::from(first), after),
        0x81..=0x83 => {
            let (digits, after) = after.split_at_checked(usize::from(first & 0x7f))?;
            let length = digits
                .iter()
                .fold(0, |length, digit| length << 8 | usize::from(*digit));
            let least = if digits.len() == 1 {
                0x80
            } else {
                1 << (8 * (digits.len() - 1))
            };
            (length >= least).then_some((length, after))?
        }
        _ => return None,
    };
    let (content, rest) = after.split_at_checked(length)?;
    let whole = bytes.get(..bytes.len() - rest.len())?;
    (found == tag).then_some((Element { whole, content }, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(certificate: &[u8]) -> Vec<u8> {
        let u24 = |length: usize| u32::try_from(length).unwrap().to_be_bytes()[1..].to_vec();
        let mut entry = u24(certificate.len());
        entry.extend(certificate);
        entry.extend([0, 0]);
        [vec![0], u24(entry.len()), entry].concat()
    }

    #[test]
    fn the_key_of_a_certificate_is_found_and_no_cut_of_it_is() {
        let key = rcgen::KeyPair::generate().unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let body = message(certificate.der());
        let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
        assert_eq!(leaf_public_key(&body), Ok(&spki[..]));
        for length in 0..body.len() {
            assert!(leaf_public_key(&body[..length]).is_err(), "{length}");
        }
        for length in 0..certificate.der().len() {
            leaf_public_key(&message(&certificate.der()[..length])).unwrap_err();
        }
    }

    #[test]
    fn only_the_shortest_length_counts() {
        let long =
            |digits: &[u8], count: usize| [&[SEQUENCE][..], digits, &vec![0; count]].concat();
        for (digits, count, good) in [
            (&[0x7f][..], 0x7f, true),
            (&[0x81, 0x7f], 0x7f, false),
            (&[0x81, 0x80], 0x80, true),
            (&[0x82, 0x00, 0xff], 0xff, false),
            (&[0x82, 0x01, 0x00], 0x100, true),
            (&[0x83, 0x00, 0x01, 0x00], 0x100, false),
            (&[0x80], 0, false),
            (&[0x84, 0, 0, 0, 0], 0, false),
        ] {
            assert_eq!(
                element(&long(digits, count), SEQUENCE).is_some(),
                good,
                "{digits:02x?}"
            );
        }
    }
}
